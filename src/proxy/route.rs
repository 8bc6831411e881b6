//! Where a request goes: rules, weights and fallbacks, decided on how things stand now. Nothing is held yet.

use super::Gateway;
use super::call::Request;
use super::exchange::Exchange;
use crate::governance::refusal::Refusal;
use crate::governance::route::{Asked, Draw, Question, Target, decide};
use crate::governance::view::Caller;
use crate::state::Snapshot;
use pingora::http::RequestHeader;

/// The targets in the order in which they are tried; never empty.
pub(super) fn route(
    gateway: &Gateway,
    snapshot: &Snapshot,
    caller: Option<&Caller>,
    head: &RequestHeader,
    request: &Request,
    x: &mut Exchange,
) -> Result<Vec<Target>, Refusal> {
    let call = &request.call;
    let question = Question {
        view: &snapshot.view,
        caller,
        asked: Asked { kind: call.kind, stream: call.stream, dialect: Some(call.dialect), home: request.route.home },
        model: &call.model,
        input_tokens: call.input_estimate(),
        headers: &head.headers,
        query: head.uri.query().unwrap_or_default(),
        body: &request.body,
        fallbacks: request.fallbacks.as_deref(),
        now: x.arrived,
        live: &snapshot.at(x.arrived),
    };
    let caller = caller.map_or("", |caller| &caller.key.id);
    let mut draw = Draw::of(&head.headers, caller, gateway.state.new_id().0);
    let decision = decide(&question, &mut draw, None);
    for failed in &decision.faults {
        gateway.metrics.rule_failed(&failed.rule.id);
        let (rule, fault) = (&failed.rule.name, &failed.fault);
        tracing::debug!(request_id = x.request_id_text(), %rule, %fault, "a rule could not be evaluated");
    }
    if decision.fallbacks_ignored > 0 {
        gateway.metrics.ignored_fallbacks.inc_by(decision.fallbacks_ignored as u64);
        tracing::debug!(
            request_id = x.request_id_text(),
            count = decision.fallbacks_ignored,
            "fallbacks name no provider that is known here, or are too many"
        );
    }
    if let Some(rule) = &decision.rule {
        gateway.metrics.rule_matched(&rule.id);
    }
    x.rule = decision.rule;
    decision.targets
}
