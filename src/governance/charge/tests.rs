use super::*;
use crate::governance::usage::{SearchContext, ServiceTier};
use RequestKind::{
    ChatCompletion, Embedding, ImageEdit, ImageGeneration, ImageVariation, Rerank, Responses, Speech, Transcription,
    VideoGeneration, VideoRemix,
};
use proptest::prelude::*;

type Fields = [(&'static str, u64)];

const INPUT: &str = "input_cost_per_token";
const OUTPUT: &str = "output_cost_per_token";
const TEXT: [(&str, u64); 2] = [(INPUT, 10), (OUTPUT, 100)];

fn price(fields: &Fields) -> Price {
    Price::named(fields.iter().map(|(name, rate)| (*name, Rate::new(*rate))))
}

fn with<'a>(more: &[(&'a str, u64)]) -> Vec<(&'a str, u64)> {
    [&TEXT[..], more].concat()
}

/// The parts of a cost in picos, by unit.
fn check(kind: RequestKind, fields: &[(&'static str, u64)], usage: Usage, parts: &[(&str, u128)]) {
    let price = price(fields);
    let found = price.parts(kind, &usage);
    let told: Vec<(&str, u128)> = found.iter().map(|part| (part.unit, part.amount.get())).collect();
    assert_eq!(told, parts, "{kind:?} {fields:?} {usage:?}");
    let sum: Picos = found.iter().map(|part| part.amount).sum();
    assert_eq!(price.cost(kind, &usage), sum.round_up());
    for part in found {
        assert_eq!(part.rate.times(part.count).div_ceil(part.per), part.amount);
    }
}

fn pictures(count: u32, width: u16, height: u16, quality: Quality) -> Pictures {
    Pictures { count, width, height, quality }
}

#[test]
fn text_is_charged_by_the_token() {
    let usage = Usage { input: 7, cache_read: 5, output: 9, reasoning: 4, ..Usage::default() };
    for kind in [ChatCompletion, Responses, RequestKind::TextCompletion] {
        check(kind, &TEXT, usage, &[("input", 70), ("cache_read", 50), ("output", 900)]);
        check(kind, &TEXT, Usage::default(), &[]);
        // Pictures and seconds that came with a call have tokens of their own.
        let odd = Usage { characters: 9, input_millis: 9, input_pictures: pictures(1, 9, 9, Quality::Low), ..usage };
        let other = with(&[("input_cost_per_image", 1), ("input_cost_per_second", 1), ("input_cost_per_character", 1)]);
        check(kind, &other, odd, &[("input", 70), ("cache_read", 50), ("output", 900)]);
    }
    // What is thought is a part of the output, and has a price of its own or that of the output.
    let reasoning = with(&[("output_cost_per_reasoning_token", 300)]);
    check(
        ChatCompletion,
        &reasoning,
        Usage { input: 0, cache_read: 0, ..usage },
        &[("output", 500), ("reasoning", 1_200)],
    );
    let absurd = Usage { reasoning: 99, output: 9, ..Usage::default() };
    check(ChatCompletion, &reasoning, absurd, &[("reasoning", 2_700)]);
    let all = Usage {
        cache_write: 2,
        cache_write_long: 3,
        audio_input: 4,
        image_input: 5,
        audio_output: 6,
        image_output: 7,
        ..Usage::default()
    };
    let same = [
        ("cache_write", 20),
        ("cache_write_long", 30),
        ("audio_input", 40),
        ("image_input", 50),
        ("audio_output", 600),
        ("image_output", 700),
    ];
    check(ChatCompletion, &TEXT, all, &same);
    let own = with(&[
        ("cache_creation_input_token_cost", 11),
        ("cache_creation_input_token_cost_above_12hr", 12),
        ("input_cost_per_audio_token", 13),
        ("input_cost_per_image_token", 14),
        ("output_cost_per_audio_token", 15),
        ("output_cost_per_image_token", 16),
    ]);
    let other = [
        ("cache_write", 22),
        ("cache_write_long", 36),
        ("audio_input", 52),
        ("image_input", 70),
        ("audio_output", 90),
        ("image_output", 112),
    ];
    check(ChatCompletion, &own, all, &other);
}

#[test]
fn cached_tokens_of_sound_and_pictures_are_told_apart_where_they_have_a_price() {
    let usage = Usage {
        cache_read: 10,
        cache_write: 8,
        cached_audio: 2,
        cached_image: 3,
        written_audio: 9,
        ..Usage::default()
    };
    let read = ("cache_read_input_token_cost", 1);
    check(ChatCompletion, &with(&[read]), usage, &[("cache_read", 10), ("cache_write", 80)]);
    let own = with(&[
        read,
        ("cache_read_input_audio_token_cost", 5),
        ("cache_read_input_image_token_cost", 7),
        ("cache_creation_input_audio_token_cost", 9),
    ]);
    // No more of them are written than are written in all.
    let parts = [("cached_audio", 10), ("cached_image", 21), ("written_audio", 72), ("cache_read", 5)];
    check(ChatCompletion, &own, usage, &parts);
}

#[test]
fn services_come_on_top_of_any_kind() {
    let usage = Usage { input: 1, searches: 2, sessions: 3, ..Usage::default() };
    let fields = with(&[
        ("search_context_cost_per_query", 1_000),
        ("code_interpreter_cost_per_session", 2_000),
        ("input_cost_per_request", 5_000),
    ]);
    let parts = [("input", 10), ("searches", 2_000), ("sessions", 6_000), ("request", 5_000)];
    for kind in [ChatCompletion, Embedding, Rerank, VideoRemix] {
        check(kind, &fields, usage, &parts);
    }
    check(ChatCompletion, &fields, Usage::default(), &[("request", 5_000)]);
    // A search of a rerank is a query before it is a web search, and the other way about.
    let both = [("search_context_cost_per_query", 3), ("input_cost_per_query", 4)];
    check(ChatCompletion, &both, Usage { searches: 1, ..Usage::default() }, &[("searches", 3)]);
    check(Rerank, &both, Usage { searches: 1, ..Usage::default() }, &[("searches", 4)]);
    check(Rerank, &both[..1], Usage { searches: 1, ..Usage::default() }, &[("searches", 3)]);
    check(ChatCompletion, &both[1..], Usage { searches: 1, ..Usage::default() }, &[("searches", 4)]);
    let sized = Price::of([(crate::governance::price_field::Field::of(Unit::SearchHigh), Rate::new(9))]);
    let search =
        |search_context| sized.cost(ChatCompletion, &Usage { searches: 1_000, search_context, ..Usage::default() });
    assert_eq!([SearchContext::High, SearchContext::Low].map(search), [Nanos::new(9), Nanos::ZERO]);
}

#[test]
fn speech_is_charged_by_the_character_before_the_token() {
    let character = ("input_cost_per_character", 5);
    let usage = Usage { characters: 100, ..Usage::default() };
    check(Speech, &[character], usage, &[("characters", 500)]);
    check(Speech, &with(&[character]), Usage { input: 30, ..usage }, &[("characters", 500)]);
    // Without a price by the character, tokens; and characters for tokens only if there are none.
    check(Speech, &TEXT, usage, &[("characters", 1_000)]);
    check(Speech, &TEXT, Usage { input: 30, ..usage }, &[("input", 300)]);
    check(Speech, &with(&[character]), Usage { input: 30, ..Usage::default() }, &[("input", 300)]);
    let spoken = Usage { output: 3, output_millis: 1_500, ..Usage::default() };
    let (audio, second) = (("output_cost_per_audio_token", 7), ("output_cost_per_second", 1_000));
    check(Speech, &with(&[audio, second]), spoken, &[("audio_output", 21)]);
    check(Speech, &with(&[second]), spoken, &[("audio_output", 300)]);
    check(Speech, &[character, second], spoken, &[("output_millis", 1_500)]);
    check(Speech, &[second], Usage { output_millis: 1, ..Usage::default() }, &[("output_millis", 1)]);
    check(
        Speech,
        &[("output_cost_per_second", 1)],
        Usage { output_millis: 1, ..Usage::default() },
        &[("output_millis", 1)],
    );
}

#[test]
fn transcription_is_charged_by_the_token_before_the_second() {
    let (second, audio) = (("input_cost_per_second", 1_000), ("input_cost_per_audio_token", 20));
    let heard = Usage { input_millis: 12_400, ..Usage::default() };
    let split = Usage { audio_input: 5, input: 2, output: 1, ..heard };
    check(Transcription, &with(&[audio, second]), split, &[("input", 20), ("audio_input", 100), ("output", 100)]);
    check(Transcription, &TEXT, split, &[("input", 20), ("audio_input", 50), ("output", 100)]);
    check(Transcription, &with(&[audio, second]), heard, &[("input_millis", 12_400)]);
    check(Transcription, &[second], split, &[("input_millis", 12_400)]);
    let own = [second, ("input_cost_per_audio_per_second", 2_000), ("output_cost_per_second", 9_000)];
    // What is written in both directions is charged in one.
    check(Transcription, &own, heard, &[("input_millis", 24_800)]);
}

#[test]
fn pictures_are_charged_by_token_then_pixel_then_picture() {
    let (pixel, image) = (("output_cost_per_pixel", 3), ("output_cost_per_image", 1_000));
    let drawn = Usage { output_pictures: pictures(2, 10, 20, Quality::Auto), ..Usage::default() };
    for kind in [ImageGeneration, ImageEdit, ImageVariation] {
        check(kind, &[pixel, image], drawn, &[("output_pixels", 1_200)]);
        check(kind, &[image], drawn, &[("output_pictures", 2_000)]);
        check(
            kind,
            &[pixel, image],
            Usage { output_pictures: pictures(2, 0, 0, Quality::Auto), ..drawn },
            &[("output_pictures", 2_000)],
        );
        // One at least, also when the answer says nothing.
        check(kind, &[image], Usage::default(), &[("output_pictures", 1_000)]);
        let counted = Usage { input: 1, image_input: 2, output: 30, ..drawn };
        // What is not split is all pictures.
        let tokens = with(&[image, ("output_cost_per_image_token", 200), ("input_cost_per_image_token", 20)]);
        check(kind, &tokens, counted, &[("input", 10), ("image_input", 40), ("image_output", 6_000)]);
        let split = Usage { image_output: 5, ..counted };
        check(kind, &tokens, split, &[("input", 10), ("image_input", 40), ("output", 3_000), ("image_output", 1_000)]);
        check(kind, &TEXT, split, &[("input", 10), ("image_input", 20), ("output", 3_000), ("image_output", 500)]);
        check(kind, &[(INPUT, 10), image], counted, &[("input", 10), ("image_input", 20), ("output_pictures", 2_000)]);
        let sent = Usage { input_pictures: pictures(3, 2, 5, Quality::Auto), ..Usage::default() };
        check(kind, &[("input_cost_per_pixel", 7), ("input_cost_per_image", 11)], sent, &[("input_pixels", 210)]);
        check(kind, &[("input_cost_per_image", 11)], sent, &[("input_pictures", 33)]);
    }
    // A picture in a chat is charged by its tokens.
    check(ChatCompletion, &with(&[image]), Usage { image_output: 5, ..drawn }, &[("image_output", 500)]);
}

#[test]
fn a_picture_costs_by_quality_then_size() {
    let all = [
        ("output_cost_per_image", 1),
        ("output_cost_per_image_low_quality", 2),
        ("output_cost_per_image_medium_quality", 3),
        ("output_cost_per_image_high_quality", 4),
        ("output_cost_per_image_auto_quality", 5),
        ("output_cost_per_image_premium_image", 6),
        ("output_cost_per_image_above_512_and_512_pixels", 7),
        ("output_cost_per_image_above_1024_and_1024_pixels", 8),
        ("output_cost_per_image_above_2048_and_2048_pixels", 9),
        ("output_cost_per_image_above_4096_and_4096_pixels", 10),
        ("output_cost_per_image_above_512_and_512_pixels_and_premium_image", 11),
        ("output_cost_per_image_above_1024_and_1024_pixels_and_premium_image", 12),
    ];
    let rate = |fields: &[(&'static str, u64)], (width, height): (u16, u16), quality: Quality| {
        let usage = Usage { output_pictures: pictures(1, width, height, quality), ..Usage::default() };
        let parts = price(fields).parts(ImageGeneration, &usage);
        parts.first().map_or(0, |part| part.rate.get())
    };
    use Quality::{Auto, Hd, High, Low, Medium, Standard};
    let small = (511, 512);
    for (quality, wanted) in [(Low, 2), (Medium, 3), (High, 4), (Auto, 5), (Standard, 1), (Hd, 6)] {
        assert_eq!(rate(&all, small, quality), wanted, "{quality:?}");
    }
    // By area: 256 × 1024 reaches 512 × 512.
    for (size, wanted) in [
        ((256, 1_024), 7),
        ((1_024, 1_023), 7),
        ((1_024, 1_024), 8),
        ((4_096, 1_024), 9),
        ((4_096, 4_096), 10),
        ((u16::MAX, u16::MAX), 10),
    ] {
        assert_eq!(rate(&all, size, Standard), wanted, "{size:?}");
    }
    for (size, wanted) in [((512, 512), 11), ((1_024, 1_024), 12), ((4_096, 4_096), 12), ((0, 0), 6)] {
        assert_eq!(rate(&all, size, Hd), wanted, "{size:?}");
    }
    // Without prices by quality, by size; and without those, by the picture.
    let sizes = [&all[..1], &all[6..10]].concat();
    for quality in Quality::ALL {
        assert_eq!(rate(&sizes, (1_024, 1_024), quality), 8, "{quality:?}");
        assert_eq!(rate(&all[..1], (1_024, 1_024), quality), 1, "{quality:?}");
    }
    // Nobody knows the quality and no price is for that: not free, but the dearest.
    assert_eq!(rate(&all[1..4], small, Auto), 4);
}

#[test]
fn film_is_charged_by_the_second() {
    let usage = Usage { input_millis: 2_000, output_millis: 8_001, ..Usage::default() };
    let (sent, made, plain) = (
        ("input_cost_per_video_per_second", 100),
        ("output_cost_per_video_per_second", 1_000),
        ("output_cost_per_second", 500),
    );
    for kind in [VideoGeneration, VideoRemix] {
        check(kind, &[sent, made, plain], usage, &[("input_millis", 200), ("output_millis", 8_001)]);
        // 8.001 s × 500 picos = 4,000.5, rounded up.
        check(kind, &[plain], usage, &[("output_millis", 4_001)]);
        let counted = Usage { input: 5, output: 2, ..usage };
        check(kind, &with(&[sent, made]), counted, &[("input", 50), ("output", 200)]);
        check(kind, &[(INPUT, 10), made], counted, &[("input", 50), ("output_millis", 8_001)]);
    }
    let sized = [
        plain,
        ("output_cost_per_second_720p", 600),
        ("output_cost_per_second_1080p", 700),
        ("output_cost_per_second_4k", 900),
    ];
    for ((width, height), wanted) in
        [((0, 0), 500), ((1_280, 719), 500), ((1_280, 720), 600), ((1_080, 1_920), 700), ((3_840, 2_160), 900)]
    {
        let usage = Usage {
            output_millis: 1_000,
            output_pictures: pictures(0, width, height, Quality::Auto),
            ..Usage::default()
        };
        check(VideoGeneration, &sized, usage, &[("output_millis", wanted)]);
    }
    let usage = Usage { output_millis: 1_000, ..Usage::default() };
    check(VideoGeneration, &sized[1..], usage, &[("output_millis", 900)]);
}

#[test]
fn embeddings_are_charged_by_what_they_are_made_of() {
    let (image, character, film) =
        (("input_cost_per_image", 9), ("input_cost_per_character", 2), ("input_cost_per_video_per_second", 1_000));
    let text = Usage { input: 5, image_input: 3, ..Usage::default() };
    check(Embedding, &TEXT, text, &[("input", 50), ("image_input", 30)]);
    check(Embedding, &[image, character, film], Usage { characters: 4, ..Usage::default() }, &[("characters", 8)]);
    let shown = Usage { input_pictures: pictures(2, 0, 0, Quality::Auto), ..Usage::default() };
    check(Embedding, &[image, character, film], shown, &[("input_pictures", 18)]);
    let played = Usage { input_millis: 500, ..Usage::default() };
    check(Embedding, &[image, character, film], played, &[("input_millis", 500)]);
}

#[test]
fn a_reported_cost_is_weighed() {
    let price = price(&[(INPUT, 1_000_000), (OUTPUT, 2_000_000)]);
    // A million tokens at 1,000 nanos each: a dollar.
    let usage = |cost: Option<i64>| Usage { input: 1_000_000, reported_cost: cost.map(Nanos::new), ..Usage::default() };
    let check = |price: Option<&Price>, cost: Option<i64>, expected: Reported| {
        assert_eq!(reported(price, ChatCompletion, &usage(cost)), expected, "{cost:?}");
    };
    const DOLLAR: i64 = 1_000_000_000;
    check(Some(&price), None, Reported::Not);
    check(Some(&price), Some(0), Reported::Not);
    check(Some(&price), Some(-5), Reported::Not);
    check(Some(&price), Some(1), Reported::Plausible(Nanos::new(1)));
    check(Some(&price), Some(11 * DOLLAR), Reported::Plausible(Nanos::new(11 * DOLLAR)));
    check(Some(&price), Some(11 * DOLLAR + 1), Reported::Absurd(Nanos::new(11 * DOLLAR + 1)));
    check(Some(&price), Some(i64::MAX), Reported::Absurd(Nanos::MAX));
    // It stands for all of the charge, and is its only part.
    let told = usage(Some(7_000));
    let found = parts(Some(&price), ChatCompletion, &told);
    assert_eq!((found.len(), found[0].unit, found[0].amount.get()), (1, "reported", 7_000_000));
    assert_eq!(cost(Some(&price), ChatCompletion, &told), Nanos::new(7_000));
    assert_eq!(cost(None, ChatCompletion, &told), Nanos::new(7_000));
    assert_eq!(cost(Some(&price), ChatCompletion, &usage(None)), Nanos::new(DOLLAR));
    assert_eq!(
        (cost(None, ChatCompletion, &usage(None)), parts(None, ChatCompletion, &usage(None))),
        (Nanos::ZERO, vec![])
    );
    // Without a price, against 200 dollars for a million tokens.
    check(None, Some(2_001 * DOLLAR), Reported::Plausible(Nanos::new(2_001 * DOLLAR)));
    check(None, Some(2_001 * DOLLAR + 1), Reported::Absurd(Nanos::new(2_001 * DOLLAR + 1)));
}

/// All that is priced, at rates that differ.
fn any_price() -> impl Strategy<Value = Price> {
    let names = crate::governance::entity::PRICE_FIELDS;
    prop::collection::btree_map(0..names.len(), 0..1_000_000_000u64, 0..24)
        .prop_map(move |fields| Price::named(fields.into_iter().map(|(name, rate)| (names[name], Rate::new(rate)))))
}

fn any_usage(most: u32) -> impl Strategy<Value = Usage> {
    let tokens = prop::array::uniform9(0..=u64::from(most));
    let units = prop::array::uniform10(0..=most);
    let sizes = prop::array::uniform4(prop::sample::select(vec![0u16, 512, 720, 1_024, 4_096, u16::MAX]));
    (tokens, units, sizes, 0..6usize, 0..3usize, 0..4usize).prop_map(
        |(tokens, units, sizes, quality, context, tier)| {
            let [
                input,
                cache_read,
                cache_write,
                cache_write_long,
                audio_input,
                image_input,
                output,
                audio_output,
                image_output,
            ] = tokens;
            let [
                reasoning,
                characters,
                cached_audio,
                cached_image,
                written_audio,
                input_millis,
                output_millis,
                sent,
                made,
                searches,
            ] = units;
            let [in_width, in_height, out_width, out_height] = sizes;
            let quality = Quality::ALL[quality];
            use ServiceTier::{Batch, Flex, Priority, Standard};
            Usage {
                input,
                cache_read,
                cache_write,
                cache_write_long,
                audio_input,
                image_input,
                output,
                audio_output,
                image_output,
                reasoning: reasoning.into(),
                characters,
                cached_audio,
                cached_image,
                written_audio,
                input_millis,
                output_millis,
                input_pictures: pictures(sent, in_width, in_height, quality),
                output_pictures: pictures(made, out_width, out_height, quality),
                searches,
                sessions: 7,
                search_context: SearchContext::ALL[context],
                tier: [Standard, Batch, Flex, Priority][tier],
                ..Usage::default()
            }
        },
    )
}

/// Adds to one of the units that a call can have.
fn raised(usage: &Usage, which: usize, more: u32) -> Usage {
    let mut raised = *usage;
    let tokens: [&mut u64; 9] = [
        &mut raised.input,
        &mut raised.cache_read,
        &mut raised.cache_write,
        &mut raised.cache_write_long,
        &mut raised.audio_input,
        &mut raised.image_input,
        &mut raised.output,
        &mut raised.audio_output,
        &mut raised.image_output,
    ];
    let units: [&mut u32; 6] = [
        &mut raised.characters,
        &mut raised.input_millis,
        &mut raised.output_millis,
        &mut raised.searches,
        &mut raised.input_pictures.count,
        &mut raised.output_pictures.count,
    ];
    match which {
        0..9 => {
            let unit = tokens.into_iter().nth(which).unwrap();
            *unit = unit.saturating_add(more.into());
        }
        _ => {
            let unit = units.into_iter().nth(which - 9).unwrap();
            *unit = unit.saturating_add(more);
        }
    }
    raised
}

fn any_kind() -> impl Strategy<Value = RequestKind> {
    prop::sample::select(RequestKind::ALL.to_vec())
}

proptest! {
    /// More of a unit that is there never costs less. (Whether a unit is there at all may choose another way of
    /// charging; and a longer request than a threshold has the prices that the table gives it.)
    #[test]
    fn cost_never_falls_when_usage_rises(
        kind in any_kind(), price in any_price(), usage in any_usage(40_000), which in 0..15usize, more in 0..50u32
    ) {
        let length = |usage: &Usage| price.row(usage.input_total(), usage.tier).above;
        let there = raised(&usage, which, 1);
        let more = raised(&there, which, more);
        prop_assume!(length(&there) == length(&more));
        prop_assume!(price.fields().iter().all(|(field, _)| {
            let reached = |usage: &Usage| usage.input_total() > field.above.into();
            reached(&there) == reached(&more)
        }));
        // What is told apart has a price of its own, which may be lower.
        let (there, more) = (bare(&there), bare(&more));
        prop_assert!(price.cost(kind, &more) >= price.cost(kind, &there), "{:?}", price.parts(kind, &more));
    }

    #[test]
    fn a_cost_is_the_sum_of_its_parts(kind in any_kind(), price in any_price(), usage in any_usage(u32::MAX)) {
        let parts = price.parts(kind, &usage);
        let sum: Picos = parts.iter().map(|part| part.amount).sum();
        prop_assert_eq!(price.cost(kind, &usage), sum.round_up());
        prop_assert!(parts.iter().all(|part| part.count > 0));
    }

    #[test]
    fn nothing_costs_more_than_the_bound(
        kind in any_kind(), price in any_price(), usage in any_usage(400_000), which in 0..15usize, more in 0..400_000u32
    ) {
        prop_assert!(price.cost(kind, &usage) <= price.cost_bound(kind, &usage));
        // A bound of more is a bound of less, too, in whatever tokens it turns out.
        let most = raised(&usage, which, more);
        prop_assert!(price.cost(kind, &usage) <= price.cost_bound(kind, &most));
        let plain = Usage { input: most.input_total(), output: most.output_total(), ..most };
        let plain = Usage {
            cache_read: 0, cache_write: 0, cache_write_long: 0, audio_input: 0, image_input: 0, audio_output: 0,
            image_output: 0, tier: ServiceTier::Standard, ..plain
        };
        prop_assert!(price.cost(kind, &usage) <= price.cost_bound(kind, &plain));
    }

    #[test]
    fn no_usage_overflows(kind in any_kind(), units in prop::array::uniform3(any::<u64>()), usage in any_usage(u32::MAX)) {
        let names = crate::governance::entity::PRICE_FIELDS;
        let price = Price::named(names.iter().map(|name| (*name, Rate::new(u64::MAX))));
        let usage = Usage { input: units[0], output: units[1], cache_read: units[2], image_output: units[0], ..usage };
        prop_assert!(price.cost(kind, &usage) >= Nanos::ZERO);
        prop_assert!(price.cost_bound(kind, &usage) >= price.cost(kind, &usage));
    }
}

/// Without what is told apart.
fn bare(usage: &Usage) -> Usage {
    Usage { reasoning: 0, cached_audio: 0, cached_image: 0, written_audio: 0, ..*usage }
}
