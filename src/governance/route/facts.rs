//! What the variables of a rule stand for, for one request. Nothing is made before a rule asks for it.
#![allow(clippy::float_arithmetic, reason = "rules compare percentages; nothing of them is charged")]

use super::Question;
use super::body::{Body, Headers, Params};
use crate::governance::cel::{Facts, Fault, Members, Value, Variable};
use crate::governance::view::{Level, Limit, Measure};
use chrono::DateTime;
use std::borrow::Cow;
use std::cell::OnceCell;

/// The same for all rules of one request, whatever they make of it.
pub(super) struct Sent<'a> {
    headers: Headers<'a>,
    params: Params<'a>,
    body: Body<'a>,
    health: Health<'a>,
}

impl<'a> Sent<'a> {
    pub(super) fn of(question: &'a Question<'a>) -> Sent<'a> {
        Sent {
            headers: Headers(question.headers),
            params: Params::of(question.query),
            body: Body::of(question.body),
            health: Health(question),
        }
    }
}

/// A request as it is when rules are tried: with the provider and the model that it has by then.
pub(super) struct Known<'a> {
    pub(super) question: &'a Question<'a>,
    pub(super) sent: &'a Sent<'a>,
    pub(super) provider: Option<&'a str>,
    pub(super) model: &'a str,
    /// What is used of money, tokens and requests, in percent.
    used: OnceCell<[f64; 3]>,
}

impl<'a> Known<'a> {
    pub(super) fn of(
        question: &'a Question<'a>,
        sent: &'a Sent<'a>,
        provider: Option<&'a str>,
        model: &'a str,
    ) -> Known<'a> {
        Known { question, sent, provider, model, used: OnceCell::new() }
    }

    /// The most that is used of any limit on the provider, on the model, or on what the key may use of the
    /// provider. Without a provider only what is on the model wherever it is counts.
    fn used(&self) -> [f64; 3] {
        *self.used.get_or_init(|| {
            let Question { view, caller, .. } = *self.question;
            let provider = self.provider.unwrap_or_default();
            let configs = caller.map(|caller| &caller.key.provider_configs[..]).unwrap_or_default();
            let config = configs.iter().position(|config| *config.provider == *provider);
            let limits = view.limits(caller, config, provider, self.model, self.model);
            let limits = limits.iter().copied().filter(|limit| {
                limit.level.is_about_target() && (self.provider.is_some() || limit.level == Level::Model)
            });
            [Measure::Money, Measure::Tokens, Measure::Requests].map(|measure| self.percent(limits.clone(), measure))
        })
    }

    fn percent<'l>(&self, limits: impl Iterator<Item = &'l Limit>, measure: Measure) -> f64 {
        let part = |limit: &Limit| 100.0 * self.question.live.tally(limit).used as f64 / limit.max.max(1) as f64;
        limits.filter(|limit| limit.key.measure == measure).map(part).fold(0.0, f64::max)
    }

    fn budget<'l>(&self, limits: Option<impl IntoIterator<Item = &'l Limit>>) -> Value<'static> {
        Value::Double(limits.map_or(0.0, |limits| self.percent(limits.into_iter(), Measure::Money)))
    }
}

impl<'a> Facts for Known<'a> {
    fn value(&self, variable: Variable) -> Result<Value<'_>, Fault> {
        let Question { caller, .. } = *self.question;
        let text = |text: Option<&'a str>| Value::text(text.unwrap_or_default());
        let key = caller.map(|caller| &caller.key);
        let team = caller.and_then(|caller| caller.team.as_ref());
        let customer = caller.and_then(|caller| caller.customer.as_ref());
        Ok(match variable {
            Variable::Model => Value::text(self.model),
            Variable::Provider => Value::text(self.provider.unwrap_or_default()),
            Variable::RequestType => Value::text(self.question.asked.kind.as_str()),
            Variable::Headers => Value::Members(&self.sent.headers),
            Variable::Params => Value::Members(&self.sent.params),
            Variable::VirtualKeyId => text(key.map(|key| &*key.id)),
            Variable::VirtualKeyName => text(key.map(|key| &*key.name)),
            Variable::TeamId => text(team.map(|team| &*team.entity.id)),
            Variable::TeamName => text(team.map(|team| &*team.entity.name)),
            Variable::CustomerId => text(customer.map(|customer| &*customer.entity.id)),
            Variable::CustomerName => text(customer.map(|customer| &*customer.entity.name)),
            Variable::Nothing => Value::text(""),
            Variable::BudgetUsed => Value::Double(self.used()[0]),
            Variable::TokensUsed => Value::Double(self.used()[1]),
            Variable::Request => Value::Double(self.used()[2]),
            Variable::VirtualKeyBudgetUsed => self.budget(caller.map(|caller| caller.limits.iter())),
            Variable::TeamBudgetUsed => self.budget(team.map(|team| &team.limits)),
            Variable::CustomerBudgetUsed => self.budget(customer.map(|customer| &customer.limits)),
            Variable::Stream => Value::Bool(self.question.asked.stream),
            Variable::InputTokens => Value::Int(i64::try_from(self.question.input_tokens).unwrap_or(i64::MAX)),
            Variable::Body => Value::Members(&self.sent.body),
            Variable::Now => {
                Value::Time(DateTime::from_timestamp_millis(self.question.now.millis()).unwrap_or_default())
            }
            Variable::ProviderHealth => Value::Members(&self.sent.health),
        })
    }
}

/// Every provider's health: 1 while all goes well, 0 while nothing is sent there.
struct Health<'a>(&'a Question<'a>);

impl Members for Health<'_> {
    fn get(&self, name: &str) -> Result<Option<Value<'_>>, Fault> {
        Ok(self.0.view.provider(name).map(|provider| Value::Double(self.0.live.health(provider))))
    }

    fn names(&self) -> Result<Vec<Cow<'_, str>>, Fault> {
        Ok(self.0.view.providers().map(|provider| Cow::Borrowed(&*provider.name)).collect())
    }
}
