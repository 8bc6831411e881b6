//! What makes a provider that is not built in.

use super::network::check_url;
use crate::governance::entity::{BASE_PROVIDERS, CustomProvider};
use crate::wire::faults::Faults;
use crate::wire::read::Object;
use crate::wire::strict::only_known;
use std::collections::{BTreeMap, BTreeSet};

/// The members of `custom_provider_config`.
pub const CUSTOM: &[&str] = &["base_provider_type", "is_key_less", "allowed_requests", "request_path_overrides"];

/// The kinds of request that answers name one by one, streamed forms among them.
pub const REQUEST_NAMES: [&str; 25] = [
    "list_models",
    "text_completion",
    "text_completion_stream",
    "chat_completion",
    "chat_completion_stream",
    "responses",
    "responses_stream",
    "count_tokens",
    "embedding",
    "speech",
    "speech_stream",
    "transcription",
    "transcription_stream",
    "image_generation",
    "image_generation_stream",
    "batch_create",
    "batch_list",
    "batch_retrieve",
    "batch_cancel",
    "batch_results",
    "file_upload",
    "file_list",
    "file_retrieve",
    "file_delete",
    "file_content",
];

pub(super) fn read(
    body: &Object<'_>,
    base: Option<&CustomProvider>,
    strict: bool,
    faults: &mut Faults,
) -> Option<CustomProvider> {
    if strict {
        only_known(body, CUSTOM, faults);
    }
    let like = read_base(body, base, faults);
    let keyless = body.boolean("is_key_less", faults).value().unwrap_or(false);
    if keyless && like == Some("bedrock") {
        faults.add(body.path("is_key_less"), "a key-less provider cannot be like 'bedrock', whose requests are signed");
    }
    let allowed_requests = read_allowed(body, faults);
    let path_overrides = read_paths(body, faults);
    Some(CustomProvider { base: like?, keyless, allowed_requests, path_overrides })
}

fn read_base(body: &Object<'_>, base: Option<&CustomProvider>, faults: &mut Faults) -> Option<&'static str> {
    let stored = base.map(|base| base.base);
    let path = body.path("base_provider_type");
    let Some(name) = body.text("base_provider_type", faults).value().filter(|name| !name.is_empty()) else {
        // What is no string was reported already.
        let is_absent = body.raw("base_provider_type").value().is_none_or(|value| value.is_string());
        if stored.is_none() && is_absent {
            faults.add(path, "BaseProviderType is required when CustomProviderConfig is provided");
        }
        return stored;
    };
    let found = BASE_PROVIDERS.into_iter().find(|known| *known == name);
    if found.is_none() {
        faults.add(path, "BaseProviderType must be a standard provider");
    } else if stored.is_some() && stored != found {
        faults.add(path, "BaseProviderType cannot be changed");
    }
    found
}

/// The names that are true. Kinds that nobody knows are allowed in vain, which does no harm.
fn read_allowed(body: &Object<'_>, faults: &mut Faults) -> Option<BTreeSet<String>> {
    let allowed = body.object("allowed_requests", faults).value()?;
    let names = allowed.names().filter(|name| allowed.boolean(name, faults).value() == Some(true));
    Some(names.map(str::to_owned).collect())
}

fn read_paths(body: &Object<'_>, faults: &mut Faults) -> BTreeMap<String, String> {
    let mut overrides = BTreeMap::new();
    let Some(paths) = body.object("request_path_overrides", faults).value() else { return overrides };
    for name in paths.names() {
        let Some(path) = paths.text(name, faults).value().filter(|path| !path.is_empty()) else { continue };
        if path.starts_with("http://") || path.starts_with("https://") {
            check_url(path, paths.path(name), true, faults);
        } else if !path.starts_with('/') || path.parse::<http::Uri>().is_err() {
            faults.add(paths.path(name), "is neither a path that begins with / nor a URL");
        }
        overrides.insert(name.to_owned(), path.to_owned());
    }
    overrides
}
