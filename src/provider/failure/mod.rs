//! What a provider's "no" says: who may be asked next, and who had better not be asked for a while.
//!
//! The only place that knows what statuses and error codes mean. The status decides; the body only refines it,
//! and need not be there, whole or JSON.

mod told;
mod wait;

pub use told::Told;
pub use wait::asked_wait;

use std::time::Duration;

/// What one failed answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the same key may be asked the same again.
    pub again: Again,
    /// Whether another key of the provider may do better.
    pub other_key: bool,
    /// Whether another provider may be asked.
    pub elsewhere: bool,
    pub condemns: Condemned,
    /// The provider itself is not well.
    pub sick: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Never,
    /// One time more, and not a third.
    Once,
    /// As often as there are retries, after a pause.
    Paced,
}

/// For whom, beside this one call, an answer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condemned {
    Nothing,
    /// This model at this key, for as long as the answer says or else this long.
    Model(Duration),
    /// The key is empty: there is no money on it, or it may not be asked at all for now.
    Key(Duration),
    /// The key is no good, and time alone will not help.
    Rejected,
}

/// A limit that does not say when it ends is tried again soon.
const LIMITED: Duration = Duration::from_secs(2);
/// An account without money is not filled up in seconds.
const PENNILESS: Duration = Duration::from_secs(300);
/// A model that a key may not use, or that is not there where the key leads.
const FORBIDDEN: Duration = Duration::from_secs(60);

/// The request was wrong for this provider; another may take it.
const MISTAKE: Verdict =
    Verdict { again: Again::Never, other_key: false, elsewhere: true, condemns: Condemned::Nothing, sick: false };
const REJECTED: Verdict = Verdict { other_key: true, condemns: Condemned::Rejected, ..MISTAKE };
const EMPTY: Verdict = Verdict { other_key: true, condemns: Condemned::Key(PENNILESS), ..MISTAKE };
const NOT_THIS_MODEL: Verdict = Verdict { other_key: true, condemns: Condemned::Model(FORBIDDEN), ..MISTAKE };
const CONFLICT: Verdict = Verdict { again: Again::Once, other_key: true, ..MISTAKE };
const LIMIT: Verdict = Verdict { again: Again::Paced, other_key: true, condemns: Condemned::Model(LIMITED), ..MISTAKE };
/// No room just now; nobody in particular is meant.
const BUSY: Verdict = Verdict { again: Again::Paced, other_key: true, ..MISTAKE };
const SICK: Verdict = Verdict { again: Again::Paced, other_key: true, sick: true, ..MISTAKE };
const GIVEN_UP: Verdict = Verdict { elsewhere: false, ..MISTAKE };

impl Verdict {
    /// The connection failed or broke before there was an answer.
    pub const BROKEN: Verdict = SICK;
    /// There is no way to the provider, whatever the key.
    pub const UNREACHABLE: Verdict = Verdict { other_key: false, ..SICK };
    /// Nothing came in time. The request may have been served, and paid for; it would be again.
    pub const TIMED_OUT: Verdict = Verdict { again: Again::Never, other_key: false, ..SICK };
    /// The stream began with an error.
    pub const ERROR_FIRST: Verdict = SICK;
    /// What is declared makes no request, and asking again changes nothing.
    pub const UNSPEAKABLE: Verdict = Verdict { again: Again::Never, ..SICK };

    /// Whether the answer is about our account there, and none of the client's business.
    pub fn is_about_our_account(&self) -> bool {
        matches!(self.condemns, Condemned::Key(_) | Condemned::Rejected)
    }
}

/// No money or no allowance is left. In whatever member the provider puts it.
const EMPTY_CODES: &[&str] = &[
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_error",
    "billing_not_active",
    "enforced_spend_limit_reached",
    "quota_exceeded",
];
/// The key is not taken, whatever the status.
const REJECTED_CODES: &[&str] = &[
    "invalid_api_key",
    "api_key_invalid",
    "api_key_expired",
    "api_key_service_blocked",
    "authentication_error",
    "account_deactivated",
    "unrecognizedclientexception",
    "invalidsignatureexception",
    "expiredtokenexception",
    "incompletesignatureexception",
];
/// Limits that are not told by 429.
const LIMIT_CODES: &[&str] = &[
    "rate_limit_error",
    "rate_limit_exceeded",
    "resource_exhausted",
    "throttlingexception",
    "servicequotaexceededexception",
];
/// The same in words, where there is no code.
const LIMIT_WORDS: &[&str] =
    &["rate limit", "too many requests", "throttled", "tokens per minute", "requests per minute"];

/// What an answer with this status means. `base` is the built-in provider that is asked, or that is like it.
pub fn verdict(base: &str, status: u16, told: &Told) -> Verdict {
    let verdict = match status {
        _ if told.has_any(REJECTED_CODES) => REJECTED,
        // ElevenLabs says 401 when the money is gone.
        400..=403 | 429 if told.has_any(EMPTY_CODES) || told.says(&["credit balance is too low"]) => EMPTY,
        400 if told.has_any(LIMIT_CODES) || told.says(LIMIT_WORDS) => LIMIT,
        401 => REJECTED,
        // OpenRouter counts what is in flight against the purse: that clears in seconds.
        402 if base == "openrouter" && told.wait.is_some() => LIMIT,
        402 => EMPTY,
        403 => NOT_THIS_MODEL,
        // Each key of Azure has its own deployments.
        404 if base == "azure" && told.has_any(&["deploymentnotfound"]) => NOT_THIS_MODEL,
        408 => Verdict { sick: true, ..CONFLICT },
        409 | 424 => CONFLICT,
        429 if told.has_any(&["modelnotreadyexception", "too_many_concurrent_requests", "system_busy"]) => BUSY,
        429 => LIMIT,
        // Groq's flexible tier has no capacity.
        498 => BUSY,
        499 => GIVEN_UP,
        501 | 505 => MISTAKE,
        500..=599 => SICK,
        _ => MISTAKE,
    };
    match told.should_retry {
        Some(false) => Verdict { again: Again::Never, ..verdict },
        // The provider knows better than we, but for its own key.
        Some(true) if verdict.again == Again::Never && !verdict.is_about_our_account() => {
            Verdict { again: Again::Paced, ..verdict }
        }
        _ => verdict,
    }
}

#[cfg(test)]
mod tests;
