//! What came of a proposal. Kept for the last 200,000 client proposals, so that a repetition gets the first answer.

use crate::{Expected, Key, ProposalId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is an event: its revisions are `first..=last`.
    Accepted { first: u64, last: u64 },
    /// Nothing changed. Apart, for it is rare and large, and 200,000 outcomes lie in memory.
    Rejected(Box<Rejection>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// An expectation did not hold. `current`: the key's revision now, None when it is absent.
    #[error("expected {key} to be {expected:?}; its revision is {current:?}")]
    Expectation {
        key: Key,
        expected: Expected,
        current: Option<u64>,
    },
    /// First sent before the oldest outcome kept: whether it was done can't be told here.
    #[error("first sent at index {first_sent}, before the oldest outcome kept")]
    TooOld { first_sent: u64 },
    /// A reconciler's proposal of another term.
    #[error("decided in term {decided}, applied in term {applied}")]
    OtherTerm { decided: u64, applied: u64 },
    /// The agent's session was superseded or lost.
    #[error("the session of {node} with epoch {epoch} is not open")]
    Fenced { node: String, epoch: u64 },
    /// The cluster is founded already, the session is not the one named, the level is not higher.
    #[error("{0}")]
    NotNow(String),
}

/// One outcome as it is kept on disk, under its sequence number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub sequence: u64,
    /// The log index of its entry.
    pub index: u64,
    pub id: ProposalId,
    pub outcome: Outcome,
}

/// The outcomes of the last proposals, oldest first. Reconcilers' are not among them: another term fences those.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    by_id: BTreeMap<ProposalId, u64>,
    kept: VecDeque<Kept>,
    /// The log index of the last outcome that was forgotten.
    forgotten_up_to: u64,
}

impl Outcomes {
    pub const MOST: usize = 200_000;

    pub(crate) fn restore(kept: impl IntoIterator<Item = Kept>, forgotten_up_to: u64) -> Self {
        let kept: VecDeque<Kept> = kept.into_iter().collect();
        Self {
            by_id: kept.iter().map(|kept| (kept.id, kept.sequence)).collect(),
            kept,
            forgotten_up_to,
        }
    }

    pub(crate) fn get(&self, id: ProposalId) -> Option<&Kept> {
        let sequence = *self.by_id.get(&id)?;
        let oldest = self.kept.front()?.sequence;
        self.kept.get((sequence - oldest) as usize)
    }

    /// A proposal first sent before this index may have been done and forgotten.
    pub(crate) fn forgotten_up_to(&self) -> u64 {
        self.forgotten_up_to
    }

    /// Keeps one, and says what was written and the sequence numbers forgotten for it.
    pub(crate) fn keep(
        &mut self,
        index: u64,
        id: ProposalId,
        outcome: Outcome,
    ) -> (Kept, Option<Kept>) {
        let sequence = self.kept.back().map_or(1, |last| last.sequence + 1);
        let kept = Kept {
            sequence,
            index,
            id,
            outcome,
        };
        self.by_id.insert(id, sequence);
        self.kept.push_back(kept.clone());
        let forgotten = (self.kept.len() > Self::MOST)
            .then(|| self.kept.pop_front())
            .flatten();
        if let Some(forgotten) = &forgotten {
            self.by_id.remove(&forgotten.id);
            self.forgotten_up_to = forgotten.index;
        }
        (kept, forgotten)
    }
}
