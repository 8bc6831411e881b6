//! The most that a call can cost: each unit at the dearest rate that any of its kind has.

use super::{drawn, per_mille, pixels};
use crate::governance::money::{Nanos, Picos, Rate};
use crate::governance::price_field::Unit;
use crate::governance::pricing::Price;
use crate::governance::request::RequestKind;
use crate::governance::usage::Usage;

impl Price {
    /// What at most these units cost, whatever they turn out to be, whatever lane serves them, and however many
    /// ways of charging apply: each at the dearest rate.
    pub fn cost_bound(&self, kind: RequestKind, most: &Usage) -> Nanos {
        let input_total = most.input_total();
        let mut dearest = [Rate::ZERO; Group::COUNT];
        for (field, rate) in self.fields() {
            if field.above == 0 || input_total > u64::from(field.above) {
                let most = &mut dearest[Group::of(field.unit) as usize];
                *most = (*most).max(*rate);
            }
        }
        let dearest = |group: Group| dearest[group as usize];
        let input = dearest(Group::Input);
        let (sent, drawn) = (&most.input_pictures, drawn(kind, &most.output_pictures));
        let parts = [
            input.times(input_total),
            dearest(Group::Output).times(most.output_total()),
            dearest(Group::Character).max(input).times(most.characters.into()),
            per_mille(dearest(Group::InputSecond), most.input_millis),
            per_mille(dearest(Group::OutputSecond), most.output_millis),
            dearest(Group::InputImage).times(sent.count.into()),
            dearest(Group::InputPixel).times(pixels(sent, sent.count)),
            dearest(Group::Picture).times(drawn.into()),
            dearest(Group::OutputPixel).times(pixels(&most.output_pictures, drawn)),
            dearest(Group::Search).times(most.searches.into()),
            dearest(Group::Session).times(most.sessions.into()),
            dearest(Group::Request).times(1),
        ];
        parts.into_iter().sum::<Picos>().round_up()
    }
}

/// Units whose prices can stand in for each other.
#[derive(Debug, Clone, Copy)]
enum Group {
    Input,
    Output,
    Character,
    InputSecond,
    OutputSecond,
    InputImage,
    InputPixel,
    Picture,
    OutputPixel,
    Search,
    Session,
    Request,
}

impl Group {
    const COUNT: usize = Group::Request as usize + 1;

    const fn of(unit: Unit) -> Group {
        match unit {
            Unit::Output | Unit::Reasoning | Unit::AudioOutput | Unit::ImageOutput => Group::Output,
            Unit::Character => Group::Character,
            Unit::InputSecond | Unit::InputAudioSecond | Unit::InputVideoSecond => Group::InputSecond,
            Unit::InputImage => Group::InputImage,
            Unit::InputPixel => Group::InputPixel,
            Unit::OutputPixel => Group::OutputPixel,
            Unit::SearchLow | Unit::SearchMedium | Unit::SearchHigh | Unit::Query => Group::Search,
            Unit::Session => Group::Session,
            Unit::Request => Group::Request,
            unit if unit.is_picture() => Group::Picture,
            unit if unit.is_output_second() => Group::OutputSecond,
            // Tokens that go in, cached or not.
            _ => Group::Input,
        }
    }
}
