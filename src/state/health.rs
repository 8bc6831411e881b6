//! How providers and their keys are: who failed too often, who must rest, and who is full.
//!
//! Learnt from calls alone and kept in memory. Calls read and write atomics; the map over them changes only
//! with what is declared, and whoever is declared anew begins anew. Nobody is ever forbidden here: these are
//! reasons to ask somebody else first.

pub mod breaker;
pub mod gate;
mod rests;
#[cfg(test)]
mod tests;

use crate::governance::entity::{Provider, ProviderKey};
use crate::governance::time::Timestamp;
use crate::governance::view::View;
use arc_swap::ArcSwap;
use breaker::{Breaker, Leave, Standing};
use gate::Gate;
use rests::Rests;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Nobody rests for longer, whatever an answer says.
pub const LONGEST_MS: u64 = 600_000;

/// The health of all providers, by name.
#[derive(Debug, Default)]
pub struct Health(ArcSwap<Providers>);

pub type Providers = HashMap<Arc<str>, Arc<ProviderHealth>>;

#[derive(Debug)]
pub struct ProviderHealth {
    of: Arc<Provider>,
    breaker: Arc<Breaker>,
    gate: Arc<Gate>,
    keys: Vec<Arc<KeyHealth>>,
}

#[derive(Debug)]
struct KeyHealth {
    of: Arc<ProviderKey>,
    breaker: Breaker,
    /// Milliseconds; past for those who need no rest.
    rests_until: AtomicI64,
    models: Rests,
}

/// What administrators are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Good,
    /// It failed too often in a row.
    Ejected {
        until: Timestamp,
    },
    /// None of its keys can be used.
    NoKey {
        until: Timestamp,
    },
}

/// What an attempt changed for those that come after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ejected {
    pub provider: bool,
    pub key: bool,
}

impl Health {
    /// Takes over what is declared. Who is unchanged keeps its health.
    pub fn follow(&self, view: &View) -> Arc<Providers> {
        let known = self.0.load_full();
        let unchanged = |provider: &Arc<Provider>| {
            known.get(&provider.name).is_some_and(|health| Arc::ptr_eq(&health.of, provider))
        };
        if known.len() == view.providers().len() && view.providers().all(unchanged) {
            return known;
        }
        let next = view.providers().map(|provider| {
            let old = known.get(&provider.name);
            let health = match old {
                Some(old) if Arc::ptr_eq(&old.of, provider) => Arc::clone(old),
                old => Arc::new(ProviderHealth::new(provider, old.map(|old| &**old))),
            };
            (Arc::clone(&provider.name), health)
        });
        let next = Arc::new(next.collect());
        self.0.store(Arc::clone(&next));
        next
    }

    pub fn of(&self, provider: &str) -> Option<Arc<ProviderHealth>> {
        self.0.load().get(provider).cloned()
    }

    /// Whether this provider, with this key if one is meant, may be asked first. Who is unknown is well.
    pub fn usable(&self, provider: &str, key: Option<&str>, now: Timestamp) -> bool {
        self.0.load().get(provider).is_none_or(|health| match key {
            None => health.report(now) == Report::Good,
            key => !matches!(health.standing(key, None, now), Standing::Out { .. }),
        })
    }
}

impl ProviderHealth {
    fn new(provider: &Arc<Provider>, old: Option<&ProviderHealth>) -> ProviderHealth {
        // What was learnt at another place says nothing about this one.
        let there = old.filter(|old| old.of.network == provider.network && old.of.proxy == provider.proxy);
        let key = |key: &Arc<ProviderKey>| {
            let known = there.and_then(|old| old.keys.iter().find(|known| known.of == *key));
            known.cloned().unwrap_or_else(|| Arc::new(KeyHealth::new(key)))
        };
        ProviderHealth {
            of: Arc::clone(provider),
            breaker: there.map(|old| Arc::clone(&old.breaker)).unwrap_or_default(),
            // Those in flight finish in the places that they have.
            gate: old
                .filter(|old| old.gate.bounds() == provider.concurrency)
                .map_or_else(|| Arc::new(Gate::new(provider.concurrency)), |old| Arc::clone(&old.gate)),
            keys: provider.keys.iter().map(key).collect(),
        }
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn key(&self, id: &str) -> Option<&Arc<KeyHealth>> {
        self.keys.iter().find(|key| *key.of.id == *id)
    }

    /// How this provider stands, with this key and model if they are meant: as the worst of them.
    pub fn standing(&self, key: Option<&str>, model: Option<&str>, now: Timestamp) -> Standing {
        let key = key.and_then(|id| self.key(id));
        worse(self.breaker.standing(now), key.map_or(Standing::Good, |key| key.standing(model, now)))
    }

    /// From 0, where it is ejected or has no key that can be used, to 1, where all of them can be.
    pub fn share(&self, now: Timestamp) -> f64 {
        if matches!(self.breaker.standing(now), Standing::Out { .. }) {
            return 0.0;
        }
        let keys = || self.keys.iter().filter(|key| key.of.is_usable());
        let out = keys().filter(|key| matches!(key.standing(None, now), Standing::Out { .. })).count();
        match keys().count() {
            0 => 1.0,
            all => (all - out) as f64 / all as f64,
        }
    }

    pub fn report(&self, now: Timestamp) -> Report {
        if let Standing::Out { until } = self.breaker.standing(now) {
            return Report::Ejected { until };
        }
        let mut soonest = None;
        for key in self.keys.iter().filter(|key| key.of.is_usable()) {
            match key.standing(None, now) {
                Standing::Good | Standing::Due => return Report::Good,
                Standing::Out { until } => {
                    soonest = Some(soonest.map_or(until, |soonest: Timestamp| soonest.min(until)))
                }
            }
        }
        soonest.map_or(Report::Good, |until| Report::NoKey { until })
    }

    /// Leave for one attempt. None: somebody else is finding out how things are, or nobody may yet.
    pub fn enter(self: &Arc<Self>, key: Option<&str>, model: &str, now: Timestamp) -> Option<Pass> {
        let mut pass = self.enter_anyway(key);
        if pass.key().is_some_and(|key| key.rests(Some(model), now).is_some()) {
            return None;
        }
        pass.provider_leave = self.breaker.enter(now);
        if pass.provider_leave == Leave::Denied {
            return None;
        }
        pass.key_leave = pass.key().map_or(Leave::Free, |key| key.breaker.enter(now));
        // What the provider's breaker gave goes back as the pass is dropped.
        (pass.key_leave != Leave::Denied).then_some(pass)
    }

    /// Leave for one attempt, however things are: there is nobody else to ask.
    pub fn enter_anyway(self: &Arc<Self>, key: Option<&str>) -> Pass {
        let key = key.and_then(|id| self.keys.iter().position(|key| *key.of.id == *id));
        Pass { health: Arc::clone(self), key, provider_leave: Leave::Free, key_leave: Leave::Free }
    }
}

impl KeyHealth {
    fn new(key: &Arc<ProviderKey>) -> KeyHealth {
        KeyHealth {
            of: Arc::clone(key),
            breaker: Breaker::default(),
            rests_until: AtomicI64::new(i64::MIN),
            models: Rests::default(),
        }
    }

    fn rests(&self, model: Option<&str>, now: Timestamp) -> Option<Timestamp> {
        let whole = Timestamp::from_millis(self.rests_until.load(Ordering::Relaxed));
        let model = model.and_then(|model| self.models.until(model, now));
        [Some(whole).filter(|until| *until > now), model].into_iter().flatten().max()
    }

    fn standing(&self, model: Option<&str>, now: Timestamp) -> Standing {
        let rests = self.rests(model, now).map_or(Standing::Good, |until| Standing::Out { until });
        worse(self.breaker.standing(now), rests)
    }
}

fn worse(a: Standing, b: Standing) -> Standing {
    match (a, b) {
        (Standing::Out { until: a }, Standing::Out { until: b }) => Standing::Out { until: a.max(b) },
        (out @ Standing::Out { .. }, _) | (_, out @ Standing::Out { .. }) => out,
        (Standing::Due, _) | (_, Standing::Due) => Standing::Due,
        (Standing::Good, Standing::Good) => Standing::Good,
    }
}

/// The leave of one attempt, which tells what came of it. Dropped without a word, nothing was learnt.
#[derive(Debug)]
pub struct Pass {
    health: Arc<ProviderHealth>,
    /// The key's index.
    key: Option<usize>,
    provider_leave: Leave,
    key_leave: Leave,
}

impl Pass {
    fn key(&self) -> Option<&Arc<KeyHealth>> {
        self.key.map(|at| &self.health.keys[at])
    }

    /// The answer has begun, and is none that says no.
    pub fn answering(&self) {
        self.health.breaker.answering(self.provider_leave);
        if let Some(key) = self.key() {
            key.breaker.answering(self.key_leave);
        }
    }

    /// All is well, with the provider and with its key.
    pub fn succeeded(&self) {
        self.answered();
        if let Some(key) = self.key() {
            key.breaker.succeeded();
        }
    }

    /// The provider is well, if only to say no; nothing is said of the key.
    pub fn answered(&self) {
        self.health.breaker.succeeded();
    }

    /// The provider failed. A key is ejected only while another one is left.
    pub fn failed(&self, now: Timestamp) -> Ejected {
        let provider = self.health.breaker.failed(now, self.provider_leave);
        let key = self.key().is_some_and(|key| {
            if !key.breaker.failed(now, self.key_leave) {
                return false;
            }
            let is_left = |other: &Arc<KeyHealth>| {
                !Arc::ptr_eq(other, key)
                    && other.of.is_usable()
                    && !matches!(other.standing(None, now), Standing::Out { .. })
            };
            let ejected = self.health.keys.iter().any(is_left);
            if !ejected {
                key.breaker.spare();
            }
            ejected
        });
        Ejected { provider, key }
    }

    /// The provider does not take its key. True: that is news.
    pub fn rejected(&self, now: Timestamp) -> bool {
        self.key().is_some_and(|key| key.breaker.trip(now, self.key_leave))
    }

    /// This key, or one model at it, is to be left alone for so long. True: that is news.
    pub fn rest(&self, model: Option<&str>, wait_ms: u64, now: Timestamp) -> bool {
        let Some(key) = self.key() else { return false };
        let until = now.plus(i64::try_from(wait_ms.min(LONGEST_MS)).unwrap_or(0));
        let rested = key.rests(model, now).is_some();
        match model {
            Some(model) => key.models.set(model, until, now),
            None => {
                key.rests_until.fetch_max(until.millis(), Ordering::Relaxed);
            }
        }
        !rested
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // After anything else was said there is no probe to give back.
        self.health.breaker.give_back(self.provider_leave);
        if let Some(key) = self.key() {
            key.breaker.give_back(self.key_leave);
        }
    }
}
