//! What a proposal does when it is accepted. Closed: a new act is a compile error until apply, fold and disk handle it.

use crate::{Body, Horizons, Key, Text, Time};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// The first event of a cluster: its id and the log's level.
    Found {
        cluster: Uuid,
        level: u32,
    },
    /// Objects' changes, in order; each gets a revision of its own.
    Objects(Vec<Change>),
    /// Opens a round of the leader's reconcilers.
    Round(Round),
    /// An agent dialled a server: the event's revision is the session's epoch.
    OpenSession {
        node: Text,
        server: Text,
    },
    /// The leader heard nothing of a session past the grace, or its agent said goodbye.
    LoseSession {
        node: Text,
        epoch: u64,
    },
    /// The log's level goes up: every member can read the new one.
    RaiseLevel {
        level: u32,
    },
    /// History before these revisions may go.
    Prune(Horizons),
    /// Keeps history from a revision on until it is released. A name that holds already holds from there.
    Hold {
        name: Text,
        revision: u64,
    },
    Release {
        name: Text,
    },
    /// A new cluster goes on from the events of another: under an id of its own, its sessions ended, and with revisions above all
    /// that the other may have given out. What else the restore changes follows.
    Restored {
        cluster: Uuid,
        /// Revisions that are passed over.
        gap: u64,
        /// The revision whose desired state is restored.
        at: u64,
    },
}

impl Act {
    /// Of all bodies in it.
    pub fn body_bytes(&self) -> usize {
        let Self::Objects(changes) = self else {
            return 0;
        };
        let bodies = changes.iter().map(|change| match &change.what {
            What::Put { body, .. } => body.len(),
            What::Remove => 0,
        });
        bodies.sum()
    }

    /// The level of the log from which on it can be said.
    pub fn level(&self) -> u32 {
        match self {
            Self::Found { .. }
            | Self::Objects(_)
            | Self::Round(_)
            | Self::OpenSession { .. }
            | Self::LoseSession { .. }
            | Self::RaiseLevel { .. } => 1,
            Self::Prune(_) | Self::Hold { .. } | Self::Release { .. } | Self::Restored { .. } => 2,
        }
    }
}

/// One object's new version, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: Key,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The object as it is to be. `delete_grace_s`: it is also being deleted; apply stamps deletionTimestamp = the entry's clock + grace,
    /// keeps one that is already there, and only ever shortens it. A Put without it keeps a deletion that is stamped.
    /// `Deletion::WITHOUT_GRACE`: from now, and the object says no grace.
    Put {
        body: Body,
        delete_grace_s: Option<i64>,
    },
    /// It is gone.
    Remove,
}

/// What a round decided from, which is what replay needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// The revision of the world.
    pub world: u64,
    /// The log's clock given to the decisions.
    pub clock: Time,
    /// (reconciler, key), in the order they were decided; keys that decided nothing included.
    pub decided: Vec<(Text, Key)>,
    /// The logic's version: another one may decide otherwise.
    pub logic: u32,
}
