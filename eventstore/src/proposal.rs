//! What someone asks the log to accept: who, why, what for, what must hold, what changes.

use crate::{Act, Key, Salt, Text};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Atomic over all its objects: accepted whole, or rejected whole and without an event. At most 8 MiB encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    pub id: ProposalId,
    pub actor: Actor,
    pub cause: Cause,
    pub intent: Intent,
    /// The log index that its server had applied when it first sent this id: apply refuses what is older than the oldest outcome kept.
    pub first_sent: u64,
    pub salt: Salt,
    pub expectations: Vec<Expectation>,
    pub act: Act,
}

impl Proposal {
    pub const MOST_BYTES: usize = 8 * 1024 * 1024;

    /// The level of the log from which on it can be said. On a lower one some member may not be able to read it.
    pub fn level(&self) -> u32 {
        self.act.level().max(self.intent.level())
    }
}

/// One request of a caller (the uuid: `Audit-Id`), and which try of it: a lost reply is asked again under the same attempt,
/// a repetition after a rejection raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    pub uuid: Uuid,
    pub attempt: u32,
}

impl fmt::Display for ProposalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.uuid, self.attempt)
    }
}

/// Who.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    User {
        user: Text,
        groups: Vec<Text>,
        /// Who really asked, when `user` was impersonated.
        impersonator: Option<Text>,
        /// The client program: its User-Agent.
        client: Text,
        /// `ip:port` that the request came from.
        address: Text,
    },
    /// Of the leader of this term; apply rejects it in another.
    Reconciler { name: Text, term: u64 },
    /// With its session's epoch; apply rejects it once a higher epoch is open or the session is lost.
    Agent { node: Text, epoch: u64 },
    /// A server, on its own account: sessions, the level, the first objects.
    Server { name: Text },
}

/// Why: what woke the actor. A user's act has no cause (revision 0), but for a restore's second event and those behind it, which name the one
/// before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The revision that woke the actor; 0 for none.
    pub revision: u64,
    /// The `round` event a reconciler decided in; 0 for none.
    pub round: u64,
}

impl Cause {
    /// Stands for the revision of the last `round` event, which apply puts in its place: a round's proposals are appended together with
    /// the round that opens them, whose revision nobody knows yet.
    pub const THIS_ROUND: u64 = u64::MAX;
}

/// What kind of act, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    Create,
    Update,
    /// `kind` is json, merge or strategic.
    Patch {
        kind: Text,
    },
    /// Server-side apply.
    Apply {
        manager: Text,
        force: bool,
    },
    Delete {
        grace_s: Option<i64>,
        propagation: Text,
    },
    DeleteCollection,
    /// A status subresource's write, or a reconciler's or agent's report.
    Status,
    Scale {
        from: i64,
        to: i64,
    },
    /// With the reason in brief, so that `why` outlives upgrades.
    Bind {
        node: Text,
        reason: Text,
    },
    Evict {
        reason: Text,
    },
    Taint {
        reason: Text,
    },
    /// An owner's garbage: its dependents follow it.
    Collect {
        owner: Text,
    },
    /// The last step of a deletion: finalizers are gone, containers are gone.
    Remove {
        reason: Text,
    },
    /// A reconciler's own act on what it owns, said in a few words: `roll out revision 3`, `publish endpoints`.
    Reconcile {
        what: Text,
    },
    Session,
    Round,
    Found,
    Prune,
    Hold,
    Release,
    /// The past written forward.
    Restore {
        at: u64,
    },
}

impl Intent {
    /// The level of the log from which on it can be said.
    pub fn level(&self) -> u32 {
        match self {
            Self::Prune | Self::Hold | Self::Release | Self::Restore { .. } => 2,
            Self::Create
            | Self::Update
            | Self::Patch { .. }
            | Self::Apply { .. }
            | Self::Delete { .. }
            | Self::DeleteCollection
            | Self::Status
            | Self::Scale { .. }
            | Self::Bind { .. }
            | Self::Evict { .. }
            | Self::Taint { .. }
            | Self::Collect { .. }
            | Self::Remove { .. }
            | Self::Reconcile { .. }
            | Self::Session
            | Self::Round
            | Self::Found => 1,
        }
    }
}

/// A precondition on a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    pub key: Key,
    pub is: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    Absent,
    /// Present, at exactly this revision.
    Revision(u64),
    /// Present, with this uid.
    Uid(Uuid),
    /// Present and not being deleted, as a namespace must be.
    Living,
}
