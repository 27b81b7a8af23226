//! Bugs planted on purpose, to show that the checks catch them. Each is done to a server from outside: its disk lies, or its apply is
//! given an entry that a broken apply would have made of the real one.

use crate::sides::SimClock;
use eventstore::{Actor, Entry, Position, ProposalId, Time};
use seams::Clock;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A synced write returns without a sync.
    SkippedSync,
    /// Apply does not look at expectations.
    UncheckedExpectation,
    /// Apply takes what an agent of a superseded session says.
    UnfencedSession,
    /// Apply does not know a proposal again that it has answered.
    ForgottenOutcome,
    /// Apply stamps its own server's wall clock.
    WallClock,
}

impl Planted {
    pub const ALL: [Self; 5] = [
        Self::SkippedSync,
        Self::UncheckedExpectation,
        Self::UnfencedSession,
        Self::ForgottenOutcome,
        Self::WallClock,
    ];

    /// What a repetition's attempt is raised by, so that it looks like another proposal and can still be told for what it is.
    pub const REPEATED: u32 = 1 << 20;

    /// What a server's apply is given in place of the entry.
    pub(crate) fn tamper(self, clock: SimClock) -> Option<server::Tamper> {
        let seen: Mutex<BTreeSet<ProposalId>> = Mutex::default();
        let tamper = move |_: Position, entry: &mut Entry| match self {
            Self::SkippedSync => {}
            Self::UncheckedExpectation => entry
                .proposals
                .iter_mut()
                .for_each(|proposal| proposal.expectations.clear()),
            Self::UnfencedSession => {
                for proposal in &mut entry.proposals {
                    if let Actor::Agent { node, epoch } = &proposal.actor {
                        // The fence looks at agents alone.
                        proposal.actor = Actor::Server {
                            name: format!("{UNFENCED}{node}/{epoch}").into(),
                        };
                    }
                }
            }
            Self::ForgottenOutcome => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                for proposal in &mut entry.proposals {
                    if !seen.insert(proposal.id) {
                        proposal.id.attempt += Self::REPEATED;
                    }
                }
            }
            Self::WallClock => entry.clock = Time::from_ms(clock.wall_ms() as i64),
        };
        (self != Self::SkippedSync).then(|| Arc::new(tamper) as server::Tamper)
    }
}

/// How an agent's name is carried past the fence: the fence's invariant knows it again.
pub(crate) const UNFENCED: &str = "unfenced:";
