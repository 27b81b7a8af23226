//! The leader's loop: fold what is new ▸ decide what is due ▸ propose ▸ wait until applied ▸ again.
//!
//! Every server folds the world, so taking over means starting to propose. Only the leader decides, once an entry of its term is
//! applied; apply rejects a decision of another term. A round runs on a thread of its own over an immutable world. This file decides
//! nothing: it says when, and carries proposals.

use crate::core::Core;
use eventstore::{Act, Actor, Cause, Event, Intent, Proposal, ProposalId, Round, Time};
use eventstore_disk::Events;
use reconcilers::{
    Config, Due, LOGIC, Limits, Reconciler, RoundOutcome, Waiting, World, run_round,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Events folded at once.
const EVENTS_MAX: usize = 1_024;
/// How often leadership is looked at when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A key whose draft was rejected, or could not be proposed, is decided again after this.
const AGAIN_MS: i64 = 50;
/// How long an outcome is waited for before leadership is looked at once more.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the reconcilers wait for, by key: `reckon why` and the metrics read it.
#[derive(Clone, Default)]
pub struct WaitingFor(Arc<Mutex<BTreeMap<(eventstore::Key, &'static str), Waiting>>>);

impl WaitingFor {
    /// What is waited for on behalf of a key.
    pub fn of(&self, key: &eventstore::Key) -> Vec<(&'static str, Waiting)> {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = waiting
            .range((key.clone(), "")..)
            .take_while(|((other, _), _)| other == key);
        of_key
            .map(|((_, name), waiting)| (*name, waiting.clone()))
            .collect()
    }

    /// What this round said replaces what an earlier one did; what is gone waits for nothing.
    fn note(&self, outcome: &RoundOutcome, world: &World) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, key) in &outcome.decided {
            waiting.remove(&(key.clone(), *name));
        }
        for (name, key, reason) in &outcome.waiting {
            if matches!(reason, Waiting::Broken { .. }) {
                tracing::error!(reconciler = name, %key, %reason, "a decision is set aside");
            }
            waiting.insert((key.clone(), *name), reason.clone());
        }
        waiting.retain(|(key, _), _| world.thing(key).is_some());
    }

    fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Why the loop can't go on on this server.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    #[error("the reconcilers' thread: {0}")]
    Worker(#[from] seams::WorkerError),
    #[error("following the events: {0}")]
    Events(#[from] eventstore_disk::ReadError),
}

/// The loop's state on one server.
struct Leader {
    core: Core,
    reconcilers: Arc<Vec<Box<dyn Reconciler>>>,
    worker: Box<dyn seams::Worker>,
    world: World,
    due: Due,
    /// The term that this server decides in.
    deciding: Option<u64>,
    /// A round is decided over a world that holds this revision: all that was applied when this server began to decide, and all
    /// that its own rounds came to. On an older one the scheduler would not see what it has placed.
    must_hold: u64,
    waiting: WaitingFor,
}

/// Runs until the task is aborted.
pub async fn run(core: Core, config: Config, waiting: WaitingFor) -> Result<(), LeaderError> {
    let worker = core.seams().runtime.worker("rounds")?;
    let view = core.view();
    let mut events = core.store().all_events(view.revision)?;
    let mut leader = Leader {
        reconcilers: Arc::new(reconcilers::all(&config)),
        worker,
        world: World::from_view(&view),
        due: Due::default(),
        deciding: None,
        must_hold: 0,
        waiting,
        core,
    };
    loop {
        leader.wait(&mut events).await?;
        leader.look();
        if let Some(term) = leader.deciding
            && leader.may_decide(leader.core.now())
        {
            leader.round(term).await?;
        }
    }
}

impl Leader {
    /// Until there are events, which are folded, or a timer rings.
    async fn wait(&mut self, events: &mut Events) -> Result<(), LeaderError> {
        let now = self.core.now();
        let pause = match self.deciding {
            Some(_) if self.may_decide(now) => Duration::ZERO,
            Some(_) if self.due.ready(now) => LOOK_EVERY,
            Some(_) => self.due.next_at().map_or(LOOK_EVERY, |at| {
                Duration::from_millis(at.since_ms(now).max(1) as u64).min(LOOK_EVERY)
            }),
            None => LOOK_EVERY,
        };
        tokio::select! {
            biased;
            batch = events.next_batch(EVENTS_MAX) => match batch {
                Ok(batch) => batch.iter().for_each(|event| self.fold(event)),
                Err(error) => {
                    // A snapshot replaced the history below: the world starts from the view.
                    tracing::warn!(%error, "the reconcilers' world is read anew");
                    let view = self.core.view();
                    *events = self.core.store().all_events(view.revision)?;
                    self.world = World::from_view(&view);
                    self.deciding = None;
                }
            },
            () = sleep(pause) => {}
        }
        Ok(())
    }

    /// Something is due, and the world is not behind what this leader knows to be applied.
    fn may_decide(&self, now: Time) -> bool {
        self.world.revision >= self.must_hold && self.due.ready(now)
    }

    fn fold(&mut self, event: &Event) {
        if self.deciding.is_some() {
            self.due.fold(&self.reconcilers, &mut self.world, event);
        } else {
            self.world.fold(event);
        }
    }

    /// Whether this server decides: it leads, and has applied an entry of its term.
    fn look(&mut self) {
        let status = self.core.node().status();
        let leads = status.leads() && status.failed.is_none() && self.core.fenced().is_none();
        let view = self.core.view();
        let term =
            (leads && view.position.term == status.term && view.level > 0).then_some(status.term);
        if term != self.deciding {
            self.due = Due::default();
            self.waiting.clear();
            if let Some(term) = term {
                tracing::info!(term, "deciding");
                self.must_hold = view.revision;
                self.due.everything(&self.reconcilers, &self.world);
            }
            self.deciding = term;
        }
    }

    async fn round(&mut self, term: u64) -> Result<(), LeaderError> {
        let now = self.core.now();
        let (reconcilers, world) = (self.reconcilers.clone(), self.world.clone());
        let mut due = std::mem::take(&mut self.due);
        let (due, outcome) = seams::run(&*self.worker, move || {
            let outcome = run_round(&reconcilers, &world, &mut due, now, Limits::default());
            (due, outcome)
        })
        .await?;
        self.due = due;
        self.waiting.note(&outcome, &self.world);
        if outcome.drafts.is_empty() {
            return Ok(());
        }
        let proposals = self.proposals(&outcome, now, term);
        let ids: Vec<_> = proposals
            .iter()
            .skip(1)
            .map(|proposal| proposal.id)
            .collect();
        let Ok(mut settled) = ids
            .iter()
            .map(|id| self.core.store().expect_new_outcome(*id))
            .collect::<Result<Vec<_>, _>>()
        else {
            // Too many wait for outcomes already: what was decided is decided again.
            self.retry(&outcome, now, |_| true);
            sleep(LOOK_EVERY).await;
            return Ok(());
        };
        if let Err(error) = self.core.queue().append_all(proposals, term).await {
            // Another leads, or the queue is full: what was decided is decided again from what is folded then.
            // The round's entries before the one that failed are applied: what they hold must not be decided twice.
            tracing::debug!(%error, "a round was not taken");
            self.must_hold = self.must_hold.max(self.core.view().revision);
            self.retry(&outcome, now, |_| true);
            sleep(LOOK_EVERY).await;
            return Ok(());
        }
        // Applied: each outcome is there. One that is not there yet may still come to be, so nothing more is decided before it is
        // known, or this term is over.
        let mut rejected = vec![true; settled.len()];
        for (rejected, settled) in rejected.iter_mut().zip(&mut settled) {
            let outcome = loop {
                match timeout(SETTLE_TIMEOUT, settled.settled()).await {
                    Ok(settled) => break settled.ok().map(|settled| settled.outcome),
                    Err(_) if self.leads_in(term) => {}
                    Err(_) => break None,
                }
            };
            if let Some(eventstore::Outcome::Accepted { last, .. }) = outcome {
                self.must_hold = self.must_hold.max(last);
                *rejected = false;
            }
        }
        self.retry(&outcome, now, |index| rejected[index]);
        Ok(())
    }

    fn leads_in(&self, term: u64) -> bool {
        let status = self.core.node().status();
        status.leads() && status.term == term && status.failed.is_none()
    }

    /// Keys whose drafts came to nothing are decided again soon, from a world that has moved on.
    fn retry(
        &mut self,
        outcome: &RoundOutcome,
        now: Time,
        came_to_nothing: impl Fn(usize) -> bool,
    ) {
        for (index, decided) in outcome.drafts.iter().enumerate() {
            if came_to_nothing(index) {
                self.due.again(
                    &self.reconcilers,
                    decided.reconciler,
                    &decided.key,
                    decided.woken_by,
                    now.plus_ms(AGAIN_MS),
                );
            }
        }
    }

    /// The event that opens the round, and its decisions' proposals, which name it as their cause.
    fn proposals(&self, outcome: &RoundOutcome, now: Time, term: u64) -> Vec<Proposal> {
        let draw = self.core.draw();
        let first_sent = self.core.view().position.index;
        let proposal = |name: &str, cause: Cause, intent: Intent, expectations, act| Proposal {
            id: ProposalId {
                uuid: draw.uuid(),
                attempt: 0,
            },
            actor: Actor::Reconciler {
                name: name.into(),
                term,
            },
            cause,
            intent,
            first_sent,
            salt: draw.salt(),
            expectations,
            act,
        };
        let decided = outcome
            .decided
            .iter()
            .map(|(name, key)| ((*name).into(), key.clone()))
            .collect();
        let round = Round {
            world: self.world.revision,
            clock: now,
            decided,
            logic: LOGIC,
        };
        let opening = proposal(
            "leader",
            Cause::default(),
            Intent::Round,
            Vec::new(),
            Act::Round(round),
        );
        let rest = outcome.drafts.iter().map(|decided| {
            let cause = Cause {
                revision: decided.woken_by,
                round: Cause::THIS_ROUND,
            };
            let draft = decided.draft.clone();
            proposal(
                decided.reconciler,
                cause,
                draft.intent,
                draft.expectations,
                Act::Objects(draft.changes),
            )
        });
        std::iter::once(opening).chain(rest).collect()
    }
}
