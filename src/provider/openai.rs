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

/// Where a kind lives in OpenAI's API; of those that name a batch or a file, the collection.
const fn path(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::ChatCompletion => "/v1/chat/completions",
        RequestKind::TextCompletion => "/v1/completions",
        RequestKind::Responses => "/v1/responses",
        RequestKind::Embedding => "/v1/embeddings",
        RequestKind::ListModels => "/v1/models",
        RequestKind::CountTokens => "/v1/responses/input_tokens",
        RequestKind::Rerank => "/v1/rerank",
        RequestKind::Speech => "/v1/audio/speech",
        RequestKind::Transcription => "/v1/audio/transcriptions",
        RequestKind::ImageGeneration => "/v1/images/generations",
        RequestKind::ImageEdit => "/v1/images/edits",
        RequestKind::ImageVariation => "/v1/images/variations",
        RequestKind::VideoGeneration | RequestKind::VideoRemix => "/v1/videos",
        RequestKind::BatchCreate
        | RequestKind::BatchList
        | RequestKind::BatchRetrieve
        | RequestKind::BatchCancel
        | RequestKind::BatchResults => "/v1/batches",
        RequestKind::FileUpload
        | RequestKind::FileList
        | RequestKind::FileRetrieve
        | RequestKind::FileDelete
        | RequestKind::FileContent => "/v1/files",
    }
}

/// Whether a stream of this kind tells its usage only if asked by `stream_options.include_usage`.
/// The responses API always tells, and refuses the option.
pub const fn tells_usage_when_asked(kind: RequestKind) -> bool {
    matches!(kind, RequestKind::ChatCompletion | RequestKind::TextCompletion)
}
