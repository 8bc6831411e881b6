//! A dry run: what would become of a call, and why. Nothing is sent, held or counted.

use super::Admin;
use super::body::{Body, parse, received};
use super::change::Lens;
use super::error::ApiError;
use crate::governance::entity::{RoutingRule, RuleScope};
use crate::governance::judge::{Admission, admits};
use crate::governance::money::Nanos;
use crate::governance::refusal::Refusal;
use crate::governance::request::RequestKind;
use crate::governance::route::{self, Asked, Target};
use crate::governance::view::{Caller, Level, Limit, Measure};
use crate::wire::faults::Faults;
use crate::wire::read::Object;
use crate::wire::show::dollars;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// The call that is asked about.
struct Question {
    /// A virtual key's value or id.
    virtual_key: Option<String>,
    model: String,
    kind: RequestKind,
    stream: bool,
    /// Names in lower case.
    headers: Vec<String>,
}

/// `POST /api/governance/explain`
pub(super) async fn explain(State(admin): State<Admin>, body: Body) -> Result<Json<Value>, ApiError> {
    let body = parse(&received(body)?)?;
    let mut faults = Faults::default();
    let question = Object::of(&body, "", &mut faults).map(|body| read(&body, &mut faults));
    let question = question.filter(|_| faults.is_empty()).ok_or(faults)?;
    admin.blocking(move |admin| Ok(Json(answer(admin, &question)))).await
}

fn read(body: &Object<'_>, faults: &mut Faults) -> Question {
    let model = body.text("model", faults).value().unwrap_or_default().to_owned();
    if model.is_empty() && !faults.iter().any(|fault| fault.path == "model") {
        faults.add("model", "model is required");
    }
    let name = body.text("request_type", faults).value().unwrap_or(RequestKind::ChatCompletion.as_str());
    let kind = RequestKind::from_name(name);
    if kind.is_none() {
        faults.add("request_type", format!("'{name}' is no kind of request"));
    }
    let headers = body.object("headers", faults).value();
    let headers = headers.iter().flat_map(Object::names).map(str::to_ascii_lowercase).collect();
    let sent = body.object("body", faults).value();
    let stream = sent.and_then(|sent| sent.boolean("stream", faults).value()).unwrap_or(false);
    let virtual_key = body.text("virtual_key", faults).value().filter(|key| !key.is_empty()).map(str::to_owned);
    Question { virtual_key, model, kind: kind.unwrap_or(RequestKind::ChatCompletion), stream, headers }
}

fn answer(admin: &Admin, question: &Question) -> Value {
    let snapshot = admin.state.snapshot();
    let lens = Lens::on(admin, &snapshot);
    let view = lens.view;
    let known = question.virtual_key.as_deref().map(|key| {
        let digest = admin.state.hasher.digest(key.trim().as_bytes());
        view.caller_by_id(key).or_else(|| view.caller(&digest))
    });
    let caller = known.flatten().map(|caller| &**caller);
    let refused = |refusal: &Refusal, candidates: Vec<Value>, limits: &[&Limit]| {
        let mut answer = whole(&lens, caller, candidates, limits);
        answer["decision"] = "refuse".into();
        answer["reason"] = refusal.to_string().into();
        answer["code"] = refusal.code().into();
        answer["status_code"] = refusal.status().into();
        answer
    };
    if let Err(refusal) = identified(&lens, question, known.is_some(), caller) {
        return refused(&refusal, Vec::new(), &view.limits(caller, None, "", "", ""));
    }
    // Nothing is sent, so it does not matter in whose wire format the call would come.
    let asked = Asked { kind: question.kind, stream: question.stream, dialect: None, home: None };
    let targets = match route::targets(view, caller, asked, &question.model) {
        Ok(targets) => targets,
        Err(refusal) => return refused(&refusal, Vec::new(), &view.limits(caller, None, "", "", "")),
    };
    let verdicts: Vec<Result<(), Refusal>> =
        targets.iter().map(|target| judge(&lens, caller, target, question.kind)).collect();
    let taken = verdicts.iter().position(Result::is_ok);
    let candidates = targets.iter().zip(&verdicts).enumerate();
    let candidates = candidates.map(|(i, (target, verdict))| candidate(target, verdict, taken, i)).collect();
    let at = &targets[taken.unwrap_or(0)];
    let limits = view.limits(caller, at.config, &at.provider.name, &at.model, &at.upstream_model);
    match (taken, verdicts.into_iter().next()) {
        (None, Some(Err(refusal))) => refused(&refusal, candidates, &limits),
        _ => {
            let mut answer = whole(&lens, caller, candidates, &limits);
            answer["decision"] = "allow".into();
            answer["reason"] =
                format!("'{}' of provider '{}' would serve it", at.upstream_model, at.provider.name).into();
            answer
        }
    }
}

/// What identification would say.
fn identified(lens: &Lens<'_>, question: &Question, sent: bool, caller: Option<&Caller>) -> Result<(), Refusal> {
    let client = &lens.view.client;
    let missing = client.required_headers.iter().filter(|name| !question.headers.contains(name));
    let missing: Vec<String> = missing.cloned().collect();
    if !missing.is_empty() {
        return Err(Refusal::MissingHeaders(missing));
    }
    match caller {
        Some(caller) if !caller.key.is_active => Err(Refusal::VirtualKeyInactive),
        Some(_) => Ok(()),
        None if sent => Err(Refusal::VirtualKeyNotFound { enforced: client.enforce_auth }),
        None if client.enforce_auth => Err(Refusal::VirtualKeyRequired),
        None => Ok(()),
    }
}

/// What admission would say, as things stand.
fn judge(lens: &Lens<'_>, caller: Option<&Caller>, target: &Target, kind: RequestKind) -> Result<(), Refusal> {
    route::price(lens.view, caller, target, kind)?;
    let limits = lens.view.limits(caller, target.config, &target.provider.name, &target.model, &target.upstream_model);
    let stands = |limit: &&&Limit| !admits(limit.max, lens.live(limit).0.used, 0, Admission::Remaining);
    let full: Vec<&Limit> = limits.iter().filter(stands).copied().collect();
    if full.is_empty() { Ok(()) } else { Err(Refusal::LimitReached(lens.exceeded(&full))) }
}

fn candidate(target: &Target, verdict: &Result<(), Refusal>, taken: Option<usize>, i: usize) -> Value {
    let (decision, reason) = match verdict {
        Err(refusal) => ("skipped", refusal.to_string()),
        Ok(()) if taken == Some(i) => ("taken", "the first that may serve it".to_owned()),
        Ok(()) => ("next", "would be tried if those before it fail".to_owned()),
    };
    json!({
        "provider": &*target.provider.name,
        "model": target.model,
        "upstream_model": target.upstream_model,
        "key_id": target.key.as_ref().map(|key| &*key.id),
        "key_name": target.key.as_ref().map(|key| &*key.name),
        "decision": decision,
        "reason": reason,
    })
}

fn whole(lens: &Lens<'_>, caller: Option<&Caller>, candidates: Vec<Value>, limits: &[&Limit]) -> Value {
    let (budgets, rates): (Vec<&Limit>, Vec<&Limit>) =
        limits.iter().copied().partition(|limit| limit.key.measure == Measure::Money);
    let shown = |limits: Vec<&Limit>| -> Value { limits.into_iter().map(|limit| standing(lens, limit)).collect() };
    json!({
        "decision": Value::Null,
        "reason": Value::Null,
        "rules": rules(lens, caller),
        "candidates": candidates,
        "budgets": shown(budgets),
        "rate_limits": shown(rates),
    })
}

/// What stands at a limit, in dollars, tokens or requests.
fn standing(lens: &Lens<'_>, limit: &Limit) -> Value {
    let (tally, start) = lens.live(limit);
    let amount = |number: i64| match limit.key.measure {
        Measure::Money => dollars(Nanos::new(number)),
        Measure::Tokens | Measure::Requests => number.into(),
    };
    json!({
        "id": &*limit.key.id,
        "level": level(limit.level),
        "subject": lens.view.subject(limit),
        "measure": limit.key.measure.as_str(),
        "limit": amount(limit.max),
        "used": amount(tally.spent),
        "held": amount(tally.held()),
        "remaining": amount((limit.max - tally.used).max(0)),
        "reset_duration": limit.window.span().text(),
        "resets_at": limit.window.end(start).to_string(),
        "exhausted": tally.used >= limit.max,
    })
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::Provider => "provider",
        Level::ProviderModel | Level::Model => "model_config",
        Level::Customer => "customer",
        Level::Team => "team",
        Level::VirtualKey => "virtual_key",
        Level::ProviderConfig => "provider_config",
    }
}

/// The rules that are for this caller, in their order. They are stored and checked; they do not route yet.
fn rules(lens: &Lens<'_>, caller: Option<&Caller>) -> Value {
    let mut scopes = Vec::new();
    if let Some(caller) = caller {
        scopes.push(RuleScope::VirtualKey(Arc::clone(&caller.key.id)));
        scopes.extend(caller.team.iter().map(|team| RuleScope::Team(Arc::clone(&team.entity.id))));
        scopes.extend(caller.customer.iter().map(|customer| RuleScope::Customer(Arc::clone(&customer.entity.id))));
    }
    scopes.push(RuleScope::Global);
    let rank = |rule: &RoutingRule| scopes.iter().position(|scope| *scope == rule.scope);
    let mut found: Vec<(usize, &Arc<RoutingRule>)> =
        lens.view.rules().filter(|rule| rule.enabled).filter_map(|rule| Some((rank(rule)?, rule))).collect();
    found.sort_by_key(|(rank, rule)| (*rank, rule.priority, std::cmp::Reverse(rule.created_at), &rule.id));
    let shown = found.into_iter().map(|(_, rule)| {
        json!({
            "id": &*rule.id,
            "name": rule.name,
            "scope": rule.scope.name(),
            "priority": rule.priority,
            "result": "not evaluated",
            "reason": "rules are stored and checked, and do not route in this version",
        })
    });
    shown.collect()
}
