//! What came of a proposal. Kept for the last 200,000 client proposals, so that a repetition gets the first answer.

use crate::{Expected, Key, ProposalId};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use uuid::Uuid;

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

/// An outcome that is kept no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    pub sequence: u64,
    /// The log index of its entry.
    pub index: u64,
}

/// The outcomes of the last proposals. Reconcilers' are not among them: another term fences those.
///
/// In memory are the newest. The others are away, on disk alone: an outcome lies behind the index at which its proposal was first sent, so
/// that it takes a proposal that is long under way to need one. Whoever applies an entry brings back before what it may need (`recall`),
/// so that what is away is never missed; and tells of which entries the oldest are (`oldest_are`), which are the next to be forgotten.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// The newest, without a gap.
    here: VecDeque<Kept>,
    /// Of each id in memory the newest.
    by_id: BTreeMap<ProposalId, u64>,
    /// The sequence number of the oldest, and of the next one.
    oldest: u64,
    next: u64,
    /// None is away that has a higher log index.
    away_up_to: u64,
    /// Of the oldest, entry by entry: the last one's sequence number and the log index. Needed as far as they are away.
    entries: VecDeque<Forgotten>,
    /// The log index of the last outcome that was forgotten.
    forgotten_up_to: u64,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self::away(1..1, 0, 0)
    }
}

impl Outcomes {
    pub const MOST: usize = 200_000;

    /// Those with these sequence numbers are kept, all of them away, and none has a log index above `up_to`.
    pub fn away(sequences: Range<u64>, up_to: u64, forgotten_up_to: u64) -> Self {
        Self {
            here: VecDeque::new(),
            by_id: BTreeMap::new(),
            oldest: sequences.start,
            next: sequences.end,
            away_up_to: up_to,
            entries: VecDeque::new(),
            forgotten_up_to,
        }
    }

    pub(crate) fn get(&self, id: ProposalId) -> Option<&Kept> {
        let sequence = *self.by_id.get(&id)?;
        self.here.get((sequence - self.first_here()) as usize)
    }

    /// What came of a proposal when it was applied first. What has no higher log index than that with which it was first sent is not its
    /// own, though it had its id: whether that is in memory depends on the server, and apply must not.
    pub(crate) fn of_first(&self, id: ProposalId, first_sent: u64) -> Option<&Outcome> {
        let kept = self.get(id).filter(|kept| kept.index > first_sent);
        kept.map(|kept| &kept.outcome)
    }

    /// What came of all tries of a request, as far as it is in memory.
    pub fn of_request(&self, uuid: Uuid) -> impl Iterator<Item = &Kept> {
        let tries = ProposalId { uuid, attempt: 0 }..=ProposalId {
            uuid,
            attempt: u32::MAX,
        };
        let first = self.first_here();
        self.by_id
            .range(tries)
            .filter_map(move |(_, sequence)| self.here.get((sequence - first) as usize))
    }

    /// A proposal first sent before this index may have been done and forgotten.
    pub(crate) fn forgotten_up_to(&self) -> u64 {
        self.forgotten_up_to
    }

    /// Keeps one, and says what was written and what is forgotten for it.
    pub(crate) fn keep(
        &mut self,
        index: u64,
        id: ProposalId,
        outcome: Outcome,
    ) -> (Kept, Option<Forgotten>) {
        let kept = Kept {
            sequence: self.next,
            index,
            id,
            outcome,
        };
        self.by_id.insert(id, kept.sequence);
        self.here.push_back(kept.clone());
        self.next += 1;
        let forgotten = (self.next - self.oldest > Self::MOST as u64).then(|| self.forget());
        (kept, forgotten)
    }

    fn forget(&mut self) -> Forgotten {
        let sequence = self.oldest;
        let gone = |entry: &mut Forgotten| entry.sequence < sequence;
        while self.entries.pop_front_if(gone).is_some() {}
        let index = if self.first_here() == sequence {
            self.send_away()
        } else {
            self.entries.front().map(|entry| entry.index)
        };
        self.oldest += 1;
        self.forgotten_up_to = index.expect("who applies tells of which entries the oldest are");
        Forgotten {
            sequence,
            index: self.forgotten_up_to,
        }
    }

    /// The sequence number of the oldest in memory; the next one's, where none is.
    fn first_here(&self) -> u64 {
        self.here.front().map_or(self.next, |kept| kept.sequence)
    }

    /// Takes the oldest one in memory out of it; its log index.
    fn send_away(&mut self) -> Option<u64> {
        let kept = self.here.pop_front()?;
        if let Entry::Occupied(newest) = self.by_id.entry(kept.id)
            && *newest.get() == kept.sequence
        {
            newest.remove();
        }
        Some(kept.index)
    }

    /// Which are away, if one among them may be that of a proposal first sent at this index.
    pub fn away_for(&self, first_sent: u64) -> Option<Range<u64>> {
        let away = self.oldest..self.first_here();
        (first_sent < self.away_up_to && !away.is_empty()).then_some(away)
    }

    /// Those before the oldest in memory come back, in order, up to it; none that is still away has a log index above `away_up_to`.
    pub fn recall(&mut self, older: impl DoubleEndedIterator<Item = Kept>, away_up_to: u64) {
        for kept in older.rev() {
            assert_eq!(kept.sequence + 1, self.first_here(), "outcomes have no gap");
            self.by_id.entry(kept.id).or_insert(kept.sequence);
            self.here.push_front(kept);
        }
        self.away_up_to = away_up_to;
    }

    /// Keeps no more than `most` in memory; where many were recalled, they go twice as fast as new ones come. All must be on disk.
    pub fn cool(&mut self, most: usize, coming: usize) {
        let over = (self.here.len() + coming).saturating_sub(most);
        for _ in 0..over.min(2 * coming) {
            let Some(index) = self.send_away() else {
                return;
            };
            self.away_up_to = self.away_up_to.max(index);
        }
    }

    /// Which of those kept will be forgotten when so many more are, as far as it was not told of which entries they are.
    pub fn to_be_told(&self, coming: usize) -> Range<u64> {
        let told = self.entries.back().map_or(0, |entry| entry.sequence);
        let end = (self.next + coming as u64).saturating_sub(Self::MOST as u64);
        self.oldest.max(told + 1)..end.min(self.next)
    }

    /// Of which entries the oldest are: the last one's sequence number of each, in order, and the log index.
    pub fn oldest_are(&mut self, entries: impl IntoIterator<Item = Forgotten>) {
        self.entries.extend(entries);
    }
}
