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
        Self {
            keys: 10_000,
            proposals: 5_000,
            bytes: 32 * 1024 * 1024,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct RoundOutcome {
    /// Each key decided, in order, whether or not anything came of it: what replay needs.
    pub decided: Vec<(&'static str, Key)>,
    pub drafts: Vec<Decided>,
    /// What is being waited on, by key: replaces what an earlier round said of a key in `decided`. The shell forgets those whose object is
    /// gone from the world.
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

pub fn run_round(
    reconcilers: &[Box<dyn Reconciler>],
    world: &World,
    due: &mut Due,
    now: Time,
    limits: Limits,
) -> RoundOutcome {
    due.ring(reconcilers, now);
    let mut outcome = RoundOutcome::default();
    let mut state = RoundState::default();
    let mut bytes = 0;
    let mut taken = VecDeque::from(in_order(
        reconcilers,
        world,
        due.take(reconcilers, world, limits.keys),
    ));
    while outcome.drafts.len() < limits.proposals && bytes < limits.bytes {
        let Some(next) = taken.pop_front() else { break };
        let (woken_by, (index, key)) = (next.woken_by(), next.who);
        let Some(reconciler) = reconcilers.get(index) else {
            continue;
        };
        let decision = decide(reconciler.as_ref(), world, &key, &mut state, now);
        match decision.again_at {
            // Never sooner than the next millisecond: a decision that asks for the past would spin the loop.
            Some(at) => due.set_timer((index, key.clone()), at.max(now.plus_ms(1)), woken_by),
            None => due.clear_timer(&(index, key.clone())),
        }
        outcome.decided.push((reconciler.name(), key.clone()));
        if let Some(waiting) = decision.waiting {
            outcome
                .waiting
                .push((reconciler.name(), key.clone(), waiting));
        }
        for draft in decision.drafts {
            bytes += size(&draft);
            outcome.drafts.push(Decided {
                reconciler: reconciler.name(),
                key: key.clone(),
                woken_by,
                draft,
            });
        }
    }
    due.put_back(taken);
    outcome.next_at = due.next_at();
    outcome
}

/// The turns as they came, but each reconciler's own keys among themselves in the order that it wants them decided in.
fn in_order(
    reconcilers: &[Box<dyn Reconciler>],
    world: &World,
    mut taken: Vec<Taken>,
) -> Vec<Taken> {
    for (index, reconciler) in reconcilers.iter().enumerate() {
        let places: Vec<usize> = (0..taken.len())
            .filter(|place| taken[*place].who.0 == index)
            .collect();
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
pub(crate) fn decide(
    reconciler: &dyn Reconciler,
    world: &World,
    key: &Key,
    state: &mut RoundState,
    now: Time,
) -> Decision {
    // The world is immutable and the round's state only ever counts more than was placed, so what a panic leaves is still sound.
    catch_unwind(AssertUnwindSafe(|| {
        reconciler.decide(world, key, state, now)
    }))
    .unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Decision::wait(Waiting::Broken {
            why: why.unwrap_or_else(|| "a panic without a message".to_owned()),
        })
    })
}

fn size(draft: &Draft) -> usize {
    let bodies = draft.changes.iter().map(|change| match &change.what {
        What::Put { body, .. } => body.len(),
        What::Remove => 0,
    });
    bodies.sum::<usize>() + 200 * (draft.changes.len() + draft.expectations.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RoundState, Touched, Wakes};
    use eventstore::{Expectation, Intent};

    /// Decides by the name of its key: `panics`, `proposes`, anything else does nothing.
    struct Scripted {
        name: &'static str,
        first: bool,
    }

    impl Reconciler for Scripted {
        fn name(&self) -> &'static str {
            self.name
        }

        fn first(&self) -> bool {
            self.first
        }

        fn wakes(&self, _: &Touched, _: &World, _: &mut Wakes) {}

        fn keys(&self, _: &World, wakes: &mut Wakes) {
            for name in ["b", "panics", "proposes", "a"] {
                wakes.wake(Key::new("things", "", name));
            }
        }

        fn decide(&self, _: &World, key: &Key, _: &mut RoundState, _: Time) -> Decision {
            match &*key.name {
                "panics" => panic!("no such luck"),
                "proposes" => Decision::propose(Draft {
                    intent: Intent::Create,
                    expectations: Vec::<Expectation>::new(),
                    changes: Vec::new(),
                }),
                _ => Decision::nothing(),
            }
        }
    }

    fn both() -> Vec<Box<dyn Reconciler>> {
        vec![
            Box::new(Scripted {
                name: "late",
                first: false,
            }),
            Box::new(Scripted {
                name: "early",
                first: true,
            }),
        ]
    }

    #[test]
    fn keeps_turns() {
        let all = [
            "early b",
            "early panics",
            "early proposes",
            "early a",
            "late b",
            "late panics",
            "late proposes",
            "late a",
        ];
        for (limits, rounds) in [
            (Limits::default(), vec![&all[..]]),
            (
                Limits {
                    keys: 3,
                    ..Limits::default()
                },
                vec![&all[..3], &all[3..6], &all[6..]],
            ),
            (
                Limits {
                    proposals: 1,
                    ..Limits::default()
                },
                vec![&all[..3], &all[3..7], &all[7..]],
            ),
        ] {
            check_turns(limits, &rounds);
        }
    }

    fn check_turns(limits: Limits, rounds: &[&[&str]]) {
        let (reconcilers, world, mut due) = (both(), World::default(), Due::default());
        due.everything(&reconcilers, &world);
        for expected in rounds {
            let outcome = run_round(&reconcilers, &world, &mut due, Time::default(), limits);
            let decided: Vec<String> = outcome
                .decided
                .iter()
                .map(|(name, key)| format!("{name} {}", key.name))
                .collect();
            assert_eq!(decided, *expected, "{limits:?}");
        }
        assert!(due.is_empty());
    }

    #[test]
    fn sets_a_panic_aside() {
        let (reconcilers, world, mut due) = (both(), World::default(), Due::default());
        due.everything(&reconcilers, &world);
        let outcome = run_round(
            &reconcilers,
            &world,
            &mut due,
            Time::default(),
            Limits::default(),
        );
        let broken = Waiting::Broken {
            why: "no such luck".to_owned(),
        };
        let waiting: Vec<_> = outcome
            .waiting
            .iter()
            .map(|(name, key, waiting)| (*name, &*key.name, waiting.clone()))
            .collect();
        assert_eq!(
            waiting,
            [
                ("early", "panics", broken.clone()),
                ("late", "panics", broken)
            ]
        );
        assert_eq!((outcome.decided.len(), outcome.drafts.len()), (8, 2));
        assert!(
            due.is_empty(),
            "what is broken is not tried again by itself"
        );
    }

    #[test]
    fn rings_in_time() {
        let (reconcilers, world, mut due) = (both(), World::default(), Due::default());
        let key = Key::new("things", "", "proposes");
        due.again(&reconcilers, "late", &key, 7, Time::from_s(10));
        assert_eq!(
            (
                due.next_at(),
                due.ready(Time::from_s(9)),
                due.ready(Time::from_s(10))
            ),
            (Some(Time::from_s(10)), false, true)
        );
        let early = run_round(
            &reconcilers,
            &world,
            &mut due,
            Time::from_s(9),
            Limits::default(),
        );
        assert_eq!(
            (early.decided.len(), early.next_at),
            (0, Some(Time::from_s(10)))
        );
        let rung = run_round(
            &reconcilers,
            &world,
            &mut due,
            Time::from_s(10),
            Limits::default(),
        );
        assert_eq!(
            (rung.drafts.len(), rung.drafts[0].woken_by, rung.next_at),
            (1, 7, None)
        );
    }
}
