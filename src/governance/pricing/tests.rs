use super::*;

const INPUT: &str = "input_cost_per_token";
const OUTPUT: &str = "output_cost_per_token";

fn price(fields: &[(&'static str, u64)]) -> Price {
    Price::named(fields.iter().map(|(name, rate)| (*name, Rate::new(*rate))))
}

fn patch(fields: &[(&'static str, u64)]) -> Patch {
    Patch::of(&fields.iter().map(|(name, rate)| (*name, Rate::new(*rate))).collect())
}

#[test]
fn a_gap_is_filled_from_what_is_nearest() {
    let price = price(&[
        (INPUT, 10),
        (OUTPUT, 20),
        ("cache_creation_input_token_cost", 12),
        ("input_cost_per_token_priority", 30),
        ("input_cost_per_token_above_200k_tokens", 40),
        ("input_cost_per_token_above_272k_tokens", 50),
        ("input_cost_per_token_above_200k_tokens_priority", 60),
        ("output_cost_per_token_above_272k_tokens_priority", 70),
        ("output_cost_per_token_flex", 5),
    ]);
    use ServiceTier::{Batch, Flex, Priority, Standard};
    let check = |input_total: u64, tier: ServiceTier, unit: Unit, rate: u64| {
        let found = price.row(input_total, tier).tokens[unit as usize];
        assert_eq!(found, Rate::new(rate), "{input_total} {tier:?} {unit:?}");
    };
    check(0, Standard, Unit::Input, 10);
    check(200_000, Standard, Unit::Input, 10);
    check(200_001, Standard, Unit::Input, 40);
    check(272_001, Standard, Unit::Input, 50);
    check(u64::MAX, Standard, Unit::Input, 50);
    // What is like it: cached input costs what input costs there, unless it has a price somewhere.
    check(272_001, Standard, Unit::CacheRead, 50);
    check(272_001, Standard, Unit::CacheWrite, 12);
    check(272_001, Standard, Unit::CacheWriteLong, 12);
    check(0, Standard, Unit::AudioInput, 10);
    check(0, Standard, Unit::Reasoning, 20);
    check(0, Standard, Unit::ImageOutput, 20);
    // A lane of its own, and the two together.
    check(0, Priority, Unit::Input, 30);
    check(200_001, Priority, Unit::Input, 60);
    // The higher threshold comes before the lane: that price is nearer to this request.
    check(272_001, Priority, Unit::Input, 50);
    check(272_001, Priority, Unit::Output, 70);
    check(200_001, Priority, Unit::Output, 20);
    check(0, Flex, Unit::Output, 5);
    check(0, Flex, Unit::Input, 10);
    check(300_000, Flex, Unit::Output, 5);
    // A lane without any price is the standard one.
    check(300_000, Batch, Unit::Input, 50);
    check(0, Batch, Unit::Output, 20);
}

#[test]
fn nothing_is_priced_by_no_prices() {
    let price = Price::named([("mode", Rate::new(1)), ("input_cost_per_token_ultrafast", Rate::new(1))]);
    assert_eq!(price, Price { rows: price.rows.clone(), ..Price::default() });
    assert_eq!(price.row(u64::MAX, ServiceTier::Flex).tokens, [Rate::ZERO; TOKENS]);
    assert_eq!(Price::default().row(1, ServiceTier::Standard).tokens, [Rate::ZERO; TOKENS]);
}

#[test]
fn of_two_prices_for_one_place_the_dearer_holds() {
    let names = ["cache_creation_input_token_cost_above_1hr", "cache_creation_input_token_cost_above_12hr"];
    for (one, other) in [(1, 2), (2, 1)] {
        let price = price(&[(names[0], one), (names[1], other)]);
        assert_eq!(price.declared(Field::of(Unit::CacheWriteLong)), Some(Rate::new(2)));
    }
}

#[test]
fn units_beside_tokens_have_lanes_and_lengths_too() {
    let price = price(&[
        ("input_cost_per_image", 1),
        ("input_cost_per_image_above_128k_tokens", 2),
        ("input_cost_per_image_batches", 3),
        ("code_interpreter_cost_per_session", 4),
    ]);
    let check = |unit, input_total, tier, rate: Option<u64>| {
        assert_eq!(price.rare(unit, input_total, tier), rate.map(Rate::new), "{unit:?} {input_total} {tier:?}");
    };
    check(Unit::InputImage, 128_000, ServiceTier::Standard, Some(1));
    check(Unit::InputImage, 128_001, ServiceTier::Standard, Some(2));
    check(Unit::InputImage, 0, ServiceTier::Batch, Some(3));
    check(Unit::Session, 128_001, ServiceTier::Priority, Some(4));
    check(Unit::InputSecond, 0, ServiceTier::Standard, None);
}

#[test]
fn an_override_replaces_what_it_names() {
    let base = price(&[(INPUT, 10), (OUTPUT, 20), ("input_cost_per_token_above_200k_tokens", 40)]);
    let base = base.within(Some(400_000), Some(9));
    let patched = |fields: &[(&'static str, u64)]| {
        Price::patched(Some(&base), &patch(fields), RequestKind::ChatCompletion).unwrap()
    };
    assert_eq!(patched(&[]), base);
    let free = patched(&[(INPUT, 0), ("input_cost_per_image", 7)]);
    assert_eq!((free.input_tokens_max, free.output_tokens_max), (Some(400_000), Some(9)));
    assert_eq!(free.row(0, ServiceTier::Standard).tokens[0], Rate::ZERO);
    // A threshold keeps its own price, and a new one stands between the others.
    assert_eq!(free.row(200_001, ServiceTier::Standard).tokens[0], Rate::new(40));
    assert_eq!(free.rare(Unit::InputImage, 0, ServiceTier::Standard), Some(Rate::new(7)));
    let between = patched(&[("input_cost_per_token_above_128k_tokens", 15)]);
    let at = |input_total| between.row(input_total, ServiceTier::Standard).tokens[0].get();
    assert_eq!([1, 128_001, 200_001].map(at), [10, 15, 40]);
}

#[test]
fn an_override_alone_is_a_price_if_it_leaves_nothing_out() {
    use RequestKind::{
        ChatCompletion, Embedding, ImageEdit, ImageGeneration, ImageVariation, Rerank, Responses, Speech,
        TextCompletion, Transcription, VideoGeneration, VideoRemix,
    };
    let check = |kinds: &[RequestKind], fields: &[&'static str], whole: bool| {
        let fields: Vec<(&'static str, u64)> = fields.iter().map(|name| (*name, 1)).collect();
        for kind in kinds {
            let price = Price::patched(None, &patch(&fields), *kind);
            assert_eq!(price.is_some(), whole, "{kind:?} {fields:?}");
        }
    };
    let text = [ChatCompletion, TextCompletion, Responses];
    let drawn = [ImageGeneration, ImageEdit, ImageVariation];
    let film = [VideoGeneration, VideoRemix];
    check(&text, &[INPUT, OUTPUT], true);
    check(&text, &[INPUT], false);
    check(&text, &[OUTPUT], false);
    check(&text, &[INPUT, "output_cost_per_token_batches"], false);
    check(&text, &["input_cost_per_token_priority", "output_cost_per_token_priority"], false);
    check(&text, &["input_cost_per_image"], false);
    check(&text, &[], false);
    check(&[Embedding, Rerank], &[INPUT], true);
    check(&[Embedding, Rerank], &[OUTPUT], false);
    check(&[Rerank], &["input_cost_per_query"], true);
    check(&[Rerank], &["search_context_cost_per_query"], true);
    check(&[Embedding], &["input_cost_per_query"], false);
    check(&[Speech], &["input_cost_per_character"], true);
    check(&[Speech], &["output_cost_per_second"], true);
    check(&[Speech], &[INPUT], false);
    check(&[Speech], &[INPUT, "output_cost_per_audio_token"], true);
    check(&[Transcription], &["input_cost_per_second"], true);
    check(&[Transcription], &["input_cost_per_audio_per_second"], true);
    check(&[Transcription], &["input_cost_per_audio_token", OUTPUT], true);
    check(&[Transcription], &["output_cost_per_second"], false);
    for picture in ["output_cost_per_image", "output_cost_per_image_low_quality", "output_cost_per_pixel"] {
        check(&drawn, &[picture], true);
        check(&text, &[picture], false);
    }
    check(&drawn, &[INPUT, "output_cost_per_image_token"], true);
    check(&drawn, &["input_cost_per_image"], false);
    for second in ["output_cost_per_second", "output_cost_per_video_per_second", "output_cost_per_second_1080p"] {
        check(&film, &[second], true);
        check(&drawn, &[second], false);
    }
    check(&film, &["input_cost_per_video_per_second"], false);
}
