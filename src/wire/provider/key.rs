//! A provider's own credential.

use super::network::check_url;
use super::{ProviderChange, is_blank};
use crate::governance::entity::{
    Cloud, CloudConfig, CloudField, CloudShape, KeyValue, ModelSet, Provider, ProviderKey, Weight,
};
use crate::wire::env_text::{self, Env, Reach};
use crate::wire::faults::Faults;
use crate::wire::read::{Object, check_free};
use crate::wire::strict::only_known;
use http::HeaderValue;
use serde_json::Value;
use std::collections::BTreeMap;

/// The members of a key that can be declared, beside the clouds' own.
pub const KEY: &[&str] =
    &["id", "name", "value", "models", "blacklisted_models", "weight", "aliases", "enabled", "use_for_batch_api"];
/// Members of answers, which may come back and say nothing.
const SHOWN: &[&str] = &["provider", "config_hash", "status", "description", "created_at", "updated_at"];
const TEXT_MAX: usize = 255;

/// The fault of a name that another key has.
pub(super) fn name_is_taken(name: &str) -> String {
    format!("API key names must be unique across providers: '{name}'")
}

pub(super) fn read(
    provider: &Provider,
    body: &Object<'_>,
    base: Option<&ProviderKey>,
    change: &mut ProviderChange<'_>,
    faults: &mut Faults,
) -> Option<ProviderKey> {
    if change.strict {
        let clouds = Cloud::ALL.map(Cloud::member);
        only_known(body, &[KEY, SHOWN, &clouds].concat(), faults);
    }
    let own_id = body.text("id", faults).value().filter(|id| !id.is_empty() && change.own_ids);
    check_text(own_id, body.path("id"), faults);
    let name = read_name(body, faults);
    let id = match (base, own_id) {
        (Some(base), _) => base.id.to_string(),
        (None, Some(id)) => id.to_owned(),
        // The file's keys have ids that stay the same from one reading to the next.
        (None, None) if change.strict => name.clone(),
        (None, None) => (change.new_id)(),
    };
    if !name.is_empty() && (change.key_name_taken)(&name, &id) {
        faults.add(body.path("name"), name_is_taken(&name));
        change.clash = true;
    }
    if base.is_none() && (change.key_id_taken)(&id) {
        faults.add(body.path("id"), format!("there is a key with the id '{id}' already"));
        change.clash = true;
    }
    let old = base.filter(|_| !change.strict);
    let cloud = Cloud::of(provider.base());
    let value = read_value(body, cloud, old, (Reach::of(change.strict, true), change.env), faults);
    let mut aliases = BTreeMap::new();
    let config = read_cloud(provider, body, old, &mut aliases, change, faults);
    read_aliases(body, "aliases", &mut aliases, faults);
    let models = body.whitelist("models", faults).value().map_or(ModelSet::All, ModelSet::from_names);
    let blacklisted = body.whitelist("blacklisted_models", faults).value().unwrap_or_default();
    Some(ProviderKey {
        id: id.into(),
        name,
        value: value?,
        weight: body.weight("weight", faults).value().unwrap_or(Weight::ONE),
        models,
        blacklisted_models: ModelSet::from_names(blacklisted),
        aliases,
        enabled: body.boolean("enabled", faults).value().unwrap_or(true),
        use_for_batch_api: body.boolean("use_for_batch_api", faults).value().unwrap_or(false),
        cloud: config,
        config_hash: base.map(|base| base.config_hash.clone()).unwrap_or_default(),
        created_at: base.map_or(change.now, |base| base.created_at),
        updated_at: change.now,
    })
}

fn read_name(body: &Object<'_>, faults: &mut Faults) -> String {
    let name = body.text("name", faults).value();
    if name.is_some_and(|name| name.trim().is_empty()) || body.raw("name").value().is_none() {
        faults.add(body.path("name"), "is required");
    }
    check_text(name, body.path("name"), faults);
    name.unwrap_or_default().to_owned()
}

fn check_text(text: Option<&str>, path: String, faults: &mut Faults) {
    match text {
        Some(text) if text.len() > TEXT_MAX => faults.add(path, format!("is longer than {TEXT_MAX} bytes")),
        Some(text) if text.contains(char::is_control) => faults.add(path, "must not hold control characters"),
        _ => {}
    }
}

/// The credential itself. Clouds have other ways in, and machines of one's own may have no door.
fn read_value(
    body: &Object<'_>,
    cloud: Option<Cloud>,
    old: Option<&ProviderKey>,
    env: (Reach, Env<'_>),
    faults: &mut Faults,
) -> Option<KeyValue> {
    let is_needed = cloud.is_none_or(|cloud| cloud == Cloud::Replicate);
    let before = faults.iter().count();
    let value = env_text::read(body, "value", old.map(|old| &old.value), env, faults);
    if faults.iter().count() > before {
        return None;
    }
    let value = value.unwrap_or_else(|| KeyValue::text(""));
    if is_needed && value.is_empty() && !value.is_missing() {
        faults.add(body.path("value"), "is required");
        return None;
    }
    if HeaderValue::try_from(value.expose()).is_err() {
        faults.add(body.path("value"), "has characters that no header can carry");
        return None;
    }
    Some(value)
}

fn read_aliases(body: &Object<'_>, member: &str, aliases: &mut BTreeMap<String, String>, faults: &mut Faults) {
    let Some(object) = body.object(member, faults).value() else { return };
    for model in object.names() {
        if let Some(id) = object.text(model, faults).value().filter(|id| !id.is_empty()) {
            aliases.insert(model.to_owned(), id.to_owned());
        }
    }
}

/// The object of the provider's own cloud. One of another cloud holds credentials that nobody would use.
fn read_cloud(
    provider: &Provider,
    body: &Object<'_>,
    old: Option<&ProviderKey>,
    aliases: &mut BTreeMap<String, String>,
    change: &ProviderChange<'_>,
    faults: &mut Faults,
) -> Option<CloudConfig> {
    let own = Cloud::of(provider.base());
    for other in Cloud::ALL.into_iter().filter(|cloud| Some(*cloud) != own) {
        if body.raw(other.member()).value().is_some_and(|config| !is_blank(config)) {
            faults.add(body.path(other.member()), format!("is for keys of '{}'", other.provider()));
        }
    }
    let cloud = own?;
    let stored = old.and_then(|old| old.cloud.as_ref());
    let config = body.object(cloud.member(), faults).value().map(|config| {
        read_aliases(&config, "deployments", aliases, faults);
        read_fields(cloud, &config, stored, change, faults)
    });
    let is_wrong = config.is_none() && body.raw(cloud.member()).value().is_some();
    let has = |name: &str| config.as_ref().is_some_and(|config| config.fields.contains_key(name));
    let elsewhere = provider.network.base_url.is_some() && cloud != Cloud::Azure;
    match cloud.required() {
        _ if is_wrong => {}
        Some(name) if !has(name) && !elsewhere => {
            let path = format!("{}.{name}", body.path(cloud.member()));
            if faults.iter().all(|fault| !fault.path.starts_with(&path)) {
                faults.add(path, format!("is required for keys of '{}'", cloud.provider()));
            }
        }
        None if cloud == Cloud::Vertex && config.is_none() => {
            faults.add(body.path(cloud.member()), "is required for keys of 'vertex'");
        }
        _ => {}
    }
    config.filter(|config| !config.fields.is_empty() || cloud == Cloud::Vertex)
}

fn read_fields(
    cloud: Cloud,
    config: &Object<'_>,
    stored: Option<&CloudConfig>,
    change: &ProviderChange<'_>,
    faults: &mut Faults,
) -> CloudConfig {
    if change.strict {
        let known: Vec<&str> = cloud.fields().iter().map(|(name, _)| *name).chain(["deployments"]).collect();
        only_known(config, &known, faults);
    }
    let mut fields = BTreeMap::new();
    for &(name, shape) in cloud.fields() {
        let old = match stored.and_then(|stored| stored.fields.get(name)) {
            Some(CloudField::Text(old)) => Some(old),
            _ => None,
        };
        let field = match shape {
            CloudShape::Text | CloudShape::Secret | CloudShape::Url => {
                let reach = Reach::of(change.strict, shape == CloudShape::Secret);
                let text = env_text::read(config, name, old, (reach, change.env), faults);
                text.filter(|text| !text.is_empty() || text.is_missing()).map(CloudField::Text)
            }
            CloudShape::Name => {
                let name = config.text(name, faults).value().filter(|name| !name.is_empty());
                name.map(|name| CloudField::Json(Value::from(name).to_string()))
            }
            CloudShape::Json => {
                let value = config.raw(name).value().filter(|value| !is_blank(value));
                let value = value.filter(|value| check_free(value, config.path(name), faults));
                value.map(|value| CloudField::Json(value.to_string()))
            }
        };
        let Some(mut field) = field else { continue };
        if let (CloudShape::Url, CloudField::Text(url)) = (shape, &mut field)
            && !url.is_missing()
        {
            let Some(trimmed) = check_url(url.expose(), config.path(name), false, faults) else { continue };
            url.secret = crate::governance::secret::Secret::new(trimmed);
        }
        fields.insert(name, field);
    }
    CloudConfig { kind: cloud, fields }
}
