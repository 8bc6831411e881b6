//! Budgets and rate limits as bodies write them, whoever owns them.
//!
//! What is absent stays. Limits keep their ids wherever they can be told to be the same ones, and with their
//! ids what was spent.

use super::change::Change;
use super::faults::Faults;
use super::read::{Given, Object};
use crate::governance::entity::{Budget, Limits, Quota, RateLimit};
use crate::governance::money::Nanos;
use crate::governance::time::{Span, Window};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// Each of them is a cell that every call takes.
const BUDGETS_MAX: usize = 16;

const HALVES: [&str; 4] = ["token_max_limit", "token_reset_duration", "request_max_limit", "request_reset_duration"];

/// By what a budget is told to be one that was there before, the surest sign first. It is the length that
/// counts, however it is spelt; the rest is for owners that have several of one length from before.
const SAME_DURATION: [fn(&Window, &Window) -> bool; 3] = [
    |one, other| one.span().text() == other.span().text(),
    |one, other| is_as_long(one, other) && one.is_aligned() == other.is_aligned(),
    is_as_long,
];

fn is_as_long(one: &Window, other: &Window) -> bool {
    one.span().millis() == other.span().millis()
}

/// `base` with what `owner` says of `budget`, `budgets` and `rate_limit`. A new owner has no base.
pub fn read(owner: &Object<'_>, base: Option<&Limits>, change: &mut Change<'_>, faults: &mut Faults) -> Limits {
    let mut budgets = read_budgets(owner, base.map(|base| &*base.budgets), change, faults);
    budgets.sort_by_key(|budget| budget.window.span().millis());
    let rate_limit = read_rate_limit(owner, base.and_then(|base| base.rate_limit.as_deref()), change, faults);
    Limits { budgets, rate_limit: rate_limit.map(Box::new) }
}

/// For objects that are read as new and replace what is there, as the config file's do: gives `new` the ids
/// of the limits in `old`, with what belongs to them.
pub fn adopt(new: &mut Limits, old: &Limits) {
    adopt_budgets(&mut new.budgets, &old.budgets);
    adopt_rate_limit(new.rate_limit.as_deref_mut(), old.rate_limit.as_deref());
}

/// A whole budget as it was sent.
struct Sent<'a> {
    body: &'a Object<'a>,
    max: Nanos,
    window: Window,
}

impl Sent<'_> {
    fn duration(&self) -> &str {
        self.window.span().text()
    }
}

/// `budgets` replaces the list; `budget` alone changes or removes the one that answers show.
fn read_budgets(
    owner: &Object<'_>,
    base: Option<&[Budget]>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Vec<Budget> {
    let olds = base.unwrap_or_default();
    let list = owner.objects("budgets", faults).value();
    let single = owner.object("budget", faults).value();
    match (list, single) {
        (Some(list), single) => {
            let sent: Vec<Sent<'_>> = list.iter().filter_map(|budget| read_budget(budget, None, faults)).collect();
            // A list that is wrong in itself agrees with nothing.
            if let Some(single) = single.filter(|_| sent.len() == list.len()) {
                check_agreement(owner, &single, &sent, faults);
            }
            if list.len() > BUDGETS_MAX {
                faults.add(owner.path("budgets"), format!("has more than {BUDGETS_MAX} entries"));
                return olds.to_vec();
            }
            reconcile(&sent, olds, change, faults)
        }
        (None, Some(single)) => {
            let partial = ["max_limit", "reset_duration"].iter().any(|name| single.raw(name).value().is_none());
            if base.is_some_and(<[Budget]>::is_empty) && partial && !is_empty_budget(&single) {
                let message = "both max_limit and reset_duration are required when creating a new budget";
                faults.add(single.here(), message);
                return Vec::new();
            }
            change_shown(&single, olds, change, faults)
        }
        (None, None) => olds.to_vec(),
    }
}

/// Answers carry both forms, and what was read can be written back; two forms that differ are a mistake.
fn check_agreement(owner: &Object<'_>, single: &Object<'_>, list: &[Sent<'_>], faults: &mut Faults) {
    let agrees = if is_empty_budget(single) {
        list.is_empty()
    } else {
        let Some(single) = read_budget(single, None, faults) else { return };
        let same =
            |window: &Window| is_as_long(window, &single.window) && window.is_aligned() == single.window.is_aligned();
        list.iter().any(|budget| budget.max == single.max && same(&budget.window))
    };
    if !agrees {
        faults.add(owner.path("budget"), "does not agree with 'budgets'; send one of the two");
    }
}

/// The list as sent, each entry with the id of the old budget of its duration, or else of the one it names.
fn reconcile(sent: &[Sent<'_>], base: &[Budget], change: &mut Change<'_>, faults: &mut Faults) -> Vec<Budget> {
    for (i, budget) in sent.iter().enumerate() {
        // An update could not tell them apart.
        if sent[..i].iter().any(|other| is_as_long(&other.window, &budget.window)) {
            faults.add(budget.body.here(), duplicate(budget.duration()));
        }
    }
    let mut free: Vec<Option<&Budget>> = base.iter().map(Some).collect();
    let mut olds: Vec<Option<&Budget>> = vec![None; sent.len()];
    for by_duration in SAME_DURATION.into_iter().map(Some).chain([None]) {
        for (sent, old) in sent.iter().zip(&mut olds).filter(|(_, old)| old.is_none()) {
            let id = sent.body.raw("id").value().and_then(Value::as_str);
            let same = |was: &Budget| match by_duration {
                Some(same) => same(&was.window, &sent.window),
                None => id == Some(&*was.id),
            };
            *old = free.iter_mut().find(|was| was.is_some_and(same)).and_then(Option::take);
        }
    }
    sent.iter().zip(olds).map(|(sent, old)| settle(sent, old, change, faults)).collect()
}

/// `budget` without `budgets`.
fn change_shown(single: &Object<'_>, base: &[Budget], change: &mut Change<'_>, faults: &mut Faults) -> Vec<Budget> {
    let mut budgets = base.to_vec();
    let shown = (0..base.len()).min_by_key(|&index| base[index].window.span().millis());
    match shown {
        Some(shown) if is_empty_budget(single) => {
            budgets.remove(shown);
        }
        None if is_empty_budget(single) => {}
        Some(shown) => {
            let Some(sent) = read_budget(single, Some(&base[shown]), faults) else { return budgets };
            let is_taken = |window: &Window| is_as_long(window, &sent.window);
            // One that keeps its length is in nobody's way who was not there before.
            if !is_taken(&base[shown].window) && base.iter().any(|other| is_taken(&other.window)) {
                faults.add(single.path("reset_duration"), duplicate(sent.duration()));
            }
            budgets[shown] = settle(&sent, Some(&base[shown]), change, faults);
        }
        None => {
            if let Some(sent) = read_budget(single, None, faults) {
                budgets.push(settle(&sent, None, change, faults));
            }
        }
    }
    budgets
}

/// A budget with its new size and window: the old one if there is one, so that its usage stays.
fn settle(sent: &Sent<'_>, old: Option<&Budget>, change: &mut Change<'_>, faults: &mut Faults) -> Budget {
    let (max, window, now) = (sent.max, sent.window.clone(), change.now);
    match old {
        Some(old) if old.max == max && old.window == window => old.clone(),
        Some(old) => Budget { max, window, updated_at: now, ..old.clone() },
        None => {
            let anchor = window.start(now, now);
            Budget { id: change.id(sent.body, faults), max, window, anchor, created_at: now, updated_at: now }
        }
    }
}

fn duplicate(duration: &str) -> String {
    format!("Duplicate reset_duration in budgets: {duration}")
}

/// Neither amount nor duration: the contract's way of saying "no budget".
fn is_empty_budget(budget: &Object<'_>) -> bool {
    ["max_limit", "reset_duration", "calendar_aligned"].iter().all(|name| budget.raw(name).value().is_none())
}

/// A budget, completed by the old one if there is one; without, it must be whole.
fn read_budget<'a>(body: &'a Object<'a>, old: Option<&Budget>, faults: &mut Faults) -> Option<Sent<'a>> {
    let max = read_max_limit(body, faults).or_else(|| {
        let given = body.raw("max_limit").value().is_some();
        match old {
            Some(old) if !given => return Some(old.max),
            None if !given => faults.add(body.path("max_limit"), "budget max limit is required"),
            _ => {}
        }
        None
    });
    let aligned = body.boolean("calendar_aligned", faults).value();
    let aligned = aligned.unwrap_or_else(|| old.is_some_and(|old| old.window.is_aligned()));
    let duration = match (body.text("reset_duration", faults), old) {
        (Given::Value(text), _) if !text.is_empty() => Some(text),
        (Given::Absent | Given::Null, Some(old)) => Some(old.window.span().text()),
        (Given::Absent, None) if body.raw("reset_duration").value().is_some() => None,
        _ => {
            faults.add(body.path("reset_duration"), "budget reset duration is required");
            None
        }
    };
    let window = duration.and_then(|text| {
        let window =
            Span::parse(text).and_then(|span| if aligned { Window::aligned(span) } else { Ok(Window::rolling(span)) });
        window.map_err(|error| faults.add(body.path("reset_duration"), error.to_string())).ok()
    });
    Some(Sent { body, max: max?, window: window? })
}

/// A budget's amount: above zero.
fn read_max_limit(budget: &Object<'_>, faults: &mut Faults) -> Option<Nanos> {
    if let Some(number) = budget.raw("max_limit").value().and_then(Value::as_f64).filter(|number| *number < 0.0) {
        faults.add(budget.path("max_limit"), format!("Budget max_limit cannot be negative: {number:.2}"));
        return None;
    }
    let max = budget.money("max_limit", faults).value()?;
    if max == Nanos::ZERO {
        faults.add(budget.path("max_limit"), "budget max limit cannot be negative or zero: 0.00");
        return None;
    }
    Some(max)
}

/// Each half on its own; an object that names neither removes the whole.
fn read_rate_limit(
    owner: &Object<'_>,
    base: Option<&RateLimit>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<RateLimit> {
    let Some(body) = owner.object("rate_limit", faults).value() else { return base.cloned() };
    if !HALVES.iter().any(|name| body.has(name)) {
        return None;
    }
    let tokens = read_half(&body, "token", base.and_then(|limit| limit.tokens.as_ref()), change, faults);
    let requests = read_half(&body, "request", base.and_then(|limit| limit.requests.as_ref()), change, faults);
    if tokens.is_none() && requests.is_none() {
        return None;
    }
    let now = change.now;
    match base {
        Some(old) if old.tokens == tokens && old.requests == requests => Some(old.clone()),
        Some(old) => Some(RateLimit { tokens, requests, updated_at: now, ..old.clone() }),
        None => Some(RateLimit { id: change.id(&body, faults), tokens, requests, created_at: now, updated_at: now }),
    }
}

/// `token` or `request`: cleared by a limit that is null, kept if neither of its fields is given, else changed
/// to what is given.
fn read_half(
    limit: &Object<'_>,
    half: &str,
    old: Option<&Quota>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Option<Quota> {
    let (max_name, duration_name) = (format!("{half}_max_limit"), format!("{half}_reset_duration"));
    let given = limit.integer(&max_name, faults);
    if let Given::Value(max @ ..=0) = given {
        let message = format!("Invalid rate limit: rate limit {half} max limit cannot be negative or zero: {max}");
        faults.add(limit.path(&max_name), message);
    }
    let window = match limit.text(&duration_name, faults) {
        Given::Value(text) => match Span::parse(text) {
            Ok(span) => Some(Window::rolling(span)),
            Err(_) => {
                let text: String = text.chars().take(32).collect();
                let message = format!("Invalid rate limit: invalid rate limit {half} reset duration format: {text}");
                faults.add(limit.path(&duration_name), message);
                return None;
            }
        },
        Given::Absent | Given::Null => old.map(|quota| quota.window.clone()),
    };
    let max = match given {
        Given::Null => return None,
        Given::Value(max) => Some(max),
        Given::Absent => old.map(|quota| quota.max),
    };
    // What is no text was reported when it was read.
    let mistyped = limit.raw(&duration_name).value().is_some_and(|given| !given.is_string());
    if max.is_some() && window.is_none() && !mistyped {
        let message = format!("Invalid rate limit: rate limit {half} reset duration is required");
        faults.add(limit.path(&duration_name), message);
    }
    Some(Quota { max: max?, window: window?, anchor: old.map_or(change.now, |quota| quota.anchor) })
}

/// By id where the new list gives one that is known, else by duration.
fn adopt_budgets(new: &mut [Budget], old: &[Budget]) {
    let mut taken: HashSet<Arc<str>> = HashSet::new();
    for by_duration in [None].into_iter().chain(SAME_DURATION.map(Some)) {
        for budget in new.iter_mut() {
            if taken.contains(&budget.id) {
                continue;
            }
            let same = |was: &&Budget| match by_duration {
                Some(same) => same(&was.window, &budget.window),
                None => was.id == budget.id,
            };
            if let Some(was) = old.iter().find(|was| same(was) && !taken.contains(&was.id)) {
                taken.insert(Arc::clone(&was.id));
                (budget.id, budget.anchor, budget.created_at) = (Arc::clone(&was.id), was.anchor, was.created_at);
            }
        }
    }
}

fn adopt_rate_limit(new: Option<&mut RateLimit>, old: Option<&RateLimit>) {
    let Some((new, old)) = new.zip(old) else { return };
    (new.id, new.created_at) = (Arc::clone(&old.id), old.created_at);
    let adopt = |new: &mut Option<Quota>, old: &Option<Quota>| {
        if let Some((new, old)) = new.as_mut().zip(old.as_ref()) {
            new.anchor = old.anchor;
        }
    };
    adopt(&mut new.tokens, &old.tokens);
    adopt(&mut new.requests, &old.requests);
}

#[cfg(test)]
mod tests;
