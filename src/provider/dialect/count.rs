//! A number of a usage report, whatever was put in its place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Garbage;

/// No call counts as many tokens; sums of such numbers are far from overflowing.
const COUNT_MAX: u64 = 1_000_000_000_000;

/// A count as it stands there. What is wrong with it is kept until its name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Count {
    #[default]
    Absent,
    Whole(u64),
    Wrong,
}

impl Count {
    /// Takes a later count in place of this one, if there is one.
    pub(super) fn replace(&mut self, later: Count) {
        if later != Count::Absent {
            *self = later;
        }
    }

    /// A count of what is always few.
    pub(super) fn read_small(self, field: &'static str) -> Result<Option<u32>, Garbage> {
        match self.read(field)? {
            None => Ok(None),
            Some(count) => u32::try_from(count).map(Some).map_err(|_| Garbage::Count { field }),
        }
    }

    /// The count, if there is one. `field` names it should it make no sense.
    pub(super) fn read(self, field: &'static str) -> Result<Option<u64>, Garbage> {
        match self {
            Count::Absent => Ok(None),
            Count::Whole(count) if count <= COUNT_MAX => Ok(Some(count)),
            Count::Whole(_) | Count::Wrong => Err(Garbage::Count { field }),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Count, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a count")
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count::Absent)
            }

            fn visit_u64<E>(self, count: u64) -> Result<Count, E> {
                Ok(Count::Whole(count))
            }

            fn visit_i64<E>(self, count: i64) -> Result<Count, E> {
                Ok(u64::try_from(count).map_or(Count::Wrong, Count::Whole))
            }

            fn visit_f64<E>(self, count: f64) -> Result<Count, E> {
                let whole = count.fract() == 0.0 && (0.0..=COUNT_MAX as f64).contains(&count);
                Ok(if whole { Count::Whole(count as u64) } else { Count::Wrong })
            }

            fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
                Ok(Count::Wrong)
            }

            fn visit_str<E>(self, _: &str) -> Result<Count, E> {
                Ok(Count::Wrong)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Count::Wrong)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Count::Wrong)
            }
        }
        json.deserialize_any(Any)
    }
}
