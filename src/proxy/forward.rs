//! Attempts: one exchange with one target after the other, until one of them answers.
//!
//! This drives Pingora's connector itself instead of its proxy pump, because only so can a body of
//! any size be sent again, an answer's head be held back until it is known to be good, and every
//! ending be settled at one place. What the pump would have done is done here: timeouts, the silent
//! retry on a stale connection, header hygiene. Nothing is tried again once a byte went downstream.

mod attempt;
mod heads;
mod plan;

use super::admit::admit;
use super::call::Request;
use super::exchange::Exchange;
use super::respond::write_whole;
use super::{Failure, Gateway, Halt};
use crate::governance::dice::Dice;
use crate::governance::entity::Network;
use crate::governance::refusal::Refusal;
use crate::governance::route::Target;
use crate::governance::view::Caller;
use crate::provider::failure::{Again, Condemned, Verdict};
use crate::state::Snapshot;
use crate::state::clock::{since, stopwatch};
use crate::state::health::breaker::Standing;
use crate::state::health::gate::Place;
use crate::state::health::{Pass, ProviderHealth};
use attempt::{Ways, attempt, unless_client_leaves};
use bytes::Bytes;
use heads::client_head;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use plan::{Group, plan};
use smallvec::SmallVec;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All tries of one request, whatever the targets and their retries add up to.
const ATTEMPTS_MAX: usize = 16;
/// No try begins later than this after the first.
const TOTAL_MAX: Duration = Duration::from_secs(600);
/// No call waits longer for its turn at a provider that is busy.
const QUEUE_MAX: Duration = Duration::from_secs(30);

/// Everything that the attempts of one request share.
pub(super) struct Job<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) snapshot: &'a Snapshot,
    pub(super) caller: Option<&'a Caller>,
    pub(super) request: &'a Request,
}

/// How one attempt ended, for the loop over attempts.
enum Attempt {
    /// The client has its answer, or as much of it as came. What that says of the provider.
    Answered(Sign),
    ClientGone,
    /// Nothing reached the client; another target may try.
    Failed(Failed),
}

/// What an answer says of the one who gave it.
enum Sign {
    Well,
    Unwell(Verdict, Option<Duration>),
}

struct Failed {
    said: Said,
    verdict: Verdict,
    /// When the provider wants to be asked again.
    wait: Option<Duration>,
}

enum Said {
    Failure(Failure),
    /// The provider's own error answer, complete.
    Answer {
        head: Box<ResponseHeader>,
        body: Bytes,
        target: usize,
    },
}

/// Tries the targets in their order, each with its own hold, until one answers.
pub(super) async fn forward(
    job: &Job<'_>,
    session: &mut Session,
    x: &mut Exchange,
    targets: &[Target],
) -> Result<(), Halt> {
    let state = &job.gateway.state;
    // An id is as good as a die here: it differs from request to request.
    let dice = Dice::seeded(state.new_id().0 as u64);
    let mut run = Run { job, targets, dice, anyway: false, began: stopwatch(), failed: None, refused: None };
    loop {
        let now = state.clock.now();
        let standing = |target: &Target| {
            let health = state.health.of(&target.provider.name);
            health.map_or(Standing::Good, |health| health.standing(key_id(target), Some(&target.upstream_model), now))
        };
        let (groups, anyway) = plan(targets, standing, run.anyway);
        run.anyway = anyway;
        for (n, group) in groups.iter().enumerate() {
            match run.group(session, x, group, groups.len() - n - 1).await {
                Way::On => {}
                Way::Answered => return Ok(()),
                Way::ClientGone => return Err(Halt::ClientGone),
                Way::Stop => break,
            }
        }
        if run.anyway || run.failed.is_some() || run.refused.is_some() {
            return run.give_up(session, x).await;
        }
        // All that could be asked were being probed by others just then.
        run.anyway = true;
    }
}

fn key_id(target: &Target) -> Option<&str> {
    target.key.as_ref().map(|key| &*key.id)
}

/// The attempts of one request.
struct Run<'a> {
    job: &'a Job<'a>,
    targets: &'a [Target],
    dice: Dice,
    /// There is nobody but those who are out.
    anyway: bool,
    began: Instant,
    /// The last failure, and the first refusal.
    failed: Option<Said>,
    refused: Option<Refusal>,
}

/// Where to go from here.
enum Way {
    /// To the next group.
    On,
    /// Nowhere.
    Stop,
    Answered,
    ClientGone,
}

/// One key's part in its group.
struct Turn {
    at: usize,
    asked: u32,
    over: bool,
    /// The provider does not want to be asked before.
    not_before: Option<Instant>,
}

impl Run<'_> {
    /// Each key of the group once, then as many retries as the provider has among those that may be asked again.
    async fn group(&mut self, session: &mut Session, x: &mut Exchange, group: &Group, groups_left: usize) -> Way {
        let provider = &self.targets[group[0]].provider;
        let health = self.job.gateway.state.health.of(&provider.name);
        let network = &provider.network;
        let began = stopwatch();
        let mut turns: SmallVec<[Turn; 4]> =
            group.iter().map(|&at| Turn { at, asked: 0, over: false, not_before: None }).collect();
        let (mut made, mut retries) = (0, 0);
        // The groups behind this one have a try each.
        let most = ATTEMPTS_MAX.saturating_sub(x.attempts as usize + groups_left).max(1);
        loop {
            if x.attempts as usize >= ATTEMPTS_MAX || since(self.began) >= TOTAL_MAX {
                return Way::Stop;
            }
            // A provider that has used up its time is not asked again, with whatever key.
            if made >= most || (made > 0 && since(began) >= network.request_timeout) {
                return Way::On;
            }
            let Some(i) = turns.iter().position(|turn| turn.asked == 0 && !turn.over).or_else(|| {
                let may_retry = retries < network.max_retries;
                may_retry.then(|| next_retry(&mut turns, network.retry_backoff_max)).flatten()
            }) else {
                return Way::On;
            };
            if turns[i].asked > 0 {
                let pause = backoff(network, retries, &mut self.dice).max(left_until(turns[i].not_before));
                if since(began) + pause >= network.request_timeout {
                    return Way::On;
                }
                if unless_client_leaves(session, pin!(tokio::time::sleep(pause))).await.is_none() {
                    return Way::ClientGone;
                }
                retries += 1;
            }
            let target = &self.targets[turns[i].at];
            let _place = match self.enter(session, target, health.as_ref(), network).await {
                Ok(place) => place,
                Err(way) => return way,
            };
            let now = self.job.gateway.state.clock.now();
            // Whoever was let in once is done with by what it says, and not by what others learn meanwhile.
            let anyway = self.anyway || made > 0;
            let pass = match &health {
                None => None,
                Some(health) if anyway => Some(health.enter_anyway(key_id(target))),
                Some(health) => match health.enter(key_id(target), &target.upstream_model, now) {
                    Some(pass) => Some(pass),
                    None => {
                        turns[i].over = true;
                        continue;
                    }
                },
            };
            let job = self.job;
            let admitted = match admit(&job.gateway.state, job.snapshot, job.caller, &job.request.call, target, now) {
                Ok(admitted) => admitted,
                Err(refusal) if refusal.is_about_target() => {
                    turns[i].over = true;
                    self.refused.get_or_insert(refusal);
                    continue;
                }
                Err(refusal) => {
                    self.refused = Some(refusal);
                    return Way::Stop;
                }
            };
            x.attempts += 1;
            x.lowered = admitted.lowered;
            made += 1;
            turns[i].asked += 1;
            let ways = Ways {
                again: made < most && retries < network.max_retries,
                other_key: made < most && turns.iter().any(|turn| turn.asked == 0 && !turn.over),
                elsewhere: groups_left > 0,
            };
            let failed = match attempt(job, session, x, (turns[i].at, target), admitted, ways, pass.as_ref()).await {
                Attempt::Answered(Sign::Well) => {
                    pass.inspect(Pass::succeeded);
                    return Way::Answered;
                }
                Attempt::Answered(Sign::Unwell(verdict, wait)) => {
                    self.learn(pass, target, verdict, wait);
                    return Way::Answered;
                }
                Attempt::ClientGone => return Way::ClientGone,
                Attempt::Failed(failed) => failed,
            };
            let Failed { said, verdict, wait } = failed;
            tracing::debug!(provider = %provider.name, failure = %said.describe(), "attempt failed");
            let ejected = self.learn(pass, target, verdict, wait);
            self.failed = Some(said);
            if !verdict.elsewhere {
                return Way::Stop;
            }
            if ejected && groups_left > 0 {
                return Way::On;
            }
            self.strike(&mut turns, i, verdict, wait);
        }
    }

    /// Ends the turns of those whom this failure leaves no chance.
    fn strike(&self, turns: &mut [Turn], i: usize, verdict: Verdict, wait: Option<Duration>) {
        let turn = &mut turns[i];
        turn.not_before = wait.map(|wait| stopwatch() + wait);
        turn.over = match verdict.again {
            Again::Never => true,
            Again::Once => turn.asked > 1,
            Again::Paced => false,
        };
        if !verdict.other_key {
            let address = |turn: &Turn| {
                let target = &self.targets[turn.at];
                target.provider.base_url(target.key.as_deref())
            };
            let here = address(&turns[i]);
            // Another key may lead to another place; a request that is wrong is wrong there, too.
            for (_, turn) in turns.iter_mut().enumerate().filter(|(other, _)| *other != i) {
                turn.over |= !verdict.sick || address(turn) == here;
            }
        }
    }

    /// A place at the provider, once it is this call's turn.
    async fn enter(
        &mut self,
        session: &mut Session,
        target: &Target,
        health: Option<&Arc<ProviderHealth>>,
        network: &Network,
    ) -> Result<Option<Place>, Way> {
        let Some(health) = health else { return Ok(None) };
        if let Some(place) = health.gate().try_enter() {
            return Ok(Some(place));
        }
        let turn = health.gate().enter(network.request_timeout.min(QUEUE_MAX));
        match unless_client_leaves(session, pin!(turn)).await {
            Some(Ok(place)) => Ok(Some(place)),
            Some(Err(_)) => {
                let provider = target.provider.name.to_string();
                self.job.gateway.metrics.full(&provider);
                self.refused.get_or_insert(Refusal::ProviderFull { provider });
                Err(Way::On)
            }
            None => Err(Way::ClientGone),
        }
    }

    /// Remembers for other calls what this one was told. True: the provider had failed often enough.
    fn learn(&self, pass: Option<Pass>, target: &Target, verdict: Verdict, wait: Option<Duration>) -> bool {
        let Some(pass) = pass else { return false };
        let now = self.job.gateway.state.clock.now();
        let (provider, key) = (&*target.provider.name, key_id(target));
        let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let mut news: SmallVec<[&'static str; 2]> = SmallVec::new();
        let mut tell = |what: &'static str, is_news: bool| {
            if is_news {
                news.push(what);
            }
        };
        if verdict.sick {
            let ejected = pass.failed(now);
            tell("provider", ejected.provider);
            tell("key", ejected.key);
        } else {
            pass.answered();
        }
        let model = Some(&*target.upstream_model);
        match (verdict.condemns, wait) {
            (Condemned::Rejected, _) => tell("rejected_key", pass.rejected(now)),
            (Condemned::Key(least), wait) => {
                tell("resting_key", pass.rest(None, millis(wait.unwrap_or_default().max(least)), now));
            }
            (Condemned::Model(usual), wait) => {
                tell("resting_model", pass.rest(model, millis(wait.unwrap_or(usual)), now));
            }
            (Condemned::Nothing, Some(wait)) if verdict.again == Again::Paced => {
                tell("resting_model", pass.rest(model, millis(wait), now));
            }
            (Condemned::Nothing, _) => {}
        }
        for what in &news {
            self.job.gateway.metrics.ejected(provider, what);
            tracing::warn!(provider, key, model, what, "left alone for a while");
        }
        news.contains(&"provider")
    }

    /// What the last attempt came to, or why there was none.
    async fn give_up(self, session: &mut Session, x: &mut Exchange) -> Result<(), Halt> {
        match (self.failed, self.refused) {
            (Some(Said::Answer { head, body, target }), _) => {
                let version = session.req_header().version;
                let head = client_head(self.job, x, *head, &self.targets[target], Some(body.len()), version);
                write_whole(session, x, head, body).await;
                Ok(())
            }
            (Some(Said::Failure(failure)), _) => Err(Halt::Failed(failure)),
            (None, Some(refusal)) => Err(Halt::Refused(refusal)),
            (None, None) => unreachable!("there is at least one target, and each try fails, answers or is refused"),
        }
    }
}

/// The turn that comes next when all have had theirs. Those who want to be left alone for too long have none.
fn next_retry(turns: &mut [Turn], longest: Duration) -> Option<usize> {
    for turn in turns.iter_mut() {
        turn.over |= left_until(turn.not_before) > longest;
    }
    let left = turns.iter().enumerate().filter(|(_, turn)| !turn.over);
    left.min_by_key(|(at, turn)| (left_until(turn.not_before), turn.asked, *at)).map(|(at, _)| at)
}

fn left_until(at: Option<Instant>) -> Duration {
    at.map(|at| at.saturating_duration_since(stopwatch())).unwrap_or_default()
}

/// The wait before a retry: doubling, bounded, and spread by a fifth so that clients do not march in step.
fn backoff(network: &Network, retry: u32, dice: &mut Dice) -> Duration {
    let doubled = network.retry_backoff_initial.saturating_mul(1 << retry.min(16));
    let base = doubled.min(network.retry_backoff_max);
    let spread = 80 + u32::try_from(dice.below(41)).expect("below 41");
    (base * spread / 100).min(network.retry_backoff_max)
}

impl Said {
    fn describe(&self) -> String {
        match self {
            Said::Failure(failure) => failure.to_string(),
            Said::Answer { head, .. } => format!("status {}", head.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_bounds() {
        let network = Network {
            retry_backoff_initial: Duration::from_millis(100),
            retry_backoff_max: Duration::from_millis(700),
            ..Network::default()
        };
        let mut dice = Dice::seeded(3);
        for (retry, least, most) in [(0, 80, 120), (1, 160, 240), (2, 320, 480), (3, 560, 700), (99, 560, 700)] {
            let waits: Vec<u128> = (0..500).map(|_| backoff(&network, retry, &mut dice).as_millis()).collect();
            let (min, max) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
            assert!(min >= least && max <= most && max - min >= (most - least) / 2, "{retry}: {min}..={max}");
        }
    }

    #[test]
    fn retries_go_round_those_who_may_be_asked() {
        let in_ms = |ms: u64| Some(stopwatch() + Duration::from_millis(ms));
        let turn = |asked, over, not_before| Turn { at: 0, asked, over, not_before };
        let next = |turns: &mut [Turn]| next_retry(turns, Duration::from_secs(60));
        assert_eq!(next(&mut [turn(1, false, None), turn(1, false, None)]), Some(0));
        assert_eq!(next(&mut [turn(2, false, None), turn(1, false, None)]), Some(1));
        assert_eq!(next(&mut [turn(1, true, None), turn(2, false, None)]), Some(1));
        assert_eq!(next(&mut [turn(1, false, in_ms(50_000)), turn(2, false, None)]), Some(1));
        assert_eq!(next(&mut [turn(1, false, in_ms(50_000)), turn(2, true, None)]), Some(0));
        // Longer than anybody waits here.
        assert_eq!(next(&mut [turn(1, false, in_ms(100_000)), turn(2, true, None)]), None);
    }
}
