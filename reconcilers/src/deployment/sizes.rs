//! The arithmetic of rollouts: how large each ReplicaSet is to be. Numbers in, numbers out.
//!
//! Two rules hold through any rollout: never more pods than `replicas + max_surge`, and never fewer available ones than
//! `replicas - max_unavailable` by what the rollout does itself. Source: Kubernetes 1.36, pkg/controller/deployment/rolling.go and
//! util/deployment_util.go (NewRSNewReplicas, GetReplicaSetProportion), whose results these are; the way there is our own.

use crate::world::{Deployment, Strategy};

/// A ReplicaSet's size, how many pods it has still or already, and how many of those it will keep are available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub size: i64,
    pub pods: i64,
    pub available: i64,
}

/// What a rollout may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub replicas: i64,
    pub max_surge: i64,
    pub max_unavailable: i64,
}

impl Budget {
    /// Surge is rounded up, unavailable down; if both come to 0 one may be unavailable, for else nothing could ever move.
    pub fn of(deployment: &Deployment) -> Self {
        let replicas = deployment.replicas;
        match deployment.strategy {
            Strategy::Recreate => Self {
                replicas,
                max_surge: 0,
                max_unavailable: 0,
            },
            Strategy::RollingUpdate {
                max_surge,
                max_unavailable,
            } => {
                let surge = max_surge.of_rounded_up(replicas).max(0);
                let unavailable = max_unavailable.of_rounded_down(replicas).max(0);
                let unavailable = if surge == 0 && unavailable == 0 {
                    1
                } else {
                    unavailable
                };
                Self {
                    replicas,
                    max_surge: surge,
                    max_unavailable: unavailable.min(replicas),
                }
            }
        }
    }

    fn most(self) -> i64 {
        self.replicas + self.max_surge
    }

    pub fn least_available(self) -> i64 {
        self.replicas - self.max_unavailable
    }
}

/// How often a step of one side may make room for a step of the other in one decision: each takes at least a pod of room, of which
/// there are two kinds, and after one step of each nothing more comes without pods changing.
const MOST_STEPS: usize = 4;

/// All that may be done before pods change: the new version's next size and the old versions', oldest first.
pub fn roll(mut new: Counts, olds: &[Counts], budget: Budget) -> (i64, Vec<i64>) {
    let mut olds = olds.to_vec();
    for _ in 0..MOST_STEPS {
        let grown = new_size(new, &olds, budget);
        let shrunk = old_sizes(Counts { size: grown, ..new }, &olds, budget);
        let moved = grown != new.size
            || shrunk
                .iter()
                .zip(&olds)
                .any(|(after, before)| *after != before.size);
        new.size = grown;
        for (old, size) in olds.iter_mut().zip(shrunk) {
            *old = Counts {
                size,
                available: old.available.min(size),
                ..*old
            };
        }
        if !moved {
            break;
        }
    }
    (new.size, olds.iter().map(|old| old.size).collect())
}

/// The new version's next size: as far up as the surge leaves room, or down to what is asked for. A pod that its set has still to
/// delete takes up room, so that there are never more than may be, not even for the moment between two decisions.
fn new_size(new: Counts, olds: &[Counts], budget: Budget) -> i64 {
    if new.size >= budget.replicas {
        return budget.replicas;
    }
    let all: i64 = olds
        .iter()
        .chain([&new])
        .map(|set| set.size.max(set.pods))
        .sum();
    new.size + (budget.most() - all).clamp(0, budget.replicas - new.size)
}

/// The old versions' next sizes, oldest first: what is not available anyway goes first, then as much as availability allows.
fn old_sizes(new: Counts, olds: &[Counts], budget: Budget) -> Vec<i64> {
    let mut sizes: Vec<i64> = olds.iter().map(|old| old.size).collect();
    let all = new.size + sizes.iter().sum::<i64>();
    // New pods that are not available yet are counted on: without them this is how many may go.
    let room = all - budget.least_available() - (new.size - new.available);
    if room <= 0 {
        return sizes;
    }
    let mut left = room;
    for (size, old) in sizes.iter_mut().zip(olds) {
        let gone = left.min(*size - old.available.min(*size));
        *size -= gone;
        left -= gone;
    }
    let available = new.available + olds.iter().map(|old| old.available).sum::<i64>();
    let mut spare = available - budget.least_available();
    for size in &mut sizes {
        let gone = spare.clamp(0, *size);
        *size -= gone;
        spare -= gone;
    }
    sizes
}

/// A ReplicaSet in a scaling by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sized {
    pub counts: Counts,
    /// Its age's place: smaller is older.
    pub age: i64,
    /// The largest number of pods the Deployment had when it was last sized; None: it was never written down.
    pub max_then: Option<i64>,
    /// The number of replicas it was last sized for.
    pub desired_then: Option<i64>,
}

/// Shares a change of `replicas` among the sets: to the one that is alone, or to each in proportion while a rollout is on.
/// The first of `sets` is the new version if `has_new`, the others are old.
pub fn scale(sets: &mut [Sized], has_new: bool, budget: Budget, rolling: bool) {
    let active: Vec<usize> = (0..sets.len())
        .filter(|index| sets[*index].counts.size > 0)
        .collect();
    let alone = match active[..] {
        [only] => Some(only),
        [] if has_new => Some(0),
        [] => (0..sets.len()).max_by_key(|index| sets[*index].age),
        _ => None,
    };
    if let Some(alone) = alone {
        sets[alone].counts.size = budget.replicas;
        return;
    }
    if has_new && saturated(&sets[0], budget) {
        sets[1..].iter_mut().for_each(|old| old.counts.size = 0);
        return;
    }
    if rolling {
        share(sets, active, budget);
    }
}

/// The new version has all that is asked for, and it is available.
fn saturated(new: &Sized, budget: Budget) -> bool {
    new.counts.size == budget.replicas
        && new.desired_then == Some(budget.replicas)
        && new.counts.available == budget.replicas
}

fn share(sets: &mut [Sized], mut active: Vec<usize>, budget: Budget) {
    let all: i64 = active.iter().map(|index| sets[*index].counts.size).sum();
    let allowed = if budget.replicas > 0 {
        budget.most()
    } else {
        0
    };
    let change = allowed - all;
    if change == 0 {
        return;
    }
    // Larger ones first; of equals, when growing the newest, when shrinking the oldest.
    active.sort_by_key(|index| {
        let set = &sets[*index];
        (
            -set.counts.size,
            if change > 0 { -set.age } else { set.age },
        )
    });
    let mut given = 0;
    for index in &active {
        let set = &mut sets[*index];
        let fraction = if budget.replicas == 0 {
            -set.counts.size
        } else {
            proportion(set, budget) - set.counts.size
        };
        let left = change - given;
        let part = if change > 0 {
            fraction.clamp(0, left)
        } else {
            fraction.clamp(left, 0)
        };
        set.counts.size += part;
        given += part;
    }
    if let Some(first) = active.first() {
        sets[*first].counts.size = (sets[*first].counts.size + change - given).max(0);
    }
}

/// The set's size if it keeps its part of the whole, rounded to the nearest.
fn proportion(set: &Sized, budget: Budget) -> i64 {
    let then = set
        .max_then
        .filter(|then| *then > 0)
        .unwrap_or_else(|| budget.most())
        .max(1);
    (2 * set.counts.size * budget.most() + then).div_euclid(2 * then)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::IntOrPercent::{self, Int, Percent};

    #[test]
    fn resolves_the_budget() {
        for (replicas, surge, unavailable, expected) in [
            (3, Percent(25), Percent(25), (1, 0)),
            (10, Percent(25), Percent(25), (3, 2)),
            (1, Percent(0), Percent(25), (0, 1)),
            (4, Int(0), Int(0), (0, 1)),
            (2, Int(1), Int(5), (1, 2)),
            (0, Percent(25), Percent(25), (0, 0)),
        ] {
            check_budget(replicas, surge, unavailable, expected);
        }
    }

    fn check_budget(
        replicas: i64,
        max_surge: IntOrPercent,
        max_unavailable: IntOrPercent,
        expected: (i64, i64),
    ) {
        let deployment = Deployment {
            replicas,
            strategy: Strategy::RollingUpdate {
                max_surge,
                max_unavailable,
            },
            min_ready_s: 0,
            paused: false,
            progress_deadline_s: None,
            revision_history_limit: 10,
            selector: Default::default(),
            template: Default::default(),
            collisions: None,
        };
        let budget = Budget::of(&deployment);
        assert_eq!(
            (budget.max_surge, budget.max_unavailable),
            expected,
            "{replicas} {max_surge:?} {max_unavailable:?}"
        );
    }

    #[test]
    fn rolls() {
        let budget = Budget {
            replicas: 4,
            max_surge: 1,
            max_unavailable: 1,
        };
        // new (size, available), olds (size, available) -> new size, old sizes; every set has the pods that its size says
        for (new, olds, new_after, olds_after) in [
            // One more comes, one goes; the room that the one that goes leaves is only there once it is gone.
            ((0, 0), vec![(4, 4)], 1, vec![3]),
            ((1, 0), vec![(3, 3)], 2, vec![3]),
            ((2, 0), vec![(3, 3)], 2, vec![3]),
            ((2, 1), vec![(3, 3)], 2, vec![2]),
            ((2, 2), vec![(3, 3)], 2, vec![1]),
            ((4, 4), vec![(1, 1)], 4, vec![0]),
            ((5, 5), vec![], 4, vec![]),
            // What is broken goes first, and does not wait for the new ones beyond the budget.
            ((1, 0), vec![(2, 0), (2, 2)], 1, vec![1, 2]),
            ((0, 0), vec![(4, 0)], 1, vec![3]),
        ] {
            check_roll(new, &olds, budget, new_after, &olds_after);
        }
    }

    fn check_roll(
        new: (i64, i64),
        olds: &[(i64, i64)],
        budget: Budget,
        new_after: i64,
        olds_after: &[i64],
    ) {
        let counts = |(size, available): (i64, i64)| Counts {
            size,
            pods: size,
            available,
        };
        let old_counts: Vec<Counts> = olds.iter().map(|old| counts(*old)).collect();
        assert_eq!(
            roll(counts(new), &old_counts, budget),
            (new_after, olds_after.to_vec()),
            "{new:?} {olds:?}"
        );
    }

    #[test]
    fn scales_in_proportion() {
        // replicas before, after; sizes new first -> sizes
        for (before, after, sizes, expected) in [
            (10, 20, vec![5, 5], vec![10, 10]),
            (10, 5, vec![5, 5], vec![3, 2]),
            (10, 12, vec![6, 4], vec![7, 5]),
            (10, 0, vec![5, 5], vec![0, 0]),
            (10, 15, vec![10], vec![15]),
            (10, 15, vec![0, 10], vec![0, 15]),
            (0, 3, vec![0, 0], vec![3, 0]),
        ] {
            check_scale(before, after, &sizes, &expected);
        }
    }

    fn check_scale(before: i64, after: i64, sizes: &[i64], expected: &[i64]) {
        let of = |(index, size): (usize, &i64)| Sized {
            counts: Counts {
                size: *size,
                pods: *size,
                available: *size,
            },
            age: -(index as i64),
            max_then: Some(before),
            desired_then: Some(before),
        };
        let mut sets: Vec<Sized> = sizes.iter().enumerate().map(of).collect();
        scale(
            &mut sets,
            true,
            Budget {
                replicas: after,
                max_surge: 0,
                max_unavailable: 1,
            },
            true,
        );
        let got: Vec<i64> = sets.iter().map(|set| set.counts.size).collect();
        assert_eq!(got, expected, "{before} to {after}, {sizes:?}");
    }
}
