//! The metrics. Labels come from closed lists, never from what a client sent.

use crate::governance::refusal::Refusal;
use crate::governance::usage::Usage;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::Duration;

/// Everything counted, in its own registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// `tollgate_requests_total{status}`: answers by class of status; `gone` where the client left first.
    requests: IntCounterVec,
    /// `tollgate_refusals_total{code}`: governed refusals by their stable code.
    refusals: IntCounterVec,
    /// `tollgate_rule_matches_total{rule}`: requests that a routing rule sent somewhere, by the rule's id.
    rule_matches: IntCounterVec,
    /// `tollgate_rule_errors_total{rule}`: evaluations of a routing rule that failed, by the rule's id. It did not match.
    rule_errors: IntCounterVec,
    /// `tollgate_ignored_fallbacks_total`: fallbacks that a client named and that are none, or too many.
    pub ignored_fallbacks: IntCounter,
    /// `tollgate_attempts_total{provider,ending}`: attempts that reached a provider, by how they ended.
    attempts: IntCounterVec,
    /// `tollgate_tokens_total{provider,direction}`: tokens charged, `input` and `output`.
    tokens: IntCounterVec,
    /// `tollgate_cost_nanodollars_total{provider}`: money charged.
    cost: IntCounterVec,
    /// `tollgate_estimated_charges_total{provider}`: charges whose usage the provider did not tell.
    estimated: IntCounterVec,
    /// `tollgate_unpriced_calls_total{provider}`: calls served at no cost because the model has no price.
    unpriced: IntCounterVec,
    /// `tollgate_excess_charges_total{provider}`: charges above what was held for them.
    excess: IntCounterVec,
    /// `tollgate_provider_healthy{provider}`: 0 while it is ejected or none of its keys can be used.
    pub provider_healthy: IntGaugeVec,
    /// `tollgate_provider_in_flight{provider}`: calls that have a place there.
    pub provider_in_flight: IntGaugeVec,
    /// `tollgate_provider_waiting{provider}`: calls that wait for a place there.
    pub provider_waiting: IntGaugeVec,
    /// `tollgate_ejections_total{provider,what}`: who is left alone for a while: the `provider` or a `key` after
    /// failures in a row, a `rejected_key`, a `resting_key` or a `resting_model` at one that its provider limits.
    ejections: IntCounterVec,
    /// `tollgate_provider_full_total{provider}`: calls that found no place, or not in time.
    full: IntCounterVec,
    /// `tollgate_excess_nanodollars_total{provider}`: money billed beyond the most that calls could have come to.
    excess_nanos: IntCounterVec,
    /// `tollgate_request_duration_seconds`: from the request's head to the end of its answer.
    duration: Histogram,
    /// `tollgate_first_byte_seconds`: from the request's head to the answer's first byte from a provider.
    first_byte: Histogram,
    /// `tollgate_open_holds`: attempts admitted and not settled. 0 when nothing is in flight.
    pub open_holds: IntGauge,
    /// `tollgate_ledger_unwritten_entries`: settled, but not yet in the store.
    pub ledger_unwritten: IntGauge,
    /// `tollgate_ledger_written_entries_total`.
    pub ledger_written: IntCounter,
    /// `tollgate_ledger_failures_total`: batches that the store did not take; they are tried again.
    pub ledger_failures: IntCounter,
    /// `tollgate_config_reloads_total{outcome}`: `applied` or `refused`.
    pub reloads: IntCounterVec,
    /// `tollgate_config_last_reload_successful`: 0 while the newest reload was refused.
    pub reload_good: IntGauge,
    /// `tollgate_price_refreshes_total{outcome}`: looks at the price table's file or URL: `changed`, `unchanged`, `failed`.
    pub price_refreshes: IntCounterVec,
    /// `tollgate_price_last_refresh_successful`: 0 while the newest look failed, and the prices before hold.
    pub price_good: IntGauge,
    /// `tollgate_prices`: list prices in force.
    pub price_models: IntGauge,
    /// `tollgate_reported_costs_total{provider,outcome}`: costs that providers told, `charged` or `absurd`.
    reported: IntCounterVec,
    /// `tollgate_admin_auth_failures_total`: requests to the admin listener with a token or password that is none.
    pub admin_auth_failures: IntCounter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let seconds = |name, help| {
            let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
            add(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
        };
        let counter = |name, help| add(&registry, IntCounter::new(name, help));
        let gauge = |name, help| add(&registry, IntGauge::new(name, help));
        let counters = |name, help, labels: &[&str]| add(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let gauges = |name, help| add(&registry, IntGaugeVec::new(Opts::new(name, help), &["provider"]));
        let metrics = Metrics {
            requests: counters("tollgate_requests_total", "Answers by class of status.", &["status"]),
            refusals: counters("tollgate_refusals_total", "Governed refusals by code.", &["code"]),
            rule_matches: counters("tollgate_rule_matches_total", "Requests by the rule that routed them.", &["rule"]),
            rule_errors: counters("tollgate_rule_errors_total", "Rules that could not be evaluated.", &["rule"]),
            ignored_fallbacks: counter("tollgate_ignored_fallbacks_total", "Clients' fallbacks that are none."),
            attempts: counters("tollgate_attempts_total", "Attempts by provider and ending.", &["provider", "ending"]),
            tokens: counters("tollgate_tokens_total", "Tokens charged.", &["provider", "direction"]),
            cost: counters(
                "tollgate_cost_nanodollars_total",
                "Money charged, in billionths of a dollar.",
                &["provider"],
            ),
            estimated: counters("tollgate_estimated_charges_total", "Charges by estimate.", &["provider"]),
            unpriced: counters("tollgate_unpriced_calls_total", "Calls served without a price.", &["provider"]),
            excess: counters("tollgate_excess_charges_total", "Charges above their hold.", &["provider"]),
            provider_healthy: gauges(
                "tollgate_provider_healthy",
                "0 while a provider is ejected or has no usable key.",
            ),
            provider_in_flight: gauges("tollgate_provider_in_flight", "Calls that have a place at a provider."),
            provider_waiting: gauges("tollgate_provider_waiting", "Calls that wait for a place at a provider."),
            ejections: counters(
                "tollgate_ejections_total",
                "Providers, keys and models that were left alone.",
                &["provider", "what"],
            ),
            full: counters("tollgate_provider_full_total", "Calls that found no place at a provider.", &["provider"]),
            excess_nanos: counters(
                "tollgate_excess_nanodollars_total",
                "Money billed beyond the most that calls could have come to, in billionths of a dollar.",
                &["provider"],
            ),
            duration: seconds("tollgate_request_duration_seconds", "From request to the end of the answer."),
            first_byte: seconds("tollgate_first_byte_seconds", "From request to the provider's first byte."),
            open_holds: gauge("tollgate_open_holds", "Attempts admitted and not yet settled."),
            ledger_unwritten: gauge("tollgate_ledger_unwritten_entries", "Settled, not yet in the store."),
            ledger_written: counter("tollgate_ledger_written_entries_total", "Ledger entries written."),
            ledger_failures: counter("tollgate_ledger_failures_total", "Ledger batches the store did not take."),
            reloads: counters("tollgate_config_reloads_total", "Config reloads by outcome.", &["outcome"]),
            reload_good: gauge("tollgate_config_last_reload_successful", "0 while the newest reload was refused."),
            price_refreshes: counters(
                "tollgate_price_refreshes_total",
                "Looks at the price table's source by outcome.",
                &["outcome"],
            ),
            price_good: gauge("tollgate_price_last_refresh_successful", "0 while the prices could not be refreshed."),
            price_models: gauge("tollgate_prices", "List prices in force."),
            reported: counters(
                "tollgate_reported_costs_total",
                "Costs that providers told, by what became of them.",
                &["provider", "outcome"],
            ),
            admin_auth_failures: counter("tollgate_admin_auth_failures_total", "Wrong tokens and passwords."),
            registry: registry.clone(),
        };
        metrics.reload_good.set(1);
        metrics.price_good.set(1);
        metrics
    }

    /// The exposition text.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory does not fail");
        String::from_utf8(text).expect("the exposition format is UTF-8")
    }

    pub fn answered(&self, status: Option<u16>, took: Duration) {
        let class = match status {
            None => "gone",
            Some(200..=299) => "2xx",
            Some(400..=499) => "4xx",
            Some(500..=599) => "5xx",
            Some(_) => "other",
        };
        self.requests.with_label_values(&[class]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub fn first_byte(&self, took: Duration) {
        self.first_byte.observe(took.as_secs_f64());
    }

    pub fn refused(&self, refusal: &Refusal) {
        self.refusals.with_label_values(&[refusal.code()]).inc();
    }

    /// Rules are named by their ids: administrators make them, clients do not.
    pub fn rule_matched(&self, rule: &str) {
        self.rule_matches.with_label_values(&[rule]).inc();
    }

    pub fn rule_failed(&self, rule: &str) {
        self.rule_errors.with_label_values(&[rule]).inc();
    }

    /// How often a rule matched, and how often it could not be evaluated.
    pub fn of_rule(&self, rule: &str) -> [u64; 2] {
        [&self.rule_matches, &self.rule_errors].map(|counters| counters.with_label_values(&[rule]).get())
    }

    pub fn attempted(&self, provider: &str, ending: &str) {
        self.attempts.with_label_values(&[provider, ending]).inc();
    }

    /// Counts one charge. `provider` is a configured name, so the label is bounded.
    pub fn charged(&self, provider: &str, usage: &Usage, nanos: i64) {
        self.tokens.with_label_values(&[provider, "input"]).inc_by(usage.input_total());
        self.tokens.with_label_values(&[provider, "output"]).inc_by(usage.output_total());
        self.cost.with_label_values(&[provider]).inc_by(u64::try_from(nanos).unwrap_or(0));
    }

    pub fn estimated(&self, provider: &str) {
        self.estimated.with_label_values(&[provider]).inc();
    }

    pub fn unpriced(&self, provider: &str) {
        self.unpriced.with_label_values(&[provider]).inc();
    }

    pub fn ejected(&self, provider: &str, what: &str) {
        self.ejections.with_label_values(&[provider, what]).inc();
    }

    pub fn full(&self, provider: &str) {
        self.full.with_label_values(&[provider]).inc();
    }

    pub fn reported(&self, provider: &str, outcome: &str) {
        self.reported.with_label_values(&[provider, outcome]).inc();
    }

    /// Counts what a provider billed beyond the bound that it was given.
    pub fn beyond_bound(&self, provider: &str, nanos: u64) {
        self.excess_nanos.with_label_values(&[provider]).inc_by(nanos);
    }

    pub fn excess(&self, provider: &str) {
        self.excess.with_label_values(&[provider]).inc();
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("names and labels are constants, and right");
    registry.register(Box::new(metric.clone())).expect("no two metrics share a name");
    metric
}
