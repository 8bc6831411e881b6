//! A dry run: what would become of a call, and why. Nothing is sent, held or counted.

use super::Admin;
use super::body::{Body, parse, received};
use super::change::Lens;
use super::error::ApiError;
use crate::governance::entity::RoutingRule;
use crate::governance::judge::{Admission, admits};
use crate::governance::money::Nanos;
use crate::governance::refusal::Refusal;
use crate::governance::request::RequestKind;
use crate::governance::route::{self, Draw, PassedOver, Question, Target, Trace, Tried, TriedRule};
use crate::governance::view::{Caller, Level, Limit, Measure};
use crate::provider::{Route, read_call};
use crate::wire::fallbacks::take;
use crate::wire::faults::Faults;
use crate::wire::read::Object;
use crate::wire::show::dollars;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde_json::{Value, json};

/// The call that is asked about.
struct Asked {
    /// A virtual key's value or id.
    virtual_key: Option<String>,
    model: String,
    kind: RequestKind,
    stream: bool,
    headers: HeaderMap,
    query: String,
    /// Without the fallbacks, as rules see it.
    body: Bytes,
    fallbacks: Option<Vec<String>>,
    input_tokens: u64,
}

/// `POST /api/governance/explain`
pub(super) async fn explain(State(admin): State<Admin>, body: Body) -> Result<Json<Value>, ApiError> {
    let body = parse(&received(body)?)?;
    let mut faults = Faults::default();
    let asked = Object::of(&body, "", &mut faults).and_then(|body| read(&body, &mut faults));
    let asked = asked.filter(|_| faults.is_empty()).ok_or(faults)?;
    admin.blocking(move |admin| Ok(Json(answer(admin, &asked)))).await
}

fn read(body: &Object<'_>, faults: &mut Faults) -> Option<Asked> {
    let model = body.text("model", faults).value().unwrap_or_default().to_owned();
    if model.is_empty() && !faults.iter().any(|fault| fault.path == "model") {
        faults.add("model", "model is required");
    }
    let name = body.text("request_type", faults).value().unwrap_or(RequestKind::ChatCompletion.as_str());
    let kind = RequestKind::from_name(name);
    if kind.is_none() {
        faults.add("request_type", format!("'{name}' is no kind of request"));
    }
    let headers = read_headers(body, faults);
    let query = body.text("query", faults).value().unwrap_or_default().to_owned();
    let sent = body.object("body", faults).value();
    let stream = sent.as_ref().and_then(|sent| sent.boolean("stream", faults).value()).unwrap_or(false);
    let mut members = sent.map(|sent| sent.to_value()).unwrap_or_else(|| json!({}));
    if members.get("model").is_none() {
        members["model"] = model.as_str().into();
    }
    let (body_sent, fallbacks) = match take(Bytes::from(members.to_string())) {
        Ok(taken) => taken,
        Err(refusal) => {
            faults.add("body.fallbacks", refusal.to_string());
            return None;
        }
    };
    let virtual_key = body.text("virtual_key", faults).value().filter(|key| !key.is_empty()).map(str::to_owned);
    let kind = kind?;
    // A body that no provider would take still tells rules what is in it.
    let input_tokens = read_call(&Route::openai(kind), &body_sent).map(|call| call.input_estimate()).unwrap_or(0);
    Some(Asked { virtual_key, model, kind, stream, headers, query, body: body_sent, fallbacks, input_tokens })
}

/// Headers as a client would send them.
fn read_headers(body: &Object<'_>, faults: &mut Faults) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(given) = body.object("headers", faults).value() else { return headers };
    for name in given.names() {
        let text = match given.raw(name).value() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            // Written without quotes, as numbers and booleans easily are.
            Some(other) => other.to_string(),
        };
        // A map of headers has an end, and what is beyond it no client could send either.
        let taken = match (HeaderName::try_from(name), HeaderValue::try_from(text)) {
            (Ok(name), Ok(value)) => headers.try_insert(name, value).is_ok(),
            _ => false,
        };
        if !taken {
            faults.add(given.path(name), "is no header that a client could send");
        }
    }
    headers
}

fn answer(admin: &Admin, asked: &Asked) -> Value {
    let snapshot = admin.state.snapshot();
    let lens = Lens::on(admin, &snapshot);
    let view = lens.view;
    let known = asked.virtual_key.as_deref().map(|key| {
        let digest = admin.state.hasher.digest(key.trim().as_bytes());
        view.caller_by_id(key).or_else(|| view.caller(&digest))
    });
    let caller = known.flatten().map(|caller| &**caller);
    let own = || view.limits(caller, None, "", "", "");
    if let Err(refusal) = identified(&lens, asked, known.is_some(), caller) {
        return refused(whole(admin, &lens, &Trace::default(), Vec::new(), &own()), &refusal);
    }
    let now = admin.state.clock.now();
    let question = Question {
        view,
        caller,
        // Nothing is sent, so it does not matter in whose wire format the call would come.
        asked: route::Asked { kind: asked.kind, stream: asked.stream, dialect: None, home: None },
        model: &asked.model,
        input_tokens: asked.input_tokens,
        headers: &asked.headers,
        query: &asked.query,
        body: &asked.body,
        fallbacks: asked.fallbacks.as_deref(),
        now,
        live: &snapshot.at(now),
    };
    let mut trace = Trace::default();
    let mut draw = Draw::of(&asked.headers, caller.map_or("", |caller| &caller.key.id), admin.state.new_id().0);
    let decision = route::decide(&question, &mut draw, Some(&mut trace));
    let rule = decision.rule.as_ref().map(|rule| json!({"id": &*rule.id, "name": rule.name}));
    let mut told = match decision.targets {
        Err(refusal) => {
            let passed_over = trace.passed_over.iter().map(passed_over).collect();
            refused(whole(admin, &lens, &trace, passed_over, &own()), &refusal)
        }
        Ok(targets) => judged(admin, &lens, caller, &trace, &targets, asked.kind),
    };
    told["rule"] = rule.unwrap_or(Value::Null);
    told
}

fn refused(mut answer: Value, refusal: &Refusal) -> Value {
    answer["decision"] = "refuse".into();
    answer["reason"] = refusal.to_string().into();
    answer["code"] = refusal.code().into();
    answer["status_code"] = refusal.status().into();
    answer
}

/// What becomes of a call that has targets, in the way attempts are made: the first that is admitted serves it,
/// and a limit of the caller's own ends it.
fn judged(
    admin: &Admin,
    lens: &Lens<'_>,
    caller: Option<&Caller>,
    trace: &Trace,
    targets: &[Target],
    kind: RequestKind,
) -> Value {
    let verdicts: Vec<Result<(), Refusal>> = targets.iter().map(|target| judge(lens, caller, target, kind)).collect();
    let decides = |verdict: &Result<(), Refusal>| verdict.as_ref().err().is_none_or(|no| !no.is_about_target());
    let decisive = verdicts.iter().position(decides);
    let taken = decisive.filter(|&at| verdicts[at].is_ok());
    let candidates = targets.iter().zip(&verdicts).enumerate();
    let candidates = candidates.map(|(i, (target, verdict))| candidate(target, verdict, taken, i));
    let candidates = candidates.chain(trace.passed_over.iter().map(passed_over)).collect();
    let at = &targets[taken.unwrap_or(0)];
    let through = |at: &Target| lens.view.limits(caller, at.config, &at.provider.name, &at.model, &at.upstream_model);
    // Those of the target that serves it first, then what only the others would count against.
    let mut limits = through(at);
    for limit in targets.iter().flat_map(through) {
        if !limits.iter().any(|known| known.slot == limit.slot) {
            limits.push(limit);
        }
    }
    let mut answer = whole(admin, lens, trace, candidates, &limits);
    let refusal = verdicts.get(decisive.unwrap_or(0)).and_then(|verdict| verdict.as_ref().err());
    match (taken, refusal) {
        (None, Some(refusal)) => refused(answer, refusal),
        _ => {
            answer["decision"] = "allow".into();
            answer["reason"] =
                format!("'{}' of provider '{}' would serve it", at.upstream_model, at.provider.name).into();
            answer
        }
    }
}

/// What identification would say.
fn identified(lens: &Lens<'_>, asked: &Asked, sent: bool, caller: Option<&Caller>) -> Result<(), Refusal> {
    let client = &lens.view.client;
    let missing = client.required_headers.iter().filter(|name| !asked.headers.contains_key(name.as_str()));
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
        "choice": target.choice,
        "provider": &*target.provider.name,
        "model": target.model,
        "upstream_model": target.upstream_model,
        "key_id": target.key.as_ref().map(|key| &*key.id),
        "key_name": target.key.as_ref().map(|key| &*key.name),
        "decision": decision,
        "reason": reason,
    })
}

/// What could have been a target, and is none.
fn passed_over(over: &PassedOver) -> Value {
    json!({
        "choice": Value::Null,
        "provider": over.provider,
        "model": over.model,
        "upstream_model": Value::Null,
        "key_id": Value::Null,
        "key_name": Value::Null,
        "decision": "skipped",
        "reason": over.reason,
    })
}

fn whole(admin: &Admin, lens: &Lens<'_>, trace: &Trace, candidates: Vec<Value>, limits: &[&Limit]) -> Value {
    let (budgets, rates): (Vec<&Limit>, Vec<&Limit>) =
        limits.iter().copied().partition(|limit| limit.key.measure == Measure::Money);
    let shown = |limits: Vec<&Limit>| -> Value { limits.into_iter().map(|limit| standing(lens, limit)).collect() };
    json!({
        "decision": Value::Null,
        "reason": Value::Null,
        "rule": Value::Null,
        "rules": trace.rules.iter().map(|tried| rule(admin, tried)).collect::<Value>(),
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

/// A rule that was tried, with what became of it now and until now.
fn rule(admin: &Admin, tried: &TriedRule) -> Value {
    let TriedRule { rule, round, model, result } = tried;
    let (name, reason) = match result {
        Tried::Matched(target) => ("match", matched(rule, *target)),
        Tried::NotMatched => ("no_match", "its expression is false".to_owned()),
        Tried::Missing(what) => ("no_match", what.clone()),
        Tried::Failed(why) => ("error", why.clone()),
        Tried::Disabled => ("disabled", rule.fault.clone().unwrap_or_else(|| "it is disabled".to_owned())),
        Tried::NotReached => ("not_reached", "a rule before it matched".to_owned()),
    };
    let [matches, errors] = admin.metrics.of_rule(&rule.id);
    json!({
        "id": &*rule.id,
        "name": rule.name,
        "scope": rule.scope.name(),
        "scope_id": rule.scope.id().map(|id| &**id),
        "priority": rule.priority,
        "result": name,
        "reason": reason,
        "round": round,
        "model": model,
        "matches": matches,
        "errors": errors,
    })
}

fn matched(rule: &RoutingRule, target: usize) -> String {
    let count = rule.targets.len();
    let Some(target) = rule.targets.get(target) else { return String::new() };
    let parts = [("provider", &target.provider), ("model", &target.model), ("key", &target.key_id)];
    let parts = parts.iter().filter_map(|(name, part)| Some(format!("{name} '{}'", part.as_deref()?)));
    let parts: Vec<String> = parts.collect();
    let what = if parts.is_empty() { "what was asked for".to_owned() } else { parts.join(", ") };
    let drawn = if count > 1 { format!(", drawn by weight among {count} targets") } else { String::new() };
    let chain = if rule.chain { "; it is a chain rule" } else { "" };
    format!("it sends the request to {what}{drawn}{chain}")
}
