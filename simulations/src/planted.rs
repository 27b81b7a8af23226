//! Bugs planted on purpose, to show that the checks catch them. Each is done to a server from outside: its disk lies, its clients' requests
//! or its own to other servers are answered otherwise, or its apply is given an entry that a broken apply would have made of the real one.

use crate::sides::SimClock;
use eventstore::{Act, Actor, Entry, Intent, Position, Proposal, ProposalId, Time};
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
    /// A store does not write some events down, and so skips their revisions.
    SkippedRevision,
    /// A linearizable read is answered from what the server has.
    StaleRead,
    /// A restore leaves out its last change.
    ForgetfulRestore,
    /// The leader takes every member for one that knows the newest level of the log.
    EarlyLevel,
}

impl Planted {
    pub const ALL: [Self; 9] = [
        Self::SkippedSync,
        Self::UncheckedExpectation,
        Self::UnfencedSession,
        Self::ForgottenOutcome,
        Self::WallClock,
        Self::SkippedRevision,
        Self::StaleRead,
        Self::ForgetfulRestore,
        Self::EarlyLevel,
    ];

    /// What a repetition's attempt is raised by, so that it looks like another proposal and can still be told for what it is.
    pub const REPEATED: u32 = 1 << 20;

    /// By its name here.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|planted| format!("{planted:?}") == name)
    }

    /// What a server's apply is given in place of the entry.
    pub(crate) fn tamper(self, clock: SimClock) -> Option<server::Tamper> {
        let seen: Mutex<BTreeSet<ProposalId>> = Mutex::default();
        let of_apply = match self {
            Self::SkippedSync | Self::SkippedRevision | Self::StaleRead | Self::EarlyLevel => false,
            Self::UncheckedExpectation
            | Self::UnfencedSession
            | Self::ForgottenOutcome
            | Self::WallClock
            | Self::ForgetfulRestore => true,
        };
        let tamper = move |_: Position, entry: &mut Entry| match self {
            Self::SkippedSync | Self::SkippedRevision | Self::StaleRead | Self::EarlyLevel => {}
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
            Self::ForgetfulRestore => entry.proposals.iter_mut().for_each(forget_last),
        };
        of_apply.then(|| Arc::new(tamper) as server::Tamper)
    }
}

/// Of a restore, and never all of it: to do nothing is not what it can be accepted for.
fn forget_last(proposal: &mut Proposal) {
    if let (Intent::Restore { .. }, Act::Objects(changes)) = (&proposal.intent, &mut proposal.act)
        && changes.len() > 1
    {
        changes.pop();
    }
}

/// How an agent's name is carried past the fence: the fence's invariant knows it again.
pub(crate) const UNFENCED: &str = "unfenced:";
