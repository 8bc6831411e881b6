//! The view: everything declared, validated and linked, immutable once built.
//!
//! A request takes the current view once and sees nothing else, so a change never alters the rules
//! under a request that is already on its way. Counters are not in here: a limit names its slot, and
//! `state` keeps the cell behind it.

use super::entity::{Limits, Provider, VirtualKey};
use super::judge::Admission;
use super::pricing::{Catalog, UnknownModel};
use super::time::{Timestamp, Window};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// The keyed digest by which a virtual key is found. The key's value itself is not in memory.
pub type Digest = [u8; 32];

#[derive(Debug, Default)]
pub struct View {
    pub policy: Policy,
    pub catalog: Arc<Catalog>,
    providers: BTreeMap<Arc<str>, Arc<Provider>>,
    callers: HashMap<Digest, Arc<Caller>, BuildHasherDefault<DigestHasher>>,
    /// One for each slot: what `state` must keep a cell for.
    slots: Vec<Slot>,
}

/// Settings that decide about requests.
#[derive(Debug, Clone)]
pub struct Policy {
    pub admission: Admission,
    /// No virtual key, no service.
    pub enforce_auth: bool,
    /// Names, in lower case, that every request must carry.
    pub required_headers: Vec<String>,
    /// Whether a key without provider configs may use everything, or nothing.
    pub allow_by_default: bool,
    pub unknown_model: UnknownModel,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            admission: Admission::Remaining,
            enforce_auth: true,
            required_headers: Vec::new(),
            allow_by_default: false,
            unknown_model: UnknownModel::Refuse,
        }
    }
}

/// A virtual key as found, with every limit that applies to its calls.
#[derive(Debug)]
pub struct Caller {
    pub key: Arc<VirtualKey>,
    /// The key's own limits.
    pub limits: Vec<Limit>,
    /// For each of the key's provider configs, in the same order.
    pub configs: Vec<ConfigLimits>,
}

/// The limits of one provider config.
#[derive(Debug)]
pub struct ConfigLimits {
    pub limits: Vec<Limit>,
}

/// An entity with its limits linked to their cells.
#[derive(Debug)]
pub struct Governed<T> {
    pub entity: Arc<T>,
    pub limits: Vec<Limit>,
}

/// One number that may not be passed within one window.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Where `state` keeps the cell.
    pub slot: u32,
    pub key: LimitKey,
    pub level: Level,
    /// Nanos, tokens or requests, by the key's measure.
    pub max: i64,
    pub window: Window,
}

/// What identifies a limit across changes of its size: the entity and what it measures.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitKey {
    pub id: Arc<str>,
    pub measure: Measure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    Money,
    Tokens,
    Requests,
}

impl Measure {
    /// The name under which the ledger keeps it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Measure::Money => "money",
            Measure::Tokens => "tokens",
            Measure::Requests => "requests",
        }
    }

    pub fn from_name(name: &str) -> Option<Measure> {
        [Measure::Money, Measure::Tokens, Measure::Requests].into_iter().find(|measure| measure.as_str() == name)
    }
}

/// Where a limit applies, in the one order in which cells are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    VirtualKey,
    ProviderConfig,
}

/// A cell that `state` must keep.
#[derive(Debug, Clone)]
pub struct Slot {
    pub key: LimitKey,
    pub window: Window,
    pub anchor: Timestamp,
}

/// Everything a view is built from: what the file and the administrators declared, by name and id.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    pub policy: Policy,
    pub catalog: Arc<Catalog>,
    pub providers: BTreeMap<Arc<str>, Arc<Provider>>,
    pub virtual_keys: BTreeMap<Arc<str>, (Digest, Arc<VirtualKey>)>,
}

impl View {
    /// Links what was declared. The parts were validated before; nothing here can fail.
    pub fn build(declared: &Declared) -> View {
        let mut slots = Vec::new();
        let callers = declared
            .virtual_keys
            .values()
            .map(|(digest, key)| (*digest, Arc::new(Caller::link(Arc::clone(key), &mut slots))));
        View {
            policy: declared.policy.clone(),
            catalog: Arc::clone(&declared.catalog),
            providers: declared.providers.clone(),
            callers: callers.collect(),
            slots,
        }
    }

    pub fn caller(&self, digest: &Digest) -> Option<&Arc<Caller>> {
        self.callers.get(digest)
    }

    pub fn callers(&self) -> impl Iterator<Item = (&Digest, &Arc<Caller>)> {
        self.callers.iter()
    }

    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// All providers, by name.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

impl Caller {
    fn link(key: Arc<VirtualKey>, slots: &mut Vec<Slot>) -> Caller {
        let limits = link_limits(Level::VirtualKey, &key.limits, slots);
        let configs = key
            .provider_configs
            .iter()
            .map(|config| ConfigLimits { limits: link_limits(Level::ProviderConfig, &config.limits, slots) });
        Caller { configs: configs.collect(), limits, key }
    }

    /// The limits on a call through the provider config at `config`, in the order cells are taken.
    pub fn limits_through(&self, config: Option<usize>) -> impl Iterator<Item = &Limit> + Clone {
        let config = config.and_then(|index| self.configs.get(index));
        self.limits.iter().chain(config.into_iter().flat_map(|config| &config.limits))
    }
}

fn link_limits(level: Level, declared: &Limits, slots: &mut Vec<Slot>) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut add = |id: &Arc<str>, measure: Measure, max: i64, window: &Window, anchor: Timestamp| {
        let key = LimitKey { id: Arc::clone(id), measure };
        let slot = u32::try_from(slots.len()).expect("a limit takes more than a byte, so 2^32 do not fit in memory");
        slots.push(Slot { key: key.clone(), window: window.clone(), anchor });
        limits.push(Limit { slot, key, level, max, window: window.clone() });
    };
    for budget in &declared.budgets {
        add(&budget.id, Measure::Money, budget.max.get(), &budget.window, budget.anchor);
    }
    if let Some(rate) = &declared.rate_limit {
        let halves = [(Measure::Tokens, &rate.tokens), (Measure::Requests, &rate.requests)];
        for (measure, quota) in halves.into_iter().filter_map(|(m, quota)| Some((m, quota.as_ref()?))) {
            add(&rate.id, measure, quota.max, &quota.window, quota.anchor);
        }
    }
    limits
}

/// A digest is uniform already: eight bytes of it are its hash.
#[derive(Debug, Default)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_ne_bytes(*head);
        }
    }

    // Arrays announce their length first; it is the same for every digest.
    fn write_usize(&mut self, _: usize) {}
    fn write_u64(&mut self, _: u64) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
