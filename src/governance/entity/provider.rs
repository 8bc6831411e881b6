//! Providers: where they are, how they are spoken to, and what they may be asked.

use super::built_in;
use super::provider_key::ProviderKey;
use super::upstream_proxy::UpstreamProxy;
use crate::governance::request::RequestKind;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A provider as declared: where it is, what it may be asked, and its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub name: Arc<str>,
    pub network: Network,
    /// What connections to it go through. Absent: straight there.
    pub proxy: Option<UpstreamProxy>,
    pub concurrency: Concurrency,
    /// Stored and returned: bodies are not put into answers or logs by this version.
    pub send_back_raw_request: bool,
    pub send_back_raw_response: bool,
    pub store_raw_request_response: bool,
    /// Present exactly for names that are not built in.
    pub custom: Option<CustomProvider>,
    /// JSON that is stored and returned.
    pub openai_config: Option<String>,
    pub keys: Vec<Arc<ProviderKey>>,
    /// What the config file said when this was last applied from it; empty for what the API made.
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// How a provider is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Scheme, host, port and an optional path, without a slash at its end. Absent where nobody knows it,
    /// or where each key brings its own.
    pub base_url: Option<String>,
    /// Added to each request, in lower case; never able to replace the credential.
    pub extra_headers: Vec<(String, Secret)>,
    /// A unary call from end to end; a stream up to its first piece.
    pub request_timeout: Duration,
    /// Silence between two pieces of a stream.
    pub stream_idle_timeout: Duration,
    /// Further tries of one target after its first.
    pub max_retries: u32,
    pub retry_backoff_initial: Duration,
    pub retry_backoff_max: Duration,
    pub insecure_skip_verify: bool,
    /// Speaks HTTP/2 even without TLS.
    pub enforce_http2: bool,
    /// The authorities that alone may vouch for this provider, in PEM.
    pub ca_cert_pem: Option<Arc<str>>,
    /// Stored and returned; connections are kept by the connector's own rule.
    pub max_conns_per_host: u32,
    /// Stored and returned: Anthropic's beta headers, by name.
    pub beta_header_overrides: BTreeMap<String, bool>,
}

/// How many calls it has at once, and how many wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    pub concurrency: u32,
    /// At least as many.
    pub buffer_size: u32,
}

/// What makes a provider that is not built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomProvider {
    /// The built-in provider that it is like, one of `BASE_PROVIDERS`.
    pub base: &'static str,
    /// Takes no credential at all.
    pub keyless: bool,
    /// Names of kinds; a streamed form is a name of its own. Absent: everything.
    pub allowed_requests: Option<BTreeSet<String>>,
    /// A path on the base URL for a kind of request, or a whole URL, by the names of kinds.
    pub path_overrides: BTreeMap<String, String>,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            base_url: None,
            extra_headers: Vec::new(),
            request_timeout: Duration::from_secs(300),
            stream_idle_timeout: Duration::from_secs(60),
            max_retries: 0,
            retry_backoff_initial: Duration::from_millis(500),
            retry_backoff_max: Duration::from_secs(5),
            insecure_skip_verify: false,
            enforce_http2: false,
            ca_cert_pem: None,
            max_conns_per_host: 5_000,
            beta_header_overrides: BTreeMap::new(),
        }
    }
}

impl Default for Concurrency {
    fn default() -> Concurrency {
        Concurrency { concurrency: 1_000, buffer_size: 5_000 }
    }
}

impl Provider {
    /// A provider of this name with defaults for everything: no keys, and a built-in one's own URL.
    pub fn new(name: &str, now: Timestamp) -> Provider {
        let base_url = built_in::built_in_base_url(name).map(str::to_owned);
        Provider {
            name: name.into(),
            network: Network { base_url, ..Network::default() },
            proxy: None,
            concurrency: Concurrency::default(),
            send_back_raw_request: false,
            send_back_raw_response: false,
            store_raw_request_response: false,
            custom: None,
            openai_config: None,
            keys: Vec::new(),
            config_hash: String::new(),
            created_at: now,
            updated_at: now,
        }
    }

    /// The built-in provider that this one is, or is like.
    pub fn base(&self) -> &str {
        self.custom.as_ref().map_or(&*self.name, |custom| custom.base)
    }

    /// Whether what it says that a call cost is believed: of those known to say so, where they themselves answer.
    pub fn reports_cost(&self, key: Option<&ProviderKey>) -> bool {
        self.custom.is_none()
            && built_in::reports_cost(&self.name)
            && self.base_url(key) == built_in::built_in_base_url(&self.name)
    }

    /// Whether it is called without a credential. A self-hosted one is, while it has no keys and its
    /// URL is known.
    pub fn keyless(&self) -> bool {
        match &self.custom {
            Some(custom) => custom.keyless,
            None => built_in::is_reached_by_key(&self.name) && self.keys.is_empty() && self.network.base_url.is_some(),
        }
    }

    /// Whether it may be asked this. A stream is a permission of its own.
    pub fn allows(&self, kind: RequestKind, stream: bool) -> bool {
        let allowed = self.custom.as_ref().and_then(|custom| custom.allowed_requests.as_ref());
        allowed.is_none_or(|names| names.iter().any(|name| names_kind(name, kind, stream)))
    }

    /// The path for a kind of request that stands in place of the usual one. A stream takes its kind's
    /// unless it has its own.
    pub fn path_override(&self, kind: RequestKind, stream: bool) -> Option<&str> {
        let paths = &self.custom.as_ref()?.path_overrides;
        let of = |stream| paths.iter().find(|(name, _)| names_kind(name, kind, stream)).map(|(_, path)| path.as_str());
        of(stream).or_else(|| of(false))
    }

    /// Where it is reached with this key.
    pub fn base_url<'a>(&'a self, key: Option<&'a ProviderKey>) -> Option<&'a str> {
        let own = key.and_then(ProviderKey::url).filter(|_| built_in::is_reached_by_key(&self.name));
        own.or(self.network.base_url.as_deref())
    }

    /// Whether it takes what OpenAI takes, at OpenAI's paths below its base URL, with a bearer token.
    pub fn speaks_openai(&self) -> bool {
        match &self.custom {
            Some(custom) => custom.base == "openai",
            None => built_in::speaks_openai(&self.name),
        }
    }

    /// Whether its streams tell their usage without being asked for it, so that asking may be a fault.
    pub fn tells_usage_unasked(&self) -> bool {
        self.custom.is_none() && built_in::tells_usage_unasked(&self.name)
    }
}

/// Whether `name` is this kind, or its streamed form if that is asked for.
fn names_kind(name: &str, kind: RequestKind, stream: bool) -> bool {
    match name.strip_suffix("_stream") {
        Some(base) => stream && base == kind.as_str(),
        None => !stream && name == kind.as_str(),
    }
}

/// Whether a header of this name probably carries a credential, so that its value must not be seen.
pub fn names_a_credential(header: &str) -> bool {
    const WORDS: [&str; 9] =
        ["auth", "token", "secret", "password", "passwd", "credential", "cookie", "session", "signature"];
    let lower = header.to_ascii_lowercase();
    let mut parts = lower.split(|letter: char| !letter.is_ascii_alphanumeric());
    WORDS.iter().any(|word| lower.contains(word)) || parts.any(|part| part.ends_with("key") || part == "pat")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: RequestKind = RequestKind::ChatCompletion;
    const EMBEDDING: RequestKind = RequestKind::Embedding;

    #[test]
    fn what_a_call_cost_is_believed_of_few_and_where_they_are() {
        let check = |name: &str, url: Option<&str>, believed: bool| {
            let mut provider = Provider::new(name, Timestamp::from_millis(0));
            if let Some(url) = url {
                provider.network.base_url = Some(url.to_owned());
            }
            assert_eq!(provider.reports_cost(None), believed, "{name} {url:?}");
        };
        check("openrouter", None, true);
        check("perplexity", None, true);
        check("openrouter", Some("https://openrouter.ai/api"), true);
        check("openrouter", Some("https://openrouter.example/api"), false);
        check("perplexity", Some("http://api.perplexity.ai"), false);
        check("openai", None, false);
        check("xai", None, false);
        let posing = Provider { name: "openrouter".into(), ..custom(None, &[]) };
        assert!(!posing.reports_cost(None));
    }

    fn custom(allowed: Option<&[&str]>, paths: &[(&str, &str)]) -> Provider {
        let custom = CustomProvider {
            base: "openai",
            keyless: false,
            allowed_requests: allowed.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
            path_overrides: paths.iter().map(|&(name, path)| (name.to_owned(), path.to_owned())).collect(),
        };
        Provider { custom: Some(custom), ..Provider::new("mine", Timestamp::default()) }
    }

    #[test]
    fn a_stream_is_a_permission_of_its_own() {
        let check = |allowed: Option<&[&str]>, unary: bool, stream: bool| {
            let provider = custom(allowed, &[]);
            assert_eq!((provider.allows(CHAT, false), provider.allows(CHAT, true)), (unary, stream), "{allowed:?}");
        };
        check(None, true, true);
        check(Some(&[]), false, false);
        check(Some(&["chat_completion"]), true, false);
        check(Some(&["chat_completion_stream"]), false, true);
        check(Some(&["chat_completion", "chat_completion_stream", "embedding"]), true, true);
        check(Some(&["embedding"]), false, false);
        assert!(Provider::new("openai", Timestamp::default()).allows(CHAT, true));
    }

    #[test]
    fn a_stream_has_its_own_path_or_that_of_its_kind() {
        let check = |paths: &[(&str, &str)], unary: Option<&str>, stream: Option<&str>| {
            let provider = custom(None, paths);
            assert_eq!((provider.path_override(CHAT, false), provider.path_override(CHAT, true)), (unary, stream));
            assert_eq!(provider.path_override(EMBEDDING, false), None);
        };
        check(&[], None, None);
        check(&[("chat_completion", "/c")], Some("/c"), Some("/c"));
        check(&[("chat_completion_stream", "/s")], None, Some("/s"));
        check(&[("chat_completion", "/c"), ("chat_completion_stream", "/s")], Some("/c"), Some("/s"));
    }

    #[test]
    fn a_self_hosted_provider_without_keys_needs_none() {
        let mut ollama = Provider::new("ollama", Timestamp::default());
        assert!(!ollama.keyless() && ollama.base_url(None).is_none());
        ollama.network.base_url = Some("http://127.0.0.1:11434".into());
        assert!(ollama.keyless() && ollama.base_url(None) == Some("http://127.0.0.1:11434"));
        assert!(!Provider::new("openai", Timestamp::default()).keyless());
    }

    #[test]
    fn headers_with_credentials_are_known_by_their_names() {
        let check = |name: &str, credential: bool| assert_eq!(names_a_credential(name), credential, "{name}");
        check("X-Api-Key", true);
        check("apikey", true);
        check("x-org-token", true);
        check("Ocp-Apim-Subscription-Key", true);
        check("x-auth", true);
        check("x-pat", true);
        check("HTTP-Referer", false);
        check("X-Title", false);
        check("OpenAI-Organization", false);
        check("x-monkey-business", true);
        check("x-keyboard", false);
    }
}
