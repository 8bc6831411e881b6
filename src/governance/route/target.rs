//! From a name to targets: provider, model and provider key, as far as the caller may use them.

use super::draw::Draw;
use super::trace::Trace;
use super::{Live, Question};
use crate::governance::entity::{ModelSet, Provider, ProviderConfig, ProviderKey, Weight, is_built_in_provider};
use crate::governance::judge::{Admission, admits};
use crate::governance::model_name;
use crate::governance::pricing::{Price, UnknownModel};
use crate::governance::refusal::Refusal;
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::view::{Caller, Measure, View};
use http::HeaderMap;
use std::cmp::Reverse;
use std::sync::Arc;

/// One place that could serve the request.
#[derive(Debug, Clone)]
pub struct Target {
    pub provider: Arc<Provider>,
    /// The index of the caller's provider config that allows it; absent where none is needed.
    pub config: Option<usize>,
    /// The model as limits and prices know it, without the provider's prefix.
    pub model: String,
    /// The model as this key's provider knows it.
    pub upstream_model: String,
    /// Absent for providers that take no credential.
    pub key: Option<Arc<ProviderKey>>,
    /// 0 for what was chosen, 1 for its first fallback, and so on. The keys of one provider are one choice.
    pub choice: usize,
}

/// The model string taken apart: a known provider before the first slash, or a bare model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    Named { provider: &'a str, model: &'a str },
    Bare(&'a str),
}

pub(super) fn wanted<'a>(view: &View, text: &'a str) -> Wanted<'a> {
    match text.split_once('/') {
        Some((provider, model)) if view.provider(provider).is_some() || is_built_in_provider(provider) => {
            Wanted::Named { provider, model }
        }
        _ => Wanted::Bare(text),
    }
}

/// The price of the target's model for a call of this kind: the list's, as overrides change it. Where it has
/// none, the policy decides; a budget cannot be kept without one.
pub fn price(
    view: &View,
    caller: Option<&Caller>,
    target: &Target,
    kind: RequestKind,
) -> Result<Option<Arc<Price>>, Refusal> {
    // Nobody charges for a count, so there is no price to miss.
    if kind == RequestKind::CountTokens {
        return Ok(None);
    }
    let provider = &target.provider.name;
    let listed = view.catalog.find(provider, &target.model, &target.upstream_model, kind);
    let over = view.price_override_for(caller, &target.provider, target.key.as_deref(), &target.model, kind);
    let patched = over.and_then(|over| Price::patched(listed.map(|price| &**price), &over.patch, kind));
    if let Some(price) = patched.map(Arc::new).or_else(|| listed.cloned()) {
        return Ok(Some(price));
    }
    match &view.policy.unknown_model {
        UnknownModel::Priced(price) => Ok(Some(Arc::clone(price))),
        UnknownModel::Free => Ok(None),
        UnknownModel::Refuse => {
            let limits = view.limits(caller, target.config, provider, &target.model, &target.upstream_model);
            if limits.iter().any(|limit| limit.key.measure == Measure::Money) {
                return Err(Refusal::ModelNotPriced { provider: provider.to_string(), model: target.model.clone() });
            }
            Ok(None)
        }
    }
}

/// What targets are looked for.
pub(super) struct Asking<'a> {
    pub(super) question: &'a Question<'a>,
    /// The one provider key that may serve it.
    pub(super) pin: Option<Pin<'a>>,
}

/// A provider key that was chosen by name or id.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pin<'a> {
    Id(&'a str),
    Name(&'a str),
}

impl<'a> Pin<'a> {
    /// The client's own choice.
    pub(super) fn of(headers: &'a HeaderMap) -> Option<Pin<'a>> {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty());
        text("x-bf-api-key-id").map(Pin::Id).or_else(|| text("x-bf-api-key").map(Pin::Name))
    }

    fn is(self, key: &ProviderKey) -> bool {
        match self {
            Pin::Id(id) => *key.id == *id,
            Pin::Name(name) => key.name == name,
        }
    }
}

/// A fallback taken apart: `provider/model`, or `provider/` or `provider` for the model that the client asked
/// for. `None`: it names no known provider, or no model.
pub(super) fn fallback<'a>(view: &View, text: &'a str, incoming: &'a str) -> Option<(&'a str, &'a str)> {
    let (provider, model) = text.split_once('/').unwrap_or((text, ""));
    let known = view.provider(provider).is_some() || is_built_in_provider(provider);
    let model = if model.is_empty() { incoming } else { model };
    (known && model_name::fault(model).is_none()).then_some((provider, model))
}

/// The targets of a provider that was named.
pub(super) fn named(asking: &Asking<'_>, draw: &mut Draw, name: &str, model: &str) -> Result<Vec<Target>, Refusal> {
    let Question { view, caller, asked, .. } = *asking.question;
    let config = match caller {
        None => None,
        Some(caller) if caller.key.provider_configs.is_empty() && view.policy.allow_by_default => None,
        Some(caller) => {
            let configs = &caller.key.provider_configs;
            let index = configs.iter().position(|config| &*config.provider == name);
            let index = index.ok_or_else(|| Refusal::ProviderBlocked { provider: name.into() })?;
            if !configs[index].allows(model) {
                return Err(Refusal::ModelBlocked { model: model.into() });
            }
            Some((index, &configs[index]))
        }
    };
    let provider = view.provider(name).ok_or_else(|| unknown_provider(view, name))?;
    serves(provider, asked)?;
    let targets = through(provider, config, model, asking.pin, draw);
    if targets.is_empty() {
        return Err(no_key(provider, config.map(|(_, config)| config), model, asking.pin));
    }
    Ok(targets)
}

/// A provider config that could serve a bare name.
struct Candidate<'a> {
    index: usize,
    config: &'a ProviderConfig,
    provider: &'a Arc<Provider>,
    state: State,
}

/// How a candidate stands, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ready,
    Unhealthy,
    Exhausted,
}

impl Candidate<'_> {
    fn weight(&self) -> u64 {
        self.config.weight.map_or(0, Weight::millionths)
    }
}

/// A bare name goes where the key's weights lead; where they lead nowhere, to the provider whose own door was used.
pub(super) fn bare(
    asking: &Asking<'_>,
    draw: &mut Draw,
    model: &str,
    trace: Option<&mut Trace>,
) -> Result<Vec<Vec<Target>>, Refusal> {
    weighted(asking, draw, model, trace).or_else(|refusal| {
        let home = asking.question.asked.home.ok_or_else(|| refusal.clone())?;
        named(asking, draw, home, model).map(|targets| vec![targets]).map_err(|_| refusal)
    })
}

/// A bare name goes to one of the key's provider configs that allow it, drawn by weight; the others are its
/// fallbacks, heaviest first, and those without a weight last. Configs that are exhausted are left out while
/// there is another, and those known to have the model are taken alone, if there are any. The targets are those
/// of one choice after the other.
fn weighted(
    asking: &Asking<'_>,
    draw: &mut Draw,
    model: &str,
    mut trace: Option<&mut Trace>,
) -> Result<Vec<Vec<Target>>, Refusal> {
    let Question { view, caller, asked, live, .. } = *asking.question;
    let Some(caller) = caller else { return Err(unresolved(view, model)) };
    let configs = &caller.key.provider_configs;
    let mut pass_over = |config: &ProviderConfig, reason: &dyn ToString| {
        if let Some(trace) = &mut trace {
            trace.pass_over_config(config, model, reason.to_string());
        }
    };
    let mut candidates = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        if !config.allows(model) {
            pass_over(config, &Refusal::ModelBlocked { model: model.into() });
            continue;
        }
        let Some(provider) = view.provider(&config.provider) else {
            pass_over(config, &"this provider is not configured");
            continue;
        };
        match serves(provider, asked) {
            Ok(()) => candidates.push(Candidate { index, config, provider, state: State::Ready }),
            Err(no) => pass_over(config, &no),
        }
    }
    let is_known = |candidate: &Candidate<'_>| {
        let provider = &candidate.provider;
        names(&candidate.config.allowed_models, provider, model)
            || view.catalog.find(&provider.name, model, model, asked.kind).is_some()
            || provider.keys.iter().any(|key| names(&key.models, provider, model) || key.aliases.contains_key(model))
    };
    // Those without a weight are not drawn, so that they alone do not decide which are.
    if candidates.iter().any(|candidate| candidate.config.weight.is_some() && is_known(candidate)) {
        candidates.retain(|candidate| {
            let keep = is_known(candidate);
            if !keep {
                pass_over(candidate.config, &"others are known to have this model, and this one is not");
            }
            keep
        });
    } else if model.contains('/') {
        // Nobody knows this name, so its head was meant as a provider.
        return Err(unresolved(view, model));
    }
    if !candidates.iter().any(|candidate| candidate.config.weight.is_some()) {
        return Err(no_candidate(asking, caller, model));
    }
    let without_key = candidates.iter().find(|candidate| candidate.config.weight.is_some());
    let without_key = without_key.map(|first| no_key(first.provider, Some(first.config), model, asking.pin));
    let has_key = |candidate: &Candidate<'_>, pin| {
        let config = Some((candidate.index, candidate.config));
        candidate.provider.keyless() || keys(candidate.provider, config, model, pin).next().is_some()
    };
    candidates.retain(|candidate| {
        let keep = has_key(candidate, None);
        if !keep {
            pass_over(candidate.config, &no_key(candidate.provider, Some(candidate.config), model, None));
        }
        keep
    });
    for candidate in &mut candidates {
        candidate.state = state(view, caller, live, candidate, model);
    }
    // A stable sort: equal weights keep the order in which they were declared.
    candidates.sort_by_key(|candidate| (candidate.config.weight.is_none(), Reverse(candidate.weight())));
    let drawn = |candidate: &&Candidate<'_>| candidate.config.weight.is_some() && has_key(candidate, asking.pin);
    let Some(best) = candidates.iter().filter(drawn).map(|candidate| candidate.state).min() else {
        return Err(without_key.unwrap_or_else(|| unresolved(view, model)));
    };
    let pool: Vec<&Candidate<'_>> =
        candidates.iter().filter(drawn).filter(|candidate| candidate.state == best).collect();
    let first = match best {
        // All are: the heaviest says what stands in its way.
        State::Exhausted => 0,
        _ => draw.pick(&pool, |candidate| candidate.weight(), |candidate| &candidate.provider.name).unwrap_or(0),
    };
    let first = pool[first];
    let mut choices = vec![targets(first, model, asking.pin, draw)];
    let others = candidates.iter().filter(|candidate| candidate.index != first.index);
    for other in others {
        if other.state == State::Exhausted && best != State::Exhausted {
            pass_over(other.config, &"a limit of it is used up");
        } else {
            choices.push(targets(other, model, None, draw));
        }
    }
    Ok(choices)
}

fn targets(candidate: &Candidate<'_>, model: &str, pin: Option<Pin<'_>>, draw: &mut Draw) -> Vec<Target> {
    through(candidate.provider, Some((candidate.index, candidate.config)), model, pin, draw)
}

fn state(view: &View, caller: &Caller, live: &dyn Live, candidate: &Candidate<'_>, model: &str) -> State {
    let limits = view.limits(Some(caller), Some(candidate.index), &candidate.provider.name, model, model);
    let mut limits = limits.iter().filter(|limit| limit.level.is_about_target());
    if limits.any(|limit| !admits(limit.max, live.tally(limit).used, 0, Admission::Remaining)) {
        return State::Exhausted;
    }
    if live.health(candidate.provider) > 0.0 { State::Ready } else { State::Unhealthy }
}

/// Why no config of the key is drawn for a bare name.
fn no_candidate(asking: &Asking<'_>, caller: &Caller, model: &str) -> Refusal {
    let Question { view, asked, .. } = *asking.question;
    let configs = &caller.key.provider_configs;
    match configs.iter().find(|config| config.allows(model)) {
        Some(config) if config.weight.is_some() => match view.provider(&config.provider) {
            Some(provider) => match serves(provider, asked) {
                Err(refusal) => refusal,
                Ok(()) => no_key(provider, Some(config), model, None),
            },
            None => unknown_provider(view, &config.provider),
        },
        Some(_) => Refusal::ModelUnresolved { model: model.into() },
        None if configs.is_empty() && view.policy.allow_by_default => unresolved(view, model),
        None => Refusal::ModelBlocked { model: model.into() },
    }
}

/// What is asked for, as far as it decides who can answer.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub kind: RequestKind,
    pub stream: bool,
    /// The wire format of the request. Absent: whichever the provider takes.
    pub dialect: Option<Dialect>,
    /// The provider that a bare model means where nothing else says who serves it; SDKs name none.
    pub home: Option<&'static str>,
}

/// Whether the provider may be asked this at all, and whether this version can ask it.
fn serves(provider: &Provider, Asked { kind, stream, dialect, .. }: Asked) -> Result<(), Refusal> {
    let name = || provider.name.to_string();
    if !provider.allows(kind, stream) {
        return Err(Refusal::UnsupportedOperation { provider: name(), kind, stream });
    }
    let speaks = provider.dialect();
    if speaks.is_none() || dialect.is_some_and(|asked| speaks != Some(asked)) {
        return Err(Refusal::DialectNotSpoken { provider: name(), speaks, asked: dialect });
    }
    Ok(())
}

fn names(set: &ModelSet, provider: &Provider, model: &str) -> bool {
    *set != ModelSet::All && set.contains(&provider.name, model)
}

/// The provider's keys that may serve the model.
fn keys<'a>(
    provider: &'a Provider,
    config: Option<(usize, &'a ProviderConfig)>,
    model: &'a str,
    pin: Option<Pin<'a>>,
) -> impl Iterator<Item = &'a Arc<ProviderKey>> {
    let serves = |key: &&Arc<ProviderKey>| key.serves(&provider.name, model) && provider.base_url(Some(key)).is_some();
    let mut keys = provider.keys.iter().filter(serves);
    std::iter::from_fn(move || {
        keys.find(|key| {
            config.is_none_or(|(_, config)| config.key_ids.contains(&key.id)) && pin.is_none_or(|pin| pin.is(key))
        })
    })
}

/// One target for each of the provider's keys that may serve the model, in an order that is drawn by weight.
fn through(
    provider: &Arc<Provider>,
    config: Option<(usize, &ProviderConfig)>,
    model: &str,
    pin: Option<Pin<'_>>,
    draw: &mut Draw,
) -> Vec<Target> {
    let target = |key: Option<&Arc<ProviderKey>>| Target {
        provider: Arc::clone(provider),
        config: config.map(|(index, _)| index),
        model: model.to_owned(),
        upstream_model: key.and_then(|key| key.aliases.get(model)).map_or(model, String::as_str).to_owned(),
        key: key.cloned(),
        choice: 0,
    };
    if provider.keyless() {
        return vec![target(None)];
    }
    let mut keys: Vec<&Arc<ProviderKey>> = keys(provider, config, model, pin).collect();
    draw.order(&mut keys, |key| key.weight.millionths(), |key| &key.id);
    keys.into_iter().map(|key| target(Some(key))).collect()
}

/// The virtual key's own restriction is a "no"; a provider without a usable key is a fault of the house.
fn no_key(provider: &Provider, config: Option<&ProviderConfig>, model: &str, pin: Option<Pin<'_>>) -> Refusal {
    let serves = |key: &&Arc<ProviderKey>| key.serves(&provider.name, model) && pin.is_none_or(|pin| pin.is(key));
    let restricted = provider.keys.iter().any(|key| serves(&key));
    match config {
        Some(_) if restricted => Refusal::ModelBlocked { model: model.into() },
        _ => Refusal::NoProviderKey { model: model.into() },
    }
}

fn unknown_provider(view: &View, name: &str) -> Refusal {
    let known = view.providers().map(|provider| provider.name.to_string()).collect();
    Refusal::UnknownProvider { name: name.into(), known }
}

fn unresolved(view: &View, model: &str) -> Refusal {
    match model.split_once('/') {
        Some((head, _)) => unknown_provider(view, head),
        None => Refusal::ModelUnresolved { model: model.into() },
    }
}

/// The models that a caller is known to have, as `provider/model`, sorted. Models that nobody listed
/// and no price table knows are not among them, though a `*` may still allow them; nor are those of providers
/// that do not take this dialect.
pub fn models(view: &View, caller: Option<&Caller>, dialect: Dialect) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |provider: &Arc<Provider>, config: Option<&ProviderConfig>| {
        let listed = |set: &ModelSet| match set {
            ModelSet::All => Vec::new(),
            ModelSet::Only(names) => names.clone(),
        };
        let prefix = format!("{}/", provider.name);
        let keys = provider.keys.iter().filter(|key| config.is_none_or(|config| config.key_ids.contains(&key.id)));
        let names = keys.flat_map(|key| listed(&key.models).into_iter().chain(key.aliases.keys().cloned()));
        let names = names.chain(config.into_iter().flat_map(|config| listed(&config.allowed_models)));
        let names = names.chain(view.catalog.models(&provider.name).map(str::to_owned));
        for name in names {
            let model = name.strip_prefix(&prefix).unwrap_or(&name);
            let usable = provider.dialect() == Some(dialect)
                && config.is_none_or(|config| config.allows(model))
                && (provider.keyless()
                    || self::keys(provider, config.map(|config| (0, config)), model, None).next().is_some());
            if usable {
                found.push(format!("{prefix}{model}"));
            }
        }
    };
    match caller {
        Some(caller) if !caller.key.provider_configs.is_empty() => {
            for config in &caller.key.provider_configs {
                if let Some(provider) = view.provider(&config.provider) {
                    add(provider, Some(config));
                }
            }
        }
        Some(_) if !view.policy.allow_by_default => {}
        _ => view.providers().for_each(|provider| add(provider, None)),
    }
    found.sort();
    found.dedup();
    found
}
