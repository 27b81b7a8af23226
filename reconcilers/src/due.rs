//! Which keys have to be decided, in which order, and what woke them.
//!
//! Kept by the leader beside its world: `fold` after each event, `everything` when it begins to lead. A key waits once, keeps its turn
//! until it is decided, and is decided in the order of turns, so that a busy key can't starve another; node health goes first.
//! Bounded by the world: one entry for each key of each reconciler at most.

use crate::{Reconciler, World};
use eventstore::{Event, Key, Time};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub struct Due {
    turns: BTreeMap<Turn, Who>,
    waiting: BTreeMap<Who, (Turn, Woken)>,
    timers: BTreeSet<(Time, Who)>,
    timer_of: BTreeMap<Who, (Time, u64)>,
    last_turn: u64,
}

/// (the reconciler's index, its key).
pub(crate) type Who = (usize, Key);

/// (goes after those that go first, number).
type Turn = (bool, u64);

/// A key that is to be decided now.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) who: Who,
    turn: Turn,
    woken: Woken,
}

impl Taken {
    /// The revision that woke it.
    pub(crate) fn woken_by(&self) -> u64 {
        self.woken.revision
    }
}

/// What woke a key: the change that says most about why. `weight`: see `weight`.
#[derive(Clone, Copy, Debug)]
struct Woken {
    revision: u64,
    weight: u8,
}

impl Due {
    /// Folds an event into the world and wakes the keys that it touches.
    pub fn fold(&mut self, reconcilers: &[Box<dyn Reconciler>], world: &mut World, event: &Event) {
        for touched in world.fold(event) {
            for (index, reconciler) in reconcilers.iter().enumerate() {
                let mut wakes = crate::Wakes::default();
                reconciler.wakes(&touched, world, &mut wakes);
                for key in wakes.into_keys() {
                    let woken = Woken {
                        revision: touched.revision(),
                        weight: touched.weight_for(&key),
                    };
                    self.wake((index, key), !reconciler.first(), woken);
                }
            }
        }
    }

    /// Wakes every key of every reconciler: a new leader has no turns and no timers, and finds both again by deciding.
    pub fn everything(&mut self, reconcilers: &[Box<dyn Reconciler>], world: &World) {
        for (index, reconciler) in reconcilers.iter().enumerate() {
            let mut wakes = crate::Wakes::default();
            reconciler.keys(world, &mut wakes);
            for key in wakes.into_keys() {
                let revision = world.thing(&key).map_or(0, |thing| thing.object.revision());
                self.wake(
                    (index, key),
                    !reconciler.first(),
                    Woken {
                        revision,
                        weight: 0,
                    },
                );
            }
        }
    }

    /// Looks at a key again at `at`: for a draft that was rejected or did not fit, by the name its reconciler goes by.
    pub fn again(
        &mut self,
        reconcilers: &[Box<dyn Reconciler>],
        name: &str,
        key: &Key,
        woken_by: u64,
        at: Time,
    ) {
        if let Some(index) = reconcilers
            .iter()
            .position(|reconciler| reconciler.name() == name)
        {
            self.set_timer((index, key.clone()), at, woken_by);
        }
    }

    /// Whether there is anything to decide at `now`.
    pub fn ready(&self, now: Time) -> bool {
        !self.turns.is_empty() || self.timers.first().is_some_and(|(at, _)| *at <= now)
    }

    /// The next timer: when to run a round though no event comes.
    pub fn next_at(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many keys wait for their turn.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Moves what the time has come for to the end of the turns.
    pub(crate) fn ring(&mut self, reconcilers: &[Box<dyn Reconciler>], now: Time) {
        while let Some((at, who)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.remove(&(at, who.clone()));
            let revision = self
                .timer_of
                .remove(&who)
                .map_or(0, |(_, revision)| revision);
            let last = reconcilers
                .get(who.0)
                .is_none_or(|reconciler| !reconciler.first());
            self.wake(
                who,
                last,
                Woken {
                    revision,
                    weight: 0,
                },
            );
        }
    }

    /// Takes the next keys, in the order of their turns, at most `most`. A key that stands for others gives them its turn.
    pub(crate) fn take(
        &mut self,
        reconcilers: &[Box<dyn Reconciler>],
        world: &World,
        most: usize,
    ) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut seen = BTreeSet::new();
        while taken.len() < most {
            let Some((turn, who)) = self.turns.pop_first() else {
                break;
            };
            let (_, woken) = self
                .waiting
                .remove(&who)
                .expect("a turn and its key are put in and taken out together");
            let Some(reconciler) = reconcilers.get(who.0) else {
                continue;
            };
            match reconciler.stands_for(world, &who.1) {
                Some(keys) => keys
                    .into_iter()
                    .for_each(|key| self.wake((who.0, key), turn.0, woken)),
                // Taken already, then woken once more by a key that stood for it: one decision a round.
                None if !seen.insert(who.clone()) => {}
                None => taken.push(Taken { who, turn, woken }),
            }
        }
        taken
    }

    /// Gives back what a round had no room for, at the turn it had.
    pub(crate) fn put_back(&mut self, left: impl IntoIterator<Item = Taken>) {
        for Taken { who, turn, woken } in left {
            self.turns.insert(turn, who.clone());
            self.waiting.insert(who, (turn, woken));
        }
    }

    pub(crate) fn set_timer(&mut self, who: Who, at: Time, revision: u64) {
        if let Some((before, _)) = self.timer_of.get(&who).copied() {
            self.timers.remove(&(before, who.clone()));
        }
        self.timers.insert((at, who.clone()));
        self.timer_of.insert(who, (at, revision));
    }

    pub(crate) fn clear_timer(&mut self, who: &Who) {
        if let Some((at, _)) = self.timer_of.remove(who) {
            self.timers.remove(&(at, who.clone()));
        }
    }

    fn wake(&mut self, who: Who, last: bool, woken: Woken) {
        if let Some((_, before)) = self.waiting.get_mut(&who) {
            // The first of what says most: a later report of a pod must not hide the user's act that the key waits for.
            if woken.weight > before.weight {
                *before = woken;
            }
            return;
        }
        self.last_turn += 1;
        let turn = (last, self.last_turn);
        self.turns.insert(turn, who.clone());
        self.waiting.insert(who, (turn, woken));
    }
}
