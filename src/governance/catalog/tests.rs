use super::*;

fn catalog(entries: &[(&str, &str, Option<Mode>, u64)]) -> Catalog {
    let mut catalog = Catalog::default();
    for (provider, model, mode, rate) in entries {
        catalog.insert(provider, model, *mode, Price::named([("input_cost_per_token", Rate::new(*rate))]));
    }
    catalog
}

#[test]
fn an_entry_is_found_by_the_chain() {
    use RequestKind as Kind;
    let catalog = catalog(&[
        ("openai", "gpt", Some(Mode::Chat), 1),
        ("openai", "pro", Some(Mode::Responses), 2),
        ("openai", "both", Some(Mode::Chat), 3),
        ("openai", "both", Some(Mode::Responses), 4),
        ("openai", "instruct", Some(Mode::Completion), 5),
        ("openai", "tts", Some(Mode::Speech), 6),
        ("openai", "draw", Some(Mode::ImageGeneration), 7),
        ("openai", "edit", Some(Mode::ImageEdit), 8),
        ("openai", "anything", None, 9),
        ("gemini", "own", Some(Mode::Chat), 10),
        ("vertex", "own", Some(Mode::Chat), 11),
        ("vertex", "flash", Some(Mode::Chat), 12),
        ("vertex", "imagen", Some(Mode::ImageGeneration), 13),
        ("bedrock", "anthropic.claude-9", Some(Mode::Chat), 14),
        ("bedrock", "us.anthropic.claude-9", Some(Mode::Chat), 15),
        ("bedrock", "amazon.nova", Some(Mode::Chat), 16),
        ("fireworks", "accounts/fireworks/models/long", Some(Mode::Chat), 17),
        ("fireworks", "short", Some(Mode::Chat), 18),
        ("azure", "gpt", Some(Mode::Chat), 19),
        ("runway", "film", Some(Mode::VideoGeneration), 20),
        ("cohere", "rank", Some(Mode::Rerank), 21),
        ("openai", "whisper", Some(Mode::Transcription), 22),
        ("openai", "embed", Some(Mode::Embedding), 23),
    ]);
    let check = |provider: &str, model: &str, kind: RequestKind, rate: Option<u64>| {
        let found = catalog.find(provider, model, model, kind);
        let found = found.map(|price| price.declared(Field::of(Unit::Input)).unwrap().get());
        assert_eq!(found, rate, "{provider} {model} {kind:?}");
    };
    check("openai", "gpt", Kind::ChatCompletion, Some(1));
    check("openai", "gpt", Kind::Responses, Some(1));
    check("openai", "pro", Kind::Responses, Some(2));
    check("openai", "pro", Kind::ChatCompletion, Some(2));
    check("openai", "both", Kind::ChatCompletion, Some(3));
    check("openai", "both", Kind::Responses, Some(4));
    check("openai", "instruct", Kind::TextCompletion, Some(5));
    check("openai", "gpt", Kind::TextCompletion, Some(1));
    check("openai", "tts", Kind::Speech, Some(6));
    check("openai", "whisper", Kind::Transcription, Some(22));
    check("openai", "embed", Kind::Embedding, Some(23));
    check("cohere", "rank", Kind::Rerank, Some(21));
    // What a model is not priced for is not guessed.
    check("openai", "tts", Kind::ChatCompletion, None);
    check("openai", "gpt", Kind::Embedding, None);
    check("openai", "gpt", Kind::ImageGeneration, None);
    check("openai", "gpt", Kind::ListModels, None);
    check("openai", "draw", Kind::ImageGeneration, Some(7));
    check("openai", "draw", Kind::ImageEdit, Some(7));
    check("openai", "draw", Kind::ImageVariation, Some(7));
    check("openai", "edit", Kind::ImageEdit, Some(8));
    check("openai", "edit", Kind::ImageGeneration, None);
    check("openai", "anything", Kind::Speech, Some(9));
    check("runway", "film", Kind::VideoGeneration, Some(20));
    check("runway", "film", Kind::VideoRemix, Some(20));
    // Gemini's models are Vertex's, but its own price comes first.
    check("gemini", "own", Kind::Responses, Some(10));
    check("gemini", "flash", Kind::Responses, Some(12));
    check("gemini", "imagen", Kind::ImageEdit, Some(13));
    check("vertex", "google/flash", Kind::ChatCompletion, Some(12));
    check("vertex", "a/b/flash", Kind::ChatCompletion, None);
    check("bedrock", "us.anthropic.claude-9", Kind::ChatCompletion, Some(15));
    check("bedrock", "eu.anthropic.claude-9", Kind::ChatCompletion, Some(14));
    check("bedrock", "claude-9", Kind::Responses, Some(14));
    check("bedrock", "global.claude-9", Kind::ChatCompletion, Some(14));
    check("bedrock", "apac.amazon.nova", Kind::ChatCompletion, Some(16));
    check("bedrock", "mars.amazon.nova", Kind::ChatCompletion, None);
    check("bedrock", "nova", Kind::ChatCompletion, None);
    check("fireworks", "long", Kind::ChatCompletion, Some(17));
    check("fireworks", "accounts/fireworks/models/short", Kind::ChatCompletion, Some(18));
    check("groq", "gpt", Kind::ChatCompletion, None);
    // The deployment that a key maps the model to takes the same steps, after the model's own name.
    let mapped = |provider: &str, model: &str, deployment: &str| {
        let found = catalog.find(provider, model, deployment, Kind::ChatCompletion);
        found.map(|price| price.declared(Field::of(Unit::Input)).unwrap().get())
    };
    assert_eq!(mapped("azure", "our-gpt", "gpt"), Some(19));
    assert_eq!(mapped("azure", "gpt", "our-gpt"), Some(19));
    assert_eq!(mapped("bedrock", "smart", "eu.anthropic.claude-9"), Some(14));
    assert_eq!(mapped("azure", "ours", "theirs"), None);
}

#[test]
fn what_looks_wrong_is_named() {
    let chat = Some(Mode::Chat);
    let before = catalog(&[
        ("openai", "same", chat, 1_000),
        ("openai", "up", chat, 1_000),
        ("openai", "down", chat, 10_001),
        ("openai", "ten", chat, 1_000),
        ("openai", "free", chat, 1_000),
        ("openai", "mode", Some(Mode::Embedding), 1_000),
    ]);
    let after = catalog(&[
        ("openai", "same", chat, 1_000),
        ("openai", "up", chat, 11_000),
        ("openai", "down", chat, 1_000),
        ("openai", "ten", chat, 10_000),
        ("openai", "free", chat, 0),
        ("openai", "mode", chat, 1),
        ("openai", "new", chat, 200_000_000),
        ("openai", "odd", chat, 200_000_001),
    ]);
    assert_eq!(after.moved(&before), ["openai/down", "openai/free", "openai/up"]);
    assert_eq!(before.moved(&after), ["openai/down", "openai/free", "openai/up"]);
    assert_eq!(after.implausible(), ["openai/odd"]);
    assert_eq!((before.implausible(), after.len()), (Vec::<String>::new(), 8));
}
