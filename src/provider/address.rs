//! Where a call goes: the provider's base URL, and the path that the dialect has for it.

use std::borrow::Cow;

use super::dialect::{Route, upstream_path};
use crate::governance::entity::{Provider, ProviderKey};
use crate::governance::request::{Dialect, RequestKind};

/// What of a client's query goes on, by dialect. A closed list: some providers let a query choose what an answer
/// holds, and one without its usage could not be charged.
const QUERY: [(Dialect, &str, &str); 2] = [(Dialect::Gemini, "alt", "sse"), (Dialect::Anthropic, "beta", "true")];

/// A base URL, and what to append to its own path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address<'a> {
    pub base: Cow<'a, str>,
    pub path: String,
}

/// Where a call by this route goes with this key. Absent where nobody said where the provider is.
pub fn address<'a>(
    provider: &'a Provider,
    key: Option<&'a ProviderKey>,
    (route, stream): (&Route, bool),
    model: &str,
    query: Option<&str>,
) -> Option<Address<'a>> {
    let query = passed_on(route.dialect, query);
    match provider.path_override(route.kind, stream) {
        Some(url) if url.starts_with("http") => return Some(Address { base: Cow::Borrowed(url), path: query }),
        Some(path) => return Some(Address { base: provider.base_url(key)?, path: format!("{path}{query}") }),
        None => {}
    }
    let base = match aws_region(model).filter(|_| provider.base() == "bedrock" && provider.network.base_url.is_none()) {
        Some(region) => Cow::Owned(format!("https://bedrock-runtime.{region}.amazonaws.com")),
        None => provider.base_url(key)?,
    };
    // Who writes the version into the base URL, as OpenAI's own clients do, means it once.
    let versioned = ends_in_version(&base);
    let path = upstream_path(route, model, versioned);
    Some(Address { base, path: format!("{path}{query}") })
}

/// What a cap on the output is called where a request of OpenAI's dialect has none: OpenAI itself and who follows
/// it closely want the newer name for chats, and refuse the older one for models that reason; the others know the
/// older one.
pub fn output_cap_name(provider: &Provider, kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Responses => "max_output_tokens",
        RequestKind::ChatCompletion if matches!(&*provider.name, "openai" | "azure" | "cerebras" | "groq" | "xai") => {
            "max_completion_tokens"
        }
        _ => "max_tokens",
    }
}

/// The query for the provider, with its question mark, or nothing.
fn passed_on(dialect: Dialect, query: Option<&str>) -> String {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut kept = pairs.filter(|(name, value)| QUERY.contains(&(dialect, *name, *value)));
    kept.next().map(|(name, value)| format!("?{name}={value}")).unwrap_or_default()
}

/// The region that the name of a model belongs to, if it says so: some are resources of one.
pub fn aws_region(model: &str) -> Option<&str> {
    let rest = model.strip_prefix("arn:")?;
    rest.split(':')
        .nth(2)
        .filter(|region| !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

/// Whether the last part of a URL's path is a version, such as `v1` or `v1beta2`.
fn ends_in_version(base: &str) -> bool {
    let after_scheme = base.split_once("://").map_or(base, |(_, rest)| rest);
    let Some((_, last)) = after_scheme.rsplit_once('/') else { return false };
    let Some(rest) = last.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) else {
        return false;
    };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("alpha").or_else(|| rest.strip_prefix("beta")).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::{CustomProvider, Network};
    use crate::governance::time::Timestamp;
    use crate::provider::dialect::path::{Door, read};

    fn provider(base_url: &str, paths: &[(&str, &str)]) -> Provider {
        let custom = CustomProvider {
            base: "openai",
            keyless: false,
            allowed_requests: None,
            path_overrides: paths.iter().map(|&(name, path)| (name.to_owned(), path.to_owned())).collect(),
        };
        let network = Network { base_url: Some(base_url.to_owned()), ..Network::default() };
        Provider { network, custom: Some(custom), ..Provider::new("mine", Timestamp::default()) }
    }

    fn route(path: &str) -> Route {
        let (_, Some(Door::Call(route))) = read(path) else { panic!("{path}") };
        route
    }

    const CHAT: &str = "/v1/chat/completions";

    #[test]
    fn a_version_stands_once_in_an_address() {
        let check = |base: &str, expected: &str| {
            let provider = provider(base, &[]);
            let address = address(&provider, None, (&route(CHAT), false), "m", None).unwrap();
            assert_eq!(format!("{}{}", address.base, address.path), expected);
        };
        check("https://api.openai.com", "https://api.openai.com/v1/chat/completions");
        check("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions");
        check("https://api.groq.com/openai", "https://api.groq.com/openai/v1/chat/completions");
        check("https://h/compatibility/v1", "https://h/compatibility/v1/chat/completions");
        check("https://h/api/paas/v4", "https://h/api/paas/v4/chat/completions");
        check("https://h/v1beta2", "https://h/v1beta2/chat/completions");
        check("https://h/v1x", "https://h/v1x/v1/chat/completions");
        check("https://h/vision", "https://h/vision/v1/chat/completions");
        check("http://v1", "http://v1/v1/chat/completions");
    }

    #[test]
    fn a_path_of_its_own_is_taken_as_it_is() {
        let check = |path: &str, expected: (&str, &str)| {
            let provider = provider("https://h/v1", &[("chat_completion", path)]);
            let address = address(&provider, None, (&route(CHAT), true), "m", None).unwrap();
            assert_eq!((&*address.base, &*address.path), expected);
        };
        check("/v1/c", ("https://h/v1", "/v1/c"));
        check("https://other/c", ("https://other/c", ""));
    }

    #[test]
    fn a_provider_that_is_nowhere_has_no_address() {
        let vllm = Provider::new("vllm", Timestamp::default());
        assert_eq!(address(&vllm, None, (&route(CHAT), false), "m", None), None);
    }

    #[test]
    fn of_a_query_only_the_known_goes_on() {
        use Dialect::{Anthropic, Bedrock, Gemini};
        let check = |dialect, query: Option<&str>, expected: &str| {
            assert_eq!(passed_on(dialect, query), expected, "{query:?}");
        };
        check(Anthropic, None, "");
        check(Anthropic, Some("beta=true"), "?beta=true");
        check(Anthropic, Some("x=1&beta=true&key=sk-bf-1&alt=sse"), "?beta=true");
        check(Anthropic, Some("beta=1&beta"), "");
        check(Gemini, Some("key=sk-bf-1&alt=sse&fields=candidates"), "?alt=sse");
        check(Gemini, Some("alt=media"), "");
        check(Bedrock, Some("alt=sse&beta=true"), "");
    }

    #[test]
    fn a_resource_is_called_in_its_region() {
        let check = |model: &str, region: Option<&str>| assert_eq!(aws_region(model), region, "{model}");
        check("arn:aws:bedrock:eu-west-1:1:inference-profile/us.x", Some("eu-west-1"));
        check("arn:aws:bedrock:evil.example/:1:x", None);
        check("arn:aws:bedrock::1:x", None);
        check("us.anthropic.claude", None);
        let bedrock = Provider::new("bedrock", Timestamp::default());
        let route = route("/bedrock/model/x/converse");
        let of = |model: &str| {
            address(&bedrock, None, (&route, false), model, None).map(|address| address.base.into_owned())
        };
        assert_eq!(
            of("arn:aws:bedrock:eu-west-1:1:x").as_deref(),
            Some("https://bedrock-runtime.eu-west-1.amazonaws.com")
        );
        assert_eq!(of("us.x"), None);
    }
}
