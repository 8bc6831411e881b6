//! Caps on how many requests one client address sends, and on how many calls of one virtual key are in flight:
//! cheap, and off unless set.
//!
//! Counts share a table of fixed size, so they may be too high for a moment, and never too low. What callers may
//! spend is governed exactly, elsewhere.

use crate::governance::refusal::Refusal;
use crate::governance::view::{Caller, Policy};
use once_cell::sync::Lazy;
use pingora_limits::inflight::{Guard as Place, Inflight};
use pingora_limits::rate::Rate;
use pingora_proxy::Session;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

static UNKNOWN: Lazy<IpAddr> = Lazy::new(|| IpAddr::from([0, 0, 0, 0]));

pub(super) struct Guard {
    inflight: Option<(Inflight, u32)>,
    rate: Option<(Rate, u32)>,
    /// By the keys' ids; made when a cap on them is met first.
    keys: OnceLock<Inflight>,
}

impl Guard {
    pub(super) fn new(inflight_max: Option<u32>, per_second_max: Option<u32>) -> Guard {
        Guard {
            inflight: inflight_max.map(|max| (Inflight::new(), max)),
            rate: per_second_max.map(|max| (Rate::new(Duration::from_secs(1)), max)),
            keys: OnceLock::new(),
        }
    }

    /// A place for as long as the request lives, or a refusal.
    pub(super) fn enter(&self, session: &Session) -> Result<Option<Place>, Refusal> {
        if self.inflight.is_none() && self.rate.is_none() {
            return Ok(None);
        }
        let address = session.client_addr().and_then(|address| address.as_inet()).map_or(*UNKNOWN, |inet| inet.ip());
        if let Some((rate, max)) = &self.rate
            && rate.observe(&address, 1) > isize::try_from(*max).unwrap_or(isize::MAX)
        {
            return Err(Refusal::TooManyRequests { what: "requests a second", max: *max });
        }
        let Some((inflight, max)) = &self.inflight else { return Ok(None) };
        let (place, now) = inflight.incr(address, 1);
        if now > isize::try_from(*max).unwrap_or(isize::MAX) {
            return Err(Refusal::TooManyRequests { what: "requests at once", max: *max });
        }
        Ok(Some(place))
    }

    /// A place for as long as a call of this key is in flight, or a refusal.
    pub(super) fn enter_key(&self, caller: Option<&Caller>, policy: &Policy) -> Result<Option<Place>, Refusal> {
        let (Some(caller), Some(max)) = (caller, policy.in_flight_per_key_max) else { return Ok(None) };
        let (place, now) = self.keys.get_or_init(Inflight::new).incr(&*caller.key.id, 1);
        if now > isize::try_from(max).unwrap_or(isize::MAX) {
            return Err(Refusal::TooManyInFlight { max });
        }
        Ok(Some(place))
    }
}
