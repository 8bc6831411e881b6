//! Every governed "no", each with a stable code. A refusal is an answer, not an error.

use super::money::Nanos;
use super::request::RequestKind;
use super::time::Timestamp;
use super::view::{Level, Measure};
use std::fmt;

/// Why a request is not served. The text is for people, and names nobody else's keys or limits;
/// `code` is for programs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("missing required headers: {}", .0.join(", "))]
    MissingHeaders(Vec<String>),
    #[error(
        "virtual key is required. Provide it in the x-bf-vk header, as Authorization: Bearer, in x-api-key or in x-goog-api-key."
    )]
    VirtualKeyRequired,
    #[error("Virtual key not found")]
    VirtualKeyNotFound { enforced: bool },
    #[error("two different virtual keys were sent; send one")]
    VirtualKeyAmbiguous,
    #[error("Virtual key is inactive")]
    VirtualKeyInactive,
    #[error("{message}")]
    InvalidRequest { field: Option<String>, message: String },
    #[error("content-length together with transfer-encoding: send one of them")]
    AmbiguousLength,
    #[error("pages of this origin may not call here; see client.allowed_origins")]
    OriginNotAllowed,
    #[error("request body is larger than the {max} bytes allowed here")]
    BodyTooLarge { max: u64 },
    #[error("no {kind} here: {path}")]
    NotFound { kind: &'static str, path: String },
    #[error("{method} is not allowed here; use {allowed}")]
    MethodNotAllowed { method: String, allowed: &'static str },
    #[error("unknown provider '{name}'; known here: {}", .known.join(", "))]
    UnknownProvider { name: String, known: Vec<String> },
    #[error(
        "model '{model}' should be in provider/model format: no provider of this key is chosen for bare model names"
    )]
    ModelUnresolved { model: String },
    #[error("Provider '{provider}' is not allowed for this virtual key")]
    ProviderBlocked { provider: String },
    #[error("Model '{model}' is not allowed for this virtual key")]
    ModelBlocked { model: String },
    #[error(
        "model '{model}' of provider '{provider}' has no price here, and this key has a budget that could not be kept; see pricing.unknown_model"
    )]
    ModelNotPriced { provider: String, model: String },
    #[error("provider '{provider}' does not serve requests of the kind {}{}", .kind.as_str(), if *.stream { "_stream" } else { "" })]
    UnsupportedOperation { provider: String, kind: RequestKind, stream: bool },
    #[error("provider '{provider}' has a dialect of its own, which this version does not speak")]
    DialectNotSpoken { provider: String },
    #[error("no keys found that support model: {model}")]
    NoProviderKey { model: String },
    #[error("{}", Exceeded::sentence(.0))]
    LimitReached(Vec<Exceeded>),
    #[error("this address sends more than {max} {what}")]
    TooManyRequests { what: &'static str, max: u32 },
    #[error(
        "this virtual key has {max} calls in flight, which is all that it may have at once (governance.max_in_flight_per_key)"
    )]
    TooManyInFlight { max: u32 },
    #[error(
        "this call may cost up to {cost} dollars, and one may cost {max} at most (governance.max_request_cost){}",
        .output_fits.map(|tokens| format!("; with a cap of {tokens} tokens on its output it would pass")).unwrap_or_default()
    )]
    TooCostly {
        cost: Nanos,
        max: Nanos,
        /// What its output would have to be capped at. Absent: its input alone costs too much.
        output_fits: Option<u64>,
    },
    #[error("the ledger cannot take more calls until it has written those that it has; try again shortly")]
    LedgerFull,
}

/// One limit that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    pub level: Level,
    /// The model or provider that a global limit is on.
    pub subject: Option<Box<str>>,
    pub measure: Measure,
    pub max: i64,
    /// What the call asks for at least, where all of it must fit; else zero.
    pub wanted: i64,
    pub spent: i64,
    pub held: i64,
    pub window: Box<str>,
    pub resets_at: Timestamp,
}

impl Exceeded {
    /// Only calls in flight stand in the way; they may give back what they hold at any moment.
    fn only_held(&self) -> bool {
        self.spent < self.max && self.spent.saturating_add(self.wanted) <= self.max
    }

    /// No window has room for it, however much is left.
    fn never_fits(&self) -> bool {
        self.wanted > self.max
    }

    /// Something is left, but not enough for the call.
    fn too_little(&self) -> bool {
        self.spent.saturating_add(self.held) < self.max
    }

    /// The level as messages call it. Nobody's name is in it but a provider's or a model's.
    fn level_name(&self) -> String {
        let subject = self.subject.as_deref().unwrap_or_default();
        match self.level {
            Level::Provider => subject.to_owned(),
            Level::ProviderModel => match subject.split_once('/') {
                Some((provider, model)) => format!("Model:{model}:Provider:{provider}"),
                None => format!("Model:{subject}"),
            },
            Level::Model => format!("Model:{subject}"),
            Level::Customer => "Customer".to_owned(),
            Level::Team => "Team".to_owned(),
            Level::VirtualKey => "VK".to_owned(),
            Level::ProviderConfig => "Provider config".to_owned(),
        }
    }

    fn sentence(all: &[Exceeded]) -> String {
        let budgets = all.iter().any(|e| e.measure == Measure::Money);
        let parts: Vec<String> = all.iter().map(Exceeded::to_string).collect();
        let head = match (all.first().map(|e| e.level), budgets) {
            (Some(Level::Provider), true) => "Provider-level budget exceeded",
            (Some(Level::Provider), false) => "Provider-level rate limit check failed",
            (Some(Level::ProviderModel | Level::Model), true) => "Model-level budget exceeded",
            (Some(Level::ProviderModel | Level::Model), false) => "Model-level rate limit check failed",
            (_, true) => "Budget exceeded",
            (_, false) => "Rate limit check failed",
        };
        format!("{head}: {}", parts.join("; "))
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level_name();
        let Exceeded { spent, max, held, wanted, window, resets_at, .. } = self;
        let (used, dollars) = (spent.saturating_add(*held), |nanos: i64| Nanos::new(nanos));
        let left = max.saturating_sub(used);
        match (self.measure, self.too_little()) {
            (Measure::Money, true) => {
                let (wanted, left, max) = (dollars(*wanted), dollars(left), dollars(*max));
                write!(f, "{level} budget exceeded: the call may cost {wanted} dollars, and {left} of {max} are left")?;
                if self.only_held() {
                    write!(f, ", {} being held by calls in flight", dollars(*held))?;
                }
            }
            (Measure::Money, false) => {
                write!(f, "{level} budget exceeded: {} >= {} dollars", dollars(used), dollars(*max))?;
                if self.only_held() {
                    write!(f, ", of which {} are held by calls in flight", dollars(*held))?;
                }
            }
            (Measure::Tokens | Measure::Requests, too_little) => {
                let what = if self.measure == Measure::Tokens { "token" } else { "request" };
                write!(f, "rate limit violated for {level}: {what} limit exceeded (")?;
                match too_little {
                    true => write!(f, "the call may use {wanted}, and {left} of {max} are left")?,
                    false => write!(f, "{used}/{max}")?,
                }
                if self.only_held() {
                    write!(f, ", {held} of them held by calls in flight")?;
                }
                f.write_str(")")?;
            }
        }
        if self.never_fits() {
            return write!(f, " (every {window}; that much never fits)");
        }
        write!(f, " (resets every {window}, next at {resets_at})")
    }
}

impl Refusal {
    /// The stable name of this refusal: `type` and `code` in the answer, a label in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::MissingHeaders(_) => "missing_required_headers",
            Refusal::VirtualKeyRequired => "virtual_key_required",
            Refusal::VirtualKeyNotFound { .. } => "virtual_key_not_found",
            Refusal::VirtualKeyAmbiguous => "virtual_key_ambiguous",
            Refusal::VirtualKeyInactive => "virtual_key_blocked",
            Refusal::InvalidRequest { .. } => "invalid_request",
            Refusal::AmbiguousLength => "ambiguous_length",
            Refusal::OriginNotAllowed => "origin_not_allowed",
            Refusal::BodyTooLarge { .. } => "request_too_large",
            Refusal::NotFound { .. } => "not_found",
            Refusal::MethodNotAllowed { .. } => "method_not_allowed",
            Refusal::UnknownProvider { .. } => "unknown_provider",
            Refusal::ModelUnresolved { .. } => "model_unresolved",
            Refusal::ProviderBlocked { .. } => "provider_blocked",
            Refusal::ModelBlocked { .. } => "model_blocked",
            Refusal::ModelNotPriced { .. } => "model_not_priced",
            Refusal::UnsupportedOperation { .. } | Refusal::DialectNotSpoken { .. } => "unsupported_operation",
            Refusal::NoProviderKey { .. } => "no_provider_key",
            Refusal::LimitReached(all) => limit_code(all),
            Refusal::TooManyRequests { .. } => "too_many_requests",
            Refusal::TooManyInFlight { .. } => "too_many_in_flight",
            Refusal::TooCostly { .. } => "request_too_costly",
            Refusal::LedgerFull => "ledger_full",
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::MissingHeaders(_)
            | Refusal::InvalidRequest { .. }
            | Refusal::AmbiguousLength
            | Refusal::UnknownProvider { .. }
            | Refusal::ModelUnresolved { .. }
            | Refusal::UnsupportedOperation { .. }
            | Refusal::DialectNotSpoken { .. }
            | Refusal::TooCostly { .. } => 400,
            Refusal::VirtualKeyRequired
            | Refusal::VirtualKeyAmbiguous
            | Refusal::VirtualKeyNotFound { enforced: true } => 401,
            Refusal::VirtualKeyNotFound { enforced: false }
            | Refusal::VirtualKeyInactive
            | Refusal::OriginNotAllowed
            | Refusal::ProviderBlocked { .. }
            | Refusal::ModelBlocked { .. }
            | Refusal::ModelNotPriced { .. } => 403,
            Refusal::NotFound { .. } => 404,
            Refusal::MethodNotAllowed { .. } => 405,
            Refusal::BodyTooLarge { .. } => 413,
            Refusal::TooManyRequests { .. } | Refusal::TooManyInFlight { .. } => 429,
            // Money that is only held comes back when the calls in flight end: that is a 429.
            Refusal::LimitReached(all) => {
                if all.iter().any(|e| e.measure == Measure::Money && !e.only_held()) {
                    402
                } else {
                    429
                }
            }
            Refusal::NoProviderKey { .. } | Refusal::LedgerFull => 503,
        }
    }

    /// Seconds after which asking again makes sense, if waiting helps at all.
    pub fn retry_after(&self, now: Timestamp) -> Option<u64> {
        match self {
            Refusal::LimitReached(all) if all.iter().any(Exceeded::never_fits) => None,
            Refusal::LimitReached(all) => {
                all.iter().map(|e| if e.only_held() { 1 } else { e.resets_at.since(now).div_ceil(1_000).max(1) }).max()
            }
            Refusal::TooManyRequests { .. } | Refusal::TooManyInFlight { .. } | Refusal::LedgerFull => Some(1),
            _ => None,
        }
    }

    /// The request field at fault, for `error.param`.
    pub fn param(&self) -> Option<&str> {
        match self {
            Refusal::InvalidRequest { field, .. } => field.as_deref(),
            Refusal::UnknownProvider { .. } | Refusal::ModelUnresolved { .. } | Refusal::ModelBlocked { .. } => {
                Some("model")
            }
            Refusal::TooCostly { .. } => Some("max_tokens"),
            _ => None,
        }
    }

    /// Whether another target could still serve the request. Limits and bans of one provider config
    /// say nothing about the next; those of the key itself do.
    pub fn is_about_target(&self) -> bool {
        match self {
            Refusal::LimitReached(all) => all.iter().all(|e| e.level.is_about_target()),
            Refusal::ModelNotPriced { .. }
            | Refusal::UnsupportedOperation { .. }
            | Refusal::DialectNotSpoken { .. }
            | Refusal::TooCostly { .. } => true,
            _ => false,
        }
    }
}

fn limit_code(all: &[Exceeded]) -> &'static str {
    let has = |measure| all.iter().any(|e| e.measure == measure);
    match (has(Measure::Money), has(Measure::Tokens), has(Measure::Requests)) {
        (true, _, _) => "budget_exceeded",
        (_, true, true) => "rate_limited",
        (_, true, _) => "token_limited",
        _ => "request_limited",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exceeded(measure: Measure, max: i64, spent: i64, held: i64) -> Exceeded {
        Exceeded {
            level: Level::VirtualKey,
            subject: None,
            measure,
            max,
            wanted: 0,
            spent,
            held,
            window: "1h".into(),
            resets_at: Timestamp::from_millis(3_600_000),
        }
    }

    #[test]
    fn a_refusal_says_which_limit_and_when_it_clears() {
        let now = Timestamp::from_millis(3_000_000);
        let check = |all: Vec<Exceeded>, code: &str, status: u16, wait: u64, text: &str| {
            let refusal = Refusal::LimitReached(all);
            assert_eq!((refusal.code(), refusal.status(), refusal.retry_after(now)), (code, status, Some(wait)));
            assert_eq!(refusal.to_string(), text);
        };
        check(
            vec![exceeded(Measure::Money, 1_000_000_000, 1_250_000_000, 0)],
            "budget_exceeded",
            402,
            600,
            "Budget exceeded: VK budget exceeded: 1.25 >= 1 dollars (resets every 1h, next at 1970-01-01T01:00:00Z)",
        );
        check(
            vec![exceeded(Measure::Money, 1_000_000_000, 400_000_000, 600_000_000)],
            "budget_exceeded",
            429,
            1,
            "Budget exceeded: VK budget exceeded: 1 >= 1 dollars, of which 0.6 are held by calls in flight (resets every 1h, next at 1970-01-01T01:00:00Z)",
        );
        check(
            vec![exceeded(Measure::Tokens, 100, 120, 0), exceeded(Measure::Requests, 10, 10, 0)],
            "rate_limited",
            429,
            600,
            "Rate limit check failed: rate limit violated for VK: token limit exceeded (120/100) (resets every 1h, next at 1970-01-01T01:00:00Z); rate limit violated for VK: request limit exceeded (10/10) (resets every 1h, next at 1970-01-01T01:00:00Z)",
        );
    }

    #[test]
    fn a_call_that_must_fit_as_a_whole_says_what_is_missing() {
        let now = Timestamp::from_millis(3_000_000);
        let check = |measure, wanted, (spent, held), (status, wait), text: &str| {
            let refusal = Refusal::LimitReached(vec![Exceeded { wanted, ..exceeded(measure, 1_000, spent, held) }]);
            assert_eq!((refusal.status(), refusal.retry_after(now)), (status, wait), "{refusal}");
            assert!(refusal.to_string().contains(text), "{refusal}");
        };
        let spent = "the call may cost 0.0000004 dollars, and 0.0000003 of 0.000001 are left (resets";
        check(Measure::Money, 400, (700, 0), (402, Some(600)), spent);
        let held = "and 0.0000003 of 0.000001 are left, 0.0000006 being held by calls in flight (resets";
        check(Measure::Money, 400, (100, 600), (429, Some(1)), held);
        check(Measure::Money, 400, (1_000, 0), (402, Some(600)), "0.000001 >= 0.000001 dollars (resets");
        check(Measure::Money, 1_001, (0, 0), (402, None), "that much never fits");
        check(Measure::Tokens, 400, (700, 0), (429, Some(600)), "(the call may use 400, and 300 of 1000 are left)");
        check(Measure::Tokens, 400, (100, 600), (429, Some(1)), "300 of 1000 are left, 600 of them held");
        check(Measure::Tokens, 1_001, (0, 0), (429, None), "that much never fits");
    }
}
