//! Price tables in LiteLLM's format: the one built in, and those an operator brings.
//!
//! A price is read from its text, so no float ever rounds it. Fields without a place in `Price` are
//! passed over: the format grows with every release. An entry without any price is left out rather than read as
//! free. Where an entry charges by another unit and writes its tokens as zero, the zeros are not prices.

mod table;

pub use table::{PriceSource, TABLE_BYTES_MAX, Table, url_fault};

use crate::governance::catalog::{Catalog, Mode};
use crate::governance::money::Rate;
use crate::governance::price_field::{Field, Unit, place, search};
use crate::governance::pricing::Price;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// Most entries in a table, and most fields in an entry.
const MEMBERS_MAX: usize = 100_000;
/// Most faults that are told at once.
const FAULTS_MAX: usize = 100;
/// Longest part of a name that a fault repeats.
const SHOWN_CHARS_MAX: usize = 100;
/// An entry that documents the format and prices nothing.
const SAMPLE: &str = "sample_spec";

const BUILT_IN: &str = include_str!("../../config/prices.json");

/// The prices that this version was built with. They age: operators load a current table.
pub fn built_in() -> Catalog {
    read(BUILT_IN).expect("the built-in table is read by a test")
}

/// Reads a table: an object of entries, each an object of fields, prices in dollars per token.
///
/// Every fault names its entry and field; a table with one of them gives no catalog at all. Two
/// entries may mean the same model (`gemini-x` and `vertex_ai/gemini-x`): the one that spells its
/// provider out wins, as in LiteLLM's own look-up.
pub fn read(text: &str) -> Result<Catalog, Vec<String>> {
    let table: Members = serde_json::from_str(text).map_err(|error| vec![format!("price table: {error}")])?;
    let mut faults: Vec<String> =
        table.repeated.iter().map(|key| format!("entry '{}': is there more than once", shown(key))).collect();
    let mut bare = Vec::new();
    let mut spelled_out = Vec::new();
    for (key, raw) in &table.members {
        if key == SAMPLE {
            continue;
        }
        match entry(key, raw) {
            Ok(Some(listed)) if listed.model.len() < key.len() => spelled_out.push(listed),
            Ok(Some(listed)) => bare.push(listed),
            Ok(None) => {}
            Err(found) => faults.extend(found.iter().map(|fault| format!("entry '{}': {fault}", shown(key)))),
        }
    }
    if !faults.is_empty() {
        return Err(bounded(faults));
    }
    let mut catalog = Catalog::default();
    for Listed { provider, model, mode, price } in bare.into_iter().chain(spelled_out) {
        catalog.insert(&provider, model, mode, price);
    }
    Ok(catalog)
}

/// An entry that prices something.
struct Listed<'k> {
    provider: String,
    model: &'k str,
    mode: Option<Mode>,
    price: Price,
}

fn entry<'k>(key: &'k str, raw: &RawValue) -> Result<Option<Listed<'k>>, Vec<String>> {
    let fields: Members = serde_json::from_str(raw.get()).map_err(|_| vec!["is not an object of fields".to_owned()])?;
    let mut faults: Vec<String> =
        fields.repeated.iter().map(|field| format!("{}: is there more than once", shown(field))).collect();
    let mut draft = Draft::default();
    for (field, value) in &fields.members {
        if let Err(fault) = draft.read(field, value) {
            faults.push(format!("{}: {fault}", shown(field)));
        }
    }
    let mode = fields.text("mode");
    let known = mode.as_deref().map(Mode::named);
    // What no call here asks for needs no price.
    if faults.is_empty() && (draft.fields.is_empty() || known == Some(None)) {
        return Ok(None);
    }
    let provider = fields.text("litellm_provider").or_else(|| fields.text("provider"));
    if provider.is_none() {
        faults.push("litellm_provider: is missing or no text".into());
    }
    let (Some(provider), true) = (provider, faults.is_empty()) else { return Err(faults) };
    let provider = normalised(&provider).to_owned();
    let model = match key.split_once('/') {
        Some((prefix, model)) if normalised(prefix) == provider => model,
        _ => key,
    };
    if model.is_empty() {
        return Err(vec!["names no model".into()]);
    }
    let mode = known.flatten();
    Ok(Some(Listed { provider, model, mode, price: draft.finish(mode) }))
}

/// Our name for a provider: LiteLLM tells apart what is priced alike.
fn normalised(provider: &str) -> &str {
    match provider {
        p if p.starts_with("vertex_ai") || p == "google-vertex" => "vertex",
        p if p.contains("bedrock") => "bedrock",
        p if p.contains("cohere") => "cohere",
        p if p.starts_with("fireworks_ai") => "fireworks",
        "runwayml" => "runway",
        "text-completion-openai" => "openai",
        p => p,
    }
}

/// A `Price` in the making.
#[derive(Default)]
struct Draft {
    fields: Vec<(Field, Rate)>,
    input_tokens_max: Option<u64>,
    output_tokens_max: Option<u64>,
}

impl Draft {
    fn read(&mut self, field: &str, value: &RawValue) -> Result<(), String> {
        match field {
            "max_input_tokens" => self.input_tokens_max = whole(value),
            "max_output_tokens" => self.output_tokens_max = whole(value),
            _ => return self.read_price(field, value),
        }
        Ok(())
    }

    fn read_price(&mut self, field: &str, value: &RawValue) -> Result<(), String> {
        // Some entries write what they do not have.
        if value.get() == "null" {
            return Ok(());
        }
        let Some(placed) = place(field) else { return Ok(()) };
        if field == "search_context_cost_per_query" && value.get().starts_with('{') {
            let sizes: Members = serde_json::from_str(value.get()).map_err(|_| "is no object of prices".to_owned())?;
            for (size, price) in &sizes.members {
                if let Some(unit) = search(size) {
                    self.fields.push((Field::of(unit), rate(price)?));
                }
            }
            return Ok(());
        }
        let rate = rate(value)?;
        self.fields.extend(placed.map(|field| (field, rate)));
        Ok(())
    }

    fn finish(mut self, mode: Option<Mode>) -> Price {
        if mode == Some(Mode::ImageGeneration) {
            self.turn_pictures();
        }
        // A zero beside other prices in its direction says that there is no such price.
        for input in [true, false] {
            let is_other = |(field, rate): &(Field, Rate)| {
                !field.unit.is_token() && field.unit.is_input() == input && *rate > Rate::ZERO
            };
            let tokens_cost = |(field, rate): &(Field, Rate)| {
                field.unit.is_token() && field.unit.is_input() == input && *rate > Rate::ZERO
            };
            let is_material = |unit: Unit| unit.is_picture() || unit.is_output_second() || unit == Unit::OutputPixel;
            let others = self.fields.iter().any(|entry| is_other(entry) && (input || is_material(entry.0.unit)));
            if others && !self.fields.iter().any(tokens_cost) {
                self.fields.retain(|(field, _)| !(field.unit.is_token() && field.unit.is_input() == input));
            }
        }
        Price::of(self.fields).within(self.input_tokens_max, self.output_tokens_max)
    }

    /// Models that draw have what they draw priced as input in some entries, and then nothing as output.
    fn turn_pictures(&mut self) {
        let is_output = |(field, rate): &(Field, Rate)| {
            *rate > Rate::ZERO
                && (field.unit.is_picture()
                    || field.unit == Unit::OutputPixel
                    || field.unit.is_token() && !field.unit.is_input())
        };
        if self.fields.iter().any(is_output) {
            return;
        }
        self.fields.retain(|(field, _)| field.unit != Unit::OutputPixel && !field.unit.is_picture());
        for (field, _) in &mut self.fields {
            field.unit = match field.unit {
                Unit::InputImage => Unit::OutputImage,
                Unit::InputPixel => Unit::OutputPixel,
                unit => unit,
            };
        }
    }
}

fn rate(value: &RawValue) -> Result<Rate, String> {
    Rate::from_dollars(value.get()).map_err(|error| error.to_string())
}

/// A count of tokens, also when it is written as text or with a fraction of zero. Anything else is no
/// limit, and so is zero: taken at its word, it would make every estimate nothing.
fn whole(value: &RawValue) -> Option<u64> {
    let text = value.get().trim_matches('"');
    let (digits, fraction) = text.split_once('.').unwrap_or((text, ""));
    let count = digits.parse().ok().filter(|count| *count > 0)?;
    fraction.bytes().all(|digit| digit == b'0').then_some(count)
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

fn bounded(mut faults: Vec<String>) -> Vec<String> {
    let more = faults.len().saturating_sub(FAULTS_MAX);
    if more > 0 {
        faults.truncate(FAULTS_MAX);
        faults.push(format!("and {more} more"));
    }
    faults
}

/// An object whose values are left as they were written. Of a name given twice, the first stays.
struct Members<'a> {
    members: BTreeMap<String, &'a RawValue>,
    repeated: Vec<String>,
}

impl Members<'_> {
    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.members.get(name)?.get()).ok()
    }
}

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'a> Visitor<'a> for Object {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
                let mut read = Members { members: BTreeMap::new(), repeated: Vec::new() };
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if read.members.len() + read.repeated.len() >= MEMBERS_MAX {
                        return Err(A::Error::custom(format_args!("more than {MEMBERS_MAX} members")));
                    }
                    match read.members.entry(name) {
                        Entry::Vacant(place) => {
                            place.insert(value);
                        }
                        Entry::Occupied(there) => read.repeated.push(there.key().clone()),
                    }
                }
                Ok(read)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::is_built_in_provider;
    use crate::governance::money::Nanos;
    use crate::governance::request::RequestKind;
    use crate::governance::usage::{ServiceTier, Usage};
    use proptest::prelude::*;

    fn price(provider: &str, model: &str) -> Price {
        let catalog = built_in();
        Price::clone(catalog.any(provider, model).unwrap_or_else(|| panic!("{provider} {model}")))
    }

    /// What the one model of a table costs.
    fn only(fields: &str) -> Price {
        let text = format!(r#"{{"m": {{"litellm_provider": "openai", {fields}}}}}"#);
        Price::clone(read(&text).unwrap().any("openai", "m").unwrap_or_else(|| panic!("{fields}")))
    }

    fn standard(price: &Price, unit: Unit) -> Option<Rate> {
        price.declared(Field::of(unit))
    }

    const CHAT: RequestKind = RequestKind::ChatCompletion;

    fn input(tokens: u64) -> Usage {
        Usage { input: tokens, ..Usage::default() }
    }

    #[test]
    fn built_in_prices_charge_to_the_nano() {
        let check = |provider, model, usage: Usage, nanos| {
            assert_eq!(price(provider, model).cost(CHAT, &usage), Nanos::new(nanos), "{model} {usage:?}");
        };
        let all = Usage { input: 1_000, cache_read: 1_000, output: 1_000, ..Usage::default() };
        check("openai", "gpt-4o", all, 2_500_000 + 1_250_000 + 10_000_000);
        check("openai", "gpt-4o", input(1), 2_500);
        check("openai", "gpt-4o", Usage { tier: ServiceTier::Batch, ..all }, 1_250_000 + 1_250_000 + 5_000_000);
        check("openai", "gpt-4o-mini", all, 150_000 + 75_000 + 600_000);
        check("openai", "gpt-5-nano", Usage { cache_read: 3, ..Usage::default() }, 15);
        check("openai", "gpt-5.4", input(272_000), 272_000 * 2_500);
        check("openai", "gpt-5.4", input(272_001), 272_001 * 5_000);
        check(
            "openai",
            "gpt-5.4",
            Usage { input: 1, cache_read: 272_000, output: 1, ..all },
            5_000 + 272_000 * 500 + 22_500,
        );
        check("gemini", "gemini-2.5-pro", input(200_000), 200_000 * 1_250);
        check("gemini", "gemini-2.5-pro", input(200_001), 200_001 * 2_500);
        check("openai", "text-embedding-3-small", input(8_191), 8_191 * 20);
        check("openai", "text-embedding-3-large", input(1), 130);
        check("gemini", "gemini-embedding-001", input(10), 1_500);
        check(
            "openai",
            "gpt-audio",
            Usage { audio_input: 10, audio_output: 10, ..Usage::default() },
            320_000 + 640_000,
        );
        check("gemini", "gemini-2.5-flash", Usage { audio_input: 10, ..Usage::default() }, 10_000);
        check("cohere", "embed-v4.0", Usage { image_input: 10, ..Usage::default() }, 4_700);
        let writes = Usage { cache_write: 100, cache_write_long: 100, ..Usage::default() };
        check("anthropic", "claude-sonnet-4-5", writes, 375_000 + 600_000);
        check("vertex", "claude-opus-5-5", writes, 500_000 + 800_000);
        check("bedrock", "us.anthropic.claude-sonnet-4-6", writes, 412_500 + 660_000);
        // 8.75 nanos each: only the sum is rounded.
        check("bedrock", "amazon.nova-micro-v1:0", Usage { cache_read: 3, ..Usage::default() }, 27);
        check("azure", "us/gpt-5.4", input(1), 2_750);
        check("groq", "openai/gpt-oss-120b", input(1), 150);
        check("perplexity", "perplexity/sonar", input(1), 250);
        check("fireworks", "accounts/fireworks/models/kimi-k3", input(1), 3_000);
        check("xai", "grok-4.7", Usage { input: 200_001, output: 1, ..Usage::default() }, 200_001 * 4_000 + 12_000);
    }

    #[test]
    fn built_in_entries_are_all_priced() {
        let text = include_str!("../../config/prices.json");
        let table: Members = serde_json::from_str(text).unwrap();
        let catalog = built_in();
        // Every entry is priced, and no two are the same model.
        assert_eq!(catalog.len(), table.members.len() - 1);
        let mut providers: Vec<&str> = catalog.providers().collect();
        providers.sort_unstable();
        assert_eq!(providers.len(), 17);
        for provider in providers {
            assert!(is_built_in_provider(provider), "{provider}");
            for model in catalog.models(provider) {
                let price = catalog.any(provider, model).unwrap();
                assert!(price.fields().iter().any(|(_, rate)| *rate > Rate::ZERO), "{provider} {model}");
            }
        }
        // A misplaced decimal point would show here. This one is as dear as that: 270 dollars for a long million.
        assert_eq!(catalog.implausible(), ["openai/gpt-5.4-pro"]);
        assert_eq!(price("openai", "gpt-4o").input_tokens_max, Some(128_000));
        assert_eq!(price("openai", "gpt-4o").output_tokens_max, Some(16_384));
        let head: Members = serde_json::from_str(table.members[SAMPLE].get()).unwrap();
        assert!(["source", "date"].iter().all(|name| head.text(name).is_some_and(|text| !text.is_empty())));
    }

    #[test]
    fn built_in_entries_stand_in_order() {
        let text = include_str!("../../config/prices.json");
        let place = |line: &str| {
            let (key, entry) = line.split_once(": ").unwrap();
            let entry: Members = serde_json::from_str(entry.trim_end_matches(',')).unwrap();
            let provider = normalised(&entry.text("litellm_provider").unwrap()).to_owned();
            let key = key.trim_matches('"');
            let model =
                key.split_once('/').filter(|(prefix, _)| normalised(prefix) == provider).map_or(key, |(_, m)| m);
            (provider, model.to_owned())
        };
        let places: Vec<_> = text.lines().skip(2).filter(|line| *line != "}").map(place).collect();
        assert!(places.is_sorted());
        assert_eq!(places.len(), built_in().len());
    }

    #[test]
    fn tiers_rise_and_inherit_from_the_one_below() {
        let price = only(
            r#""input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06,
            "input_cost_per_token_above_1000k_tokens": 4e-06, "input_cost_per_token_above_200k_tokens": 3e-06,
            "output_cost_per_token_above_200k_tokens": 5e-06"#,
        );
        let check = |input, nanos| {
            assert_eq!(price.cost(CHAT, &Usage { input, output: 1, ..Usage::default() }), Nanos::new(nanos), "{input}");
        };
        check(200_000, 200_000 * 1_000 + 2_000);
        check(200_001, 200_001 * 3_000 + 5_000);
        check(1_000_001, 1_000_001 * 4_000 + 5_000);
    }

    #[test]
    fn no_price_passes_through_a_float() {
        let check = |text: &str, picos| {
            let read = standard(&only(&format!(r#""input_cost_per_token": {text}"#)), Unit::Input);
            assert_eq!(read, Some(Rate::new(picos)), "{text}");
        };
        check("9007.199254740993", 9_007_199_254_740_993);
        check("9007199.254740993e-3", 9_007_199_254_740_993);
        check("2.5e-06", 2_500_000);
        check("2.5E-6", 2_500_000);
        check("0.0000025", 2_500_000);
        check("8.75e-09", 8_750);
        check("1", 1_000_000_000_000);
    }

    #[test]
    fn limits_are_whole_or_ignored() {
        let check = |text: &str, tokens: Option<u64>| {
            let price = only(&format!(r#""input_cost_per_token": 1, "max_input_tokens": {text}"#));
            assert_eq!(price.input_tokens_max, tokens, "{text}");
        };
        check("8192", Some(8_192));
        check("\"8192\"", Some(8_192));
        check("8192.0", Some(8_192));
        check("9007199254740993", Some(9_007_199_254_740_993));
        for nonsense in
            ["8192.5", "-1", "\"many\"", "\"\"", "null", "[]", "{}", "true", "99999999999999999999", "1e400"]
        {
            check(nonsense, None);
        }
    }

    #[test]
    fn providers_and_models_get_our_names() {
        let check = |key: &str, litellm: &str, provider: &str, model: &str| {
            let text = format!(r#"{{"{key}": {{"litellm_provider": "{litellm}", "input_cost_per_token": 1}}}}"#);
            assert!(read(&text).unwrap().any(provider, model).is_some(), "{key} {litellm}");
        };
        check("gpt-4o", "openai", "openai", "gpt-4o");
        check("gpt-3.5-turbo-instruct", "text-completion-openai", "openai", "gpt-3.5-turbo-instruct");
        check("azure/eu/gpt-4o", "azure", "azure", "eu/gpt-4o");
        check("azure_ai/grok-3", "azure_ai", "azure_ai", "grok-3");
        check("gemini-2.5-pro", "vertex_ai-language-models", "vertex", "gemini-2.5-pro");
        check("vertex_ai/meta/llama-4", "vertex_ai-llama_models", "vertex", "meta/llama-4");
        check("x", "google-vertex", "vertex", "x");
        check("gemini/gemini-2.5-pro", "gemini", "gemini", "gemini-2.5-pro");
        check("amazon.nova-pro-v1:0", "bedrock_converse", "bedrock", "amazon.nova-pro-v1:0");
        check("bedrock/us-east-1/anthropic.claude-v2", "bedrock", "bedrock", "us-east-1/anthropic.claude-v2");
        check("command-r", "cohere_chat", "cohere", "command-r");
        check("runwayml/gen4", "runwayml", "runway", "gen4");
        check("fireworks_ai/accounts/a/models/b", "fireworks_ai", "fireworks", "accounts/a/models/b");
        check("fireworks_ai/nomic", "fireworks_ai-embedding-models", "fireworks", "nomic");
        // Only the provider's own name comes off, and once.
        check("groq/openai/gpt-oss-20b", "groq", "groq", "openai/gpt-oss-20b");
        check("perplexity/perplexity/sonar", "perplexity", "perplexity", "perplexity/sonar");
        check("openai/gpt-oss-20b", "groq", "groq", "openai/gpt-oss-20b");
    }

    #[test]
    fn the_entry_that_spells_its_provider_out_wins() {
        let bare = r#""x": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 1}"#;
        let spelled = r#""vertex_ai/x": {"litellm_provider": "vertex_ai", "input_cost_per_token": 2}"#;
        for text in [format!("{{{bare}, {spelled}}}"), format!("{{{spelled}, {bare}}}")] {
            let catalog = read(&text).unwrap();
            assert_eq!(catalog.len(), 1);
            let price = catalog.any("vertex", "x").unwrap();
            assert_eq!(standard(price, Unit::Input), Some(Rate::new(2_000_000_000_000)));
        }
    }

    #[test]
    fn what_has_no_price_is_left_out() {
        let check = |text: &str, entries| assert_eq!(read(text).map(|c| c.len()), Ok(entries), "{text}");
        check("{}", 0);
        check(r#"{"sample_spec": {"input_cost_per_token": "words"}}"#, 0);
        check(r#"{"sample_spec": "words"}"#, 0);
        check(r#"{"fallback_generalizations": {"rules": [{"name": "a", "pattern": "b"}]}}"#, 0);
        check(r#"{"tts": {"litellm_provider": "openai", "input_cost_per_character": 1.5e-05}}"#, 1);
        check(r#"{"m": {"litellm_provider": "openai", "input_cost_per_token": null}}"#, 0);
        check(r#"{"m": {"litellm_provider": "openai", "ocr_cost_per_page": 1, "tiered_pricing": []}}"#, 0);
        check(r#"{"m": {"input_cost_per_token": 0, "litellm_provider": "openai"}}"#, 1);
        check(r#"{"m": {"provider": "openai", "output_cost_per_token": 1}}"#, 1);
        // Nobody asks for it here.
        check(r#"{"m": {"litellm_provider": "openai", "mode": "moderation", "input_cost_per_token": 1}}"#, 0);
    }

    #[test]
    fn a_zero_beside_another_price_is_none() {
        let check = |fields: &str, unit: Unit, rate: Option<u64>| {
            assert_eq!(standard(&only(fields), unit), rate.map(Rate::new), "{fields}");
        };
        let seconds = r#""input_cost_per_second": 1e-12, "input_cost_per_token": 0, "output_cost_per_token": 0"#;
        check(seconds, Unit::Input, None);
        check(seconds, Unit::Output, Some(0));
        let pictures = r#""output_cost_per_image": 1e-12, "input_cost_per_token": 0, "output_cost_per_token": 0"#;
        check(pictures, Unit::Output, None);
        check(pictures, Unit::Input, Some(0));
        check(r#""input_cost_per_query": 1, "input_cost_per_token": 0"#, Unit::Input, Some(0));
        check(r#""search_context_cost_per_query": 1, "output_cost_per_token": 0"#, Unit::Output, Some(0));
        check(r#""input_cost_per_second": 0, "input_cost_per_token": 0"#, Unit::Input, Some(0));
        check(r#""input_cost_per_second": 1, "input_cost_per_token": 1e-12"#, Unit::Input, Some(1));
    }

    #[test]
    fn what_a_model_draws_is_output() {
        let check = |mode: &str, fields: &str, unit: Unit, rate: Option<u64>| {
            let price = only(&format!(r#""mode": "{mode}", {fields}"#));
            assert_eq!(standard(&price, unit), rate.map(Rate::new), "{mode} {fields}");
        };
        let pixel = r#""input_cost_per_pixel": 1e-12, "output_cost_per_pixel": 0.0"#;
        check("image_generation", pixel, Unit::OutputPixel, Some(1));
        check("image_edit", pixel, Unit::OutputPixel, Some(0));
        check("image_generation", r#""input_cost_per_image": 1e-12"#, Unit::OutputImage, Some(1));
        let both = r#""input_cost_per_image": 1e-12, "output_cost_per_image": 2e-12"#;
        check("image_generation", both, Unit::OutputImage, Some(2));
        check("image_generation", both, Unit::InputImage, Some(1));
    }

    #[test]
    fn a_search_costs_by_what_it_brings() {
        let sizes = r#"{"search_context_size_low": 1e-12, "search_context_size_high": 3e-12, "other": 9}"#;
        let price = only(&format!(r#""search_context_cost_per_query": {sizes}"#));
        let found = [Unit::SearchLow, Unit::SearchMedium, Unit::SearchHigh].map(|unit| standard(&price, unit));
        assert_eq!(found, [Some(Rate::new(1)), None, Some(Rate::new(3))]);
        let price = only(r#""search_context_cost_per_query": 2e-12"#);
        assert_eq!(standard(&price, Unit::SearchHigh), Some(Rate::new(2)));
    }

    #[test]
    fn faults_name_entry_and_field() {
        let check = |text: &str, faults: &[&str]| {
            let found = read(text).map(|catalog| catalog.len()).unwrap_err();
            assert_eq!(found.len(), faults.len(), "{text}: {found:?}");
            for (found, wanted) in found.iter().zip(faults) {
                assert!(found.contains(wanted), "{text}: {found}");
            }
        };
        let model = |fields: &str| format!(r#"{{"m": {{"litellm_provider": "openai", {fields}}}}}"#);
        check("", &["price table: "]);
        check("[]", &["expected an object"]);
        check("{} {}", &["trailing characters"]);
        check(r#"{"m": 5}"#, &["entry 'm': is not an object"]);
        check(&model(r#""input_cost_per_token": "1""#), &["entry 'm': input_cost_per_token: "]);
        check(&model(r#""input_cost_per_token": -1e-06"#), &["input_cost_per_token: '-1e-06' is negative"]);
        check(&model(r#""input_cost_per_token": true"#), &["input_cost_per_token: 'true' is not a decimal"]);
        check(&model(r#""output_cost_per_token_flex": {}"#), &["output_cost_per_token_flex: '{}' is not"]);
        check(&model(r#""output_cost_per_image": -1"#), &["output_cost_per_image: '-1' is negative"]);
        check(
            &model(r#""search_context_cost_per_query": {"search_context_size_low": -1}"#),
            &["search_context_cost_per_query: '-1' is negative"],
        );
        check(&model(r#""input_cost_per_token": 1e99"#), &["entry 'm': input_cost_per_token: "]);
        check(
            &model(r#""output_cost_per_token_above_200k_tokens": []"#),
            &["output_cost_per_token_above_200k_tokens: "],
        );
        check(
            &model(r#""input_cost_per_token": 1, "input_cost_per_token": 2"#),
            &["input_cost_per_token: is there more"],
        );
        check(r#"{"m": {}, "m": {}}"#, &["entry 'm': is there more than once"]);
        check(r#"{"m": {"input_cost_per_token": 1}}"#, &["entry 'm': litellm_provider: is missing"]);
        check(r#"{"m": {"input_cost_per_token": 1, "litellm_provider": 5}}"#, &["litellm_provider: is missing"]);
        check(r#"{"azure/": {"input_cost_per_token": 1, "litellm_provider": "azure"}}"#, &["'azure/': names no model"]);
        // All of them at once, in the order of the entries.
        check(
            r#"{"b": {"litellm_provider": "openai", "output_cost_per_token": "x", "input_cost_per_token": "y"}, "a": []}"#,
            &["entry 'a'", "entry 'b': input_cost_per_token", "entry 'b': output_cost_per_token"],
        );
    }

    #[test]
    fn tables_and_faults_are_bounded() {
        let table = |entries: usize, entry: &str| {
            let entries: Vec<_> = (0..entries).map(|n| format!(r#""{n}":{entry}"#)).collect();
            read(&format!("{{{}}}", entries.join(","))).map(|catalog| catalog.len())
        };
        assert_eq!(table(MEMBERS_MAX, "{}"), Ok(0));
        assert!(table(MEMBERS_MAX + 1, "{}").unwrap_err()[0].contains("more than 100000"));
        let faults = table(FAULTS_MAX + 5, "0").unwrap_err();
        assert_eq!((faults.len(), faults.last().unwrap().as_str()), (FAULTS_MAX + 1, "and 5 more"));
        let faults = read(&format!(r#"{{"{}": 0}}"#, "x".repeat(10_000))).map(|c| c.len()).unwrap_err();
        assert!(faults[0].len() < 200);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn any_entry_is_read_or_refused(
            key in "(sample_spec|azure/|vertex_ai/x|[a-z/\\\\u0-9]{0,8})",
            fields in prop::collection::vec((
                "(in|out)put_cost_per_(audio_|image_)?token(_above_[0-9]{0,22}k_tokens)?(_flex|_batches)?\
                 |max_input_tokens|litellm_provider",
                "-?[0-9]{1,45}(\\.[0-9]{1,30})?(e-?[0-9]{1,12})?|\"[a-z.]{0,4}\"|null|\\[\\]|\\{\\}|true",
            ), 0..8),
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
            let _ = read(&format!(r#"{{"{key}":{{{}}}}}"#, fields.join(",")));
        }

        #[test]
        fn a_price_is_what_was_written(picos in any::<u64>()) {
            let text = format!("{}.{:012}", picos / 1_000_000_000_000, picos % 1_000_000_000_000);
            let read = standard(&only(&format!(r#""input_cost_per_token": {text}"#)), Unit::Input);
            prop_assert_eq!(read, Some(Rate::new(picos)));
        }
    }
}
