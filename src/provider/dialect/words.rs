//! What the keys of each dialect's messages mean for the weight of its input.

use crate::governance::request::Dialect;

/// What a value is by the key that it stands under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    Text,
    /// A word of the dialect, if it is short.
    Label,
    /// Base64 or an address of media.
    Media,
    /// Media whose size says nothing about its tokens, or that is not in the body at all.
    Document,
    /// An address of media, or an object with a picture in it.
    Link,
    /// Base64 or text: `MediaType` beside it decides.
    Data,
    MediaType,
    /// JSON that the model sees as it is: what its keys are called means nothing.
    Json,
    Other,
}

/// What stands under `key` in an object that itself stands under `parent`.
pub(super) fn under(dialect: Dialect, key: &str, parent: Under) -> Under {
    match dialect {
        Dialect::OpenAi => openai(key, parent),
        Dialect::Anthropic => anthropic(key),
        Dialect::Gemini => gemini(key),
        Dialect::Bedrock => bedrock(key, parent),
        Dialect::Cohere => cohere(key, parent),
    }
}

fn openai(key: &str, parent: Under) -> Under {
    match key {
        "text" | "content" | "input" | "output" | "arguments" | "instructions" | "prompt" => Under::Text,
        "type" | "role" => Under::Label,
        // `result` holds the picture in an item of image generation.
        "data" | "b64_json" | "result" => Under::Media,
        "file_data" | "file_id" | "file_url" => Under::Document,
        "image_url" | "video_url" | "audio_url" => Under::Link,
        "url" if parent == Under::Link => Under::Media,
        _ => Under::Other,
    }
}

fn anthropic(key: &str) -> Under {
    match key {
        "text" | "content" | "thinking" => Under::Text,
        "type" | "role" => Under::Label,
        "data" => Under::Data,
        "media_type" => Under::MediaType,
        // Whether a picture or a document is there, only its reader finds out.
        "url" | "file_id" => Under::Document,
        // Of a tool's call.
        "input" => Under::Json,
        _ => Under::Other,
    }
}

fn gemini(key: &str) -> Under {
    match key {
        "text" | "code" | "output" => Under::Text,
        "role" => Under::Label,
        "data" => Under::Data,
        "mimeType" | "mime_type" => Under::MediaType,
        "fileUri" | "file_uri" => Under::Document,
        "args" | "response" => Under::Json,
        _ => Under::Other,
    }
}

fn bedrock(key: &str, parent: Under) -> Under {
    match key {
        "text" => Under::Text,
        "role" => Under::Label,
        "image" => Under::Link,
        "document" | "video" | "audio" => Under::Document,
        "source" => parent,
        "format" | "name" if matches!(parent, Under::Link | Under::Document) => Under::Label,
        "bytes" if parent == Under::Link => Under::Media,
        "bytes" | "uri" => Under::Document,
        "json" | "input" => Under::Json,
        _ => Under::Other,
    }
}

fn cohere(key: &str, parent: Under) -> Under {
    match key {
        "text" | "content" | "thinking" | "tool_plan" | "arguments" => Under::Text,
        "type" | "role" => Under::Label,
        "image_url" => Under::Link,
        "url" if parent == Under::Link => Under::Media,
        "data" => Under::Json,
        _ => Under::Other,
    }
}

/// Whether a text that stands under no known key is media in itself.
pub(super) fn is_media(dialect: Dialect, text: &str) -> bool {
    matches!(dialect, Dialect::OpenAi | Dialect::Cohere) && text.starts_with("data:")
}

/// Whether a tool of this type runs at the client. What others find enters the model's context without
/// passing us.
pub(super) fn runs_at_client(dialect: Dialect, tool: &str) -> bool {
    match dialect {
        Dialect::OpenAi => matches!(tool, "function" | "custom" | "local_shell" | "apply_patch"),
        Dialect::Anthropic => {
            tool == "custom"
                || ["bash_", "text_editor_", "computer_", "memory_"].iter().any(|known| tool.starts_with(known))
        }
        Dialect::Cohere => tool == "function",
        // Their tools are told apart by keys.
        Dialect::Gemini | Dialect::Bedrock => true,
    }
}

/// Whether a key of a tool stands for one that runs at the provider.
pub(super) fn runs_at_provider(dialect: Dialect, key: &str) -> bool {
    match dialect {
        Dialect::Gemini => !matches!(key, "functionDeclarations" | "function_declarations"),
        Dialect::Bedrock => !matches!(key, "toolSpec" | "cachePoint"),
        Dialect::OpenAi | Dialect::Anthropic | Dialect::Cohere => false,
    }
}
