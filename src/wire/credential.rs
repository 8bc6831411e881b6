//! Where a virtual key stands in a request: where the SDKs of providers put their own, read by one rule everywhere.

use crate::governance::entity::has_virtual_key_prefix;
use http::HeaderMap;

/// Two headers name two different virtual keys. Guessing which one is meant would be worse than asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

/// The virtual key that a request presents. `x-bf-vk` holds nothing else; the other headers, the query's `key` and
/// the id of an AWS signature count only if their value claims to be one, since they may carry a provider's own
/// key. The signature itself cannot be checked: who knows the id may use it, as with every other header.
pub fn virtual_key<'r>(headers: &'r HeaderMap, query: Option<&'r str>) -> Result<Option<&'r [u8]>, Ambiguous> {
    let values = |name: &'static str| headers.get_all(name).into_iter().map(|value| value.as_bytes().trim_ascii());
    let named = values("x-bf-vk").filter(|value| !value.is_empty());
    let bearer = values("authorization").filter_map(bearer);
    let signed = values("authorization").filter_map(signer);
    let asked = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("key=")).map(str::as_bytes);
    let shared = bearer.chain(values("x-api-key")).chain(values("x-goog-api-key")).chain(asked).chain(signed);
    let mut found = named.chain(shared.filter(|value| has_virtual_key_prefix(value)));
    let Some(first) = found.next() else { return Ok(None) };
    if found.all(|other| other == first) { Ok(Some(first)) } else { Err(Ambiguous) }
}

/// The id of the key that an `Authorization` value was signed with, as AWS writes it.
fn signer(value: &[u8]) -> Option<&[u8]> {
    const CREDENTIAL: &[u8] = b"Credential=";
    let rest = value.strip_prefix(b"AWS4-HMAC-SHA256 ")?;
    let at = memchr::memmem::find(rest, CREDENTIAL)?;
    rest[at + CREDENTIAL.len()..].split(|byte| *byte == b'/').next()
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
            assert_eq!(virtual_key(&map, None), found.map(|key| key.map(str::as_bytes)), "{headers:?}");
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
        let signed = "AWS4-HMAC-SHA256 Credential=sk-bf-1/20261121/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00";
        check(&[("authorization", signed)], Ok(Some("sk-bf-1")));
        check(&[("authorization", &signed.replace("sk-bf-1", "AKIDEXAMPLE"))], Ok(None));
        check(&[("authorization", "AWS4-HMAC-SHA256 x")], Ok(None));
        check(&[("authorization", signed), ("x-bf-vk", "sk-bf-2")], Err(Ambiguous));
        let none = HeaderMap::new();
        let asked = |query: &'static str| virtual_key(&none, Some(query)).unwrap().map(<[u8]>::to_vec);
        assert_eq!(asked("alt=sse&key=sk-bf-1"), Some(b"sk-bf-1".to_vec()));
        assert_eq!(asked("key=AIza&monkey=sk-bf-1"), None);
    }
}
