//! Who this server is, and whether another is still the one it was.
//!
//! A server that comes back with an empty disk has forgotten its votes and entries; under its old id it could elect a
//! leader without what a majority had acknowledged. So a disk gets a random number of its own when it is first used,
//! every message carries it, and each server remembers, durably, which disk it first saw under an id. Leaders pass on what
//! they know. A known id on another disk is refused by all; the server is to be removed and added under a new id.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use seams::{Directory, DiskError, Entropy};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::log_store::LogStore;
use crate::rebuild::how_to_rebuild;
use crate::types::NodeId;

/// Holds what [`Identity`] is made of.
pub(crate) const NODE_FILE: &str = "node";
/// Servers remembered: far more than a cluster has over its life.
const KNOWN_MAX: usize = 10_000;

/// This server's name for itself, in every message to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The cluster's id.
    pub(crate) cluster: String,
    pub(crate) id: NodeId,
    /// Drawn when the disk was first used.
    pub(crate) disk: u64,
}

impl Identity {
    /// Who this disk belongs to, if it has been used.
    pub(crate) fn read(directory: &dyn Directory) -> io::Result<Option<Self>> {
        let bytes = directory.read_file(NODE_FILE).map_err(io::Error::other)?;
        let read = |bytes: Vec<u8>| {
            codec::decode(&bytes).map_err(|error| {
                let what = format!("the file '{NODE_FILE}'");
                io::Error::other(DiskError::corrupt(what, error.to_string()))
            })
        };
        bytes.map(read).transpose()
    }

    /// Makes an unused disk this server's.
    pub(crate) fn settle(
        directory: &dyn Directory,
        entropy: &dyn Entropy,
        cluster: &str,
        id: NodeId,
    ) -> io::Result<Self> {
        let identity = Self {
            cluster: cluster.to_owned(),
            id,
            disk: entropy.next_u64(),
        };
        identity.write(directory)?;
        Ok(identity)
    }

    pub(crate) fn write(&self, directory: &dyn Directory) -> io::Result<()> {
        directory
            .write_file(NODE_FILE, &codec::encode(self))
            .map_err(io::Error::other)
    }

    /// The same cluster under its name of after a recovery is the same.
    pub(crate) fn must_be(&self, cluster: &str, id: NodeId) -> io::Result<()> {
        if !is_of(&self.cluster, cluster) {
            return Err(refused(&format!(
                "this directory belongs to cluster {}, not {cluster}",
                self.cluster
            )));
        }
        if self.id != id {
            return Err(refused(&format!(
                "this directory belongs to server {}, not {id}",
                self.id
            )));
        }
        Ok(())
    }
}

pub(crate) fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// A cluster that was recovered from one server's disk: its name and, behind a slash, what tells it from what it was before.
pub(crate) const RECOVERED: &str = "/recovered-";

/// Whether `name` is `cluster`, or became it by recoveries.
fn is_of(name: &str, cluster: &str) -> bool {
    name.strip_prefix(cluster)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The name that a cluster had before any recovery.
pub(crate) fn base(cluster: &str) -> &str {
    cluster.split_once('/').map_or(cluster, |(base, _)| base)
}

fn another(id: NodeId) -> String {
    format!(
        "server {id} came back with another disk, without what it had promised: {}",
        how_to_rebuild(id)
    )
}

/// The others, as first seen.
pub(crate) struct Acquaintances {
    me: Identity,
    log: LogStore,
    known: Mutex<BTreeMap<NodeId, u64>>,
}

impl Acquaintances {
    pub(crate) fn new(me: Identity, log: LogStore) -> io::Result<Self> {
        let known = Mutex::new(log.known_disks()?);
        let all = Self { me, log, known };
        all.learn(all.me.id, all.me.disk);
        Ok(all)
    }

    pub(crate) fn me(&self) -> &Identity {
        &self.me
    }

    /// Whether this is the server it was; the reason if not. What is learnt here is durable before any vote or entry
    /// that is accepted afterwards.
    pub(crate) fn check(&self, other: &Identity) -> Result<(), String> {
        if other.cluster != self.me.cluster {
            let recovered = self.me.cluster.contains(RECOVERED);
            let way_out = if recovered && is_of(&self.me.cluster, base(&other.cluster)) {
                ": it was recovered from one server's disk, and the servers of before can't come back; add them anew with 'reckon \
                 member add NAME HOST:PORT', with an empty directory"
            } else {
                ""
            };
            return Err(format!(
                "this is cluster {}, not {}{way_out}",
                self.me.cluster, other.cluster
            ));
        }
        if self.learn(other.id, other.disk) == other.disk {
            Ok(())
        } else {
            Err(another(other.id))
        }
    }

    /// The greatest id that was ever seen; 0 for none.
    pub(crate) fn last_known(&self) -> NodeId {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys().last().copied().unwrap_or(0)
    }

    pub(crate) fn is_gone(&self, id: NodeId) -> bool {
        self.log.is_gone(id)
    }

    pub(crate) fn knows(&self, id: NodeId) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains_key(&id)
    }

    /// What this server knows, for the others.
    pub(crate) fn known(&self) -> Vec<(NodeId, u64)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(id, disk)| (*id, *disk)).collect()
    }

    /// Takes over what a leader knows, unless it knows this very server with another disk.
    pub(crate) fn learn_all(&self, known: &[(NodeId, u64)]) -> Result<(), String> {
        if known
            .iter()
            .any(|(id, disk)| *id == self.me.id && *disk != self.me.disk)
        {
            return Err(another(self.me.id));
        }
        for (id, disk) in known {
            self.learn(*id, *disk);
        }
        Ok(())
    }

    /// The disk that is known for this id, which is this one if none was.
    fn learn(&self, id: NodeId, disk: u64) -> u64 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = known.get(&id) {
            return *first;
        }
        if known.len() < KNOWN_MAX {
            known.insert(id, disk);
            self.log.remember_disk(id, disk);
        }
        disk
    }
}
