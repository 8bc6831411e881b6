//! What a config file declares, and the edits that bring it into force.
//!
//! The file is in force for an object whenever its own entry changed; between changes, edits made
//! through the API stay. Usage survives either way: a limit that is still there keeps its id.

use super::change::{Change, Known};
use super::faults::Faults;
use super::provider::{ProviderChange, provider};
use super::read::Object;
use super::virtual_key::{self, VirtualKeyRead};
use super::{client, limits, model_config, owner, price_override, provider_limits, rule};
use crate::governance::cel::Checker;
use crate::governance::edit::{self, Applied, Edit, EntryKey, EntryKind, Restart};
use crate::governance::entity::{Limits, Provider, ProviderKey, ProviderLimits, RoutingRule, VirtualKey};
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::{Digest, LimitKey, Measure, Slots, View};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
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
        entries: HashSet::new(),
        objects: HashSet::new(),
        key_names: HashSet::new(),
        checker: Checker::default(),
        names: None,
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
    work.forget(view);
    (work.edits, work.report)
}

/// A file on its way into force: each object sees those before it.
struct Work<'a, 'b> {
    view: View,
    /// Only so that the view can link; no cell belongs to them.
    slots: Slots,
    edits: Vec<Edit>,
    report: Report,
    /// The entries of this file, and the objects that they are about.
    entries: HashSet<EntryKey>,
    objects: HashSet<(EntryKind, Arc<str>)>,
    /// Names of provider keys that this file declared.
    key_names: HashSet<String>,
    checker: Checker,
    /// Ids of virtual keys by name, made when the first one is looked for.
    names: Option<HashMap<String, Arc<str>>>,
    around: &'a mut Around<'b>,
    faults: &'a mut Faults,
}

/// An entry that is to be applied.
struct Entry {
    key: EntryKey,
    hash: Arc<str>,
    /// What is known of it since it was last applied.
    applied: Option<Arc<Applied>>,
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

    /// What tells the entry apart from the others of its kind.
    fn entry(&self) -> String {
        self.id.map_or_else(|| format!("name {}", self.name), |id| format!("id {id}"))
    }
}

impl Work<'_, '_> {
    /// The entry, unless it is declared twice or in force already. An entry is in force as long as its own
    /// words are those that were applied, whatever became of its object since: that was done over REST.
    /// `found` is what an entry that nothing is known of seems to be about, with the hash that it carries.
    fn begin(
        &mut self,
        kind: EntryKind,
        name: String,
        declaration: &Declaration,
        found: Option<(&str, &str)>,
    ) -> Option<Entry> {
        let key = EntryKey { kind, name: name.into() };
        if !self.entries.insert(key.clone()) {
            self.twice(declaration);
            return None;
        }
        let hash = self.keyed(&declaration.hash);
        let applied = self.view.applied(&key).cloned();
        let in_force = match (&applied, found) {
            (Some(applied), _) => applied.hash == hash,
            // Stored before entries were kept apart from their objects.
            (None, Some((_, old))) => *old == *hash || *old == *declaration.hash,
            (None, None) => false,
        };
        if !in_force {
            return Some(Entry { key, hash, applied });
        }
        self.report.kept += 1;
        let object = applied.as_ref().map(|applied| &*applied.object_id).or(found.map(|(id, _)| id));
        if let Some(id) = object {
            self.objects.insert((kind, id.into()));
            if applied.is_none() {
                let applied = Applied { entry: key, object_id: id.into(), hash, value: None };
                self.edits.push(Edit::Applied(Arc::new(applied)));
            }
        }
        None
    }

    fn twice(&mut self, declaration: &Declaration) {
        let message = "is declared twice: another entry has the same id or name";
        self.faults.add(declaration.path.as_str(), message);
    }

    /// A digest that tells nothing of what may be secret in an entry.
    fn keyed(&self, hash: &str) -> Arc<str> {
        let digest = (self.around.digest)(format!("entry of the config file\0{hash}").as_bytes());
        let hex = digest.iter().take(16).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        hex.into()
    }

    /// Makes the object of an entry what the entry says.
    fn put(&mut self, entry: Entry, declaration: &Declaration, id: &str, name: &str, is_new: bool, edit: Edit) {
        self.put_with(entry, declaration, (id, name, is_new), edit, None);
    }

    fn put_with(
        &mut self,
        entry: Entry,
        declaration: &Declaration,
        (id, name, is_new): (&str, &str, bool),
        edit: Edit,
        value: Option<Digest>,
    ) {
        if !self.objects.insert((entry.key.kind, id.into())) {
            return self.twice(declaration);
        }
        let line = format!("{} {name}", entry.key.kind.as_str()).trim_end().to_owned();
        let lines = if is_new { &mut self.report.created } else { &mut self.report.updated };
        lines.push(line);
        self.make(edit);
        let applied = Applied { entry: entry.key, object_id: id.into(), hash: entry.hash, value };
        self.edits.push(Edit::Applied(Arc::new(applied)));
    }

    fn make(&mut self, edit: Edit) {
        self.view.apply(&edit, &mut self.slots);
        self.slots.commit();
        self.edits.push(edit);
    }

    /// Entries that the file has no more are not known any more, either: should they come back, they count.
    fn forget(&mut self, view: &View) {
        let gone = view.all_applied().filter(|applied| !self.entries.contains(&applied.entry));
        self.edits.extend(gone.map(|applied| Edit::Forgotten(applied.entry.clone())));
    }

    /// Budgets that were turned to the calendar start from nothing, as through the API.
    fn restart(&mut self, new: &Limits, old: &Limits) {
        for budget in new.turned_to_calendar(old) {
            let key = LimitKey { id: Arc::clone(&budget.id), measure: Measure::Money };
            self.edits.push(Edit::Restart(Restart { key, at: self.around.now }));
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
        let (new_id, now, checker) = (&mut *self.around.new_id, self.around.now, &mut self.checker);
        let mut change = Change { known: &known, new_id, now, checker, own_ids: true };
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
            let old = self.view.client.config_hash.clone();
            let found = (!old.is_empty()).then_some(("", &*old));
            if let Some(entry) = self.begin(EntryKind::Client, String::new(), declaration, found) {
                self.client(declaration, entry, old.is_empty());
            }
        }
        if let Some(declaration) = &declared.auth {
            self.auth(declaration);
        }
    }

    fn client(&mut self, declaration: &Declaration, entry: Entry, is_new: bool) {
        let mut faults = Faults::default();
        if let Some(body) = Object::of(&declaration.value, "", &mut faults) {
            let mut client = client::client_config(&body, &Default::default(), &mut faults);
            client.config_hash = entry.hash.to_string();
            self.put(entry, declaration, "", "", is_new, Edit::Client(Arc::new(client)));
        }
        self.place(declaration, &faults);
    }

    /// The password may come from a variable: another value there is another entry.
    fn auth(&mut self, declaration: &Declaration) {
        let mut faults = Faults::default();
        let read = Object::of(&declaration.value, "", &mut faults).map(|body| {
            client::basic_auth(&body, &Default::default(), self.around.env, self.around.basic_digest, &mut faults)
        });
        self.place(declaration, &faults);
        let Some(mut auth) = read.filter(|_| faults.is_empty()) else { return };
        let hash = format!("{} {:?} {}", declaration.hash, auth.digest, auth.username);
        let whole = Declaration { hash, ..declaration.clone() };
        let is_new = self.view.basic_auth.config_hash.is_empty();
        let Some(entry) = self.begin(EntryKind::Auth, String::new(), &whole, None) else { return };
        auth.config_hash = entry.hash.to_string();
        self.put(entry, declaration, "", "", is_new, Edit::BasicAuth(Arc::new(auth)));
    }

    fn provider(&mut self, name: &str, declaration: &Declaration) {
        let old = self.view.provider(name).cloned();
        let found = old.as_deref().map(|old| (name, &*old.config_hash));
        // Of keys with faults, too.
        let names = declaration.value["keys"].as_array().into_iter().flatten().filter_map(|key| key["name"].as_str());
        let own_names: Vec<String> = names.map(str::to_owned).collect();
        let entry = self.begin(EntryKind::Provider, name.to_owned(), declaration, found);
        let read = entry.as_ref().and_then(|_| self.read_provider(name, declaration));
        self.key_names.extend(own_names);
        let (Some(entry), Some(mut provider)) = (entry, read) else { return };
        provider.config_hash = entry.hash.to_string();
        for key in &mut provider.keys {
            Arc::make_mut(key).config_hash = entry.hash.to_string();
        }
        if let Some(old) = &old {
            for id in adopt_provider(&mut provider, old) {
                // With what was for this key alone.
                let current = Arc::clone(self.view.provider(name).unwrap_or(old));
                for edit in edit::remove_provider_key(&self.view.clone(), &current, &id) {
                    self.make(edit);
                }
            }
        }
        self.put(entry, declaration, name, name, old.is_none(), Edit::Provider(Arc::new(provider)));
    }

    fn read_provider(&mut self, name: &str, declaration: &Declaration) -> Option<Provider> {
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
        read.filter(|_| faults.is_empty())
    }

    fn provider_limits(&mut self, name: &str, declaration: &Declaration) {
        let old = self.view.provider_limits(name).cloned();
        let found = old.as_deref().map(|old| (name, &*old.entity.config_hash));
        let Some(entry) = self.begin(EntryKind::ProviderLimits, name.to_owned(), declaration, found) else { return };
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
        let config_hash = entry.hash.to_string();
        let entity = ProviderLimits { provider: name.into(), limits: declared, config_hash };
        self.put(entry, declaration, name, name, old.is_none(), Edit::ProviderLimits(Arc::new(entity)));
    }

    fn customer(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let view = self.view.clone();
        let by_id = |id: &str| view.customer(id).map(|governed| &governed.entity);
        // Names are not unique: only what a file made is taken for what a file means.
        let by_name = || {
            let mut all = view.customers().map(|governed| &governed.entity);
            all.find(|old| old.name == named.name && !old.config_hash.is_empty())
        };
        let found = named.id.map_or_else(by_name, by_id);
        let seems = found.map(|old| (&*old.id, &*old.config_hash));
        let Some(entry) = self.begin(EntryKind::Customer, named.entry(), declaration, seems) else { return };
        let old = entry.applied.as_ref().and_then(|applied| by_id(&applied.object_id)).or(found);
        let read =
            |body: &Value, change: &mut Change<'_>, faults: &mut Faults| owner::customer(body, None, change, faults);
        let Some(mut customer) = self.read(declaration, read) else { return };
        customer.config_hash = entry.hash.to_string();
        if let Some(old) = old {
            (customer.id, customer.created_at) = (Arc::clone(&old.id), old.created_at);
            limits::adopt(&mut customer.limits, &old.limits);
            self.restart(&customer.limits, &old.limits);
        }
        let (id, name) = (Arc::clone(&customer.id), customer.name.clone());
        self.put(entry, declaration, &id, &name, old.is_none(), Edit::Customer(Arc::new(customer)));
    }

    fn team(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let view = self.view.clone();
        let by_id = |id: &str| view.team(id).map(|governed| &governed.entity);
        let by_name = || {
            let mut all = view.teams().map(|governed| &governed.entity);
            all.find(|old| old.name == named.name && !old.config_hash.is_empty())
        };
        let found = named.id.map_or_else(by_name, by_id);
        let seems = found.map(|old| (&*old.id, &*old.config_hash));
        let Some(entry) = self.begin(EntryKind::Team, named.entry(), declaration, seems) else { return };
        let old = entry.applied.as_ref().and_then(|applied| by_id(&applied.object_id)).or(found);
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| owner::team(body, None, change, faults);
        let Some(mut team) = self.read(declaration, read) else { return };
        team.config_hash = entry.hash.to_string();
        if let Some(old) = old {
            (team.id, team.created_at) = (Arc::clone(&old.id), old.created_at);
            limits::adopt(&mut team.limits, &old.limits);
            self.restart(&team.limits, &old.limits);
        }
        let (id, name) = (Arc::clone(&team.id), team.name.clone());
        self.put(entry, declaration, &id, &name, old.is_none(), Edit::Team(Arc::new(team)));
    }

    fn virtual_key(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let view = self.view.clone();
        let holder = self.holder_of(named.name);
        // One that was made over REST is not a file's to take.
        let by_name = || {
            let holder = view.caller_by_id(holder.as_deref()?)?;
            (!holder.key.config_hash.is_empty()).then_some(holder)
        };
        let found = named.id.map_or_else(by_name, |id| view.caller_by_id(id));
        let seems = found.map(|old| (&*old.key.id, &*old.key.config_hash));
        let Some(entry) = self.begin(EntryKind::VirtualKey, named.entry(), declaration, seems) else { return };
        let old = entry.applied.as_ref().and_then(|applied| view.caller_by_id(&applied.object_id)).or(found);
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| {
            virtual_key::virtual_key(body, None, change, faults)
        };
        let Some(VirtualKeyRead { mut key, value }) = self.read(declaration, read) else { return };
        key.config_hash = entry.hash.to_string();
        if let Some(old) = old {
            virtual_key::adopt(&mut key, &old.key);
            // A key that was switched off stays off unless the entry itself says otherwise.
            if declaration.value.get("is_active").is_none_or(Value::is_null) {
                key.is_active = old.key.is_active;
            }
            self.restart(&key.limits, &old.key.limits);
            for config in &key.provider_configs {
                if let Some(was) = old.key.provider_configs.iter().find(|was| was.id == config.id) {
                    self.restart(&config.limits, &was.limits);
                }
            }
        }
        if holder.is_some_and(|holder| holder != key.id) {
            let message =
                format!("another virtual key is named '{}': give the entry its id, or another name", key.name);
            return self.clash(declaration, "name", message);
        }
        self.put_virtual_key(declaration, entry, key, value, old.map(|old| old.digest));
    }

    /// The value is the entry's where that is new, or was changed since the entry was last applied: a value that
    /// was rotated since is not undone by a change of something else.
    fn put_virtual_key(
        &mut self,
        declaration: &Declaration,
        entry: Entry,
        key: VirtualKey,
        declared: Option<Secret>,
        old: Option<Digest>,
    ) {
        let own = declared.as_ref().map(|value| (self.around.digest)(value.expose().as_bytes()));
        let applied = entry.applied.as_ref().and_then(|applied| applied.value);
        let value = match old {
            None => Some(declared.unwrap_or_else(|| (self.around.new_value)())),
            Some(old) => declared.filter(|_| own != Some(old) && own != applied),
        };
        let digest = value.as_ref().map(|value| (self.around.digest)(value.expose().as_bytes())).or(old);
        let digest = digest.expect("a key that is not there yet was given a value");
        if self.view.caller(&digest).is_some_and(|other| other.key.id != key.id) {
            return self.clash(declaration, "value", "another virtual key has this value".to_owned());
        }
        let (id, name) = (Arc::clone(&key.id), key.name.clone());
        if let Some(names) = &mut self.names {
            names.insert(name.clone(), Arc::clone(&id));
        }
        let edit = Edit::VirtualKey { key: Arc::new(key), digest, value };
        self.put_with(entry, declaration, (&id, &name, old.is_none()), edit, own);
    }

    /// Who has a virtual key's name.
    fn holder_of(&mut self, name: &str) -> Option<Arc<str>> {
        let view = &self.view;
        let names = self.names.get_or_insert_with(|| {
            view.callers().map(|caller| (caller.key.name.clone(), Arc::clone(&caller.key.id))).collect()
        });
        // Of one that was renamed since, the old name is free.
        let id = names.get(name)?;
        view.caller_by_id(id).filter(|caller| caller.key.name == name).map(|caller| Arc::clone(&caller.key.id))
    }

    fn model_config(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "model_name");
        let provider = declaration.value.get("provider").and_then(Value::as_str).filter(|name| !name.is_empty());
        let view = self.view.clone();
        let by_id = |id: &str| view.model_config(id).map(|governed| &governed.entity);
        let by_name = || {
            let mut all = view.model_configs().map(|governed| &governed.entity);
            all.find(|old| *old.model_name == *named.name && old.provider.as_deref() == provider)
        };
        let found = named.id.map_or_else(by_name, by_id);
        let seems = found.map(|old| (&*old.id, &*old.config_hash));
        let name = format!("{} of {}", named.entry(), provider.unwrap_or("*"));
        let Some(entry) = self.begin(EntryKind::ModelConfig, name, declaration, seems) else { return };
        let old = entry.applied.as_ref().and_then(|applied| by_id(&applied.object_id)).or(found);
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| {
            model_config::model_config(body, None, change, faults)
        };
        let Some(mut config) = self.read(declaration, read) else { return };
        config.config_hash = entry.hash.to_string();
        if let Some(old) = old {
            (config.id, config.created_at) = (Arc::clone(&old.id), old.created_at);
            limits::adopt(&mut config.limits, &old.limits);
            self.restart(&config.limits, &old.limits);
        }
        let taken = view.model_configs().map(|governed| &governed.entity).any(|other| {
            other.id != config.id && other.model_name == config.model_name && other.provider == config.provider
        });
        if taken {
            return self.clash(declaration, "model_name", "another config is for this model and provider".to_owned());
        }
        let (id, name) = (Arc::clone(&config.id), config.model_name.to_string());
        self.put(entry, declaration, &id, &name, old.is_none(), Edit::ModelConfig(Arc::new(config)));
    }

    fn rule(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let scope = declaration.value.get("scope").and_then(Value::as_str).unwrap_or("global");
        let scope_id = declaration.value.get("scope_id").and_then(Value::as_str);
        let view = self.view.clone();
        let by_name = || {
            let is_of = |old: &RoutingRule| old.scope.name() == scope && old.scope.id().map(|id| &**id) == scope_id;
            view.rules().find(|old| old.name == named.name && is_of(old))
        };
        let found = named.id.map_or_else(by_name, |id| view.rule(id));
        let seems = found.map(|old| (&*old.id, &*old.config_hash));
        let name = format!("{} of {scope} {}", named.entry(), scope_id.unwrap_or_default());
        let Some(entry) = self.begin(EntryKind::RoutingRule, name, declaration, seems) else { return };
        let old = entry.applied.as_ref().and_then(|applied| view.rule(&applied.object_id)).or(found);
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| rule::rule(body, None, change, faults);
        let Some(mut rule) = self.read(declaration, read) else { return };
        rule.config_hash = entry.hash.to_string();
        if let Some(old) = old {
            (rule.id, rule.created_at) = (Arc::clone(&old.id), old.created_at);
        }
        let others = || view.rules().filter(|other| other.scope == rule.scope && other.id != rule.id);
        if others().any(|other| other.name == rule.name) {
            return self.clash(declaration, "name", format!("another rule of this scope is named '{}'", rule.name));
        }
        if others().any(|other| other.priority == rule.priority) {
            let message = format!("another rule of this scope has the priority {}", rule.priority);
            return self.clash(declaration, "priority", message);
        }
        let (id, name) = (Arc::clone(&rule.id), rule.name.clone());
        self.put(entry, declaration, &id, &name, old.is_none(), Edit::RoutingRule(Arc::new(rule)));
    }

    fn price_override(&mut self, declaration: &Declaration) {
        let named = Named::of(declaration, "name");
        let view = self.view.clone();
        let by_name = || {
            let mut all = view.pricing_overrides();
            all.find(|old| old.name == named.name && !old.config_hash.is_empty())
        };
        let found = named.id.map_or_else(by_name, |id| view.pricing_override(id));
        let seems = found.map(|old| (&*old.id, &*old.config_hash));
        let Some(entry) = self.begin(EntryKind::PricingOverride, named.entry(), declaration, seems) else { return };
        let old = entry.applied.as_ref().and_then(|applied| view.pricing_override(&applied.object_id)).or(found);
        let read = |body: &Value, change: &mut Change<'_>, faults: &mut Faults| {
            price_override::price_override(body, None, change, faults)
        };
        let Some(mut over) = self.read(declaration, read) else { return };
        over.config_hash = entry.hash.to_string();
        if let Some(old) = old {
            (over.id, over.created_at) = (Arc::clone(&old.id), old.created_at);
        }
        let (id, name) = (Arc::clone(&over.id), over.name.clone());
        self.put(entry, declaration, &id, &name, old.is_none(), Edit::PricingOverride(Arc::new(over)));
    }
}

/// Gives `new` the ids of what it replaces, and the keys that were made over REST. Returns the ids of those
/// that the file declared once and does no more.
fn adopt_provider(new: &mut Provider, old: &Provider) -> Vec<Arc<str>> {
    new.created_at = old.created_at;
    let (mut kept, mut gone): (Vec<Arc<ProviderKey>>, _) = (Vec::new(), Vec::new());
    for key in &old.keys {
        match new.keys.iter_mut().find(|own| own.id == key.id || own.name == key.name) {
            Some(own) => {
                let own = Arc::make_mut(own);
                (own.id, own.created_at) = (Arc::clone(&key.id), key.created_at);
            }
            None if key.config_hash.is_empty() => kept.push(Arc::clone(key)),
            None => gone.push(Arc::clone(&key.id)),
        }
    }
    new.keys.extend(kept);
    gone
}

/// What can be looked up; where nothing can be, everything is believed to be there.
struct Trusting<'a> {
    view: &'a View,
    trusting: bool,
}

impl Known for Trusting<'_> {
    fn provider(&self, name: &str) -> bool {
        self.trusting || Known::provider(self.view, name)
    }

    fn provider_key(&self, provider: &str, id: &str) -> bool {
        // A key of a declared provider may have been made over REST, too.
        self.trusting || Known::provider_key(self.view, provider, id)
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
