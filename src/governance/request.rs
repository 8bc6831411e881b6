//! The kinds of request, as rules, prices and permissions name them.

/// What a request asks for. The base kind also stands for its streamed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    ChatCompletion,
    TextCompletion,
    Responses,
    Embedding,
    ListModels,
}

impl RequestKind {
    pub const ALL: [RequestKind; 5] = [
        RequestKind::ChatCompletion,
        RequestKind::TextCompletion,
        RequestKind::Responses,
        RequestKind::Embedding,
        RequestKind::ListModels,
    ];

    /// The name used in `allowed_requests`, `request_path_overrides`, errors and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            RequestKind::ChatCompletion => "chat_completion",
            RequestKind::TextCompletion => "text_completion",
            RequestKind::Responses => "responses",
            RequestKind::Embedding => "embedding",
            RequestKind::ListModels => "list_models",
        }
    }

    pub fn from_name(name: &str) -> Option<RequestKind> {
        RequestKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
