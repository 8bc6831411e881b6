//! What the readers of bodies share: what they may look up, and what they make new objects with.
//!
//! One reader serves a create, an update and the config file. A create starts from nothing, an update from
//! the object as it is; the file is a create that brings its own ids.

use super::faults::Faults;
use super::read::Object;
use crate::governance::cel::Checker;
use crate::governance::entity::is_built_in_provider;
use crate::governance::time::Timestamp;
use crate::governance::view::View;
use std::sync::Arc;

/// What can be looked up while a body is read.
pub trait Known {
    /// Whether a provider is built in or configured.
    fn provider(&self, name: &str) -> bool;
    /// Whether a provider has a key of this id.
    fn provider_key(&self, provider: &str, id: &str) -> bool;
    /// Whose key it is, over all providers.
    fn provider_of_key(&self, id: &str) -> Option<String>;
    fn customer(&self, id: &str) -> bool;
    fn team(&self, id: &str) -> bool;
    fn virtual_key(&self, id: &str) -> bool;
}

/// What a change needs beside its body.
pub struct Change<'a> {
    pub known: &'a dyn Known,
    pub new_id: &'a mut dyn FnMut() -> String,
    pub now: Timestamp,
    /// Of rules' expressions.
    pub checker: &'a mut Checker,
    /// Whether objects may bring their own ids: those of the config file may, those of API bodies are ignored.
    pub own_ids: bool,
}

const ID_BYTES_MAX: usize = 255;

impl Change<'_> {
    /// The id of a new object: its own, if it may and does bring one.
    pub fn id(&mut self, body: &Object<'_>, faults: &mut Faults) -> Arc<str> {
        let own = if self.own_ids { body.text("id", faults).value().filter(|id| !id.is_empty()) } else { None };
        if let Some(id) = own {
            if id.len() > ID_BYTES_MAX || id.contains(char::is_control) {
                faults
                    .add(body.path("id"), format!("an id has at most {ID_BYTES_MAX} bytes and no control characters"));
            }
            return id.into();
        }
        (self.new_id)().into()
    }
}

/// What is declared is what can be referred to.
impl Known for View {
    fn provider(&self, name: &str) -> bool {
        is_built_in_provider(name) || self.provider(name).is_some()
    }

    fn provider_key(&self, provider: &str, id: &str) -> bool {
        self.provider(provider).is_some_and(|provider| provider.keys.iter().any(|key| *key.id == *id))
    }

    fn provider_of_key(&self, id: &str) -> Option<String> {
        let mut providers = self.providers();
        let owner = providers.find(|provider| provider.keys.iter().any(|key| *key.id == *id));
        owner.map(|provider| provider.name.to_string())
    }

    fn customer(&self, id: &str) -> bool {
        self.customer(id).is_some()
    }

    fn team(&self, id: &str) -> bool {
        self.team(id).is_some()
    }

    fn virtual_key(&self, id: &str) -> bool {
        self.caller_by_id(id).is_some()
    }
}

/// A small world that the readers' tests look things up in.
#[cfg(test)]
pub mod fixture {
    use super::*;
    use serde_json::Value;

    pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    pub const LATER: Timestamp = Timestamp::from_millis(1_700_000_100_000);

    /// Providers `openai` (keys `main`, `spare`) and `local` (key `near`); customers `c1`, `c2`; teams `t1`,
    /// `t2`; virtual key `v1`.
    pub struct World;

    impl Known for World {
        fn provider(&self, name: &str) -> bool {
            matches!(name, "openai" | "local")
        }
        fn provider_key(&self, provider: &str, id: &str) -> bool {
            self.provider_of_key(id).is_some_and(|owner| owner == provider)
        }
        fn provider_of_key(&self, id: &str) -> Option<String> {
            match id {
                "main" | "spare" => Some("openai".to_owned()),
                "near" => Some("local".to_owned()),
                _ => None,
            }
        }
        fn customer(&self, id: &str) -> bool {
            matches!(id, "c1" | "c2")
        }
        fn team(&self, id: &str) -> bool {
            matches!(id, "t1" | "t2")
        }
        fn virtual_key(&self, id: &str) -> bool {
            id == "v1"
        }
    }

    /// Reads with ids `new-1`, `new-2`, ... All faults as `path: message`.
    pub fn read_at<T>(
        now: Timestamp,
        own_ids: bool,
        read: impl FnOnce(&mut Change<'_>, &mut Faults) -> Option<T>,
    ) -> Result<T, Vec<String>> {
        let mut count = 0;
        let mut new_id = || {
            count += 1;
            format!("new-{count}")
        };
        let mut faults = Faults::default();
        let read = {
            let checker = &mut Checker::default();
            read(&mut Change { known: &World, new_id: &mut new_id, now, checker, own_ids }, &mut faults)
        };
        match read.filter(|_| faults.is_empty()) {
            Some(read) => Ok(read),
            None => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    /// What `faults` of a table line are compared with.
    pub fn owned(faults: &[&str]) -> Vec<String> {
        faults.iter().map(|&fault| fault.to_owned()).collect()
    }

    /// `base` with the members of `patch` set; null stays null.
    pub fn with(base: &Value, patch: &Value) -> Value {
        let mut merged = base.clone();
        for (name, value) in patch.as_object().into_iter().flatten() {
            merged[name] = value.clone();
        }
        merged
    }
}
