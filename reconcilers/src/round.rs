//! One round: what is due is decided over one immutable world. A pure function; the shell proposes what comes of it.
//!
//! Bounded in keys, proposals and bytes; what is left keeps its turn. A decision that panics is caught for its key and set aside, for
//! it would kill each leader in turn. It must never look at anything but its arguments: `replay` runs it again years later.

use crate::due::Taken;
use crate::{Decision, Draft, Due, Reconciler, RoundState, Waiting, World};
use eventstore::{Key, Time, What};
use std::collections::VecDeque;
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
    let mut taken = VecDeque::from(in_order(reconcilers, world, due.take(reconcilers, world, limits.keys)));
    while outcome.drafts.len() < limits.proposals && bytes < limits.bytes {
        let Some(next) = taken.pop_front() else { break };
        let (woken_by, (index, key)) = (next.woken_by(), next.who);
        let Some(reconciler) = reconcilers.get(index) else { continue };
        let decision = decide(reconciler.as_ref(), world, &key, &mut state, now);
        match decision.again_at {
            // Never sooner than the next millisecond: a decision that asks for the past would spin the loop.
            Some(at) => due.set_timer((index, key.clone()), at.max(now.plus_ms(1)), woken_by),
            None => due.clear_timer(&(index, key.clone())),
        }
        outcome.decided.push((reconciler.name(), key.clone()));
        if let Some(waiting) = decision.waiting {
            outcome.waiting.push((reconciler.name(), key.clone(), waiting));
        }
        for draft in decision.drafts {
            bytes += size(&draft);
            outcome.drafts.push(Decided { reconciler: reconciler.name(), key: key.clone(), woken_by, draft });
        }
    }
    due.put_back(taken);
    outcome.next_at = due.next_at();
    outcome
}

/// The turns as they came, but each reconciler's own keys among themselves in the order that it wants them decided in.
fn in_order(reconcilers: &[Box<dyn Reconciler>], world: &World, mut taken: Vec<Taken>) -> Vec<Taken> {
    for (index, reconciler) in reconcilers.iter().enumerate() {
        let places: Vec<usize> = (0..taken.len()).filter(|place| taken[*place].who.0 == index).collect();
        if places.len() < 2 {
            continue;
        }
        let mut order = places.clone();
        order.sort_by_cached_key(|place| reconciler.order(world, &taken[*place].who.1));
        let mut emptied: Vec<Option<Taken>> = taken.into_iter().map(Some).collect();
        let moved: Vec<Option<Taken>> = order.iter().map(|place| emptied[*place].take()).collect();
        for (place, moved) in places.iter().zip(moved) {
            emptied[*place] = moved;
        }
        taken = emptied.into_iter().flatten().collect();
    }
    taken
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
