//! openraft's types filled in, and the few of our own that stand at the facade in their place.
//!
//! Standard Raft: at most one leader a term, so (term, index) names an entry. openraft's own randomness, which sets its
//! election timeouts, is seeded from the server's [`seams::Entropy`] when the node starts.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::type_config::alias::CommittedLeaderIdOf;
use seams::Peer;
use serde::{Deserialize, Serialize};

use crate::runtime::Stranded;

/// A server's id. Never used again for another disk, not even after its removal.
pub type NodeId = u64;

/// An entry's place in the log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Position {
    /// The term of the leader that appended it.
    pub term: u64,
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub peer: Peer,
    /// Counts for majorities. One that doesn't is on its way in.
    pub voter: bool,
}

/// Where a server is found; what openraft keeps of it in the membership.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Address {
    pub name: String,
    pub address: String,
}

impl Address {
    pub(crate) fn peer(&self, id: NodeId) -> Peer {
        Peer {
            id,
            name: self.name.clone(),
            address: self.address.clone(),
        }
    }
}

impl From<&Peer> for Address {
    fn from(peer: &Peer) -> Self {
        Self {
            name: peer.name.clone(),
            address: peer.address.clone(),
        }
    }
}

/// What an entry carries: bytes that mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Payload(pub Bytes);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    pub Types:
        D = Payload,
        R = (),
        NodeId = NodeId,
        Node = Address,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Seeded,
);

/// The runtime, with randomness from a seed that is set where the node starts.
pub(crate) type Seeded = DeterministicRng<Stranded>;

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type EntryPayload = openraft::type_config::alias::PayloadOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type Membership = openraft::Membership<NodeId, Address>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

impl From<LogId> for Position {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            index: id.index,
        }
    }
}

impl From<Position> for LogId {
    fn from(position: Position) -> Self {
        LogId::new(
            CommittedLeaderIdOf::<Types>::new(position.term),
            position.index,
        )
    }
}
