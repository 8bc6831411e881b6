//! What calls for pictures and sound ask for beside text. The request alone says it, and it tells what to hold,
//! and what to charge where the answer tells nothing.

use crate::governance::request::RequestKind;
use crate::governance::usage::{Pictures, Quality, Source, Usage};

/// Tokens of a picture of 1024 by 1024, by its quality, at the models that draw by the token.
const DRAWN: [(&str, u64); 3] = [("low", 272), ("medium", 1_056), ("high", 4_160)];
const SQUARE: u64 = 1_024 * 1_024;
/// The largest that a model draws if nobody says how large.
const AUTO_AREA: u64 = 1_536 * 1_024;
/// So many pixels have one token at least; previews come on top.
const PIXELS_OF_TOKEN_MIN: u64 = 128;
const PREVIEW_TOKENS: u64 = 1_000;
/// A character is spoken in about so many thousandths of a second, and at most in so many.
const SPOKEN_MILLIS: u64 = 70;
const SPOKEN_MILLIS_MAX: u64 = 1_000;
/// A second of sound has about so many bytes, and hardly ever fewer than the second number.
const SOUND_BYTES: u64 = 4_000;
const SOUND_BYTES_MIN: u64 = 500;
/// Tokens of a second of sound that is heard, of one that is spoken, and of its text, each about and at most.
const HEARD: (u64, u64) = (10, 50);
const SPOKEN: (u64, u64) = (21, 50);
const WRITTEN: (u64, u64) = (4, 20);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Media {
    /// To be spoken.
    pub characters: u32,
    /// To be drawn; no size where the request says none.
    pub pictures: Pictures,
    /// To be written down.
    pub sound_bytes: u64,
}

impl Media {
    /// Whether calls of this kind ask for anything of it.
    pub const fn is_of(kind: RequestKind) -> bool {
        matches!(kind, RequestKind::ImageGeneration | RequestKind::Speech | RequestKind::Transcription)
    }

    /// What is sure to be used. A picture whose size nobody told is a square.
    pub fn known(&self) -> Usage {
        let mut pictures = self.pictures;
        if pictures.count > 0 && pictures.width == 0 {
            (pictures.width, pictures.height) = (1_024, 1_024);
        }
        Usage { characters: self.characters, output_pictures: pictures, ..Usage::default() }
    }

    /// What will probably be used. Its output is that of one picture.
    pub fn expected(&self) -> Usage {
        let heard = millis(self.sound_bytes, SOUND_BYTES);
        let spoken = u64::from(self.characters) * SPOKEN_MILLIS;
        let known = self.known();
        let quality = DRAWN.iter().find(|(word, _)| *word == known.output_pictures.quality.word());
        // Left to the provider, it draws as well as it can.
        let area = if known.output_pictures.count > 0 { area(&known.output_pictures) } else { 0 };
        let drawn = area * quality.map_or(DRAWN[2].1, |(_, tokens)| *tokens) / SQUARE;
        self.used(heard, spoken, drawn, |(about, _)| about)
    }

    /// What can be used at the very most.
    pub fn most(&self) -> Usage {
        let heard = millis(self.sound_bytes, SOUND_BYTES_MIN);
        let spoken = u64::from(self.characters) * SPOKEN_MILLIS_MAX;
        let drawn = match (self.pictures.count, area(&self.pictures)) {
            (0, _) => 0,
            (_, 0) => AUTO_AREA / PIXELS_OF_TOKEN_MIN + PREVIEW_TOKENS,
            (_, area) => area / PIXELS_OF_TOKEN_MIN + PREVIEW_TOKENS,
        };
        self.used(heard, spoken, drawn, |(_, most)| most)
    }

    fn used(&self, heard: u64, spoken: u64, drawn: u64, of: fn((u64, u64)) -> u64) -> Usage {
        let tokens = |millis: u64, rate: (u64, u64)| millis.saturating_mul(of(rate)).div_ceil(1_000);
        Usage {
            audio_input: tokens(heard, HEARD),
            output: tokens(heard, WRITTEN) + tokens(spoken, SPOKEN) + drawn,
            input_millis: small(heard),
            output_millis: small(spoken),
            source: Source::Estimated,
            ..self.known()
        }
    }

    /// What the provider told, with what it did not say and the request does.
    pub fn complete(&self, told: &Usage) -> Usage {
        let known = self.known();
        let mut pictures = told.output_pictures;
        if pictures.width == 0 {
            (pictures.width, pictures.height) = (known.output_pictures.width, known.output_pictures.height);
        }
        if pictures.quality == Quality::Auto {
            pictures.quality = known.output_pictures.quality;
        }
        pictures.count = pictures.count.max(known.output_pictures.count);
        Usage { characters: told.characters.max(known.characters), output_pictures: pictures, ..*told }
    }
}

fn area(pictures: &Pictures) -> u64 {
    u64::from(pictures.width) * u64::from(pictures.height)
}

fn millis(bytes: u64, of_second: u64) -> u64 {
    bytes.saturating_mul(1_000).div_ceil(of_second)
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pictures_have_the_tokens_that_openai_tells() {
        let check = |width, height, quality, tokens: u64| {
            let media = Media { pictures: Pictures { count: 1, width, height, quality }, ..Media::default() };
            assert_eq!(media.expected().output, tokens, "{width}x{height} {quality:?}");
        };
        check(1_024, 1_024, Quality::Low, 272);
        check(1_024, 1_536, Quality::Medium, 1_584);
        check(1_536, 1_024, Quality::High, 6_240);
        check(0, 0, Quality::Auto, 4_160);
    }

    proptest! {
        #[test]
        fn nothing_is_expected_beyond_the_most(
            characters: u32, count in 0u32..5_000, width: u16, height: u16, quality in 0usize..6, bytes: u64,
        ) {
            let pictures = Pictures { count, width, height, quality: Quality::ALL[quality] };
            let media = Media { characters, pictures, sound_bytes: bytes };
            let (expected, most) = (media.expected(), media.most());
            prop_assert!(expected.output <= most.output, "{expected:?} {most:?}");
            prop_assert!(expected.audio_input <= most.audio_input);
            prop_assert!(expected.input_millis <= most.input_millis && expected.output_millis <= most.output_millis);
            prop_assert_eq!((expected.characters, expected.output_pictures), (most.characters, most.output_pictures));
        }
    }
}
