//! What clients were told could have happened one thing after another, each within the time in which it was asked and answered.
//!
//! The log says in which order writes happened, so nothing has to be searched for: each answer has a place in the log, a write its own
//! revision, a read one between the version it found and the next. A place must not lie before that of anything that had been answered
//! when it was asked for, whatever objects the two were about. The earliest place that is left is the best one for all that come later.
//! A write that nobody was told the outcome of binds nobody.

use super::Violation;
use eventstore::Key;
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap};
use tokio::time::Instant;

const INVARIANT: &str = "linearizable";

/// Something that a client asked and was told.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: String,
    pub asked: Instant,
    pub answered: Instant,
    pub key: Key,
    pub told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was written, at this revision.
    Wrote(u64),
    /// It was deleted, whenever that was: no name is made twice.
    Deleted,
    /// It stood at this version.
    Found(u64),
    /// There was none.
    Absent,
}

/// A key's past: the revisions at which it changed, in order, and whether it was there from then on.
pub type Past = Vec<(u64, bool)>;

/// `past` of any key, to the end of the run.
pub fn check(
    operations: &[Operation],
    mut past: impl FnMut(&Key) -> Result<Past, Violation>,
) -> Result<(), Violation> {
    let mut by_asked: Vec<&Operation> = operations.iter().collect();
    by_asked.sort_by_key(|operation| operation.asked);
    // Of what is placed: when it was answered, and where it is.
    let mut placed: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut floor = 0;
    let mut pasts: BTreeMap<&Key, Past> = BTreeMap::new();
    for operation in by_asked {
        while let Some(Reverse((answered, place))) = placed.peek()
            && *answered < operation.asked
        {
            floor = floor.max(*place);
            placed.pop();
        }
        let past = match pasts.entry(&operation.key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(past(&operation.key)?),
        };
        let Some(place) = operation.told.place(floor, past) else {
            return Err(Violation::new(
                INVARIANT,
                format!(
                    "{operation:?} has no place behind revision {floor}, which had been answered from; its object's past: {past:?}"
                ),
            ));
        };
        placed.push(Reverse((operation.answered, place)));
    }
    Ok(())
}

impl Told {
    /// The first place for it at the floor or behind.
    fn place(self, floor: u64, past: &Past) -> Option<u64> {
        // The times in which it was there, or not: from one revision to before the next.
        let ends = past.iter().skip(1).map(|(revision, _)| *revision);
        let times = past.iter().zip(ends.chain([u64::MAX]));
        let times = times.map(|((from, there), end)| (*from, end, *there));
        let before = past.first().map_or(u64::MAX, |(first, _)| *first);
        let mut times = [(0, before, false)].into_iter().chain(times);
        match self {
            Self::Wrote(revision) => (revision > floor).then_some(revision),
            Self::Deleted => {
                let gone = past.iter().rev().find(|(_, there)| !there)?.0;
                (gone > floor).then_some(gone)
            }
            Self::Found(revision) => {
                let (from, end, _) = times.find(|(from, _, there)| *there && *from == revision)?;
                (end > floor).then_some(from.max(floor))
            }
            Self::Absent => {
                let (from, ..) = times.find(|(_, end, there)| !there && *end > floor)?;
                Some(from.max(floor))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Asked, answered, the key, what was told.
    type Row = (u64, u64, &'static str, Told);

    /// `a` was made at 5, written at 7 and deleted at 9; `b` was made at 6.
    fn past(key: &Key) -> Result<Past, Violation> {
        Ok(match &*key.name {
            "a" => vec![(5, true), (7, true), (9, false)],
            "b" => vec![(6, true)],
            _ => Vec::new(),
        })
    }

    fn holds(operations: &[Row]) -> bool {
        let start = Instant::now();
        let operations = operations.iter().map(|(asked, answered, name, told)| {
            let at = |ms: &u64| start + Duration::from_millis(*ms);
            Operation {
                client: "one".to_owned(),
                asked: at(asked),
                answered: at(answered),
                key: Key::new("configmaps", "default", *name),
                told: *told,
            }
        });
        let operations: Vec<_> = operations.collect();
        check(&operations, past).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_not_go_back_behind_one_before() {
        use Told::{Absent, Deleted, Found, Wrote};
        // What was done, and whether there is an order.
        let rows: [(&[Row], bool); 16] = [
            (&[], true),
            (&[(0, 1, "a", Wrote(5)), (2, 3, "a", Found(5))], true),
            // Stale: the write had been answered.
            (&[(0, 1, "a", Wrote(7)), (2, 3, "a", Found(5))], false),
            // Both at once: either order.
            (&[(0, 3, "a", Wrote(7)), (1, 2, "a", Found(5))], true),
            (&[(0, 3, "a", Wrote(7)), (1, 2, "a", Found(7))], true),
            // Two reads go back in time.
            (&[(0, 1, "a", Found(7)), (2, 3, "a", Found(5))], false),
            (&[(0, 1, "a", Found(5)), (2, 3, "a", Found(7))], true),
            // Over two objects: b was there, and a was not yet.
            (&[(0, 1, "b", Found(6)), (2, 3, "a", Absent)], true),
            (&[(0, 1, "b", Wrote(6)), (2, 3, "a", Found(5))], true),
            (&[(0, 1, "a", Found(7)), (2, 3, "b", Absent)], false),
            // Not yet, and no more.
            (&[(0, 1, "a", Absent), (2, 3, "a", Wrote(5))], true),
            (
                &[
                    (0, 1, "a", Wrote(5)),
                    (2, 3, "a", Deleted),
                    (4, 5, "a", Absent),
                ],
                true,
            ),
            (&[(0, 1, "a", Deleted), (2, 3, "a", Found(7))], false),
            // Seen before it was asked for.
            (&[(0, 1, "a", Found(7)), (2, 3, "a", Wrote(7))], false),
            // A version that never was.
            (&[(0, 1, "a", Found(6))], false),
            (&[(0, 1, "c", Absent), (2, 3, "c", Found(1))], false),
        ];
        for (operations, right) in rows {
            assert_eq!(holds(operations), right, "{operations:?}");
        }
    }
}
