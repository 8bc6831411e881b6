//! Calls as they happen, priced by list and worked out by hand.
//!
//! Amounts are in nano-dollars: a price of 2.5 dollars for a million tokens is 2,500 for one.

use super::*;
use crate::governance::pricing::Patch;
use crate::governance::request::RequestKind;
use crate::governance::usage::{Pictures, Quality, SearchContext, ServiceTier, Usage};
use RequestKind::{
    ChatCompletion, Embedding, ImageEdit, ImageGeneration, Rerank, Responses, Speech, TextCompletion, Transcription,
    VideoGeneration,
};

/// Entries as LiteLLM writes them, for what the built-in table has no price of.
const OTHERS: &str = r#"{
"sample_spec": {"input_cost_per_token": "float"},
"gpt-5.4": {"litellm_provider": "openai", "mode": "chat",
    "input_cost_per_token": 2.5e-06, "input_cost_per_token_above_272k_tokens": 5e-06,
    "input_cost_per_token_flex": 1.25e-06, "input_cost_per_token_priority": 5e-06,
    "input_cost_per_token_above_272k_tokens_priority": 1e-05,
    "output_cost_per_token": 1.5e-05, "output_cost_per_token_above_272k_tokens": 2.25e-05,
    "output_cost_per_token_flex": 7.5e-06, "output_cost_per_token_priority": 3e-05,
    "output_cost_per_token_above_272k_tokens_priority": 4.5e-05,
    "cache_read_input_token_cost": 2.5e-07, "cache_read_input_token_cost_above_272k_tokens": 5e-07,
    "cache_read_input_token_cost_flex": 1.3e-07, "cache_read_input_token_cost_priority": 5e-07,
    "cache_read_input_token_cost_above_272k_tokens_priority": 1e-06,
    "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_medium": 0.02, "search_context_size_high": 0.03},
    "code_interpreter_cost_per_session": 0.03},
"gpt-5.6": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 4e-06, "output_cost_per_token": 2e-05,
    "cache_creation_input_token_cost": 5e-06, "cache_creation_input_token_cost_above_12hr": 1e-05, "cache_read_input_token_cost": 4e-07},
"gpt-image-1": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_token": 5e-06,
    "input_cost_per_image_token": 1e-05, "output_cost_per_image_token": 4e-05, "cache_read_input_image_token_cost": 2.5e-06,
    "cache_read_input_token_cost": 1.25e-06},
"dall-e-2": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_pixel": 1.9e-08, "output_cost_per_pixel": 0.0},
"dall-e-3": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_image": 0.04},
"gpt-4o-mini-tts": {"litellm_provider": "openai", "mode": "audio_speech", "input_cost_per_token": 6e-07,
    "output_cost_per_audio_token": 1.2e-05, "output_cost_per_second": 0.00025},
"amazon.titan-image-generator-v2": {"litellm_provider": "bedrock", "mode": "image_generation",
    "output_cost_per_image": 0.008, "output_cost_per_image_above_1024_and_1024_pixels": 0.01,
    "output_cost_per_image_above_1024_and_1024_pixels_and_premium_image": 0.012, "output_cost_per_image_premium_image": 0.01},
"vertex_ai/imagen-4": {"litellm_provider": "vertex_ai-image-models", "mode": "image_generation", "output_cost_per_image": 0.04},
"vertex_ai/veo-3": {"litellm_provider": "vertex_ai-video-models", "mode": "video_generation", "output_cost_per_second": 0.4,
    "output_cost_per_second_4k": 0.6},
"perplexity/sonar-pro": {"litellm_provider": "perplexity", "mode": "chat", "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05,
    "search_context_cost_per_query": {"search_context_size_low": 0.006, "search_context_size_medium": 0.01, "search_context_size_high": 0.014}},
"perplexity/sonar-deep-research": {"litellm_provider": "perplexity", "mode": "chat", "input_cost_per_token": 2e-06,
    "output_cost_per_token": 8e-06, "output_cost_per_reasoning_token": 3e-06, "search_context_cost_per_query": 0.005},
"claude-sonnet-4-5": {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05,
    "input_cost_per_token_above_200k_tokens": 6e-06, "output_cost_per_token_above_200k_tokens": 2.25e-05,
    "cache_creation_input_token_cost": 3.75e-06, "cache_creation_input_token_cost_above_200k_tokens": 7.5e-06,
    "cache_creation_input_token_cost_above_1hr": 6e-06, "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.2e-05,
    "cache_read_input_token_cost": 3e-07, "cache_read_input_token_cost_above_200k_tokens": 6e-07,
    "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_medium": 0.01, "search_context_size_high": 0.01}},
"multimodalembedding@001": {"litellm_provider": "vertex_ai-embedding-models", "mode": "embedding", "input_cost_per_character": 2e-07,
    "input_cost_per_image": 0.0001, "input_cost_per_token": 0, "input_cost_per_video_per_second": 0.0005, "output_cost_per_token": 0},
"azure/whisper-1": {"litellm_provider": "azure", "mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0001},
"replicate/tool": {"litellm_provider": "replicate", "mode": "chat", "input_cost_per_request": 0.0035, "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06}
}"#;

fn cost(catalog: &Catalog, provider: &str, model: &str, kind: RequestKind, usage: &Usage) -> i64 {
    let price = catalog.find(provider, model, model, kind);
    price.unwrap_or_else(|| panic!("{provider} {model} {kind:?}")).cost(kind, usage).get()
}

#[test]
fn calls_cost_what_the_built_in_list_says() {
    let catalog = built_in();
    let check = |(provider, model, kind): (&str, &str, RequestKind), usage: Usage, nanos: i64| {
        assert_eq!(cost(&catalog, provider, model, kind, &usage), nanos, "{provider} {model} {usage:?}");
    };
    let none = Usage::default();
    let batch = ServiceTier::Batch;

    // OpenAI. 1,200 in of which 1,024 cached, 300 out: 176 × 2,500 + 1,024 × 1,250 + 300 × 10,000.
    let chat = Usage { input: 176, cache_read: 1_024, output: 300, reasoning: 128, ..none };
    check(("openai", "gpt-4o", ChatCompletion), chat, 440_000 + 1_280_000 + 3_000_000);
    check(("openai", "gpt-4o", Responses), chat, 4_720_000);
    // Half of it in a batch; cached input has no batch price and costs what it does: 176 × 1,250 + 1,024 × 1,250 + 300 × 5,000.
    check(("openai", "gpt-4o", ChatCompletion), Usage { tier: batch, ..chat }, 220_000 + 1_280_000 + 1_500_000);
    // A cache write at 5 dollars a million and a read at 0.4: 100 × 4,000 + 2,000 × 5,000 + 3,000 × 400 + 50 × 20,000.
    let written = Usage { input: 100, cache_write: 2_000, cache_read: 3_000, output: 50, ..none };
    check(("openai", "gpt-5.6", ChatCompletion), written, 400_000 + 10_000_000 + 1_200_000 + 1_000_000);
    // Past 272,000 tokens of input, cached ones included, all of it is dearer: 2,000 × 5,000 + 271,000 × 500 + 10 × 22,500.
    let long = Usage { input: 2_000, cache_read: 271_000, output: 10, ..none };
    check(("openai", "gpt-5.4", ChatCompletion), long, 10_000_000 + 135_500_000 + 225_000);
    // Just at the threshold it is not, however much comes out: 1,000 × 2,500 + 271,000 × 250 + 9,000 × 15,000.
    let short = Usage { input: 1_000, cache_read: 271_000, output: 9_000, ..none };
    check(("openai", "gpt-5.4", ChatCompletion), short, 2_500_000 + 67_750_000 + 135_000_000);
    // Only under responses in the list, and asked for as a chat: 10 × 30,000 + 10 × 180,000.
    let ten = Usage { input: 10, output: 10, ..none };
    check(("openai", "gpt-5.4-pro", ChatCompletion), ten, 300_000 + 1_800_000);
    // Sound in a chat: 20 × 2,500 + 100 × 32,000 + 5 × 10,000 + 200 × 64,000.
    let heard = Usage { input: 20, audio_input: 100, output: 5, audio_output: 200, ..none };
    check(("openai", "gpt-audio", ChatCompletion), heard, 50_000 + 3_200_000 + 50_000 + 12_800_000);
    check(("openai", "text-embedding-3-small", Embedding), Usage { input: 8_191, ..none }, 8_191 * 20);
    check(("openai", "text-embedding-3-large", Embedding), Usage { input: 7, tier: batch, ..none }, 7 * 65);
    // A picture by tokens: 50 × 5,000 + 300 × 8,000, and 1,056 that are not split × 32,000.
    let drawn = Usage { input: 50, image_input: 300, output: 1_056, ..none };
    check(("openai", "gpt-image-1.5", ImageGeneration), drawn, 250_000 + 2_400_000 + 33_792_000);
    check(("openai", "gpt-image-1.5", ImageEdit), drawn, 36_442_000);
    // With tokens in the usage, tokens: 14 × 2,500 + 45 × 10,000; else 12.4 s × 100,000.
    let tokens = Usage { audio_input: 14, output: 45, ..none };
    check(("openai", "gpt-4o-transcribe", Transcription), tokens, 35_000 + 450_000);
    check(("openai", "gpt-4o-transcribe", Transcription), Usage { input_millis: 12_400, ..none }, 1_240_000);
    // 61.003 s × 100,000.
    check(("openai", "whisper-1", Transcription), Usage { input_millis: 61_003, ..none }, 6_100_300);
    check(("openai", "tts-1", Speech), Usage { characters: 1_000, ..none }, 1_000 * 15_000);

    // Anthropic: 21 × 3,000 + 2,051 × 3,750 + 500 × 6,000 + 188,086 × 300 + 393 × 15,000.
    let cached =
        Usage { input: 21, cache_write: 2_051, cache_write_long: 500, cache_read: 188_086, output: 393, ..none };
    let nanos = 63_000 + 7_691_250 + 3_000_000 + 56_425_800 + 5_895_000;
    check(("anthropic", "claude-sonnet-4-5", ChatCompletion), cached, nanos);
    // 1,000 × 4,000 + 100 × 8,000 + 10 × 20,000.
    let hour = Usage { input: 1_000, cache_write_long: 100, output: 10, ..none };
    check(("anthropic", "claude-opus-5-5", ChatCompletion), hour, 4_000_000 + 800_000 + 200_000);
    check(("vertex", "claude-opus-5-5", ChatCompletion), hour, 5_000_000);
    check(("bedrock", "anthropic.claude-opus-5-5", ChatCompletion), hour, 5_000_000);
    // A region without a price of its own, and the name without its publisher.
    check(("bedrock", "eu.anthropic.claude-opus-5-5", ChatCompletion), hour, 5_000_000);
    check(("bedrock", "claude-opus-5-5", ChatCompletion), hour, 5_000_000);
    check(("vertex", "anthropic/claude-opus-5-5", ChatCompletion), hour, 5_000_000);
    // One with: 1,000 × 3,300 + 100 × 6,600 + 10 × 16,500.
    check(("bedrock", "us.anthropic.claude-sonnet-4-6", ChatCompletion), hour, 3_300_000 + 660_000 + 165_000);
    // 8.75 nanos each: 26.25, of which only the sum is rounded.
    check(("bedrock", "amazon.nova-micro-v1:0", ChatCompletion), Usage { cache_read: 3, ..none }, 27);

    // Gemini. Thought costs what is written: 9 × 300 + 40 × 1,000 + 12 × 2,500 + 100 × 2,500.
    let thought = Usage { input: 9, audio_input: 40, output: 112, reasoning: 100, ..none };
    check(("gemini", "gemini-2.5-flash", ChatCompletion), thought, 2_700 + 40_000 + 280_000);
    // 200,001 × 2,500 + 5 × 15,000.
    let long = Usage { input: 200_001, output: 5, ..none };
    check(("gemini", "gemini-2.5-pro", ChatCompletion), long, 500_002_500 + 75_000);
    check(("vertex", "google/gemini-2.5-pro", Responses), long, 500_077_500);
    check(("gemini", "gemini-embedding-001", Embedding), Usage { input: 10, ..none }, 1_500);

    // The others.
    check(("azure", "us/gpt-5.4", ChatCompletion), ten, 27_500 + 165_000);
    check(("mistral", "mistral-large-4", ChatCompletion), ten, 13_600 + 41_800);
    check(("cohere", "command-r7b-12-2024", ChatCompletion), Usage { input: 3, output: 1, ..none }, 263);
    check(("cohere", "embed-v4.0", Embedding), Usage { input: 10, image_input: 100, ..none }, 1_200 + 47_000);
    // By the query alone, though its tokens are counted, too.
    check(("cohere", "rerank-v3.5", Rerank), Usage { input: 900, searches: 2, ..none }, 2 * 2_000_000);
    check(("groq", "openai/gpt-oss-120b", ChatCompletion), Usage { input: 2, cache_read: 2, ..none }, 300 + 150);
    check(("groq", "whisper-large-v3", Transcription), Usage { input_millis: 10_000, ..none }, 308_300);
    check(("cerebras", "gpt-oss-120b", TextCompletion), ten, 3_500 + 7_500);
    // 200,001 × 4,000 + 12,000, and a picture's tokens at the price that has no threshold: 2 × 2,000.
    let seen = Usage { input: 200_001, image_input: 2, output: 1, ..none };
    check(("xai", "grok-4.7", ChatCompletion), seen, 800_004_000 + 4_000 + 12_000);
    check(("perplexity", "perplexity/sonar", Responses), ten, 2_500 + 25_000);
    check(("fireworks", "kimi-k3", ChatCompletion), ten, 30_000 + 150_000);
    check(("nebius", "openai/gpt-oss-120b", ChatCompletion), ten, 1_500 + 6_000);
    check(("replicate", "openai/gpt-oss-120b", ChatCompletion), ten, 1_800 + 7_200);
    check(("elevenlabs", "eleven_multilingual_v2", Speech), Usage { characters: 250, ..none }, 250 * 80_000);
    check(("elevenlabs", "scribe_v2", Transcription), Usage { input_millis: 1_500, ..none }, 91_650);
    check(("runway", "gen4.5", VideoGeneration), Usage { output_millis: 5_000, ..none }, 600_000_000);
    // Nothing is said about them, and yet one picture came back.
    check(("runway", "gen4_image", ImageGeneration), none, 50_000_000);
}

#[test]
fn calls_cost_what_an_entry_of_any_kind_says() {
    let catalog = read(OTHERS).unwrap();
    let check = |(provider, model, kind): (&str, &str, RequestKind), usage: Usage, nanos: i64| {
        assert_eq!(cost(&catalog, provider, model, kind, &usage), nanos, "{provider} {model} {usage:?}");
    };
    let none = Usage::default();
    let picture =
        |count, width, height, quality| Usage { output_pictures: Pictures { count, width, height, quality }, ..none };
    use ServiceTier::{Batch, Flex, Priority};

    // Every lane and length of one model: 1,000 in, 1,000 cached, 100 out; and so many more in.
    let all = Usage { input: 1_000, cache_read: 1_000, output: 100, ..none };
    let gpt = ("openai", "gpt-5.4", ChatCompletion);
    check(gpt, all, 2_500_000 + 250_000 + 1_500_000);
    check(gpt, Usage { tier: Flex, ..all }, 1_250_000 + 130_000 + 750_000);
    check(gpt, Usage { tier: Priority, ..all }, 5_000_000 + 500_000 + 3_000_000);
    // It has no price for batches: the standard one.
    check(gpt, Usage { tier: Batch, ..all }, 4_250_000);
    let long = Usage { input: 300_000, ..all };
    check(gpt, long, 1_500_000_000 + 500_000 + 2_250_000);
    check(gpt, Usage { tier: Priority, ..long }, 3_000_000_000 + 1_000_000 + 4_500_000);
    // Flex has no price for long requests, and gets that of long requests.
    check(gpt, Usage { tier: Flex, ..long }, 1_502_750_000);
    // Two searches of the usual size, one large one, and a session.
    check(gpt, Usage { searches: 2, ..all }, 4_250_000 + 40_000_000);
    let large = Usage { searches: 1, search_context: SearchContext::High, sessions: 1, ..all };
    check(gpt, large, 4_250_000 + 30_000_000 + 30_000_000);
    // Written for 30 minutes and for 12 hours: 10 × 5,000 + 10 × 10,000.
    let writes = Usage { cache_write: 10, cache_write_long: 10, ..none };
    check(("openai", "gpt-5.6", Responses), writes, 150_000);
    // 4 × 5,000 + 10 × 10,000; of 100 cached, 30 of pictures: 70 × 1,250 + 30 × 2,500; 272 × 40,000.
    let drawn = Usage { input: 4, image_input: 10, cache_read: 100, cached_image: 30, image_output: 272, ..none };
    check(("openai", "gpt-image-1", ImageGeneration), drawn, 20_000 + 100_000 + 87_500 + 75_000 + 10_880_000);
    // 2 × 1,024 × 1,024 × 19.
    check(("openai", "dall-e-2", ImageGeneration), picture(2, 1_024, 1_024, Quality::Auto), 39_845_888);
    check(("openai", "dall-e-3", ImageGeneration), picture(3, 1_024, 1_024, Quality::Hd), 120_000_000);
    // 12 × 600 + 340 × 12,000; a duration beside it is not charged again.
    let spoken = Usage { input: 12, output: 340, output_millis: 5_000, ..none };
    check(("openai", "gpt-4o-mini-tts", Speech), spoken, 7_200 + 4_080_000);
    // Without tokens: 60 characters as tokens, 5 s × 250,000.
    let timed = Usage { characters: 60, output_millis: 5_000, ..none };
    check(("openai", "gpt-4o-mini-tts", Speech), timed, 36_000 + 1_250_000);
    let titan = ("bedrock", "us.amazon.titan-image-generator-v2", ImageGeneration);
    check(titan, picture(1, 512, 512, Quality::Standard), 8_000_000);
    check(titan, picture(2, 1_024, 1_024, Quality::Standard), 20_000_000);
    check(titan, picture(1, 512, 512, Quality::Hd), 10_000_000);
    check(titan, picture(1, 2_048, 1_024, Quality::Hd), 12_000_000);
    check(("gemini", "imagen-4", ImageEdit), picture(4, 0, 0, Quality::Auto), 160_000_000);
    check(("vertex", "veo-3", VideoGeneration), Usage { output_millis: 8_000, ..none }, 3_200_000_000);
    let film = Usage { output_millis: 8_000, ..picture(0, 3_840, 2_160, Quality::Auto) };
    check(("vertex", "veo-3", VideoGeneration), film, 4_800_000_000);
    // 100 × 3,000 + 200 × 15,000 + a search.
    let asked = Usage { input: 100, output: 200, searches: 1, ..none };
    check(("perplexity", "sonar-pro", ChatCompletion), asked, 300_000 + 3_000_000 + 10_000_000);
    // 10 × 2,000 + 50 written × 8,000 + 950 thought × 3,000 + 18 searches × 5,000,000.
    let deep = Usage { input: 10, output: 1_000, reasoning: 950, searches: 18, ..none };
    check(("perplexity", "sonar-deep-research", ChatCompletion), deep, 20_000 + 400_000 + 2_850_000 + 90_000_000);
    // Past 200,000: 1 × 6,000 + 200,000 × 600 + 10 × 7,500 + 20 × 12,000 + 3 × 22,500 + a search.
    let claude =
        Usage { input: 1, cache_read: 200_000, cache_write: 10, cache_write_long: 20, output: 3, searches: 1, ..none };
    let nanos = 6_000 + 120_000_000 + 75_000 + 240_000 + 67_500 + 10_000_000;
    check(("anthropic", "claude-sonnet-4-5", ChatCompletion), claude, nanos);
    let seen = Usage { input_pictures: Pictures { count: 3, ..Pictures::default() }, ..none };
    check(("vertex", "multimodalembedding@001", Embedding), seen, 300_000);
    check(("vertex", "multimodalembedding@001", Embedding), Usage { characters: 50, input: 12, ..none }, 10_000);
    // The list writes the same price in both directions; one of them is charged.
    check(("azure", "whisper-1", Transcription), Usage { input_millis: 10_000, ..none }, 1_000_000);
    check(("replicate", "tool", ChatCompletion), Usage { input: 5, output: 5, ..none }, 10_000 + 3_500_000);
}

#[test]
fn an_override_changes_what_it_names_and_no_more() {
    let catalog = built_in();
    let cost = |model: &str, kind, patch: &[(&'static str, &str)], usage: Usage| {
        let patch = patch.iter().map(|(name, dollars)| (*name, Rate::from_dollars(dollars).unwrap()));
        let base = catalog.find("openai", model, model, kind).map(|price| &**price);
        Price::patched(base, &Patch::of(&patch.collect()), kind).map(|price| price.cost(kind, &usage).get())
    };
    let none = Usage::default();
    let chat = Usage { input: 100, cache_read: 100, output: 10, ..none };
    // 100 × 2,500 + 100 × 1,250 + 10 × 10,000, and each price in turn.
    assert_eq!(cost("gpt-4o", ChatCompletion, &[], chat), Some(475_000));
    assert_eq!(cost("gpt-4o", ChatCompletion, &[("input_cost_per_token", "0")], chat), Some(225_000));
    assert_eq!(cost("gpt-4o", ChatCompletion, &[("cache_read_input_token_cost", "0")], chat), Some(350_000));
    let priority = [("input_cost_per_token_priority", "1e-05"), ("output_cost_per_token_priority", "2e-05")];
    let hurried = Usage { tier: ServiceTier::Priority, ..chat };
    assert_eq!(cost("gpt-4o", ChatCompletion, &priority, hurried), Some(1_000_000 + 125_000 + 200_000));
    let search = [("search_context_cost_per_query", "0.01")];
    assert_eq!(cost("gpt-4o", ChatCompletion, &search, Usage { searches: 3, ..chat }), Some(30_475_000));
    assert_eq!(
        cost("tts-1", Speech, &[("input_cost_per_character", "1e-06")], Usage { characters: 9, ..none }),
        Some(9_000)
    );
    assert_eq!(
        cost("whisper-1", Transcription, &[("input_cost_per_second", "0")], Usage { input_millis: 9, ..none }),
        Some(0)
    );
    // A model that no list knows.
    let own = [("output_cost_per_image_high_quality", "0.2"), ("output_cost_per_image", "0.1")];
    let high = Usage { output_pictures: Pictures { count: 2, quality: Quality::High, ..Pictures::default() }, ..none };
    assert_eq!(cost("our-painter", ImageGeneration, &own, high), Some(400_000_000));
    assert_eq!(cost("our-painter", ImageGeneration, &own, none), Some(100_000_000));
    assert_eq!(cost("our-painter", ChatCompletion, &own, none), None);
}
