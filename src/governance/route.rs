//! From the model a client names to an ordered list of targets: provider, model and provider key.

use super::entity::{ModelSet, Provider, ProviderConfig, ProviderKey, is_built_in_provider};
use super::pricing::{Price, UnknownModel};
use super::refusal::Refusal;
use super::request::RequestKind;
use super::view::{Caller, Measure, View};
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
}

/// The model string taken apart: a known provider before the first slash, or a bare model.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Named { provider: &'a str, model: &'a str },
    Bare(&'a str),
}

fn wanted<'a>(view: &View, text: &'a str) -> Wanted<'a> {
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

/// Every target that may serve `text` for this caller, best first; never empty.
pub fn targets(view: &View, caller: Option<&Caller>, asked: Asked, text: &str) -> Result<Vec<Target>, Refusal> {
    match wanted(view, text) {
        Wanted::Named { model: "", .. } | Wanted::Bare("") => {
            Err(Refusal::InvalidRequest { field: Some("model".into()), message: "model is empty".into() })
        }
        Wanted::Named { provider, model } => named(view, caller, asked, provider, model),
        Wanted::Bare(model) => bare(view, caller, asked, model),
    }
}

fn named(view: &View, caller: Option<&Caller>, asked: Asked, name: &str, model: &str) -> Result<Vec<Target>, Refusal> {
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
    let targets = through(provider, config, model);
    if targets.is_empty() {
        return Err(no_key(provider, config.map(|(_, config)| config), model));
    }
    Ok(targets)
}

/// A bare model goes to the key's weighted provider configs that allow it, heaviest first. Those
/// that are known to have the model are taken alone, if there are any.
fn bare(view: &View, caller: Option<&Caller>, asked: Asked, model: &str) -> Result<Vec<Target>, Refusal> {
    let Some(caller) = caller else { return Err(unresolved(view, model)) };
    let configs = &caller.key.provider_configs;
    let allowed = || configs.iter().enumerate().filter(|(_, config)| config.allows(model));
    let mut candidates: Vec<_> = allowed()
        .filter_map(|(index, config)| Some((index, config, config.weight?, view.provider(&config.provider)?)))
        .filter(|(_, _, _, provider)| serves(provider, asked).is_ok())
        .collect();
    let is_known = |config: &ProviderConfig, provider: &Provider| {
        names(&config.allowed_models, provider, model)
            || view.catalog.find(&provider.name, model, model, asked.0).is_some()
            || provider.keys.iter().any(|key| names(&key.models, provider, model) || key.aliases.contains_key(model))
    };
    let any_known = candidates.iter().any(|(_, config, _, provider)| is_known(config, provider));
    if any_known {
        candidates.retain(|(_, config, _, provider)| is_known(config, provider));
    } else if model.contains('/') {
        // Nobody knows this name, so its head was meant as a provider.
        return Err(unresolved(view, model));
    }
    // A stable sort: equal weights keep the order in which they were declared.
    candidates.sort_by_key(|(_, _, weight, _)| std::cmp::Reverse(*weight));
    let targets: Vec<Target> = candidates
        .iter()
        .flat_map(|(index, config, _, provider)| through(provider, Some((*index, *config)), model))
        .collect();
    if !targets.is_empty() {
        return Ok(targets);
    }
    match (candidates.first(), allowed().next()) {
        (Some((_, config, _, provider)), _) => Err(no_key(provider, Some(config), model)),
        (None, Some((_, config))) if config.weight.is_some() => match view.provider(&config.provider) {
            Some(provider) => match serves(provider, asked) {
                Err(refusal) => Err(refusal),
                Ok(()) => Err(no_key(provider, Some(config), model)),
            },
            None => Err(unknown_provider(view, &config.provider)),
        },
        (None, Some(_)) => Err(Refusal::ModelUnresolved { model: model.into() }),
        (None, None) if configs.is_empty() && view.policy.allow_by_default => Err(unresolved(view, model)),
        (None, None) => Err(Refusal::ModelBlocked { model: model.into() }),
    }
}

/// What is asked for: the kind, and whether as a stream.
pub type Asked = (RequestKind, bool);

/// Whether the provider may be asked this at all, and whether this version can ask it.
fn serves(provider: &Provider, (kind, stream): Asked) -> Result<(), Refusal> {
    let name = || provider.name.to_string();
    if !provider.allows(kind, stream) {
        return Err(Refusal::UnsupportedOperation { provider: name(), kind, stream });
    }
    if !provider.speaks_openai() {
        return Err(Refusal::DialectNotSpoken { provider: name() });
    }
    Ok(())
}

fn names(set: &ModelSet, provider: &Provider, model: &str) -> bool {
    *set != ModelSet::All && set.contains(&provider.name, model)
}

/// One target for each of the provider's keys that may serve the model, heaviest first.
fn through(provider: &Arc<Provider>, config: Option<(usize, &ProviderConfig)>, model: &str) -> Vec<Target> {
    let target = |key: Option<&Arc<ProviderKey>>| Target {
        provider: Arc::clone(provider),
        config: config.map(|(index, _)| index),
        model: model.to_owned(),
        upstream_model: key.and_then(|key| key.aliases.get(model)).map_or(model, String::as_str).to_owned(),
        key: key.cloned(),
    };
    if provider.keyless() {
        return vec![target(None)];
    }
    let mut keys: Vec<_> = provider
        .keys
        .iter()
        .filter(|key| key.serves(&provider.name, model) && provider.base_url(Some(key)).is_some())
        .filter(|key| config.is_none_or(|(_, config)| config.key_ids.contains(&key.id)))
        .collect();
    keys.sort_by_key(|key| std::cmp::Reverse(key.weight));
    keys.into_iter().map(|key| target(Some(key))).collect()
}

/// The virtual key's own restriction is a "no"; a provider without a usable key is a fault of the house.
fn no_key(provider: &Provider, config: Option<&ProviderConfig>, model: &str) -> Refusal {
    let serves = |key: &&Arc<ProviderKey>| key.serves(&provider.name, model);
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
/// and no price table knows are not among them, though a `*` may still allow them.
pub fn models(view: &View, caller: Option<&Caller>) -> Vec<String> {
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
            let usable = provider.speaks_openai()
                && config.is_none_or(|config| config.allows(model))
                && !through(provider, config.map(|config| (0, config)), model).is_empty();
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
