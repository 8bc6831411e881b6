//! How heavy a request's input is: counted while the body is parsed, without keeping any of it.
//!
//! Media does not count as text: a picture of a megabyte is some hundred tokens. What merely could
//! be media counts as text, so that nobody hides a long prompt behind the word `data:`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::words::{self, Under};
use crate::governance::request::Dialect;

/// What quotes, colon and comma add to each value of a schema, which the model sees as JSON.
const SCHEMA_VALUE_BYTES: u64 = 4;
/// The longest spelling a number of a schema commonly has.
const SCHEMA_NUMBER_BYTES: u64 = 24;
/// Longest `type` or `role` that is taken for a word of the dialect rather than for text.
const LABEL_BYTES_MAX: usize = 32;

/// The input of a call, weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// UTF-8 bytes of the texts meant for the model, tool schemas included.
    pub text_bytes: u64,
    /// Strings of members that normally do not reach the model; they count for the bound alone.
    pub aside_bytes: u64,
    /// Messages, or items of input.
    pub messages: u64,
    /// Bare numbers; in an array of tokens each is one token.
    pub numbers: u64,
    /// Pictures, sounds and documents.
    pub blobs: u64,
    /// Objects, arrays and their non-numeric elements: each may cost the model some framing.
    pub structures: u64,
    /// Input comes from elsewhere: stored files or items, or tools that the provider itself runs.
    pub unseen: bool,
}

/// What a weighed value was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Text,
    /// With the number of elements that are not numbers.
    Array(u64),
    Number,
    Other,
    /// Media, or text by the same name, of so many bytes: what stands beside it decides.
    Data(u64),
    /// What the media beside it is.
    Media(Media),
}

/// What media are to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Picture,
    Text,
    /// Everything whose size says nothing about its tokens.
    Document,
}

impl Media {
    fn of(kind: &str) -> Media {
        match kind.split_once('/').map_or(kind, |(family, _)| family) {
            "image" => Media::Picture,
            "text" => Media::Text,
            _ => Media::Document,
        }
    }
}

/// What role a member plays for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Content,
    /// The list of tools.
    Tools,
    Tool,
    Schema,
    Aside,
}

/// Weighs one value of whatever shape. Recursion is bounded by the parser.
pub(super) struct Weigher<'w> {
    dialect: Dialect,
    weight: &'w mut Weight,
    part: Part,
    under: Under,
}

impl<'w> Weigher<'w> {
    pub(super) fn new(weight: &'w mut Weight, part: Part) -> Weigher<'w> {
        Weigher::of(Dialect::OpenAi, weight, part)
    }

    pub(super) fn of(dialect: Dialect, weight: &'w mut Weight, part: Part) -> Weigher<'w> {
        let under = if part == Part::Content { Under::Text } else { Under::Other };
        Weigher { dialect, weight, part, under }
    }

    fn text(self, text: &str) -> Shape {
        let bytes = text.len() as u64;
        match (self.part, self.under) {
            (Part::Aside, _) => self.weight.aside_bytes += bytes,
            (Part::Tool, Under::Label) if !words::runs_at_client(self.dialect, text) => self.weight.unseen = true,
            (Part::Tools | Part::Tool | Part::Schema, _) => self.weight.text_bytes += bytes + SCHEMA_VALUE_BYTES,
            (Part::Content, Under::Media | Under::Link) => self.weight.blobs += 1,
            (Part::Content, Under::Document) => self.document(),
            (Part::Content, Under::Data) => return Shape::Data(bytes),
            (Part::Content, Under::MediaType) => return Shape::Media(Media::of(text)),
            (Part::Content, Under::Label) if text == "item_reference" => self.weight.unseen = true,
            (Part::Content, Under::Label) if text.len() <= LABEL_BYTES_MAX => {}
            (Part::Content, Under::Other) if words::is_media(self.dialect, text) => self.weight.blobs += 1,
            (Part::Content, _) => self.weight.text_bytes += bytes,
        }
        Shape::Text
    }

    fn document(self) {
        self.weight.blobs += 1;
        self.weight.unseen = true;
    }

    fn number(self) -> Shape {
        match self.part {
            Part::Content => self.weight.numbers += 1,
            Part::Aside => self.weight.aside_bytes += SCHEMA_NUMBER_BYTES,
            Part::Tools | Part::Tool | Part::Schema => self.weight.text_bytes += SCHEMA_NUMBER_BYTES,
        }
        Shape::Number
    }
}

impl<'de> DeserializeSeed<'de> for Weigher<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Shape, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigher<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        if matches!(self.part, Part::Tools | Part::Tool | Part::Schema) {
            self.weight.text_bytes += SCHEMA_VALUE_BYTES;
        }
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(self.number())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(self.number())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(self.number())
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(self.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        self.weight.structures += 1;
        let part = if self.part == Part::Tools { Part::Tool } else { self.part };
        let mut members = 0;
        loop {
            let element = Weigher { dialect: self.dialect, weight: &mut *self.weight, part, under: self.under };
            match seq.next_element_seed(element)? {
                None => return Ok(Shape::Array(members)),
                Some(Shape::Number) => {}
                Some(shape) => {
                    if let Shape::Data(bytes) = shape {
                        self.weight.text_bytes += bytes;
                    }
                    self.weight.structures += 1;
                    members += 1;
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        self.weight.structures += 1;
        let (mut data, mut media) = (None, None);
        loop {
            let key = Key { dialect: self.dialect, weight: &mut *self.weight, part: self.part, parent: self.under };
            let Some(under) = map.next_key_seed(key)? else { break };
            let part = match (self.part, under) {
                (Part::Tool, Under::Label) => Part::Tool,
                (Part::Tools | Part::Tool, _) | (Part::Content, Under::Json) => Part::Schema,
                (part, _) => part,
            };
            match map.next_value_seed(Weigher { dialect: self.dialect, weight: &mut *self.weight, part, under })? {
                Shape::Data(bytes) => data = Some(data.unwrap_or(0) + bytes),
                Shape::Media(kind) => media = Some(kind),
                _ => {}
            }
        }
        match (data, media) {
            (None, _) => {}
            (Some(_), Some(Media::Picture)) => self.weight.blobs += 1,
            (Some(_), Some(Media::Document)) => self.document(),
            // Nobody says that it is not text.
            (Some(bytes), Some(Media::Text) | None) => self.weight.text_bytes += bytes,
        }
        Ok(Shape::Other)
    }
}

/// Weighs a key and says what the value below it is.
struct Key<'w> {
    dialect: Dialect,
    weight: &'w mut Weight,
    part: Part,
    parent: Under,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Under;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Under, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Under;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Under, E> {
        match self.part {
            Part::Content => {}
            Part::Aside => self.weight.aside_bytes += key.len() as u64,
            Part::Tools | Part::Tool | Part::Schema => self.weight.text_bytes += key.len() as u64 + SCHEMA_VALUE_BYTES,
        }
        if self.part == Part::Tool && words::runs_at_provider(self.dialect, key) {
            self.weight.unseen = true;
        }
        Ok(words::under(self.dialect, key, self.parent))
    }
}
