//! OpenAI, and whoever is spoken to like it: addresses and habits.

use crate::governance::entity::Provider;
use crate::governance::request::RequestKind;

/// Where a request of this kind goes: a base URL, and a path to append to the base URL's own.
pub fn address(provider: &Provider, kind: RequestKind) -> (&str, &str) {
    let base = provider.network.base_url.as_str();
    match provider.path_overrides.get(&kind).map(String::as_str) {
        None => (base, path(kind)),
        Some(url) if url.starts_with("http") => (url, ""),
        Some(path) => (base, path),
    }
}

const fn path(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::ChatCompletion => "/v1/chat/completions",
        RequestKind::TextCompletion => "/v1/completions",
        RequestKind::Responses => "/v1/responses",
        RequestKind::Embedding => "/v1/embeddings",
        RequestKind::ListModels => "/v1/models",
    }
}

/// Whether a stream of this kind tells its usage only if asked by `stream_options.include_usage`.
/// The responses API always tells, and refuses the option.
pub const fn tells_usage_when_asked(kind: RequestKind) -> bool {
    matches!(kind, RequestKind::ChatCompletion | RequestKind::TextCompletion)
}
