//! Who calls: the virtual key, wherever an SDK puts it, found by its digest.

use crate::governance::refusal::Refusal;
use crate::governance::view::{Caller, View};
use crate::state::digest::KeyHasher;
use crate::wire::credential;
use pingora::http::RequestHeader;
use std::sync::Arc;

/// The caller, or nobody where the policy lets nobody in. The work is the same for every key that
/// was sent, known or not.
pub(super) fn identify(view: &View, hasher: &KeyHasher, head: &RequestHeader) -> Result<Option<Arc<Caller>>, Refusal> {
    let (client, headers) = (&view.client, &head.headers);
    let missing: Vec<String> =
        client.required_headers.iter().filter(|name| !headers.contains_key(name.as_str())).cloned().collect();
    if !missing.is_empty() {
        return Err(Refusal::MissingHeaders(missing));
    }
    let Some(value) = credential::virtual_key(headers, head.uri.query()).map_err(|_| Refusal::VirtualKeyAmbiguous)?
    else {
        return if client.enforce_auth { Err(Refusal::VirtualKeyRequired) } else { Ok(None) };
    };
    let caller = view.caller(&hasher.digest(value));
    let caller = caller.ok_or(Refusal::VirtualKeyNotFound { enforced: client.enforce_auth })?;
    if !caller.key.is_active {
        return Err(Refusal::VirtualKeyInactive);
    }
    Ok(Some(Arc::clone(caller)))
}
