//! Attempts: one exchange with one target after the other, until one of them answers.
//!
//! This drives Pingora's connector itself instead of its proxy pump, because only so can a body of
//! any size be sent again, an answer's head be held back until it is known to be good, and every
//! ending be settled at one place. What the pump would have done is done here: timeouts, the silent
//! retry on a stale connection, header hygiene. Nothing is tried again once a byte went downstream.

mod attempt;
mod heads;

use super::admit::admit;
use super::call::Request;
use super::exchange::Exchange;
use super::respond::write_whole;
use super::{Failure, Gateway, Halt};
use crate::governance::entity::Network;
use crate::governance::route::Target;
use crate::governance::view::Caller;
use crate::state::Snapshot;
use attempt::{attempt, unless_client_leaves};
use bytes::Bytes;
use heads::client_head;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use std::pin::pin;

/// All tries of one request, whatever the targets and their retries add up to.
const ATTEMPTS_MAX: usize = 16;

/// Everything that the attempts of one request share.
pub(super) struct Job<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) snapshot: &'a Snapshot,
    pub(super) caller: Option<&'a Caller>,
    pub(super) request: &'a Request,
}

/// How one attempt ended, for the loop over attempts.
enum Attempt {
    /// The client has its answer, or as much of it as came.
    Answered,
    ClientGone,
    /// Nothing reached the client; another target may try.
    Failed(Failed),
}

enum Failed {
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
    let tries = tries(targets);
    let mut dead = [false; ATTEMPTS_MAX];
    let mut refused = None;
    let mut failed = None;
    for (n, &(at, round)) in tries.iter().enumerate() {
        if dead[at] {
            continue;
        }
        let target = &targets[at];
        if round > 0 && wait(job, session, &target.provider.network, round).await.is_none() {
            return Err(Halt::ClientGone);
        }
        let now = job.gateway.state.clock.now();
        let admitted = match admit(&job.gateway.state, job.snapshot, job.caller, &job.request.call, target, now) {
            Ok(admitted) => admitted,
            Err(refusal) if refusal.is_about_target() => {
                dead[at] = true;
                refused.get_or_insert(refusal);
                continue;
            }
            Err(refusal) => {
                refused = Some(refusal);
                break;
            }
        };
        x.attempts += 1;
        x.lowered = admitted.lowered;
        let more = tries[n + 1..].iter().any(|&(next, _)| !dead[next]);
        match attempt(job, session, x, (at, target), admitted, more).await {
            Attempt::Answered => return Ok(()),
            Attempt::ClientGone => return Err(Halt::ClientGone),
            Attempt::Failed(failure) => {
                dead[at] = failure.condemns_key();
                tracing::debug!(provider = %target.provider.name, failure = %failure.describe(), "attempt failed");
                failed = Some(failure);
            }
        }
    }
    match (failed, refused) {
        (Some(Failed::Answer { head, body, target }), _) => {
            let version = session.req_header().version;
            let head = client_head(job, x, *head, &targets[target], Some(body.len()), version);
            write_whole(session, x, head, body).await;
            Ok(())
        }
        (Some(Failed::Failure(failure)), _) => Err(Halt::Failed(failure)),
        (None, Some(refusal)) => Err(Halt::Refused(refusal)),
        (None, None) => unreachable!("there is at least one target, and each try fails, answers or is refused"),
    }
}

/// The order of attempts: the keys of a provider, then again as often as it says, then the next provider.
fn tries(targets: &[Target]) -> Vec<(usize, u32)> {
    let mut order = Vec::with_capacity(targets.len());
    let mut start = 0;
    for group in targets.chunk_by(|a, b| a.choice == b.choice) {
        let indices = start..start + group.len();
        start = indices.end;
        order.extend(indices.clone().map(|at| (at, 0)));
        let retries = group[0].provider.network.max_retries;
        order.extend(indices.cycle().zip(1..=retries));
    }
    order.retain(|&(at, _)| at < ATTEMPTS_MAX);
    order.truncate(ATTEMPTS_MAX);
    order
}

/// Waits before a retry: doubling, bounded, and spread by a fifth so that clients do not march in step.
async fn wait(job: &Job<'_>, session: &mut Session, network: &Network, round: u32) -> Option<()> {
    let doubled = network.retry_backoff_initial.saturating_mul(1 << (round - 1).min(16));
    let base = doubled.min(network.retry_backoff_max);
    // An id is as good as a die here: its last digits differ from request to request.
    let spread = 80 + u32::try_from(job.gateway.state.new_id().0 % 41 * 7 % 41).unwrap_or(0);
    let pause = (base * spread / 100).min(network.retry_backoff_max);
    unless_client_leaves(session, pin!(tokio::time::sleep(pause))).await
}

impl Failed {
    /// The key itself is no good; trying it again would be noise.
    fn condemns_key(&self) -> bool {
        match self {
            Failed::Failure(Failure::CredentialsRejected { .. }) => true,
            Failed::Answer { head, .. } => head.status == StatusCode::FORBIDDEN,
            Failed::Failure(_) => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Failed::Failure(failure) => failure.to_string(),
            Failed::Answer { head, .. } => format!("status {}", head.status),
        }
    }
}
