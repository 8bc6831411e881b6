//! The names of LiteLLM's price table, and where each of its prices goes.

use super::money::Rate;
use super::pricing::Prices;

/// Which of a model's prices a field belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Standard,
    Batch,
    Flex,
    Priority,
    /// Above so many input tokens.
    Above(u64),
}

/// One price among those of a lane.
pub type Slot = fn(&mut Prices) -> &mut Option<Rate>;

pub const SLOTS: [(&str, Slot); 8] = [
    ("input_cost_per_token", |p| &mut p.input),
    ("output_cost_per_token", |p| &mut p.output),
    ("cache_read_input_token_cost", |p| &mut p.cache_read),
    ("cache_creation_input_token_cost", |p| &mut p.cache_write),
    ("cache_creation_input_token_cost_above_1hr", |p| &mut p.cache_write_long),
    ("input_cost_per_audio_token", |p| &mut p.audio_input),
    ("output_cost_per_audio_token", |p| &mut p.audio_output),
    ("input_cost_per_image_token", |p| &mut p.image_input),
];

const LANES: [(&str, Lane); 3] = [("_batches", Lane::Batch), ("_flex", Lane::Flex), ("_priority", Lane::Priority)];

/// Where the price in `field` goes. Nowhere when it is none of ours, or joins a lane to a tier
/// (`…_above_272k_tokens_priority`), for which `Price` has no room.
pub fn place(field: &str) -> Option<(Slot, Lane)> {
    let in_lane = LANES.iter().find_map(|(suffix, lane)| Some((field.strip_suffix(suffix)?, *lane)));
    let (base, lane) = in_lane.or_else(|| tier(field)).unwrap_or((field, Lane::Standard));
    SLOTS.iter().find(|(name, _)| *name == base).map(|(_, slot)| (*slot, lane))
}

/// Takes `_above_{N}k_tokens` off the end of a field.
fn tier(field: &str) -> Option<(&str, Lane)> {
    let (base, thousands) = field.strip_suffix("k_tokens")?.rsplit_once("_above_")?;
    let threshold = thousands.parse::<u64>().ok()?.checked_mul(1_000)?;
    Some((base, Lane::Above(threshold)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_find_their_place() {
        let check = |field: &str, lane: Lane, name: &str| {
            let (slot, found) = place(field).unwrap_or_else(|| panic!("{field}"));
            let wanted = SLOTS.iter().find(|(slot, _)| *slot == name).unwrap().1;
            let (mut prices, mut expected) = (Prices::default(), Prices::default());
            *slot(&mut prices) = Some(Rate::new(1));
            *wanted(&mut expected) = Some(Rate::new(1));
            assert_eq!((found, prices), (lane, expected), "{field}");
        };
        check("input_cost_per_token", Lane::Standard, "input_cost_per_token");
        check("input_cost_per_token_batches", Lane::Batch, "input_cost_per_token");
        check("output_cost_per_token_flex", Lane::Flex, "output_cost_per_token");
        check("cache_read_input_token_cost_priority", Lane::Priority, "cache_read_input_token_cost");
        check("input_cost_per_audio_token_priority", Lane::Priority, "input_cost_per_audio_token");
        check("input_cost_per_token_above_128k_tokens", Lane::Above(128_000), "input_cost_per_token");
        check("output_cost_per_token_above_200k_tokens", Lane::Above(200_000), "output_cost_per_token");
        check("cache_read_input_token_cost_above_272k_tokens", Lane::Above(272_000), "cache_read_input_token_cost");
        let long = "cache_creation_input_token_cost_above_1hr";
        check(long, Lane::Standard, long);
        check("cache_creation_input_token_cost_above_1hr_above_200k_tokens", Lane::Above(200_000), long);
        check("cache_creation_input_token_cost_above_1hr_priority", Lane::Priority, long);
        for none in [
            "mode",
            "input_cost_per_token_above_k_tokens",
            "input_cost_per_token_above_x200k_tokens",
            "input_cost_per_token_above_99999999999999999999k_tokens",
            "input_cost_per_token_above_272k_tokens_priority",
            "input_cost_per_token_flex_above_272k_tokens",
            "input_cost_per_token_ultrafast",
            "input_cost_per_second",
            "output_cost_per_image_token",
        ] {
            assert!(place(none).is_none(), "{none}");
        }
    }
}
