//! The providers that need no description of their own: their names, where they are, and whether they
//! speak as OpenAI does.

/// What is known of one built-in provider.
struct BuiltIn {
    name: &'static str,
    /// Absent where each key says it, or where a region decides.
    base_url: Option<&'static str>,
    speaks: Speaks,
}

/// How a built-in provider is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// OpenAI's paths below the base URL, with a bearer token.
    OpenAi,
    /// The same, and a stream tells its usage without being asked: asking is not in its schema.
    OpenAiUnasked,
    /// The same as `OpenAi`, at the URL of each key.
    OpenAiAtKey,
    /// Other paths, another format or another credential.
    Otherwise,
}

const fn built_in(name: &'static str, base_url: &'static str, speaks: Speaks) -> BuiltIn {
    BuiltIn { name, base_url: Some(base_url), speaks }
}

const fn nowhere(name: &'static str, speaks: Speaks) -> BuiltIn {
    BuiltIn { name, base_url: None, speaks }
}

const TABLE: [BuiltIn; 23] = [
    built_in("openai", "https://api.openai.com", Speaks::OpenAi),
    nowhere("azure", Speaks::Otherwise),
    built_in("anthropic", "https://api.anthropic.com", Speaks::Otherwise),
    nowhere("bedrock", Speaks::Otherwise),
    built_in("cohere", "https://api.cohere.com", Speaks::Otherwise),
    nowhere("vertex", Speaks::Otherwise),
    nowhere("vllm", Speaks::OpenAiAtKey),
    built_in("mistral", "https://api.mistral.ai", Speaks::OpenAiUnasked),
    nowhere("ollama", Speaks::OpenAiAtKey),
    built_in("groq", "https://api.groq.com/openai", Speaks::OpenAiUnasked),
    nowhere("sgl", Speaks::OpenAiAtKey),
    built_in("parasail", "https://api.parasail.io", Speaks::OpenAi),
    // Its chat has a path of its own.
    built_in("perplexity", "https://api.perplexity.ai", Speaks::Otherwise),
    built_in("replicate", "https://api.replicate.com", Speaks::Otherwise),
    built_in("cerebras", "https://api.cerebras.ai", Speaks::OpenAi),
    built_in("gemini", "https://generativelanguage.googleapis.com", Speaks::Otherwise),
    built_in("openrouter", "https://openrouter.ai/api", Speaks::OpenAiUnasked),
    built_in("elevenlabs", "https://api.elevenlabs.io", Speaks::Otherwise),
    built_in("huggingface", "https://router.huggingface.co", Speaks::OpenAi),
    built_in("nebius", "https://api.tokenfactory.nebius.com", Speaks::OpenAi),
    built_in("xai", "https://api.x.ai", Speaks::OpenAi),
    built_in("runway", "https://api.dev.runwayml.com", Speaks::Otherwise),
    built_in("fireworks", "https://api.fireworks.ai/inference", Speaks::OpenAi),
];

/// The names that need no `custom_provider_config`.
pub const BUILT_IN_PROVIDERS: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut at = 0;
    while at < TABLE.len() {
        names[at] = TABLE[at].name;
        at += 1;
    }
    names
};

/// What a custom provider may be like.
pub const BASE_PROVIDERS: [&str; 7] =
    ["anthropic", "bedrock", "cohere", "gemini", "openai", "huggingface", "replicate"];

pub fn is_built_in_provider(name: &str) -> bool {
    find(name).is_some()
}

/// Where a built-in provider is reached unless its `base_url` says otherwise.
pub fn built_in_base_url(name: &str) -> Option<&'static str> {
    find(name)?.base_url
}

/// Whether a built-in provider takes OpenAI's chat completions at OpenAI's path, with a bearer token.
pub(super) fn speaks_openai(name: &str) -> bool {
    find(name).is_some_and(|built_in| built_in.speaks != Speaks::Otherwise)
}

/// Whether each key of a built-in provider says where it is good.
pub fn is_reached_by_key(name: &str) -> bool {
    find(name).is_some_and(|built_in| built_in.speaks == Speaks::OpenAiAtKey)
}

/// Whether a built-in provider says with each answer what the whole call cost, and is believed.
pub(super) fn reports_cost(name: &str) -> bool {
    matches!(name, "openrouter" | "perplexity")
}

/// Whether a stream tells its usage without being asked for it.
pub(super) fn tells_usage_unasked(name: &str) -> bool {
    find(name).is_some_and(|built_in| built_in.speaks == Speaks::OpenAiUnasked)
}

fn find(name: &str) -> Option<&'static BuiltIn> {
    const { &TABLE }.iter().find(|built_in| built_in.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_where_and_speaks_how() {
        let check = |name: &str, url: Option<&str>, openai: bool| {
            assert_eq!((built_in_base_url(name), speaks_openai(name)), (url, openai), "{name}");
        };
        check("openai", Some("https://api.openai.com"), true);
        check("groq", Some("https://api.groq.com/openai"), true);
        check("ollama", None, true);
        check("azure", None, false);
        check("anthropic", Some("https://api.anthropic.com"), false);
        check("perplexity", Some("https://api.perplexity.ai"), false);
        check("mine", None, false);
        assert!(BUILT_IN_PROVIDERS.contains(&"fireworks") && !BUILT_IN_PROVIDERS.contains(&""));
        assert!(is_reached_by_key("vllm") && !is_reached_by_key("openai"));
        assert!(tells_usage_unasked("mistral") && !tells_usage_unasked("openai"));
    }

    #[test]
    fn a_base_provider_is_a_built_in_one() {
        assert!(BASE_PROVIDERS.iter().all(|name| is_built_in_provider(name)));
    }
}
