//! Providers' own credentials.

use super::ModelSet;
use crate::governance::money::MoneyError;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A provider's own credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderKey {
    pub id: Arc<str>,
    /// Unique over all providers.
    pub name: String,
    /// May be empty for providers that are entered in another way.
    pub value: KeyValue,
    pub weight: Weight,
    pub models: ModelSet,
    pub blacklisted_models: ModelSet,
    /// Model name → the provider's own id for it.
    pub aliases: BTreeMap<String, String>,
    pub enabled: bool,
    /// Stored and returned: this version makes no batch or file calls.
    pub use_for_batch_api: bool,
    /// What a cloud wants to know beside the value, or instead of it.
    pub cloud: Option<CloudConfig>,
    /// What the config file said when this was last applied from it; empty for what the API made.
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A text as it was given, or the name of the environment variable that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Empty where there is none, and where its variable was not set.
    pub secret: Secret,
    /// Without `env.` before it.
    pub env_var: Option<String>,
}

impl KeyValue {
    pub fn text(text: impl Into<String>) -> KeyValue {
        KeyValue { secret: Secret::new(text), env_var: None }
    }

    /// What the variable holds, if it was set.
    pub fn variable(name: impl Into<String>, secret: Option<Secret>) -> KeyValue {
        KeyValue { secret: secret.unwrap_or_else(|| Secret::new("")), env_var: Some(name.into()) }
    }

    /// The text itself. Every caller is a place to look at when secrets leak.
    pub fn expose(&self) -> &str {
        self.secret.expose()
    }

    pub fn is_empty(&self) -> bool {
        self.secret.is_empty()
    }

    /// Its variable was not set.
    pub fn is_missing(&self) -> bool {
        self.env_var.is_some() && self.secret.is_empty()
    }
}

/// What one cloud wants to know of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudConfig {
    pub kind: Cloud,
    /// By the names in `Cloud::fields`. None is empty.
    pub fields: BTreeMap<&'static str, CloudField>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudField {
    /// A text that may come from the environment; whether it is a secret, the field's shape says.
    Text(KeyValue),
    /// JSON that is stored and returned.
    Json(String),
}

/// The providers whose keys have an object of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cloud {
    Azure,
    Vertex,
    Bedrock,
    Vllm,
    Ollama,
    Sgl,
    Replicate,
}

/// What a member of a cloud's object may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudShape {
    Text,
    Url,
    Secret,
    /// A plain string, without the environment.
    Name,
    Json,
}

impl Cloud {
    pub const ALL: [Cloud; 7] =
        [Cloud::Azure, Cloud::Vertex, Cloud::Bedrock, Cloud::Vllm, Cloud::Ollama, Cloud::Sgl, Cloud::Replicate];

    /// The provider whose keys have it.
    pub const fn provider(self) -> &'static str {
        match self {
            Cloud::Azure => "azure",
            Cloud::Vertex => "vertex",
            Cloud::Bedrock => "bedrock",
            Cloud::Vllm => "vllm",
            Cloud::Ollama => "ollama",
            Cloud::Sgl => "sgl",
            Cloud::Replicate => "replicate",
        }
    }

    /// The member of a key that holds it.
    pub const fn member(self) -> &'static str {
        match self {
            Cloud::Azure => "azure_key_config",
            Cloud::Vertex => "vertex_key_config",
            Cloud::Bedrock => "bedrock_key_config",
            Cloud::Vllm => "vllm_key_config",
            Cloud::Ollama => "ollama_key_config",
            Cloud::Sgl => "sgl_key_config",
            Cloud::Replicate => "replicate_key_config",
        }
    }

    pub fn of(provider: &str) -> Option<Cloud> {
        Cloud::ALL.into_iter().find(|cloud| cloud.provider() == provider)
    }

    pub const fn fields(self) -> &'static [(&'static str, CloudShape)] {
        use CloudShape::{Json, Name, Secret, Text, Url};
        match self {
            Cloud::Azure => &[
                ("endpoint", Url),
                ("api_version", Text),
                ("client_id", Text),
                ("client_secret", Secret),
                ("tenant_id", Text),
                ("scopes", Json),
            ],
            Cloud::Vertex => {
                &[("project_id", Text), ("project_number", Text), ("region", Text), ("auth_credentials", Secret)]
            }
            Cloud::Bedrock => &[
                ("access_key", Secret),
                ("secret_key", Secret),
                ("session_token", Secret),
                ("region", Text),
                ("arn", Text),
                ("role_arn", Text),
                ("external_id", Text),
                ("session_name", Text),
                ("batch_s3_config", Json),
            ],
            Cloud::Vllm => &[("url", Url), ("model_name", Name)],
            Cloud::Ollama | Cloud::Sgl => &[("url", Url)],
            Cloud::Replicate => &[("url", Url), ("model_name", Name), ("use_deployments_endpoint", Json)],
        }
    }

    /// The shape of a field, and its name as the table has it.
    pub fn field(self, name: &str) -> Option<(&'static str, CloudShape)> {
        self.fields().iter().find(|(known, _)| *known == name).copied()
    }

    /// The field without which a key is of no use.
    pub const fn required(self) -> Option<&'static str> {
        match self {
            Cloud::Azure => Some("endpoint"),
            Cloud::Vllm | Cloud::Ollama | Cloud::Sgl => Some("url"),
            Cloud::Vertex | Cloud::Bedrock | Cloud::Replicate => None,
        }
    }
}

impl ProviderKey {
    /// Whether the key serves `model` of `provider`. An alias counts as being listed.
    pub fn serves(&self, provider: &str, model: &str) -> bool {
        self.is_usable() && self.lists(provider, model)
    }

    /// Whether the key may be used for `model`, were it usable.
    pub fn lists(&self, provider: &str, model: &str) -> bool {
        !self.blacklisted_models.contains(provider, model)
            && (self.models.contains(provider, model) || self.aliases.contains_key(model))
    }

    /// Enabled, and no variable of it was missing.
    pub fn is_usable(&self) -> bool {
        self.enabled && self.missing_variables().next().is_none()
    }

    /// The environment variables that the key names and that were not set.
    pub fn missing_variables(&self) -> impl Iterator<Item = &str> {
        let fields = self.cloud.iter().flat_map(|cloud| cloud.fields.values());
        let texts = fields.filter_map(|field| match field {
            CloudField::Text(text) => Some(text),
            CloudField::Json(_) => None,
        });
        let values = std::iter::once(&self.value).chain(texts);
        values.filter(|value| value.is_missing()).filter_map(|value| value.env_var.as_deref())
    }

    /// Where the key is good, for providers whose keys say so.
    pub fn url(&self) -> Option<&str> {
        self.cloud_text("url")
    }

    /// A text of the cloud's object, if it is there and not empty. It may be a secret.
    pub fn cloud_text(&self, name: &str) -> Option<&str> {
        match self.cloud.as_ref()?.fields.get(name)? {
            CloudField::Text(text) if !text.is_empty() => Some(text.expose()),
            CloudField::Text(_) | CloudField::Json(_) => None,
        }
    }
}

/// A share in a weighted choice, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u64);

impl Weight {
    pub const ONE: Weight = Weight(1_000_000);

    /// Reads a decimal number that is not negative.
    pub fn parse(text: &str) -> Result<Weight, MoneyError> {
        let millionths = crate::governance::money::decimal(text, 6)?;
        u64::try_from(millionths).map(Weight).map_err(|_| MoneyError::TooLarge(text.into()))
    }

    pub const fn from_millionths(millionths: u64) -> Weight {
        Weight(millionths)
    }

    pub const fn millionths(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: KeyValue, cloud: Option<CloudConfig>) -> ProviderKey {
        ProviderKey {
            id: "k".into(),
            name: "k".into(),
            value,
            weight: Weight::ONE,
            models: ModelSet::All,
            blacklisted_models: ModelSet::Only(vec!["bad".into()]),
            aliases: BTreeMap::new(),
            enabled: true,
            use_for_batch_api: false,
            cloud,
            config_hash: String::new(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    #[test]
    fn a_key_without_its_variable_serves_nothing() {
        let check = |key: &ProviderKey, serves: bool, missing: &[&str]| {
            assert_eq!(key.serves("openai", "m"), serves, "{key:?}");
            assert!(!key.serves("openai", "bad"));
            assert_eq!(key.missing_variables().collect::<Vec<_>>(), missing);
        };
        let url = |url: KeyValue| CloudConfig {
            kind: Cloud::Ollama,
            fields: BTreeMap::from([("url", CloudField::Text(url))]),
        };
        check(&key(KeyValue::text("sk"), None), true, &[]);
        check(&key(KeyValue::text(""), None), true, &[]);
        check(&key(KeyValue::variable("A", Some(Secret::new("sk"))), None), true, &[]);
        check(&key(KeyValue::variable("A", None), None), false, &["A"]);
        check(&key(KeyValue::text(""), Some(url(KeyValue::variable("U", None)))), false, &["U"]);
        let local = key(KeyValue::text(""), Some(url(KeyValue::text("http://h"))));
        check(&local, true, &[]);
        assert_eq!(local.url(), Some("http://h"));
    }

    #[test]
    fn every_required_field_exists() {
        for cloud in Cloud::ALL {
            assert!(cloud.required().is_none_or(|name| cloud.field(name).is_some()), "{cloud:?}");
            assert_eq!(Cloud::of(cloud.provider()), Some(cloud));
            assert_eq!(cloud.member(), format!("{}_key_config", cloud.provider()));
        }
    }
}
