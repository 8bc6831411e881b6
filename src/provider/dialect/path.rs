//! The paths of each dialect: read from a client's request, and written for a provider's.
//!
//! A path that is not in these tables is not served: what is not understood cannot be governed.

use std::fmt::Write;

use crate::governance::request::{Dialect, RequestKind};

/// What the path of a call says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub dialect: Dialect,
    pub kind: RequestKind,
    /// The provider that a bare model means, where an SDK's own prefix was used.
    pub home: Option<&'static str>,
    /// The version of the dialect that the client speaks, as paths write it. Empty where there are none.
    pub version: &'static str,
    /// What is done, as the dialect calls it.
    pub verb: &'static str,
    /// The model, where the path names it.
    pub model: Option<String>,
    /// Whether the answer is a stream, where the path says it.
    pub stream: Option<bool>,
}

impl Route {
    /// Whether the body is a form, not JSON.
    pub fn is_form(&self) -> bool {
        self.dialect == Dialect::OpenAi && self.kind == RequestKind::Transcription
    }

    /// For a body in OpenAI's dialect of which no path is known.
    pub const fn openai(kind: RequestKind) -> Route {
        Route { dialect: Dialect::OpenAi, kind, home: None, version: "v1", verb: "", model: None, stream: None }
    }
}

/// What a path is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// A call to a model.
    Call(Route),
    /// The models that the caller may use, or one of them.
    Models { id: Option<String> },
}

/// Clients of several dialects have prefixes of their own, and below those the same paths again.
const FAMILIES: [&str; 4] = ["/litellm", "/langchain", "/pydanticai", "/cursor"];

/// A prefix below which an SDK finds its provider's own paths.
const PREFIXES: [(&str, Dialect, &str); 5] = [
    ("/openai", Dialect::OpenAi, "openai"),
    ("/anthropic", Dialect::Anthropic, "anthropic"),
    ("/genai", Dialect::Gemini, "gemini"),
    ("/bedrock", Dialect::Bedrock, "bedrock"),
    ("/cohere", Dialect::Cohere, "cohere"),
];

/// Below `/v1` in OpenAI's API.
const OPENAI: [(&str, RequestKind); 8] = [
    ("/chat/completions", RequestKind::ChatCompletion),
    ("/completions", RequestKind::TextCompletion),
    ("/responses", RequestKind::Responses),
    ("/embeddings", RequestKind::Embedding),
    ("/images/generations", RequestKind::ImageGeneration),
    ("/audio/speech", RequestKind::Speech),
    ("/audio/transcriptions", RequestKind::Transcription),
    ("/audio/translations", RequestKind::Transcription),
];

/// Below `/v1` in Anthropic's API.
const ANTHROPIC: [(&str, RequestKind); 2] =
    [("/messages", RequestKind::ChatCompletion), ("/messages/count_tokens", RequestKind::CountTokens)];

/// Below `/v2` in Cohere's API.
const COHERE: [(&str, RequestKind); 3] =
    [("/chat", RequestKind::ChatCompletion), ("/embed", RequestKind::Embedding), ("/rerank", RequestKind::Rerank)];

/// After the colon behind a model in Gemini's API.
const GEMINI: [(&str, RequestKind, bool); 5] = [
    ("generateContent", RequestKind::ChatCompletion, false),
    ("streamGenerateContent", RequestKind::ChatCompletion, true),
    ("countTokens", RequestKind::CountTokens, false),
    ("embedContent", RequestKind::Embedding, false),
    ("batchEmbedContents", RequestKind::Embedding, false),
];
/// The versions of Gemini's API; the second is meant where none is named.
const GEMINI_VERSIONS: [&str; 4] = ["v1", "v1beta", "v1alpha", "v1beta1"];

/// Behind a model in Bedrock's API.
const BEDROCK: [(&str, RequestKind, bool); 5] = [
    ("converse", RequestKind::ChatCompletion, false),
    ("converse-stream", RequestKind::ChatCompletion, true),
    ("invoke", RequestKind::ChatCompletion, false),
    ("invoke-with-response-stream", RequestKind::ChatCompletion, true),
    ("count-tokens", RequestKind::CountTokens, false),
];

/// Reads the path of a request. The dialect is known even where the path leads nowhere: the answer that says so
/// is in it.
pub fn read(path: &str) -> (Dialect, Option<Door>) {
    let family = FAMILIES.iter().find_map(|family| below(path, family));
    let path = family.unwrap_or(path);
    for (prefix, dialect, home) in PREFIXES {
        if let Some(rest) = below(path, prefix) {
            return (dialect, door(dialect, Some(home), rest));
        }
    }
    // Without a prefix the version must be there, but for clients that were told a prefix of their own.
    let door = if family.is_some() || path.starts_with("/v1/") { door(Dialect::OpenAi, None, path) } else { None };
    (Dialect::OpenAi, door)
}

/// What follows `prefix`, if the path is below it.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

fn door(dialect: Dialect, home: Option<&'static str>, path: &str) -> Option<Door> {
    match dialect {
        Dialect::OpenAi => plain(dialect, home, below(path, "/v1").unwrap_or(path), &OPENAI),
        Dialect::Anthropic => plain(dialect, home, below(path, "/v1")?, &ANTHROPIC),
        Dialect::Gemini => gemini(home, path),
        Dialect::Bedrock => bedrock(home, path),
        Dialect::Cohere => {
            let (verb, kind) = COHERE.iter().find(|(verb, _)| Some(*verb) == below(path, "/v2"))?;
            let route = Route { dialect, kind: *kind, home, version: "v2", verb, model: None, stream: None };
            Some(Door::Call(route))
        }
    }
}

/// A dialect whose paths are fixed texts below `/v1`.
fn plain(
    dialect: Dialect,
    home: Option<&'static str>,
    path: &str,
    table: &'static [(&'static str, RequestKind)],
) -> Option<Door> {
    if let Some((verb, kind)) = table.iter().find(|(verb, _)| *verb == path) {
        let route = Route { dialect, kind: *kind, home, version: "v1", verb, model: None, stream: None };
        return Some(Door::Call(route));
    }
    models(path)
}

/// The model stands in the path, and what is to be done with it behind its last colon.
fn gemini(home: Option<&'static str>, path: &str) -> Option<Door> {
    let named = GEMINI_VERSIONS.iter().find_map(|version| Some((*version, below(path.strip_prefix('/')?, version)?)));
    let (version, path) = named.unwrap_or((GEMINI_VERSIONS[1], path));
    let Some((model, verb)) = path.rsplit_once(':') else { return models(path) };
    // Tuned models are a collection of their own, and keep its name.
    let model = model.strip_prefix("/models/").or_else(|| model.strip_prefix('/').filter(|m| m.starts_with(TUNED)))?;
    let (verb, kind, stream) = GEMINI.iter().find(|(known, ..)| *known == verb)?;
    Some(Door::Call(Route {
        dialect: Dialect::Gemini,
        kind: *kind,
        home,
        version,
        verb,
        model: Some(decode(model)?),
        stream: Some(*stream),
    }))
}

/// The model stands in the path, in one part or, where it was not encoded, in several.
fn bedrock(home: Option<&'static str>, path: &str) -> Option<Door> {
    let (model, verb) = path.strip_prefix("/model/")?.rsplit_once('/')?;
    let (verb, kind, stream) = BEDROCK.iter().find(|(known, ..)| *known == verb)?;
    Some(Door::Call(Route {
        dialect: Dialect::Bedrock,
        kind: *kind,
        home,
        version: "",
        verb,
        model: Some(decode(model).filter(|model| !model.is_empty())?),
        stream: Some(*stream),
    }))
}

const TUNED: &str = "tunedModels/";

fn models(path: &str) -> Option<Door> {
    match path.strip_prefix("/models")? {
        "" => Some(Door::Models { id: None }),
        id => Some(Door::Models { id: Some(decode(id.strip_prefix('/').filter(|id| !id.is_empty())?)?) }),
    }
}

/// The path of a call below a provider's base URL. `versioned`: the base URL has a version of its own already.
pub fn upstream_path(route: &Route, model: &str, versioned: bool) -> String {
    let Route { dialect, version, verb, .. } = route;
    let version = if versioned || version.is_empty() { String::new() } else { format!("/{version}") };
    match dialect {
        Dialect::OpenAi | Dialect::Anthropic | Dialect::Cohere => format!("{version}{verb}"),
        Dialect::Gemini => {
            let (collection, model) = match model.strip_prefix(TUNED) {
                Some(model) => (TUNED, model),
                None => ("models/", model),
            };
            // A slash or a colon in a name would be another path, or another verb.
            format!("{version}/{collection}{}:{verb}", encode(model, b"@"))
        }
        // The whole name is one part, whatever is in it.
        Dialect::Bedrock => format!("/model/{}/{verb}", encode(model, b"")),
    }
}

/// A text as part of a path, with these bytes left as they are.
pub fn encode(text: &str, plain: &[u8]) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            part.push(byte as char);
        } else {
            write!(part, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    part
}

/// A part of a path as it reads; `None` if that is no text.
fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        rest = more;
        match (byte, more) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| (byte as char).to_digit(16);
                let (high, low) = (digit(*high)?, digit(*low)?);
                bytes.push(u8::try_from(high << 4 | low).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn leads(path: &str, dialect: Dialect, expected: Option<(RequestKind, &str, Option<&str>)>) {
        let (found, door) = read(path);
        let door = door.map(|door| match door {
            Door::Call(route) => (route.kind, upstream_path(&route, "m", false), route.home),
            Door::Models { id } => (RequestKind::ListModels, id.unwrap_or_default(), None),
        });
        let expected = expected.map(|(kind, path, home)| (kind, path.to_owned(), home));
        assert_eq!((found, door), (dialect, expected), "{path}");
    }

    #[test]
    fn every_prefix_leads_to_its_dialect() {
        use Dialect::{Anthropic, Cohere, OpenAi};
        use RequestKind::{ChatCompletion, CountTokens, Embedding, ListModels};
        let chat = |home| Some((ChatCompletion, "/v1/chat/completions", home));
        leads("/v1/chat/completions", OpenAi, chat(None));
        leads("/openai/v1/chat/completions", OpenAi, chat(Some("openai")));
        leads("/openai/chat/completions", OpenAi, chat(Some("openai")));
        leads("/langchain/openai/v1/chat/completions", OpenAi, chat(Some("openai")));
        leads("/litellm/chat/completions", OpenAi, chat(None));
        leads("/litellm/v1/embeddings", OpenAi, Some((Embedding, "/v1/embeddings", None)));
        let drawn = |home| Some((RequestKind::ImageGeneration, "/v1/images/generations", home));
        leads("/v1/images/generations", OpenAi, drawn(None));
        leads("/openai/images/generations", OpenAi, drawn(Some("openai")));
        leads("/litellm/v1/audio/speech", OpenAi, Some((RequestKind::Speech, "/v1/audio/speech", None)));
        leads("/v1/models", OpenAi, Some((ListModels, "", None)));
        leads("/v1/models/openai/gpt-4o", OpenAi, Some((ListModels, "openai/gpt-4o", None)));
        leads("/v1/models/openai%2fgpt-4o", OpenAi, Some((ListModels, "openai/gpt-4o", None)));
        let messages = Some((ChatCompletion, "/v1/messages", Some("anthropic")));
        leads("/anthropic/v1/messages", Anthropic, messages);
        leads("/langchain/anthropic/v1/messages", Anthropic, messages);
        let count = Some((CountTokens, "/v1/messages/count_tokens", Some("anthropic")));
        leads("/anthropic/v1/messages/count_tokens", Anthropic, count);
        leads("/cohere/v2/chat", Cohere, Some((ChatCompletion, "/v2/chat", Some("cohere"))));
        leads("/cohere/v2/embed", Cohere, Some((Embedding, "/v2/embed", Some("cohere"))));
        leads("/cohere/v2/rerank", Cohere, Some((RequestKind::Rerank, "/v2/rerank", Some("cohere"))));
        leads("/cohere/v1/chat", Cohere, None);
        leads("/anthropic/v1/models", Anthropic, Some((ListModels, "", None)));
    }

    #[test]
    fn gemini_names_its_model_in_the_path() {
        let check = |path: &str, expected: Option<(&str, RequestKind, bool, &str)>| {
            let route = match read(path) {
                (Dialect::Gemini, Some(Door::Call(route))) => Some(route),
                (Dialect::Gemini, None) => None,
                other => panic!("{path}: {other:?}"),
            };
            let seen = route.as_ref().map(|route| {
                let model = route.model.clone().unwrap();
                (upstream_path(route, &model, false), route.kind, route.stream.unwrap(), model)
            });
            let expected =
                expected.map(|(path, kind, stream, model)| (path.to_owned(), kind, stream, model.to_owned()));
            assert_eq!(seen, expected, "{path}");
        };
        use RequestKind::{ChatCompletion, CountTokens, Embedding};
        let pro = "/v1beta/models/gemini-2.5-pro:generateContent";
        check(
            "/genai/v1beta/models/gemini-2.5-pro:generateContent",
            Some((pro, ChatCompletion, false, "gemini-2.5-pro")),
        );
        check("/genai/models/gemini-2.5-pro:generateContent", Some((pro, ChatCompletion, false, "gemini-2.5-pro")));
        let stream = "/v1/models/m:streamGenerateContent";
        check("/genai/v1/models/m:streamGenerateContent", Some((stream, ChatCompletion, true, "m")));
        check("/genai/v1/models/m:countTokens", Some(("/v1/models/m:countTokens", CountTokens, false, "m")));
        check("/genai/v1alpha/models/m:embedContent", Some(("/v1alpha/models/m:embedContent", Embedding, false, "m")));
        check(
            "/langchain/genai/v1/models/m:batchEmbedContents",
            Some(("/v1/models/m:batchEmbedContents", Embedding, false, "m")),
        );
        let named = "/v1/models/gemini%2Fx:generateContent";
        check("/genai/v1/models/gemini%2Fx:generateContent", Some((named, ChatCompletion, false, "gemini/x")));
        check("/genai/v1/models/gemini/x:generateContent", Some((named, ChatCompletion, false, "gemini/x")));
        let odd = "/v1/models/a@1%3Ab%20c%3Fd:generateContent";
        check("/genai/v1/models/a@1:b%20c%3fd:generateContent", Some((odd, ChatCompletion, false, "a@1:b c?d")));
        let tuned = "/v1/tunedModels/t:generateContent";
        check("/genai/v1/tunedModels/t:generateContent", Some((tuned, ChatCompletion, false, "tunedModels/t")));
        for path in [
            "/genai/v1/models/m:predict",
            "/genai/v1/m:generateContent",
            "/genai/v2/models/m:generateContent",
            "/genai/v1/models/%zz:generateContent",
            "/genai/upload/v1/files",
        ] {
            check(path, None);
        }
        assert_eq!(read("/genai/v1beta/models").1, Some(Door::Models { id: None }));
    }

    #[test]
    fn bedrock_s_models_come_encoded_and_not() {
        let check = |path: &str, expected: Option<(&str, bool, &str)>| {
            let route = match read(path) {
                (Dialect::Bedrock, Some(Door::Call(route))) => Some(route),
                (Dialect::Bedrock, None) => None,
                other => panic!("{path}: {other:?}"),
            };
            let seen = route.map(|route| {
                let model = route.model.clone().unwrap();
                (upstream_path(&route, &model, false), route.stream.unwrap(), model)
            });
            let expected = expected.map(|(path, stream, model)| (path.to_owned(), stream, model.to_owned()));
            assert_eq!(seen, expected, "{path}");
        };
        let nova = ("/model/amazon.nova-pro-v1%3A0/converse", false, "amazon.nova-pro-v1:0");
        check("/bedrock/model/amazon.nova-pro-v1:0/converse", Some(nova));
        check("/bedrock/model/amazon.nova-pro-v1%3A0/converse", Some(nova));
        let arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.x";
        let encoded = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse-stream";
        check(&format!("/bedrock{encoded}"), Some((encoded, true, arn)));
        check(&format!("/bedrock/model/{arn}/converse-stream"), Some((encoded, true, arn)));
        let claude = "/model/anthropic.claude/invoke-with-response-stream";
        check(&format!("/langchain/bedrock{claude}"), Some((claude, true, "anthropic.claude")));
        for path in
            ["/bedrock/model/converse", "/bedrock/model//converse", "/bedrock/model/m/other", "/bedrock/m/converse"]
        {
            check(path, None);
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in ["/", "", "/chat/completions", "/v1", "/v1/nothing", "/v1/models/", "/openaiv1/chat/completions"] {
            leads(path, Dialect::OpenAi, None);
        }
        for path in ["/anthropic/v1/complete", "/anthropic/messages", "/anthropic/v1/messages/batches", "/anthropic/"] {
            leads(path, Dialect::Anthropic, None);
        }
    }

    #[test]
    fn parts_of_paths_are_decoded() {
        let check = |part: &str, expected: Option<&str>| assert_eq!(decode(part).as_deref(), expected, "{part}");
        check("a%2Fb%3a%C3%A9", Some("a/b:é"));
        check("a+b", Some("a+b"));
        check("%", None);
        check("%2", None);
        check("%zz", None);
        check("%ff", None);
    }
}
