//! The view: everything declared, validated and linked.
//!
//! A request takes the current view once and sees nothing else, so a change never alters the rules
//! under a request that is already on its way. A change makes a new view that shares with the old one
//! what it leaves alone. Counters are not in here: a limit names its slot, and `state` keeps the cell
//! behind it.

mod limit;
mod overrides;
#[cfg(test)]
mod tests;

use super::catalog::Catalog;
use super::edit::{Applied, Edit, EntryKey};
use super::entity::{
    BasicAuth, ClientConfig, Customer, ModelConfig, PricingOverride, Provider, ProviderKey, ProviderLimits,
    RoutingRule, RuleScope, Team, VirtualKey,
};
use super::judge::Admission;
use super::model_name;
use super::money::Nanos;
use super::pricing::UnknownModel;
use super::request::RequestKind;
use super::time::Timestamp;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, HashMap, OrdMap, OrdSet};
use overrides::{Overrides, Wanted};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

pub use limit::{Governed, Level, Limit, LimitKey, Measure, Slot, Slots};
pub use overrides::LinkedOverride;

/// The keyed digest by which a virtual key is found. The key's value itself is not in memory.
pub type Digest = [u8; 32];

/// Everything declared, validated and linked. Cloning is cheap: the parts are shared.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub policy: Policy,
    pub client: Arc<ClientConfig>,
    pub basic_auth: Arc<BasicAuth>,
    pub catalog: Arc<Catalog>,
    providers: OrdMap<Arc<str>, Arc<Provider>>,
    provider_limits: OrdMap<Arc<str>, Arc<Governed<ProviderLimits>>>,
    model_configs: OrdMap<Arc<str>, Arc<Governed<ModelConfig>>>,
    /// The same by the name of the model, and by what is left of it without a `provider/`.
    models: HashMap<Arc<str>, Vec<Arc<Governed<ModelConfig>>>>,
    customers: OrdMap<Arc<str>, Arc<Governed<Customer>>>,
    teams: OrdMap<Arc<str>, Arc<Governed<Team>>>,
    /// Ids of a customer's teams, of a team's keys, and of a customer's own keys.
    customer_teams: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    team_keys: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    customer_keys: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    callers: GenericHashMap<Digest, Arc<Caller>, BuildHasherDefault<DigestHasher>, DefaultSharedPtr>,
    callers_by_id: HashMap<Arc<str>, Arc<Caller>>,
    /// Oldest first, as lists show them.
    callers_by_age: OrdMap<(Timestamp, Arc<str>), Arc<Caller>>,
    rules: OrdMap<Arc<str>, Arc<RoutingRule>>,
    /// The same by scope, in the order in which they are tried.
    rules_in_order: HashMap<RuleScope, OrdMap<RuleOrder, Arc<RoutingRule>>>,
    /// How often chain rules may follow one another; 0 stands for the default.
    chain_max: usize,
    /// What the config file last brought into force.
    applied: HashMap<EntryKey, Arc<Applied>>,
    pricing_overrides: Overrides,
}

/// Settings of the config file that decide about requests.
#[derive(Debug, Clone)]
pub struct Policy {
    pub admission: Admission,
    /// No answer is lowered to fewer tokens than this.
    pub output_min: u64,
    /// The most that one call may be able to cost. Absent: no cap.
    pub request_cost_max: Option<Nanos>,
    /// How many calls of one virtual key may be in flight at once. Absent: no cap.
    pub in_flight_per_key_max: Option<u32>,
    /// Whether a key without provider configs may use everything, or nothing.
    pub allow_by_default: bool,
    pub unknown_model: UnknownModel,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            admission: Admission::default(),
            output_min: OUTPUT_MIN,
            request_cost_max: None,
            in_flight_per_key_max: None,
            allow_by_default: false,
            unknown_model: UnknownModel::default(),
        }
    }
}

/// The least that OpenAI's responses take for a cap.
const OUTPUT_MIN: u64 = 16;

/// A virtual key as found, with every limit that applies to its calls.
#[derive(Debug)]
pub struct Caller {
    pub key: Arc<VirtualKey>,
    pub digest: Digest,
    /// The key's own limits.
    pub limits: Arc<[Limit]>,
    /// For each of the key's provider configs, in the same order.
    pub configs: Arc<[ConfigLimits]>,
    pub team: Option<Arc<Governed<Team>>>,
    /// The team's customer, or the key's own.
    pub customer: Option<Arc<Governed<Customer>>>,
}

/// The limits of one provider config.
#[derive(Debug)]
pub struct ConfigLimits {
    pub limits: Vec<Limit>,
}

/// Smaller priorities first, and of equal ones the newest.
type RuleOrder = (i64, Reverse<Timestamp>, Arc<str>);

/// The limits on one attempt, in the order in which cells are taken.
pub type Applying<'a> = SmallVec<[&'a Limit; 12]>;

impl View {
    /// The limits on a call of `caller`, through its provider config at `config`, to a provider's model, which
    /// the provider may know by another name.
    pub fn limits<'a>(
        &'a self,
        caller: Option<&'a Caller>,
        config: Option<usize>,
        provider: &str,
        model: &str,
        upstream_model: &str,
    ) -> Applying<'a> {
        let mut limits = Applying::new();
        if let Some(governed) = self.provider_limits.get(provider) {
            limits.extend(&governed.limits);
        }
        for governed in self.model_configs_for(provider, model, upstream_model) {
            limits.extend(&governed.limits);
        }
        if let Some(caller) = caller {
            limits.extend(caller.customer.iter().flat_map(|customer| &customer.limits));
            limits.extend(caller.team.iter().flat_map(|team| &team.limits));
            limits.extend(caller.limits.iter());
            limits.extend(config.and_then(|index| caller.configs.get(index)).into_iter().flat_map(|c| &c.limits));
        }
        limits
    }

    /// The configs of a model: those of this provider, then those of every provider. They hold whatever name
    /// the model goes by, ours or the provider's, and a limit on a base name holds for its releases, too.
    pub fn model_configs_for<'a>(
        &'a self,
        provider: &str,
        model: &str,
        upstream_model: &str,
    ) -> SmallVec<[&'a Arc<Governed<ModelConfig>>; 4]> {
        let mut found = SmallVec::new();
        if self.models.is_empty() {
            return found;
        }
        let forms = |name| [name, model_name::without_prefix(name), model_name::base(name)];
        let names: [[&str; 3]; 2] = [forms(model), forms(upstream_model)];
        let names = names.as_flattened();
        for (_, name) in names.iter().enumerate().filter(|(i, name)| !names[..*i].contains(name)) {
            let configs = self.models.get(*name).into_iter().flatten();
            found.extend(configs.filter(|governed| governed.entity.is_for(provider, name)));
        }
        found.sort_by_key(|governed| (governed.entity.provider.is_none(), &governed.entity.id));
        found.dedup_by(|one, other| Arc::ptr_eq(one, other));
        found
    }

    /// What a global limit is on, as messages name it: a provider, a model, or `provider/model`.
    pub fn subject(&self, limit: &Limit) -> Option<String> {
        let is_it = |limits: &[Limit]| limits.iter().any(|other| other.slot == limit.slot);
        match limit.level {
            Level::Provider => {
                let governed = self.provider_limits.values().find(|governed| is_it(&governed.limits));
                governed.map(|governed| governed.entity.provider.to_string())
            }
            Level::ProviderModel | Level::Model => {
                let governed = self.model_configs.values().find(|governed| is_it(&governed.limits))?;
                let model = &governed.entity.model_name;
                Some(governed.entity.provider.as_ref().map_or_else(|| model.to_string(), |p| format!("{p}/{model}")))
            }
            _ => None,
        }
    }

    pub fn caller(&self, digest: &Digest) -> Option<&Arc<Caller>> {
        self.callers.get(digest)
    }

    pub fn caller_by_id(&self, id: &str) -> Option<&Arc<Caller>> {
        self.callers_by_id.get(id)
    }

    /// All virtual keys, oldest first.
    pub fn callers(&self) -> impl ExactSizeIterator<Item = &Arc<Caller>> {
        self.callers_by_age.values()
    }

    pub fn keys_of_team(&self, id: &str) -> impl Iterator<Item = &Arc<Caller>> {
        self.team_keys.get(id).into_iter().flatten().filter_map(|key| self.caller_by_id(key))
    }

    /// The keys that belong to a customer directly, not through a team.
    pub fn keys_of_customer(&self, id: &str) -> impl Iterator<Item = &Arc<Caller>> {
        self.customer_keys.get(id).into_iter().flatten().filter_map(|key| self.caller_by_id(key))
    }

    pub fn customer(&self, id: &str) -> Option<&Arc<Governed<Customer>>> {
        self.customers.get(id)
    }

    pub fn customers(&self) -> impl ExactSizeIterator<Item = &Arc<Governed<Customer>>> {
        self.customers.values()
    }

    pub fn team(&self, id: &str) -> Option<&Arc<Governed<Team>>> {
        self.teams.get(id)
    }

    pub fn teams(&self) -> impl ExactSizeIterator<Item = &Arc<Governed<Team>>> {
        self.teams.values()
    }

    pub fn teams_of(&self, customer: &str) -> impl Iterator<Item = &Arc<Governed<Team>>> {
        self.customer_teams.get(customer).into_iter().flatten().filter_map(|id| self.team(id))
    }

    pub fn model_config(&self, id: &str) -> Option<&Arc<Governed<ModelConfig>>> {
        self.model_configs.get(id)
    }

    pub fn model_configs(&self) -> impl ExactSizeIterator<Item = &Arc<Governed<ModelConfig>>> {
        self.model_configs.values()
    }

    /// Those for models of exactly this name.
    pub fn model_configs_named(&self, name: &str) -> impl Iterator<Item = &Arc<Governed<ModelConfig>>> {
        let found = self.models.get(name).into_iter().flatten();
        found.filter(move |governed| *governed.entity.model_name == *name)
    }

    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// All providers, by name.
    pub fn providers(&self) -> impl ExactSizeIterator<Item = &Arc<Provider>> {
        self.providers.values()
    }

    pub fn provider_limits(&self, provider: &str) -> Option<&Arc<Governed<ProviderLimits>>> {
        self.provider_limits.get(provider)
    }

    pub fn all_provider_limits(&self) -> impl ExactSizeIterator<Item = &Arc<Governed<ProviderLimits>>> {
        self.provider_limits.values()
    }

    /// What is known of an entry of the config file.
    pub fn applied(&self, entry: &EntryKey) -> Option<&Arc<Applied>> {
        self.applied.get(entry)
    }

    pub fn all_applied(&self) -> impl Iterator<Item = &Arc<Applied>> {
        self.applied.values()
    }

    pub fn rule(&self, id: &str) -> Option<&Arc<RoutingRule>> {
        self.rules.get(id)
    }

    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Arc<RoutingRule>> {
        self.rules.values()
    }

    /// The rules of one scope, disabled ones included, in the order in which they are tried.
    pub fn rules_in(&self, scope: &RuleScope) -> impl Iterator<Item = &Arc<RoutingRule>> {
        self.rules_in_order.get(scope).into_iter().flat_map(OrdMap::values)
    }

    /// How often chain rules may follow one another.
    pub fn chain_max(&self) -> usize {
        if self.chain_max == 0 { ClientConfig::CHAIN_MAX_USUAL } else { self.chain_max }
    }

    pub fn pricing_override(&self, id: &str) -> Option<&Arc<PricingOverride>> {
        self.pricing_overrides.get(id)
    }

    pub fn pricing_overrides(&self) -> impl ExactSizeIterator<Item = &Arc<PricingOverride>> {
        self.pricing_overrides.iter()
    }

    /// The override that prices a call: of the most specific scope that has one for this model and kind.
    pub fn price_override_for(
        &self,
        caller: Option<&Caller>,
        provider: &Provider,
        key: Option<&ProviderKey>,
        model: &str,
        kind: RequestKind,
    ) -> Option<&Arc<LinkedOverride>> {
        let virtual_key = caller.map(|caller| &*caller.key.id);
        let provider_key = key.map(|key| &*key.id);
        self.pricing_overrides.find(Wanted { virtual_key, provider: &provider.name, provider_key, model, kind })
    }

    /// Makes one change. It was checked before; nothing here can fail.
    pub fn apply(&mut self, edit: &Edit, slots: &mut Slots) {
        match edit {
            Edit::Customer(customer) => self.put_customer(customer, slots),
            Edit::RemoveCustomer(id) => {
                let gone = self.customers.remove(id);
                slots.unlink(gone.iter().flat_map(|customer| &customer.limits));
                self.relink_customer(id);
            }
            Edit::Team(team) => self.put_team(team, slots),
            Edit::RemoveTeam(id) => {
                if let Some(gone) = self.teams.remove(id) {
                    slots.unlink(&gone.limits);
                    leave(&mut self.customer_teams, gone.entity.customer_id.as_ref(), id);
                }
                self.relink_team(id);
            }
            Edit::VirtualKey { key, digest, .. } => self.put_virtual_key(key, *digest, slots),
            Edit::RemoveVirtualKey(id) => {
                if let Some(gone) = self.take_virtual_key(id) {
                    slots.unlink(gone.own_limits());
                }
            }
            Edit::ModelConfig(config) => self.put_model_config(config, slots),
            Edit::RemoveModelConfig(id) => self.take_model_config(id, slots),
            Edit::ProviderLimits(limits) => {
                let linked = slots.link(Level::Provider, &limits.limits);
                let governed = Governed { entity: Arc::clone(limits), limits: linked };
                if let Some(old) = self.provider_limits.get(&limits.provider) {
                    slots.unlink(&old.limits);
                }
                self.provider_limits.insert(Arc::clone(&limits.provider), Arc::new(governed));
            }
            Edit::RemoveProviderLimits(provider) => {
                let gone = self.provider_limits.remove(provider);
                slots.unlink(gone.iter().flat_map(|governed| &governed.limits));
            }
            Edit::RoutingRule(rule) => {
                self.take_rule(&rule.id);
                self.rules.insert(Arc::clone(&rule.id), Arc::clone(rule));
                self.rules_in_order.entry(rule.scope.clone()).or_default().insert(order(rule), Arc::clone(rule));
            }
            Edit::RemoveRoutingRule(id) => self.take_rule(id),
            Edit::PricingOverride(over) => self.pricing_overrides.put(over),
            Edit::RemovePricingOverride(id) => self.pricing_overrides.remove(id),
            Edit::Provider(provider) => {
                self.providers.insert(Arc::clone(&provider.name), Arc::clone(provider));
            }
            Edit::RemoveProvider(name) => drop(self.providers.remove(name)),
            Edit::Client(client) => {
                self.client = Arc::clone(client);
                self.chain_max = client.chain_max();
            }
            Edit::BasicAuth(auth) => self.basic_auth = Arc::clone(auth),
            Edit::Policy(policy) => self.policy = policy.clone(),
            Edit::Catalog(catalog) => self.catalog = Arc::clone(catalog),
            Edit::Applied(applied) => drop(self.applied.insert(applied.entry.clone(), Arc::clone(applied))),
            Edit::Forgotten(entry) => drop(self.applied.remove(entry)),
            // Counters are not in here.
            Edit::Restart(_) => {}
        }
    }

    fn put_customer(&mut self, customer: &Arc<Customer>, slots: &mut Slots) {
        let limits = slots.link(Level::Customer, &customer.limits);
        if let Some(old) = self.customers.get(&customer.id) {
            slots.unlink(&old.limits);
        }
        let governed = Arc::new(Governed { entity: Arc::clone(customer), limits });
        self.customers.insert(Arc::clone(&customer.id), governed);
        self.relink_customer(&customer.id);
    }

    fn put_team(&mut self, team: &Arc<Team>, slots: &mut Slots) {
        let limits = slots.link(Level::Team, &team.limits);
        if let Some(old) = self.teams.get(&team.id) {
            slots.unlink(&old.limits);
            leave(&mut self.customer_teams, old.entity.customer_id.as_ref(), &team.id);
        }
        join(&mut self.customer_teams, team.customer_id.as_ref(), &team.id);
        self.teams.insert(Arc::clone(&team.id), Arc::new(Governed { entity: Arc::clone(team), limits }));
        self.relink_team(&team.id);
    }

    fn put_virtual_key(&mut self, key: &Arc<VirtualKey>, digest: Digest, slots: &mut Slots) {
        let limits = slots.link(Level::VirtualKey, &key.limits);
        let configs = key.provider_configs.iter();
        let configs = configs.map(|config| ConfigLimits { limits: slots.link(Level::ProviderConfig, &config.limits) });
        let configs: Arc<[ConfigLimits]> = configs.collect();
        if let Some(old) = self.take_virtual_key(&key.id) {
            slots.unlink(old.own_limits());
        }
        join(&mut self.team_keys, key.team_id.as_ref(), &key.id);
        join(&mut self.customer_keys, key.customer_id.as_ref(), &key.id);
        self.index_caller(key, digest, limits.into(), configs);
    }

    /// Finds the key's team and customer and puts it where it is looked for.
    fn index_caller(
        &mut self,
        key: &Arc<VirtualKey>,
        digest: Digest,
        limits: Arc<[Limit]>,
        configs: Arc<[ConfigLimits]>,
    ) {
        let team = key.team_id.as_ref().and_then(|id| self.teams.get(id)).cloned();
        let customer = team.as_ref().map_or(key.customer_id.as_ref(), |team| team.entity.customer_id.as_ref());
        let customer = customer.and_then(|id| self.customers.get(id)).cloned();
        let caller = Arc::new(Caller { key: Arc::clone(key), digest, limits, configs, team, customer });
        self.callers.insert(digest, Arc::clone(&caller));
        self.callers_by_age.insert((key.created_at, Arc::clone(&key.id)), Arc::clone(&caller));
        self.callers_by_id.insert(Arc::clone(&key.id), caller);
    }

    fn take_virtual_key(&mut self, id: &Arc<str>) -> Option<Arc<Caller>> {
        let old = self.callers_by_id.remove(id)?;
        self.callers.remove(&old.digest);
        self.callers_by_age.remove(&(old.key.created_at, Arc::clone(id)));
        leave(&mut self.team_keys, old.key.team_id.as_ref(), id);
        leave(&mut self.customer_keys, old.key.customer_id.as_ref(), id);
        Some(old)
    }

    fn put_model_config(&mut self, config: &Arc<ModelConfig>, slots: &mut Slots) {
        let level = if config.provider.is_some() { Level::ProviderModel } else { Level::Model };
        let limits = slots.link(level, &config.limits);
        self.take_model_config(&config.id, slots);
        let governed = Arc::new(Governed { entity: Arc::clone(config), limits });
        self.model_configs.insert(Arc::clone(&config.id), Arc::clone(&governed));
        for name in config.names() {
            self.models.entry(name.into()).or_default().push(Arc::clone(&governed));
        }
    }

    fn take_model_config(&mut self, id: &Arc<str>, slots: &mut Slots) {
        let Some(old) = self.model_configs.remove(id) else { return };
        slots.unlink(&old.limits);
        for name in old.entity.names() {
            let Some(same) = self.models.get_mut(name) else { continue };
            same.retain(|governed| governed.entity.id != *id);
            if same.is_empty() {
                self.models.remove(name);
            }
        }
    }

    fn take_rule(&mut self, id: &str) {
        let Some(old) = self.rules.remove(id) else { return };
        let Some(same) = self.rules_in_order.get_mut(&old.scope) else { return };
        same.remove(&order(&old));
        if same.is_empty() {
            self.rules_in_order.remove(&old.scope);
        }
    }

    /// Gives the keys under a customer the customer as it is now.
    fn relink_customer(&mut self, id: &Arc<str>) {
        let teams: Vec<Arc<str>> = self.customer_teams.get(id).into_iter().flatten().cloned().collect();
        teams.iter().for_each(|team| self.relink_team(team));
        self.relink(self.customer_keys.get(id).cloned());
    }

    fn relink_team(&mut self, id: &Arc<str>) {
        self.relink(self.team_keys.get(id).cloned());
    }

    fn relink(&mut self, keys: Option<OrdSet<Arc<str>>>) {
        for id in keys.into_iter().flatten() {
            if let Some(old) = self.callers_by_id.get(&id).cloned() {
                self.index_caller(&old.key, old.digest, Arc::clone(&old.limits), Arc::clone(&old.configs));
            }
        }
    }
}

fn order(rule: &RoutingRule) -> RuleOrder {
    (rule.priority, Reverse(rule.created_at), Arc::clone(&rule.id))
}

/// Notes that `member` belongs to `owner`, if there is one.
fn join(groups: &mut OrdMap<Arc<str>, OrdSet<Arc<str>>>, owner: Option<&Arc<str>>, member: &Arc<str>) {
    if let Some(owner) = owner {
        groups.entry(Arc::clone(owner)).or_default().insert(Arc::clone(member));
    }
}

fn leave(groups: &mut OrdMap<Arc<str>, OrdSet<Arc<str>>>, owner: Option<&Arc<str>>, member: &Arc<str>) {
    let Some(group) = owner.and_then(|owner| groups.get_mut(owner)) else { return };
    group.remove(member);
    if group.is_empty() {
        owner.map(|owner| groups.remove(owner));
    }
}

impl Caller {
    /// What is the caller's alone of the limits on a call through the provider config at `config`.
    pub fn limits_through(&self, config: Option<usize>) -> impl Iterator<Item = &Limit> + Clone {
        let config = config.and_then(|index| self.configs.get(index));
        self.limits.iter().chain(config.into_iter().flat_map(|config| &config.limits))
    }

    /// The limits of the key and of its provider configs.
    pub fn own_limits(&self) -> impl Iterator<Item = &Limit> {
        self.limits.iter().chain(self.configs.iter().flat_map(|config| &config.limits))
    }

    pub fn team_id(&self) -> Option<Arc<str>> {
        self.team.as_ref().map(|team| Arc::clone(&team.entity.id))
    }

    /// Of the team's customer, or the key's own.
    pub fn customer_id(&self) -> Option<Arc<str>> {
        self.customer.as_ref().map(|customer| Arc::clone(&customer.entity.id))
    }
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
