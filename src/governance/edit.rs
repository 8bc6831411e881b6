//! Changes to what is declared. One vocabulary for all who change something: the store makes a list of
//! edits durable in one transaction, the view applies the same list, and the audit log tells it.

use super::catalog::Catalog;
use super::entity::{
    BasicAuth, ClientConfig, Customer, KeySet, ModelConfig, PricingOverride, Provider, ProviderLimits, RoutingRule,
    RuleScope, Team, VirtualKey,
};
use super::secret::Secret;
use super::time::Timestamp;
use super::view::{Digest, LimitKey, Policy, View};
use std::sync::Arc;

/// One change. An entity replaces the one of the same id, with all that belongs to it.
#[derive(Debug, Clone)]
pub enum Edit {
    Customer(Arc<Customer>),
    RemoveCustomer(Arc<str>),
    Team(Arc<Team>),
    RemoveTeam(Arc<str>),
    VirtualKey {
        key: Arc<VirtualKey>,
        digest: Digest,
        /// Present when the key is made or its value changes.
        value: Option<Secret>,
    },
    RemoveVirtualKey(Arc<str>),
    ModelConfig(Arc<ModelConfig>),
    RemoveModelConfig(Arc<str>),
    ProviderLimits(Arc<ProviderLimits>),
    RemoveProviderLimits(Arc<str>),
    RoutingRule(Arc<RoutingRule>),
    RemoveRoutingRule(Arc<str>),
    PricingOverride(Arc<PricingOverride>),
    RemovePricingOverride(Arc<str>),
    /// With its keys.
    Provider(Arc<Provider>),
    RemoveProvider(Arc<str>),
    Client(Arc<ClientConfig>),
    BasicAuth(Arc<BasicAuth>),
    /// Usage starts from nothing.
    Restart(Restart),
    /// An entry of the config file was brought into force.
    Applied(Arc<Applied>),
    /// The config file has this entry no more.
    Forgotten(EntryKey),
    /// The config file's alone; the store does not keep it.
    Policy(Policy),
    /// Likewise.
    Catalog(Arc<Catalog>),
}

/// Kinds of entries of the config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    Client,
    Auth,
    Provider,
    ProviderLimits,
    Customer,
    Team,
    VirtualKey,
    ModelConfig,
    RoutingRule,
    PricingOverride,
}

impl EntryKind {
    const NAMES: [(EntryKind, &'static str); 10] = [
        (EntryKind::Client, "client_config"),
        (EntryKind::Auth, "auth_config"),
        (EntryKind::Provider, "provider"),
        (EntryKind::ProviderLimits, "provider_governance"),
        (EntryKind::Customer, "customer"),
        (EntryKind::Team, "team"),
        (EntryKind::VirtualKey, "virtual_key"),
        (EntryKind::ModelConfig, "model_config"),
        (EntryKind::RoutingRule, "routing_rule"),
        (EntryKind::PricingOverride, "pricing_override"),
    ];

    pub fn as_str(self) -> &'static str {
        EntryKind::NAMES[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<EntryKind> {
        EntryKind::NAMES.iter().find(|(_, other)| *other == name).map(|(kind, _)| *kind)
    }
}

/// Which entry of the config file: its kind, and its id or its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    pub kind: EntryKind,
    pub name: Arc<str>,
}

/// What is known of an entry of the config file since it was last brought into force. It stays when the
/// object that it made is changed, renamed or deleted over REST: only a changed entry is applied again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub entry: EntryKey,
    pub object_id: Arc<str>,
    /// A keyed digest of the entry's own words.
    pub hash: Arc<str>,
    /// Of the value that it gave a virtual key.
    pub value: Option<Digest>,
}

/// A limit whose usage starts from nothing: at this instant, or right after its current window began if that
/// is later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    pub key: LimitKey,
    pub at: Timestamp,
}

/// What a routing rule shares with another one of its scope, and may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleClash {
    Name,
    Priority,
}

/// Whether another rule stands in the way of this one.
pub fn rule_clash(view: &View, rule: &RoutingRule) -> Option<RuleClash> {
    let others = || view.rules().filter(|other| other.scope == rule.scope && other.id != rule.id);
    if others().any(|other| other.name == rule.name) {
        return Some(RuleClash::Name);
    }
    others().any(|other| other.priority == rule.priority).then_some(RuleClash::Priority)
}

/// Whether another config is for the same model and provider.
pub fn model_config_clashes(view: &View, config: &ModelConfig) -> bool {
    let mut same = view.model_configs_named(&config.model_name);
    same.any(|other| other.entity.id != config.id && other.entity.provider == config.provider)
}

/// Deletes a customer. Its teams and keys stay, on their own.
pub fn remove_customer(view: &View, id: &Arc<str>) -> Vec<Edit> {
    let teams = view.teams_of(id).map(|team| {
        let team = Team { customer_id: None, ..Team::clone(&team.entity) };
        Edit::Team(Arc::new(team))
    });
    let keys = view
        .keys_of_customer(id)
        .map(|caller| changed_key(caller.digest, VirtualKey { customer_id: None, ..VirtualKey::clone(&caller.key) }));
    let mut edits: Vec<Edit> = teams.chain(keys).collect();
    edits.extend(rules_of(view, &RuleScope::Customer(Arc::clone(id))));
    edits.push(Edit::RemoveCustomer(Arc::clone(id)));
    edits
}

/// Deletes a team. Its keys stay, on their own.
pub fn remove_team(view: &View, id: &Arc<str>) -> Vec<Edit> {
    let keys = view
        .keys_of_team(id)
        .map(|caller| changed_key(caller.digest, VirtualKey { team_id: None, ..VirtualKey::clone(&caller.key) }));
    let mut edits: Vec<Edit> = keys.collect();
    edits.extend(rules_of(view, &RuleScope::Team(Arc::clone(id))));
    edits.push(Edit::RemoveTeam(Arc::clone(id)));
    edits
}

/// Deletes a virtual key with everything that is for it alone.
pub fn remove_virtual_key(view: &View, id: &Arc<str>) -> Vec<Edit> {
    let mut edits: Vec<Edit> = rules_of(view, &RuleScope::VirtualKey(Arc::clone(id))).collect();
    edits.extend(overrides(view, |over| over.scope.virtual_key() == Some(id)));
    edits.push(Edit::RemoveVirtualKey(Arc::clone(id)));
    edits
}

/// Deletes a provider with its keys and its limits. Virtual keys' configs that name it stay, dead until
/// it returns.
pub fn remove_provider(view: &View, provider: &Provider) -> Vec<Edit> {
    let has = |id: &Arc<str>| provider.keys.iter().any(|key| key.id == *id);
    let mut edits: Vec<Edit> = overrides(view, |over| {
        over.scope.provider() == Some(&provider.name) || over.scope.provider_key().is_some_and(has)
    })
    .collect();
    edits.extend(without_links(view, provider, |id| provider.keys.iter().any(|key| *key.id == *id)));
    if view.provider_limits(&provider.name).is_some() {
        edits.push(Edit::RemoveProviderLimits(Arc::clone(&provider.name)));
    }
    edits.push(Edit::RemoveProvider(Arc::clone(&provider.name)));
    edits
}

/// Deletes one of a provider's keys. A virtual key that could use no other one is locked out of the
/// provider: taking a key away never widens access.
pub fn remove_provider_key(view: &View, provider: &Provider, id: &str) -> Vec<Edit> {
    let mut edits: Vec<Edit> =
        overrides(view, |over| over.scope.provider_key().is_some_and(|key| **key == *id)).collect();
    edits.extend(without_links(view, provider, |link| link == id));
    let mut provider = provider.clone();
    provider.keys.retain(|key| *key.id != *id);
    edits.push(Edit::Provider(Arc::new(provider)));
    edits
}

fn changed_key(digest: Digest, key: VirtualKey) -> Edit {
    Edit::VirtualKey { key: Arc::new(key), digest, value: None }
}

fn rules_of(view: &View, scope: &RuleScope) -> impl Iterator<Item = Edit> {
    view.rules().filter(move |rule| rule.scope == *scope).map(|rule| Edit::RemoveRoutingRule(Arc::clone(&rule.id)))
}

fn overrides(view: &View, is_scoped: impl Fn(&PricingOverride) -> bool) -> impl Iterator<Item = Edit> {
    let scoped = view.pricing_overrides().filter(move |over| is_scoped(over));
    scoped.map(|over| Edit::RemovePricingOverride(Arc::clone(&over.id)))
}

/// The virtual keys that name one of the provider's keys, without its name.
fn without_links(view: &View, provider: &Provider, is_gone: impl Fn(&str) -> bool) -> Vec<Edit> {
    let mut edits = Vec::new();
    for caller in view.callers() {
        let linked = |ids: &KeySet| matches!(ids, KeySet::Only(ids) if ids.iter().any(|id| is_gone(id)));
        let configs = &caller.key.provider_configs;
        if !configs.iter().any(|config| config.provider == provider.name && linked(&config.key_ids)) {
            continue;
        }
        let mut key = VirtualKey::clone(&caller.key);
        for config in key.provider_configs.iter_mut().filter(|config| config.provider == provider.name) {
            if let KeySet::Only(ids) = &mut config.key_ids {
                ids.retain(|id| !is_gone(id));
            }
        }
        edits.push(changed_key(caller.digest, key));
    }
    edits
}
