//! What a config file declares, and the edits that bring it into force.
//!
//! The file is in force for an object whenever its own entry changed; between changes, edits made
//! through the API stay. Usage survives either way: a limit that is still there keeps its id.

use super::change::{Change, Known};
use super::faults::Faults;
use super::provider::{ProviderChange, provider};
use super::read::Object;
use super::{client, limits, model_config, owner, price_override, provider_limits, rule, virtual_key};
use crate::governance::edit::{Edit, Restart};
use crate::governance::entity::{Limits, Provider, ProviderKey, ProviderLimits};
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::{Digest, LimitKey, Measure, Slots, View};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Everything that a file declares, each object in the contract's own words.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    pub client: Option<Declaration>,
    pub auth: Option<Declaration>,
    /// By name.
    pub providers: Vec<(String, Declaration)>,
    pub provider_limits: Vec<(String, Declaration)>,
    pub customers: Vec<Declaration>,
    pub teams: Vec<Declaration>,
    pub virtual_keys: Vec<Declaration>,
    pub model_configs: Vec<Declaration>,
    pub routing_rules: Vec<Declaration>,
    pub pricing_overrides: Vec<Declaration>,
}

/// One object of a file.
#[derive(Clone)]
pub struct Declaration {
    /// Where it stands, like `governance.teams[0]`.
    pub path: String,
    pub value: Value,
    /// Of the file's own words, so that an entry which did not change is known.
    pub hash: String,
}

impl fmt::Debug for Declaration {
    /// Without the value: there may be secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.hash)
    }
}

/// What bringing a file into force needs beside the file.
pub struct Around<'a> {
    pub now: Timestamp,
    pub new_id: &'a mut dyn FnMut() -> String,
    /// A value for a virtual key that brings none.
    pub new_value: &'a mut dyn FnMut() -> Secret,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Of a virtual key's value.
    pub digest: &'a dyn Fn(&[u8]) -> Digest,
    /// Of `user:password`.
    pub basic_digest: &'a dyn Fn(&str) -> Digest,
    /// An instant for a window of a limit that begins later than its current one.
    pub after_start: &'a dyn Fn(&LimitKey) -> Timestamp,
    /// Whether references that nothing here can look up are believed: where there is no store to ask.
    pub trusting: bool,
}

/// What became of a file's objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Like `virtual_key ci`.
    pub created: Vec<String>,
    pub updated: Vec<String>,
    /// Applied before, and not changed in the file since.
    pub kept: usize,
}

/// The edits that bring `declared` into force over what `view` holds. All problems go to `faults`; the
/// edits are of use only if there were none.
pub fn reconcile(
    view: &View,
    declared: &Declared,
    around: &mut Around<'_>,
    faults: &mut Faults,
) -> (Vec<Edit>, Report) {
    let mut work = Work {
        view: view.clone(),
        slots: Slots::default(),
        edits: Vec::new(),
        report: Report::default(),
        seen: HashSet::new(),
        key_names: HashSet::new(),
        around,
        faults,
    };
    work.settings(declared);
    declared.providers.iter().for_each(|(name, declaration)| work.provider(name, declaration));
    declared.provider_limits.iter().for_each(|(name, declaration)| work.provider_limits(name, declaration));
    declared.customers.iter().for_each(|declaration| work.customer(declaration));
    declared.teams.iter().for_each(|declaration| work.team(declaration));
    declared.virtual_keys.iter().for_each(|declaration| work.virtual_key(declaration));
    declared.model_configs.iter().for_each(|declaration| work.model_config(declaration));
    declared.routing_rules.iter().for_each(|declaration| work.rule(declaration));
    declared.pricing_overrides.iter().for_each(|declaration| work.price_override(declaration));
    (work.edits, work.report)
}

/// A file on its way into force: each object sees those before it.
struct Work<'a, 'b> {
    view: View,
    /// Only so that the view can link; no cell belongs to them.
    slots: Slots,
    edits: Vec<Edit>,
    report: Report,
    /// What this file was about already, by kind and id.
    seen: HashSet<(&'static str, Arc<str>)>,
    /// Names of provider keys that this file declared.
    key_names: HashSet<String>,
    around: &'a mut Around<'b>,
    faults: &'a mut Faults,
}

/// The parts of a declared object that say which one it is.
struct Named<'a> {
    id: Option<&'a str>,
    name: &'a str,
}

impl<'a> Named<'a> {
    fn of(declaration: &'a Declaration, name: &str) -> Named<'a> {
        let text = |member: &str| declaration.value.get(member).and_then(Value::as_str);
        Named { id: text("id").filter(|id| !id.is_empty()), name: text(name).unwrap_or_default() }
    }
}

impl Work<'_, '_> {
    /// Settles whether a declared object is to be applied: not if its entry is the one that was applied,
    /// and not twice.
    fn is_kept(&mut self, what: &'static str, old: Option<(&str, &str)>, declaration: &Declaration) -> bool {
        let Some((id, hash)) = old else { return false };
        if !self.seen.insert((what, id.into())) {
            let message = "is declared twice: another entry has the same id or name";
            self.faults.add(declaration.path.as_str(), message);
            return true;
        }
        let kept = hash == declaration.hash;
        self.report.kept += usize::from(kept);
        kept
    }

    fn put(&mut self, what: &'static str, id: &str, name: &str, is_new: bool, edit: Edit) {
        self.seen.insert((what, id.into()));
        let line = format!("{what} {name}").trim_end().to_owned();
        if is_new {
            self.report.created.push(line)
        } else {
            self.report.updated.push(line)
        }
        self.view.apply(&edit, &mut self.slots);
        self.slots.commit();
        self.edits.push(edit);
    }

    /// Budgets that were turned to the calendar start from nothing, as through the API.
    fn restart(&mut self, new: &Limits, old: &Limits) {
        for budget in new.turned_to_calendar(old) {
            let key = LimitKey { id: Arc::clone(&budget.id), measure: Measure::Money };
            let at = (self.around.after_start)(&key);
            self.edits.push(Edit::Restart(Restart { key, at }));
        }
    }

    /// Reads an object as the contract has it; its faults get the file's paths.
    fn read<T>(
        &mut self,
        declaration: &Declaration,
        read: impl FnOnce(&Value, &mut Change<'_>, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        let mut faults = Faults::default();
        let known = Trusting { view: &self.view, trusting: self.around.trusting };
        let mut change =
            Change { known: &known, new_id: &mut *self.around.new_id, now: self.around.now, own_ids: true };
        let read = read(&declaration.value, &mut change, &mut faults);
        self.place(declaration, &faults);
        read.filter(|_| faults.is_empty())
    }

    fn place(&mut self, declaration: &Declaration, faults: &Faults) {
        for fault in faults.iter() {
            let dot = if fault.path.is_empty() || declaration.path.is_empty() { "" } else { "." };
            self.faults.add(format!("{}{dot}{}", declaration.path, fault.path), fault.message.clone());
        }
    }

    fn clash(&mut self, declaration: &Declaration, member: &str, message: String) {
        self.faults.add(format!("{}.{member}", declaration.path), message);
    }

    fn settings(&mut self, declared: &Declared) {
        if let Some(declaration) = &declared.client {
            let old = Arc::clone(&self.view.client);
            if !self.is_kept("client_config", Some(("", &old.config_hash)), declaration) {
                let mut faults = Faults::default();
                if let Some(body) = Object::of(&declaration.value, "", &mut faults) {
                    let mut client = client::client_config(&body, &Default::default(), &mut faults);
                    client.config_hash.clone_from(&declaration.hash);
                    self.put("client_config", "", "", old.config_hash.is_empty(), Edit::Client(Arc::new(client)));
                }
                self.place(declaration, &faults);
            }
        }
        if let Some(declaration) = &declared.auth {
            let old = Arc::clone(&self.view.basic_auth);
            if !self.is_kept("auth_config", Some(("", &old.config_hash)), declaration) {
                let mut faults = Faults::default();
                if let Some(body) = Object::of(&declaration.value, "", &mut faults) {
                    let (env, digest) = (self.around.env, self.around.basic_digest);
                    let mut auth = client::basic_auth(&body, &Default::default(), env, digest, &mut faults);
                    auth.config_hash.clone_from(&declaration.hash);
                    self.put("auth_config", "", "", old.config_hash.is_empty(), Edit::BasicAuth(Arc::new(auth)));
                }
                self.place(declaration, &faults);
            }
        }
    }

    fn provider(&mut self, name: &str, declaration: &Declaration) {
        let old = self.view.provider(name).cloned();
        if self.is_kept("provider", old.as_deref().map(|old| (name, &*old.config_hash)), declaration) {
            return;
        }
        let mut faults = Faults::default();
        let view = &self.view;
        let named = &self.key_names;
        let others = || view.providers().filter(|other| *other.name != *name).flat_map(|other| &other.keys);
        let mut change = ProviderChange {
            new_id: &mut *self.around.new_id,
            now: self.around.now,
            own_ids: true,
            env: self.around.env,
            key_name_taken: &|key, own| {
                named.contains(key) || others().any(|other| other.name == key && *other.id != *own)
            },
            key_id_taken: &|id| others().any(|other| *other.id == *id),
            strict: true,
            clash: false,
        };
        let read = provider(name, &declaration.value, None, &mut change, &mut faults);
        self.place(declaration, &faults);
        // Of keys with faults, too.
        let names = declaration.value["keys"].as_array().into_iter().flatten().filter_map(|key| key["name"].as_str());
        self.key_names.extend(names.map(str::to_owned));
        let Some(mut provider) = read.filter(|_| faults.is_empty()) else { return };
        provider.config_hash.clone_from(&declaration.hash);
        if let Some(old) = &old {
            adopt_provider(&mut provider, old);
        }
        self.put("provider", name, name, old.is_none(), Edit::Provider(Arc::new(provider)));
    }

    fn provider_limits(&mut self, name: &str, declaration: &Declaration) {
        let old = self.view.provider_limits(name).cloned();
        if self.is_kept("provider_governance", old.as_deref().map(|old| (name, &*old.entity.config_hash)), declaration)
        {
            return;
        }
        if self.view.provider(name).is_none() && !self.around.trusting {
            return self.clash(declaration, "name", format!("provider '{name}' is not configured"));
        }
        let none = Limits::default();
        let read = self.read(declaration, |body, change, faults| {
            provider_limits::provider_limits(body, name, &none, change, faults)
        });
        let Some(mut declared) = read else { return };
        let was = old.as_ref().map_or(&none, |old| &old.entity.limits);
        limits::adopt(&mut declared, was);
        self.restart(&declared, was);
        let config_hash = declaration.hash.clone();
        let entity = ProviderLimits { provider: name.into(), limits: declared, config_hash };
        self.put("provider_governance", name, name, old.is_none(), Edit::ProviderLimits(Arc::new(entity)));
    }

    fn customer(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        // Names are not unique: only what a file made is taken for what a file means.
        let by_name = || {
            let mut all = self.view.customers().map(|governed| &governed.entity);
            all.find(|old| named.id.is_none() && old.name == named.name && !old.config_hash.is_empty())
        };
        let by_id = named.id.and_then(|id| self.view.customer(id)).map(|governed| &governed.entity);
        let old = by_id.or_else(by_name).cloned();
        if self.is_kept("customer", old.as_deref().map(|old| (&*old.id, &*old.config_hash)), declaration) {
            return;
        }
        let read =
            |body: &Value, change: &mut Change<'_>, faults: &mut Faults| owner::customer(body, None, change, faults);
        let Some(mut customer) = self.read(declaration, read) else { return };
        customer.config_hash.clone_from(&declaration.hash);
        if let Some(old) = &old {
            (customer.id, customer.created_at) = (Arc::clone(&old.id), old.created_at);
            limits::adopt(&mut customer.limits, &old.limits);
            self.restart(&customer.limits, &old.limits);
        }
        let (id, name) = (Arc::clone(&customer.id), customer.name.clone());
        self.put("customer", &id, &name, old.is_none(), Edit::Customer(Arc::new(customer)));
    }

    fn team(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let by_name = || {
            let mut all = self.view.teams().map(|governed| &governed.entity);
            all.find(|old| named.id.is_none() && old.name == named.name && !old.config_hash.is_empty())
        };
        let by_id = named.id.and_then(|id| self.view.team(id)).map(|governed| &governed.entity);
        let old = by_id.or_else(by_name).cloned();
        if self.is_kept("team", old.as_deref().map(|old| (&*old.id, &*old.config_hash)), declaration) {
            return;
        }
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| owner::team(body, None, change, faults);
        let Some(mut team) = self.read(declaration, read) else { return };
        team.config_hash.clone_from(&declaration.hash);
        if let Some(old) = &old {
            (team.id, team.created_at) = (Arc::clone(&old.id), old.created_at);
            limits::adopt(&mut team.limits, &old.limits);
            self.restart(&team.limits, &old.limits);
        }
        let (id, name) = (Arc::clone(&team.id), team.name.clone());
        self.put("team", &id, &name, old.is_none(), Edit::Team(Arc::new(team)));
    }

    fn virtual_key(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let by_name = || self.view.callers().find(|caller| caller.key.name == named.name);
        let old = named.id.and_then(|id| self.view.caller_by_id(id)).or_else(by_name).cloned();
        if self.is_kept("virtual_key", old.as_deref().map(|old| (&*old.key.id, &*old.key.config_hash)), declaration) {
            return;
        }
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| {
            virtual_key::virtual_key(body, None, change, faults)
        };
        let Some(read) = self.read(declaration, read) else { return };
        let (mut key, mut value) = (read.key, read.value);
        key.config_hash.clone_from(&declaration.hash);
        if let Some(old) = &old {
            virtual_key::adopt(&mut key, &old.key);
            self.restart(&key.limits, &old.key.limits);
            for config in &key.provider_configs {
                if let Some(was) = old.key.provider_configs.iter().find(|was| was.id == config.id) {
                    self.restart(&config.limits, &was.limits);
                }
            }
        } else if value.is_none() {
            value = Some((self.around.new_value)());
        }
        let name = key.name.clone();
        if self.view.callers().any(|other| other.key.name == name && other.key.id != key.id) {
            return self.clash(declaration, "name", format!("another virtual key is named '{name}'"));
        }
        let digest = value.as_ref().map(|value| (self.around.digest)(value.expose().as_bytes()));
        let digest = digest.or(old.as_ref().map(|old| old.digest)).unwrap_or_default();
        if self.view.caller(&digest).is_some_and(|other| other.key.id != key.id) {
            return self.clash(declaration, "value", "another virtual key has this value".to_owned());
        }
        // The same value again is no rotation.
        let value = value.filter(|_| old.as_ref().is_none_or(|old| old.digest != digest));
        let id = Arc::clone(&key.id);
        let edit = Edit::VirtualKey { key: Arc::new(key), digest, value };
        self.put("virtual_key", &id, &name, old.is_none(), edit);
    }

    fn model_config(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "model_name");
        let provider = declaration.value.get("provider").and_then(Value::as_str).filter(|name| !name.is_empty());
        let by_name = || {
            let mut all = self.view.model_configs().map(|governed| &governed.entity);
            all.find(|old| *old.model_name == *named.name && old.provider.as_deref() == provider)
        };
        let by_id = named.id.and_then(|id| self.view.model_config(id)).map(|governed| &governed.entity);
        let old = by_id.or_else(by_name).cloned();
        if self.is_kept("model_config", old.as_deref().map(|old| (&*old.id, &*old.config_hash)), declaration) {
            return;
        }
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| {
            model_config::model_config(body, None, change, faults)
        };
        let Some(mut config) = self.read(declaration, read) else { return };
        config.config_hash.clone_from(&declaration.hash);
        if let Some(old) = &old {
            (config.id, config.created_at) = (Arc::clone(&old.id), old.created_at);
            limits::adopt(&mut config.limits, &old.limits);
            self.restart(&config.limits, &old.limits);
        }
        let taken = self.view.model_configs().map(|governed| &governed.entity).any(|other| {
            other.id != config.id && other.model_name == config.model_name && other.provider == config.provider
        });
        if taken {
            return self.clash(declaration, "model_name", "another config is for this model and provider".to_owned());
        }
        let (id, name) = (Arc::clone(&config.id), config.model_name.to_string());
        self.put("model_config", &id, &name, old.is_none(), Edit::ModelConfig(Arc::new(config)));
    }

    fn rule(&mut self, declaration: &Declaration) {
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| rule::rule(body, None, change, faults);
        let named = Named::of(declaration, "name");
        let scope = declaration.value.get("scope").and_then(Value::as_str).unwrap_or("global");
        let scope_id = declaration.value.get("scope_id").and_then(Value::as_str);
        let by_name = || {
            self.view.rules().find(|old| {
                old.name == named.name && old.scope.name() == scope && old.scope.id().map(|id| &**id) == scope_id
            })
        };
        let old = named.id.and_then(|id| self.view.rule(id)).or_else(by_name).cloned();
        if self.is_kept("routing_rule", old.as_deref().map(|old| (&*old.id, &*old.config_hash)), declaration) {
            return;
        }
        let Some(mut rule) = self.read(declaration, read) else { return };
        rule.config_hash.clone_from(&declaration.hash);
        if let Some(old) = &old {
            (rule.id, rule.created_at) = (Arc::clone(&old.id), old.created_at);
        }
        let others = || self.view.rules().filter(|other| other.scope == rule.scope && other.id != rule.id);
        if others().any(|other| other.name == rule.name) {
            return self.clash(declaration, "name", format!("another rule of this scope is named '{}'", rule.name));
        }
        if others().any(|other| other.priority == rule.priority) {
            let message = format!("another rule of this scope has the priority {}", rule.priority);
            return self.clash(declaration, "priority", message);
        }
        let (id, name) = (Arc::clone(&rule.id), rule.name.clone());
        self.put("routing_rule", &id, &name, old.is_none(), Edit::RoutingRule(Arc::new(rule)));
    }

    fn price_override(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let by_name = || {
            let mut all = self.view.pricing_overrides();
            all.find(|old| named.id.is_none() && old.name == named.name && !old.config_hash.is_empty())
        };
        let old = named.id.and_then(|id| self.view.pricing_override(id)).or_else(by_name).cloned();
        if self.is_kept("pricing_override", old.as_deref().map(|old| (&*old.id, &*old.config_hash)), declaration) {
            return;
        }
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| {
            price_override::price_override(body, None, change, faults)
        };
        let Some(mut over) = self.read(declaration, read) else { return };
        over.config_hash.clone_from(&declaration.hash);
        if let Some(old) = &old {
            (over.id, over.created_at) = (Arc::clone(&old.id), old.created_at);
        }
        let (id, name) = (Arc::clone(&over.id), over.name.clone());
        self.put("pricing_override", &id, &name, old.is_none(), Edit::PricingOverride(Arc::new(over)));
    }
}

/// Keys that the file does not name are left alone: they were made through the API.
fn adopt_provider(new: &mut Provider, old: &Provider) {
    new.created_at = old.created_at;
    let mut kept: Vec<Arc<ProviderKey>> = Vec::new();
    for key in &old.keys {
        match new.keys.iter_mut().find(|own| own.id == key.id || own.name == key.name) {
            Some(own) => {
                let own = Arc::make_mut(own);
                (own.id, own.created_at) = (Arc::clone(&key.id), key.created_at);
            }
            // What an older version of the file declared went with its entry.
            None if key.config_hash.is_empty() => kept.push(Arc::clone(key)),
            None => {}
        }
    }
    new.keys.extend(kept);
}

/// What can be looked up; where nothing can be, everything is believed to be there.
struct Trusting<'a> {
    view: &'a View,
    trusting: bool,
}

impl Known for Trusting<'_> {
    fn provider(&self, name: &str) -> bool {
        Known::provider(self.view, name)
    }

    fn provider_key(&self, provider: &str, id: &str) -> bool {
        Known::provider_key(self.view, provider, id)
    }

    fn provider_of_key(&self, id: &str) -> Option<String> {
        Known::provider_of_key(self.view, id)
    }

    fn customer(&self, id: &str) -> bool {
        self.trusting || Known::customer(self.view, id)
    }

    fn team(&self, id: &str) -> bool {
        self.trusting || Known::team(self.view, id)
    }

    fn virtual_key(&self, id: &str) -> bool {
        self.trusting || Known::virtual_key(self.view, id)
    }
}
