//! One round: what is due is decided over one immutable world. A pure function; the shell proposes what comes of it.
//!
//! Bounded in keys, proposals and bytes; what is left keeps its turn. A decision that panics is caught for its key and set aside, for
//! it would kill each leader in turn. It must never look at anything but its arguments: `replay` runs it again years later.

use crate::{Decision, Draft, Due, Reconciler, RoundState, Waiting, World};
use eventstore::{Key, Time, What};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The logic's version, which a round's event records: another one may decide otherwise. Raise it when a decision changes.
pub const LOGIC: u32 = 1;

/// What one round may take. The first key past a limit is not decided.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub keys: usize,
    pub proposals: usize,
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { keys: 10_000, proposals: 5_000, bytes: 32 * 1024 * 1024 }
    }
}

#[derive(Clone, Debug, Default)]
pub struct RoundOutcome {
    /// Each key decided, in order, whether or not anything came of it: what replay needs.
    pub decided: Vec<(&'static str, Key)>,
    pub drafts: Vec<Decided>,
    /// What is being waited on, by key: replaces what an earlier round said of a key in `decided`.
    pub waiting: Vec<(&'static str, Key, Waiting)>,
    /// When the next timer is due.
    pub next_at: Option<Time>,
}

/// A draft with whose it is.
#[derive(Clone, Debug)]
pub struct Decided {
    pub reconciler: &'static str,
    pub key: Key,
    /// The revision that woke it: the proposal's cause.
    pub woken_by: u64,
    pub draft: Draft,
}

pub fn run_round(reconcilers: &[Box<dyn Reconciler>], world: &World, due: &mut Due, now: Time, limits: Limits) -> RoundOutcome {
    due.ring(reconcilers, now);
    let mut outcome = RoundOutcome::default();
    let mut state = RoundState::default();
    let mut bytes = 0;
    while outcome.decided.len() < limits.keys && outcome.drafts.len() < limits.proposals && bytes < limits.bytes {
        let Some((who, woken_by)) = due.take() else { break };
        let Some(reconciler) = reconcilers.get(who.0) else { continue };
        let decision = decide(reconciler.as_ref(), world, &who.1, &mut state, now);
        match decision.again_at {
            // Never sooner than the next millisecond: a decision that asks for the past would spin the loop.
            Some(at) => due.set_timer(who.clone(), at.max(now.plus_ms(1)), woken_by),
            None => due.clear_timer(&who),
        }
        outcome.decided.push((reconciler.name(), who.1.clone()));
        if let Some(waiting) = decision.waiting {
            outcome.waiting.push((reconciler.name(), who.1.clone(), waiting));
        }
        for draft in decision.drafts {
            bytes += size(&draft);
            outcome.drafts.push(Decided { reconciler: reconciler.name(), key: who.1.clone(), woken_by, draft });
        }
    }
    outcome.next_at = due.next_at();
    outcome
}

/// Decides one key; a panic becomes `Waiting::Broken`.
pub(crate) fn decide(reconciler: &dyn Reconciler, world: &World, key: &Key, state: &mut RoundState, now: Time) -> Decision {
    // The world is immutable and the round's state only ever counts more than was placed, so what a panic leaves is still sound.
    catch_unwind(AssertUnwindSafe(|| reconciler.decide(world, key, state, now))).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        Decision::wait(Waiting::Broken { why: why.unwrap_or_else(|| "a panic without a message".to_owned()) })
    })
}

fn size(draft: &Draft) -> usize {
    let bodies = draft.changes.iter().map(|change| match &change.what {
        What::Put { body, .. } => body.len(),
        What::Remove => 0,
    });
    bodies.sum::<usize>() + 200 * (draft.changes.len() + draft.expectations.len())
}
