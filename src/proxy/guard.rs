//! Caps for one client address: approximate, cheap, and off unless set.
//!
//! They protect the proxy from a flood. What callers may spend is governed exactly, elsewhere.

use crate::governance::refusal::Refusal;
use once_cell::sync::Lazy;
use pingora_limits::inflight::{Guard as Place, Inflight};
use pingora_limits::rate::Rate;
use pingora_proxy::Session;
use std::net::IpAddr;
use std::time::Duration;

static UNKNOWN: Lazy<IpAddr> = Lazy::new(|| IpAddr::from([0, 0, 0, 0]));

pub(super) struct Guard {
    inflight: Option<(Inflight, u32)>,
    rate: Option<(Rate, u32)>,
}

impl Guard {
    pub(super) fn new(inflight_max: Option<u32>, per_second_max: Option<u32>) -> Guard {
        Guard {
            inflight: inflight_max.map(|max| (Inflight::new(), max)),
            rate: per_second_max.map(|max| (Rate::new(Duration::from_secs(1)), max)),
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
}
