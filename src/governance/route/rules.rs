//! Which rule a request follows, and where to.

use super::draw::Draw;
use super::facts::{Known, Sent};
use super::target::{Wanted, wanted};
use super::{Question, RuleFault, Trace};
use crate::governance::cel::{Fault, STEPS_MAX};
use crate::governance::entity::{RoutingRule, RuleScope, RuleTarget};
use smallvec::SmallVec;
use std::sync::Arc;

/// The steps that all rules of one request may take together.
const STEPS_IN_ALL_MAX: u32 = 20 * STEPS_MAX;

/// Where a request goes once its rules were tried.
pub(super) struct Routed<'a> {
    /// Absent: the name is bare, and weights decide.
    pub(super) provider: Option<&'a str>,
    pub(super) model: &'a str,
    /// Of the rule that matched last, and so the rest.
    pub(super) rule: Option<&'a Arc<RoutingRule>>,
    pub(super) key_id: Option<&'a str>,
    pub(super) fallbacks: Option<&'a [String]>,
    pub(super) faults: Vec<RuleFault>,
}

/// What became of a rule that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It matched, and its target of this index was taken.
    Matched(usize),
    NotMatched,
    /// It asks for something that the request does not have, and so does not match.
    Missing(String),
    /// It could not be evaluated, and so does not match.
    Failed(String),
    Disabled,
    /// A rule before it matched.
    NotReached,
}

/// Tries the rules of the key, of its team, of its customer and of everybody; the first that matches decides. A
/// chain rule's choice is tried again from the top.
pub(super) fn follow<'a>(question: &'a Question<'a>, draw: &mut Draw, mut trace: Option<&mut Trace>) -> Routed<'a> {
    let view = question.view;
    let (provider, model) = named(wanted(view, question.model));
    let mut routed = Routed { provider, model, rule: None, key_id: None, fallbacks: None, faults: Vec::new() };
    let scopes = scopes(question);
    if scopes.iter().all(|scope| view.rules_in(scope).next().is_none()) {
        return routed;
    }
    let sent = Sent::of(question);
    let mut seen: SmallVec<[(Option<&str>, &str); 4]> = SmallVec::new();
    let mut steps = STEPS_IN_ALL_MAX;
    loop {
        seen.push((routed.provider, routed.model));
        let known = Known::of(question, &sent, routed.provider, routed.model);
        let rules = scopes.iter().flat_map(|scope| view.rules_in(scope));
        let Some((rule, target)) = first(rules, &known, draw, &mut steps, &mut routed.faults, trace.as_deref_mut())
        else {
            break;
        };
        let target: &RuleTarget = &rule.targets[target];
        (routed.provider, routed.model) = match (target.provider.as_deref(), target.model.as_deref()) {
            (Some(provider), model) => (Some(provider), model.unwrap_or(routed.model)),
            (None, None) => (routed.provider, routed.model),
            // A target may write its provider into its model, as clients do.
            (None, Some(model)) => {
                let (provider, model) = named(wanted(view, model));
                (provider.or(routed.provider), model)
            }
        };
        (routed.rule, routed.key_id) = (Some(rule), target.key_id.as_deref());
        routed.fallbacks = rule.fallbacks.as_deref().filter(|fallbacks| !fallbacks.is_empty());
        let again = (routed.provider, routed.model);
        if !rule.chain || seen.contains(&again) || seen.len() >= view.chain_max() {
            break;
        }
    }
    routed
}

fn named<'a>(wanted: Wanted<'a>) -> (Option<&'a str>, &'a str) {
    match wanted {
        Wanted::Named { provider, model } => (Some(provider), model),
        Wanted::Bare(model) => (None, model),
    }
}

fn scopes(question: &Question<'_>) -> SmallVec<[RuleScope; 4]> {
    let mut scopes = SmallVec::new();
    if let Some(caller) = question.caller {
        scopes.push(RuleScope::VirtualKey(Arc::clone(&caller.key.id)));
        scopes.extend(caller.team.iter().map(|team| RuleScope::Team(Arc::clone(&team.entity.id))));
        scopes.extend(caller.customer.iter().map(|customer| RuleScope::Customer(Arc::clone(&customer.entity.id))));
    }
    scopes.push(RuleScope::Global);
    scopes
}

/// The first rule that matches, and the target that is drawn of it.
fn first<'a>(
    rules: impl Iterator<Item = &'a Arc<RoutingRule>>,
    known: &Known<'_>,
    draw: &mut Draw,
    steps: &mut u32,
    faults: &mut Vec<RuleFault>,
    mut trace: Option<&mut Trace>,
) -> Option<(&'a Arc<RoutingRule>, usize)> {
    let mut found = None;
    if let Some(trace) = &mut trace {
        trace.round(known.provider, known.model);
    }
    for rule in rules {
        let tried = match &found {
            Some(_) if rule.enabled => Tried::NotReached,
            Some(_) => Tried::Disabled,
            None => tried(rule, known, draw, steps, faults),
        };
        if let Tried::Matched(target) = tried {
            found = Some((rule, target));
        }
        match &mut trace {
            Some(trace) => trace.tried(rule, tried),
            None if found.is_some() => break,
            None => {}
        }
    }
    found
}

fn tried(
    rule: &Arc<RoutingRule>,
    known: &Known<'_>,
    draw: &mut Draw,
    steps: &mut u32,
    faults: &mut Vec<RuleFault>,
) -> Tried {
    if !rule.enabled {
        return Tried::Disabled;
    }
    let Some(condition) = &rule.condition else {
        return Tried::Failed(rule.fault.clone().unwrap_or_else(|| "it cannot be read".to_owned()));
    };
    let mut own = (*steps).min(STEPS_MAX);
    let before = own;
    let holds = condition.holds(known, &mut own);
    *steps -= before - own;
    match holds {
        Ok(true) => {
            let weight = |target: &RuleTarget| target.weight.millionths();
            match draw.pick(&rule.targets, weight, target_name) {
                Some(target) => Tried::Matched(target),
                None => Tried::Failed("it has no target".to_owned()),
            }
        }
        Ok(false) => Tried::NotMatched,
        Err(fault @ Fault::Missing(_)) => Tried::Missing(fault.to_string()),
        Err(fault) => {
            let fault = RuleFault { rule: Arc::clone(rule), fault };
            let told = fault.fault.to_string();
            faults.push(fault);
            Tried::Failed(told)
        }
    }
}

/// What tells the targets of a rule apart; sessions are drawn by it.
fn target_name(target: &RuleTarget) -> &str {
    [&target.key_id, &target.model, &target.provider].into_iter().flatten().next().map_or("", String::as_str)
}
