//! Where a virtual key stands in a request: one of four headers, read by one rule everywhere.

use crate::governance::entity::has_virtual_key_prefix;
use http::HeaderMap;

/// Two headers name two different virtual keys. Guessing which one is meant would be worse than asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

/// The virtual key that a request presents. `x-bf-vk` holds nothing else; the other headers count
/// only if their value claims to be one, since they may carry a provider's own key.
pub fn virtual_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Ambiguous> {
    let values = |name: &'static str| headers.get_all(name).into_iter().map(|value| value.as_bytes().trim_ascii());
    let named = values("x-bf-vk").filter(|value| !value.is_empty());
    let bearer = values("authorization").filter_map(bearer);
    let shared = bearer.chain(values("x-api-key")).chain(values("x-goog-api-key"));
    let mut found = named.chain(shared.filter(|value| has_virtual_key_prefix(value)));
    let Some(first) = found.next() else { return Ok(None) };
    if found.all(|other| other == first) { Ok(Some(first)) } else { Err(Ambiguous) }
}

/// The token of an `Authorization` value; the scheme is read without regard to case.
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn the_key_is_found_where_sdks_put_it() {
        let check = |headers: &[(&str, &str)], found: Result<Option<&str>, Ambiguous>| {
            let map: HeaderMap =
                headers.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect();
            assert_eq!(virtual_key(&map), found.map(|key| key.map(str::as_bytes)), "{headers:?}");
        };
        check(&[], Ok(None));
        check(&[("x-bf-vk", "anything")], Ok(Some("anything")));
        check(&[("x-bf-vk", "  ")], Ok(None));
        check(&[("authorization", "Bearer sk-bf-1")], Ok(Some("sk-bf-1")));
        check(&[("authorization", "bEARER  SK-BF-1 ")], Ok(Some("SK-BF-1")));
        check(&[("authorization", "Bearer sk-proj-1")], Ok(None));
        check(&[("authorization", "Basic sk-bf-1")], Ok(None));
        check(&[("authorization", "sk-bf-1")], Ok(None));
        check(&[("x-api-key", "sk-bf-1")], Ok(Some("sk-bf-1")));
        check(&[("x-goog-api-key", "sk-bf-1")], Ok(Some("sk-bf-1")));
        check(&[("x-api-key", "sk-ant-1"), ("x-bf-vk", "sk-bf-1")], Ok(Some("sk-bf-1")));
        check(&[("x-api-key", "sk-bf-1"), ("authorization", "Bearer sk-bf-1")], Ok(Some("sk-bf-1")));
        check(&[("x-api-key", "sk-bf-2"), ("authorization", "Bearer sk-bf-1")], Err(Ambiguous));
        check(&[("x-bf-vk", "sk-bf-1"), ("x-bf-vk", "sk-bf-2")], Err(Ambiguous));
    }
}
