//! Providers and their own credentials.

use super::ModelSet;
use crate::governance::money::MoneyError;
use crate::governance::request::RequestKind;
use crate::governance::secret::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The names that need no `custom_provider_config`.
pub const BUILT_IN_PROVIDERS: [&str; 23] = [
    "openai",
    "azure",
    "anthropic",
    "bedrock",
    "cohere",
    "vertex",
    "vllm",
    "mistral",
    "ollama",
    "groq",
    "sgl",
    "parasail",
    "perplexity",
    "replicate",
    "cerebras",
    "gemini",
    "openrouter",
    "elevenlabs",
    "huggingface",
    "nebius",
    "xai",
    "runway",
    "fireworks",
];

pub fn is_built_in_provider(name: &str) -> bool {
    BUILT_IN_PROVIDERS.contains(&name)
}

/// Where a built-in provider is reached unless its `base_url` says otherwise.
pub fn built_in_base_url(name: &str) -> Option<&'static str> {
    (name == "openai").then_some("https://api.openai.com")
}

/// A provider as declared: where it is, what it may be asked, and its keys.
#[derive(Debug, Clone)]
pub struct Provider {
    pub name: Arc<str>,
    /// Takes no credential at all.
    pub keyless: bool,
    /// Absent: every kind of request.
    pub allowed_requests: Option<BTreeSet<RequestKind>>,
    /// A path on the base URL for a kind of request, or a whole URL.
    pub path_overrides: BTreeMap<RequestKind, String>,
    pub network: Network,
    pub keys: Vec<Arc<ProviderKey>>,
}

impl Provider {
    pub fn allows(&self, kind: RequestKind) -> bool {
        self.allowed_requests.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

/// How a provider is reached.
#[derive(Debug, Clone)]
pub struct Network {
    /// Scheme, host, port and an optional path, without a slash at its end.
    pub base_url: String,
    /// Added to each request; never able to replace the credential.
    pub extra_headers: Vec<(String, String)>,
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
}

/// A provider's own credential.
#[derive(Debug, Clone)]
pub struct ProviderKey {
    pub id: Arc<str>,
    pub name: String,
    pub value: Secret,
    pub weight: Weight,
    pub models: ModelSet,
    pub blacklisted_models: ModelSet,
    /// Model name → the provider's own id for it.
    pub aliases: BTreeMap<String, String>,
    pub enabled: bool,
}

impl ProviderKey {
    /// Whether the key serves `model` of `provider`. An alias counts as being listed.
    pub fn serves(&self, provider: &str, model: &str) -> bool {
        self.enabled
            && !self.blacklisted_models.contains(provider, model)
            && (self.models.contains(provider, model) || self.aliases.contains_key(model))
    }
}

/// A share in a weighted choice, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u64);

impl Weight {
    pub const ONE: Weight = Weight(1_000_000);

    /// Reads a decimal number that is not negative.
    pub fn parse(text: &str) -> Result<Weight, MoneyError> {
        let millionths = crate::governance::money::decimal(text, 6)?;
        u64::try_from(millionths).map(Weight).map_err(|_| MoneyError::TooLarge(text.into()))
    }

    pub const fn from_millionths(millionths: u64) -> Weight {
        Weight(millionths)
    }

    pub const fn millionths(self) -> u64 {
        self.0
    }
}
