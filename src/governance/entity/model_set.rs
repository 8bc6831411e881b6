//! Which models, or which provider keys, something may be used with.

/// A set of model names. Names are compared as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSet {
    /// Written `["*"]`.
    All,
    /// Written as a list; an empty one allows nothing.
    Only(Vec<String>),
}

impl ModelSet {
    /// Reads the wire form, in which `*` stands alone or not at all.
    pub fn from_names(names: Vec<String>) -> ModelSet {
        if names.len() == 1 && names[0] == "*" { ModelSet::All } else { ModelSet::Only(names) }
    }

    pub fn names(&self) -> Vec<String> {
        match self {
            ModelSet::All => vec!["*".to_owned()],
            ModelSet::Only(names) => names.clone(),
        }
    }

    /// Whether `model` of `provider` is in the set. An entry may carry the provider as a prefix.
    pub fn contains(&self, provider: &str, model: &str) -> bool {
        match self {
            ModelSet::All => true,
            ModelSet::Only(names) => {
                // `openai/gpt-4o` of openai is `gpt-4o`, on either side.
                let bare = |name: &'_ str| -> usize {
                    let rest = name.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/'));
                    name.len() - rest.unwrap_or(name).len()
                };
                names.iter().any(|name| name == model || name[bare(name)..] == model[bare(model)..])
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, ModelSet::Only(names) if names.is_empty())
    }
}

/// Which keys of a provider a virtual key may use, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySet {
    /// Written `["*"]`.
    All,
    /// An empty list locks the provider out.
    Only(Vec<String>),
}

impl KeySet {
    pub fn contains(&self, id: &str) -> bool {
        match self {
            KeySet::All => true,
            KeySet::Only(ids) => ids.iter().any(|known| known == id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_match_by_their_whole_name() {
        let set = |names: &[&str]| ModelSet::from_names(names.iter().map(|&n| n.to_owned()).collect());
        let check = |names: &[&str], model: &str, allowed: bool| {
            assert_eq!(set(names).contains("openai", model), allowed, "{names:?} {model}");
        };
        check(&["*"], "anything", true);
        check(&[], "gpt-4o", false);
        check(&["gpt-4o"], "gpt-4o", true);
        check(&["gpt-4o"], "gpt-4o-2024-05-13", false);
        check(&["gpt-4o"], "GPT-4o", false);
        check(&["openai/gpt-4o"], "gpt-4o", true);
        check(&["gpt-4o"], "openai/gpt-4o", true);
        check(&["azure/gpt-4o"], "gpt-4o", false);
        check(&["meta/llama"], "meta/llama", true);
    }
}
