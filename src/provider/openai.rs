//! OpenAI, and whoever is spoken to like it: addresses and habits.

use crate::governance::entity::{Provider, ProviderKey};
use crate::governance::request::RequestKind;

/// Where a request of this kind goes with this key: a base URL, and a path to append to the base URL's own.
/// Absent where nobody said where the provider is.
pub fn address<'a>(
    provider: &'a Provider,
    key: Option<&'a ProviderKey>,
    kind: RequestKind,
    stream: bool,
) -> Option<(&'a str, &'a str)> {
    match provider.path_override(kind, stream) {
        Some(url) if url.starts_with("http") => return Some((url, "")),
        Some(path) => return Some((provider.base_url(key)?, path)),
        None => {}
    }
    let base = provider.base_url(key)?;
    let path = path(kind);
    // Who writes the version into the base URL, as OpenAI's own clients do, means it once.
    let path = if ends_in_version(base) { path.strip_prefix("/v1").unwrap_or(path) } else { path };
    Some((base, path))
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

/// What a cap on the output is called where a request has none: OpenAI itself and who follows it closely want
/// the newer name for chats, and refuse the older one for models that reason; the others know the older one.
pub fn output_cap_name(provider: &Provider, kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Responses => "max_output_tokens",
        RequestKind::ChatCompletion if matches!(&*provider.name, "openai" | "azure" | "cerebras" | "groq" | "xai") => {
            "max_completion_tokens"
        }
        _ => "max_tokens",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::{CustomProvider, Network};
    use crate::governance::time::Timestamp;

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

    #[test]
    fn a_version_stands_once_in_an_address() {
        let check = |base: &str, expected: &str| {
            let provider = provider(base, &[]);
            let (base, path) = address(&provider, None, RequestKind::ChatCompletion, false).unwrap();
            assert_eq!(format!("{base}{path}"), expected);
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
            assert_eq!(address(&provider, None, RequestKind::ChatCompletion, true), Some(expected));
        };
        check("/v1/c", ("https://h/v1", "/v1/c"));
        check("https://other/c", ("https://other/c", ""));
    }

    #[test]
    fn a_provider_that_is_nowhere_has_no_address() {
        let vllm = Provider::new("vllm", Timestamp::default());
        assert_eq!(address(&vllm, None, RequestKind::ChatCompletion, false), None);
    }
}
