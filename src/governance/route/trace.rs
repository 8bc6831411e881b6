//! How a decision came about, for those who ask. Nothing is written down unless somebody does.

use super::rules::Tried;
use crate::governance::entity::{ProviderConfig, RoutingRule, Weight};
use std::sync::Arc;

/// What was looked at, in its order.
#[derive(Debug, Default)]
pub struct Trace {
    pub rules: Vec<TriedRule>,
    /// What could have served the request and is not among the targets.
    pub passed_over: Vec<PassedOver>,
    /// What the round of rules at hand is about.
    round: (usize, String),
}

#[derive(Debug)]
pub struct TriedRule {
    pub rule: Arc<RoutingRule>,
    /// From 1; a chain rule begins the next round.
    pub round: usize,
    /// The model that it was tried with, with its provider if it had one by then.
    pub model: String,
    pub result: Tried,
}

#[derive(Debug)]
pub struct PassedOver {
    pub provider: String,
    pub model: String,
    pub weight: Option<Weight>,
    pub reason: String,
}

impl Trace {
    pub(super) fn round(&mut self, provider: Option<&str>, model: &str) {
        let model = provider.map_or_else(|| model.to_owned(), |provider| format!("{provider}/{model}"));
        self.round = (self.round.0 + 1, model);
    }

    pub(super) fn tried(&mut self, rule: &Arc<RoutingRule>, result: Tried) {
        let (round, model) = self.round.clone();
        self.rules.push(TriedRule { rule: Arc::clone(rule), round, model, result });
    }

    pub(super) fn pass_over(&mut self, provider: &str, model: &str, reason: impl ToString) {
        let (provider, model) = (provider.to_owned(), model.to_owned());
        self.passed_over.push(PassedOver { provider, model, weight: None, reason: reason.to_string() });
    }

    pub(super) fn pass_over_config(&mut self, config: &ProviderConfig, model: &str, reason: impl ToString) {
        self.pass_over(&config.provider, model, reason);
        if let Some(last) = self.passed_over.last_mut() {
            last.weight = config.weight;
        }
    }
}
