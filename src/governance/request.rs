//! The kinds of request, as rules, prices and permissions name them, and the wire formats they come in.

/// What a request asks for. The base kind also stands for its streamed form.
///
/// All names of the contract are here, so that permissions and prices can be declared for them; which of
/// them the proxy makes, the paths of each dialect say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    ChatCompletion,
    TextCompletion,
    Responses,
    Embedding,
    ListModels,
    CountTokens,
    Rerank,
    Speech,
    Transcription,
    ImageGeneration,
    ImageEdit,
    ImageVariation,
    VideoGeneration,
    VideoRemix,
    BatchCreate,
    BatchList,
    BatchRetrieve,
    BatchCancel,
    BatchResults,
    FileUpload,
    FileList,
    FileRetrieve,
    FileDelete,
    FileContent,
}

impl RequestKind {
    pub const ALL: [RequestKind; 24] = [
        RequestKind::ChatCompletion,
        RequestKind::TextCompletion,
        RequestKind::Responses,
        RequestKind::Embedding,
        RequestKind::ListModels,
        RequestKind::CountTokens,
        RequestKind::Rerank,
        RequestKind::Speech,
        RequestKind::Transcription,
        RequestKind::ImageGeneration,
        RequestKind::ImageEdit,
        RequestKind::ImageVariation,
        RequestKind::VideoGeneration,
        RequestKind::VideoRemix,
        RequestKind::BatchCreate,
        RequestKind::BatchList,
        RequestKind::BatchRetrieve,
        RequestKind::BatchCancel,
        RequestKind::BatchResults,
        RequestKind::FileUpload,
        RequestKind::FileList,
        RequestKind::FileRetrieve,
        RequestKind::FileDelete,
        RequestKind::FileContent,
    ];

    /// The name used in `allowed_requests`, `request_path_overrides`, errors and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            RequestKind::ChatCompletion => "chat_completion",
            RequestKind::TextCompletion => "text_completion",
            RequestKind::Responses => "responses",
            RequestKind::Embedding => "embedding",
            RequestKind::ListModels => "list_models",
            RequestKind::CountTokens => "count_tokens",
            RequestKind::Rerank => "rerank",
            RequestKind::Speech => "speech",
            RequestKind::Transcription => "transcription",
            RequestKind::ImageGeneration => "image_generation",
            RequestKind::ImageEdit => "image_edit",
            RequestKind::ImageVariation => "image_variation",
            RequestKind::VideoGeneration => "video_generation",
            RequestKind::VideoRemix => "video_remix",
            RequestKind::BatchCreate => "batch_create",
            RequestKind::BatchList => "batch_list",
            RequestKind::BatchRetrieve => "batch_retrieve",
            RequestKind::BatchCancel => "batch_cancel",
            RequestKind::BatchResults => "batch_results",
            RequestKind::FileUpload => "file_upload",
            RequestKind::FileList => "file_list",
            RequestKind::FileRetrieve => "file_retrieve",
            RequestKind::FileDelete => "file_delete",
            RequestKind::FileContent => "file_content",
        }
    }

    /// Whether what comes back is charged for, beside what went in.
    pub const fn has_output(self) -> bool {
        !matches!(self, RequestKind::Embedding | RequestKind::Rerank)
    }

    pub fn from_name(name: &str) -> Option<RequestKind> {
        RequestKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A wire format: what a call and its answer look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
    /// What Bedrock's runtime takes: converse, and the models' own formats by `invoke`.
    Bedrock,
    Cohere,
}

impl Dialect {
    pub const ALL: [Dialect; 5] =
        [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini, Dialect::Bedrock, Dialect::Cohere];

    /// As people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dialect::OpenAi => "OpenAI",
            Dialect::Anthropic => "Anthropic",
            Dialect::Gemini => "Gemini",
            Dialect::Bedrock => "Bedrock",
            Dialect::Cohere => "Cohere",
        }
    }

    /// The dialect of a custom provider that is like this built-in one.
    pub fn of_base(name: &str) -> Option<Dialect> {
        Some(match name {
            "openai" => Dialect::OpenAi,
            "anthropic" => Dialect::Anthropic,
            "gemini" => Dialect::Gemini,
            "bedrock" => Dialect::Bedrock,
            "cohere" => Dialect::Cohere,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for (index, kind) in RequestKind::ALL.into_iter().enumerate() {
            assert_eq!(RequestKind::from_name(kind.as_str()), Some(kind));
            // The list follows the declaration, so none is missing or listed twice.
            assert_eq!(kind as usize, index);
        }
        assert_eq!(RequestKind::from_name("chat_completion_stream"), None);
    }
}
