//! An accepted proposal: a committed fact.
//!
//! `Envelope` is what is written, chained and kept for ever; bodies lie beside it. `Event` is the envelope with the objects it changed,
//! as folds want it: projections take events, in order, through `Fold`.

use crate::{
    Actor, Cause, Deletion, Digest, Horizons, Intent, Key, Object, Position, ProposalId, Round,
    Text, Time,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// A projection: any state kept by folding. Total: an event that was committed can't be refused.
pub trait Fold {
    fn fold(&mut self, event: &Event);
}

#[derive(Clone, Debug)]
pub struct Event {
    pub envelope: Envelope,
    /// Of the chain up to and with this event.
    pub digest: Digest,
    /// For each of `Happened::Objects`' records, in order: the version before and the version after. Read from history, it leaves
    /// out those whose bodies retention has removed.
    pub objects: Vec<Folded>,
}

/// The versions around one change.
#[derive(Clone, Debug)]
pub struct Folded {
    pub key: Key,
    /// The number of this change: the new version's `resourceVersion`, also of a deletion.
    pub revision: u64,
    pub before: Option<Arc<Object>>,
    pub after: Option<Arc<Object>>,
}

/// What is written of an event. Frozen: format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Its range of revisions; the last names it.
    pub first: u64,
    pub last: u64,
    pub position: Position,
    /// Which of the entry's proposals it was.
    pub slot: u32,
    /// The log's clock.
    pub time: Time,
    pub id: ProposalId,
    pub actor: Actor,
    pub cause: Cause,
    pub intent: Intent,
    pub happened: Happened,
}

/// Past tense of `Act`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happened {
    Founded {
        cluster: Uuid,
        level: u32,
    },
    Objects(Vec<ChangeRecord>),
    Round(Round),
    SessionOpened {
        node: Text,
        server: Text,
    },
    SessionLost {
        node: Text,
        epoch: u64,
    },
    LevelRaised {
        level: u32,
    },
    /// Where those horizons stand that moved.
    Pruned(Horizons),
    Held {
        name: Text,
        revision: u64,
    },
    /// The hold that ended kept history from this revision on.
    Released {
        name: Text,
        revision: u64,
    },
    /// All before is another cluster's history: whose it was, and its digest to the end. The event's range covers the revisions that it
    /// may have given out beyond what was archived.
    Restored {
        before: Uuid,
        digest: Digest,
        cluster: Uuid,
        gap: u64,
        at: u64,
    },
}

impl Happened {
    /// The changes to objects, in order; of what changes none, none.
    pub fn changes(&self) -> &[ChangeRecord] {
        match self {
            Self::Objects(records) => records,
            Self::Founded { .. }
            | Self::Round(_)
            | Self::SessionOpened { .. }
            | Self::SessionLost { .. }
            | Self::LevelRaised { .. }
            | Self::Pruned(_)
            | Self::Held { .. }
            | Self::Released { .. }
            | Self::Restored { .. } => &[],
        }
    }
}

/// One change, without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    pub key: Key,
    pub revision: u64,
    /// The revision of the version before; 0 for none.
    pub before: u64,
    pub uid: Uuid,
    pub created: Time,
    pub deletion: Option<Deletion>,
    /// SHA-256(salt ‖ head ‖ tail) of the new version; None: the object went.
    pub hash: Option<Digest>,
}

impl Event {
    /// What names it.
    pub fn revision(&self) -> u64 {
        self.envelope.last
    }
}
