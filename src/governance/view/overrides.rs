//! Prices that replace the list's, found by whose call it is and by the model.
//!
//! Invariant: looking one up costs as much as there are kinds of scopes that have any, and lengths of their
//! patterns; how many overrides there are does not matter.

use crate::governance::entity::{ModelPattern, OverrideScope, PricingOverride};
use crate::governance::pricing::Patch;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use imbl::{HashMap, OrdMap};
use std::cmp::Reverse;
use std::sync::Arc;

/// All overrides.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    by_id: OrdMap<Arc<str>, Arc<PricingOverride>>,
    global: SameScope,
    of_provider: HashMap<Arc<str>, SameScope>,
    of_provider_key: HashMap<Arc<str>, SameScope>,
    of_virtual_key: HashMap<Arc<str>, OfVirtualKey>,
}

/// An override with its prices where they go.
#[derive(Debug)]
pub struct LinkedOverride {
    pub entity: Arc<PricingOverride>,
    pub patch: Patch,
}

/// The overrides of one virtual key.
#[derive(Debug, Clone, Default)]
struct OfVirtualKey {
    alone: SameScope,
    by_provider: HashMap<Arc<str>, SameScope>,
    /// By the provider's key: those that name its provider, too, and those that do not.
    by_provider_key: HashMap<Arc<str>, [SameScope; 2]>,
}

/// The overrides of one scope.
#[derive(Debug, Clone, Default)]
struct SameScope {
    exact: HashMap<Arc<str>, SamePattern>,
    /// By the length of what a name begins with, the longest first.
    prefixes: OrdMap<Reverse<usize>, HashMap<Arc<str>, SamePattern>>,
}

/// The oldest first. Few: they differ in the kinds of request that they are for.
type SamePattern = Vec<Arc<LinkedOverride>>;

/// What an override is looked for by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) virtual_key: Option<&'a str>,
    pub(super) provider: &'a str,
    pub(super) provider_key: Option<&'a str>,
    pub(super) model: &'a str,
    pub(super) kind: RequestKind,
}

impl Overrides {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<PricingOverride>> {
        self.by_id.get(id)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<PricingOverride>> {
        self.by_id.values()
    }

    /// The override of the most specific scope that has one for this model and kind.
    pub(super) fn find(&self, wanted: Wanted<'_>) -> Option<&Arc<LinkedOverride>> {
        if self.by_id.is_empty() {
            return None;
        }
        let Wanted { virtual_key, provider, provider_key, .. } = wanted;
        let of_virtual_key = virtual_key.and_then(|key| get(&self.of_virtual_key, key));
        of_virtual_key
            .and_then(|of| of.find(wanted))
            .or_else(|| get(&self.of_provider_key, provider_key?)?.find(wanted))
            .or_else(|| get(&self.of_provider, provider)?.find(wanted))
            .or_else(|| self.global.find(wanted))
    }

    pub(super) fn put(&mut self, over: &Arc<PricingOverride>) {
        self.remove(&over.id);
        self.by_id.insert(Arc::clone(&over.id), Arc::clone(over));
        let linked = LinkedOverride { entity: Arc::clone(over), patch: Patch::of(&over.patch) };
        self.within(&over.scope, |same| same.put(&Arc::new(linked)));
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some(old) = self.by_id.remove(id) {
            self.within(&old.scope, |same| same.remove(&old));
        }
    }

    /// Changes what is in one scope.
    fn within(&mut self, scope: &OverrideScope, change: impl FnOnce(&mut SameScope)) {
        match scope {
            OverrideScope::Global => change(&mut self.global),
            OverrideScope::Provider { provider } => {
                change_entry(&mut self.of_provider, provider, change, SameScope::is_empty);
            }
            OverrideScope::ProviderKey { key } => {
                change_entry(&mut self.of_provider_key, key, change, SameScope::is_empty);
            }
            OverrideScope::VirtualKey { virtual_key } => {
                let change = |of: &mut OfVirtualKey| change(&mut of.alone);
                change_entry(&mut self.of_virtual_key, virtual_key, change, OfVirtualKey::is_empty);
            }
            OverrideScope::VirtualKeyProvider { virtual_key, provider } => {
                let change = |of: &mut OfVirtualKey| {
                    change_entry(&mut of.by_provider, provider, change, SameScope::is_empty);
                };
                change_entry(&mut self.of_virtual_key, virtual_key, change, OfVirtualKey::is_empty);
            }
            OverrideScope::VirtualKeyProviderKey { virtual_key, provider, key } => {
                let change = |both: &mut [SameScope; 2]| change(&mut both[usize::from(provider.is_none())]);
                let change = |of: &mut OfVirtualKey| {
                    let is_empty = |both: &[SameScope; 2]| both.iter().all(SameScope::is_empty);
                    change_entry(&mut of.by_provider_key, key, change, is_empty);
                };
                change_entry(&mut self.of_virtual_key, virtual_key, change, OfVirtualKey::is_empty);
            }
        }
    }
}

impl OfVirtualKey {
    fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.by_provider.is_empty() && self.by_provider_key.is_empty()
    }

    fn find(&self, wanted: Wanted<'_>) -> Option<&Arc<LinkedOverride>> {
        let by_key = wanted.provider_key.and_then(|key| get(&self.by_provider_key, key));
        by_key
            .and_then(|both| both.iter().find_map(|same| same.find(wanted)))
            .or_else(|| get(&self.by_provider, wanted.provider)?.find(wanted))
            .or_else(|| self.alone.find(wanted))
    }
}

impl SameScope {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    /// Exact before wildcard, the longer prefix first, then the oldest.
    fn find(&self, wanted: Wanted<'_>) -> Option<&Arc<LinkedOverride>> {
        let first = |same: &'_ SamePattern| -> Option<usize> {
            same.iter().position(|over| {
                // One that names a provider's key and another provider is for nobody.
                over.entity.request_kinds.contains(&wanted.kind)
                    && over.entity.scope.provider().is_none_or(|provider| **provider == *wanted.provider)
            })
        };
        let pick = |same| first(same).and_then(|at| same.get(at));
        let prefixed = || {
            let heads = self.prefixes.range(Reverse(wanted.model.len())..);
            heads.filter_map(|(length, heads)| get(heads, wanted.model.get(..length.0)?)).find_map(pick)
        };
        get(&self.exact, wanted.model).and_then(pick).or_else(prefixed)
    }

    fn put(&mut self, over: &Arc<LinkedOverride>) {
        let age =
            |over: &LinkedOverride| -> (Timestamp, Arc<str>) { (over.entity.created_at, Arc::clone(&over.entity.id)) };
        self.within(&over.entity.pattern, |same| {
            let at = same.partition_point(|other| age(other) < age(over));
            same.insert(at, Arc::clone(over));
        });
    }

    fn remove(&mut self, old: &PricingOverride) {
        self.within(&old.pattern, |same| same.retain(|over| over.entity.id != old.id));
    }

    /// Changes what is under one pattern.
    fn within(&mut self, pattern: &ModelPattern, change: impl FnOnce(&mut SamePattern)) {
        match pattern {
            ModelPattern::Exact(name) => {
                change_entry(&mut self.exact, &name.as_str().into(), change, Vec::is_empty);
            }
            ModelPattern::Prefix(head) => {
                let length = Reverse(head.len());
                let heads = self.prefixes.entry(length).or_default();
                change_entry(heads, &head.as_str().into(), change, Vec::is_empty);
                if heads.is_empty() {
                    self.prefixes.remove(&length);
                }
            }
        }
    }
}

/// Of most kinds of scope there are none: those cost nothing.
fn get<'a, V>(map: &'a HashMap<Arc<str>, V>, key: &str) -> Option<&'a V> {
    if map.is_empty() { None } else { map.get(key) }
}

/// Changes an entry, which is made if it is not there, and goes once there is nothing in it.
fn change_entry<V: Clone + Default>(
    map: &mut HashMap<Arc<str>, V>,
    key: &Arc<str>,
    change: impl FnOnce(&mut V),
    is_empty: impl FnOnce(&V) -> bool,
) {
    let entry = map.entry(Arc::clone(key)).or_default();
    change(entry);
    if is_empty(entry) {
        map.remove(key);
    }
}
