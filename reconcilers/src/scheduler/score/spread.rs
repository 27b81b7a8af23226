//! Prefers the node with fewest pods of the same owner, so that one node's loss takes few of them.

use crate::scheduler::candidates::Candidate;
use uuid::Uuid;

pub fn crowd(candidate: &Candidate, owner: Option<Uuid>) -> i64 {
    owner
        .and_then(|owner| candidate.used.of_owner.get(&owner))
        .map_or(0, |count| i64::from(*count))
}

pub fn score(crowd: i64, largest: i64) -> i64 {
    if largest == 0 {
        100
    } else {
        100 * (largest - crowd) / largest
    }
}
