//! Prices that an administrator puts in place of the list's.

use crate::governance::money::Rate;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Prices for the calls that a scope, a pattern and kinds of request select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricingOverride {
    pub id: Arc<str>,
    pub name: String,
    pub scope: OverrideScope,
    pub pattern: ModelPattern,
    /// Never empty.
    pub request_kinds: BTreeSet<RequestKind>,
    /// By the names of the price table; a zero makes free.
    pub patch: BTreeMap<&'static str, Rate>,
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Whose calls. The more it names, the more it weighs: the most specific override wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OverrideScope {
    Global,
    Provider { provider: Arc<str> },
    ProviderKey { key: Arc<str> },
    VirtualKey { virtual_key: Arc<str> },
    VirtualKeyProvider { virtual_key: Arc<str>, provider: Arc<str> },
    VirtualKeyProviderKey { virtual_key: Arc<str>, provider: Option<Arc<str>>, key: Arc<str> },
}

impl OverrideScope {
    /// The names on the wire, from the widest to the most specific.
    pub const NAMES: [&'static str; 6] =
        ["global", "provider", "provider_key", "virtual_key", "virtual_key_provider", "virtual_key_provider_key"];

    pub const fn name(&self) -> &'static str {
        match self {
            OverrideScope::Global => "global",
            OverrideScope::Provider { .. } => "provider",
            OverrideScope::ProviderKey { .. } => "provider_key",
            OverrideScope::VirtualKey { .. } => "virtual_key",
            OverrideScope::VirtualKeyProvider { .. } => "virtual_key_provider",
            OverrideScope::VirtualKeyProviderKey { .. } => "virtual_key_provider_key",
        }
    }

    pub const fn virtual_key(&self) -> Option<&Arc<str>> {
        match self {
            OverrideScope::VirtualKey { virtual_key }
            | OverrideScope::VirtualKeyProvider { virtual_key, .. }
            | OverrideScope::VirtualKeyProviderKey { virtual_key, .. } => Some(virtual_key),
            _ => None,
        }
    }

    pub const fn provider(&self) -> Option<&Arc<str>> {
        match self {
            OverrideScope::Provider { provider } | OverrideScope::VirtualKeyProvider { provider, .. } => Some(provider),
            OverrideScope::VirtualKeyProviderKey { provider, .. } => provider.as_ref(),
            _ => None,
        }
    }

    pub const fn provider_key(&self) -> Option<&Arc<str>> {
        match self {
            OverrideScope::ProviderKey { key } | OverrideScope::VirtualKeyProviderKey { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// Which models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelPattern {
    /// This name and no other.
    Exact(String),
    /// Every name that begins like this; written with a `*` at its end.
    Prefix(String),
}

impl ModelPattern {
    /// `match_type` and `pattern` on the wire.
    pub fn wire(&self) -> (&'static str, String) {
        match self {
            ModelPattern::Exact(name) => ("exact", name.clone()),
            ModelPattern::Prefix(head) => ("wildcard", format!("{head}*")),
        }
    }

    pub fn matches(&self, model: &str) -> bool {
        match self {
            ModelPattern::Exact(name) => name == model,
            ModelPattern::Prefix(head) => model.starts_with(head.as_str()),
        }
    }
}

/// The names of all prices: those given, and for tokens each of them for every length and lane.
macro_rules! price_fields {
    (tokens: [$($token:literal,)*], others: [$($other:literal,)*]) => {
        &[$($other,)* $(
            $token,
            concat!($token, "_batches"),
            concat!($token, "_flex"),
            concat!($token, "_priority"),
            concat!($token, "_above_32k_tokens"),
            concat!($token, "_above_32k_tokens_batches"),
            concat!($token, "_above_32k_tokens_flex"),
            concat!($token, "_above_32k_tokens_priority"),
            concat!($token, "_above_100k_tokens"),
            concat!($token, "_above_100k_tokens_batches"),
            concat!($token, "_above_100k_tokens_flex"),
            concat!($token, "_above_100k_tokens_priority"),
            concat!($token, "_above_128k_tokens"),
            concat!($token, "_above_128k_tokens_batches"),
            concat!($token, "_above_128k_tokens_flex"),
            concat!($token, "_above_128k_tokens_priority"),
            concat!($token, "_above_200k_tokens"),
            concat!($token, "_above_200k_tokens_batches"),
            concat!($token, "_above_200k_tokens_flex"),
            concat!($token, "_above_200k_tokens_priority"),
            concat!($token, "_above_256k_tokens"),
            concat!($token, "_above_256k_tokens_batches"),
            concat!($token, "_above_256k_tokens_flex"),
            concat!($token, "_above_256k_tokens_priority"),
            concat!($token, "_above_272k_tokens"),
            concat!($token, "_above_272k_tokens_batches"),
            concat!($token, "_above_272k_tokens_flex"),
            concat!($token, "_above_272k_tokens_priority"),
            concat!($token, "_above_512k_tokens"),
            concat!($token, "_above_512k_tokens_batches"),
            concat!($token, "_above_512k_tokens_flex"),
            concat!($token, "_above_512k_tokens_priority"),
        )*]
    };
}

/// The prices that a patch may set, by the names of LiteLLM's price table; all in dollars for one unit.
pub const PRICE_FIELDS: &[&str] = price_fields! {
    tokens: [
        "input_cost_per_token",
        "output_cost_per_token",
        "output_cost_per_reasoning_token",
        "cache_read_input_token_cost",
        "cache_creation_input_token_cost",
        "cache_creation_input_token_cost_above_1hr",
        "cache_creation_input_token_cost_above_12hr",
        "input_cost_per_audio_token",
        "output_cost_per_audio_token",
        "input_cost_per_image_token",
        "output_cost_per_image_token",
    ],
    others: [
        "cache_read_input_audio_token_cost",
        "cache_read_input_image_token_cost",
        "cache_creation_input_audio_token_cost",
        "input_cost_per_character",
        "input_cost_per_image",
        "input_cost_per_image_above_128k_tokens",
        "input_cost_per_pixel",
        "input_cost_per_second",
        "input_cost_per_audio_per_second",
        "input_cost_per_audio_per_second_above_128k_tokens",
        "input_cost_per_video_per_second",
        "input_cost_per_video_per_second_above_128k_tokens",
        "output_cost_per_second",
        "output_cost_per_second_480p",
        "output_cost_per_second_720p",
        "output_cost_per_second_1080p",
        "output_cost_per_second_4k",
        "output_cost_per_video_per_second",
        "output_cost_per_pixel",
        "output_cost_per_image",
        "output_cost_per_image_low_quality",
        "output_cost_per_image_medium_quality",
        "output_cost_per_image_high_quality",
        "output_cost_per_image_auto_quality",
        "output_cost_per_image_premium_image",
        "output_cost_per_image_above_512_and_512_pixels",
        "output_cost_per_image_above_512_and_512_pixels_and_premium_image",
        "output_cost_per_image_above_1024_and_1024_pixels",
        "output_cost_per_image_above_1024_and_1024_pixels_and_premium_image",
        "output_cost_per_image_above_2048_and_2048_pixels",
        "output_cost_per_image_above_4096_and_4096_pixels",
        "search_context_cost_per_query",
        "input_cost_per_query",
        "code_interpreter_cost_per_session",
        "input_cost_per_request",
    ]
};
