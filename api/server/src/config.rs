//! What one server is started with. The command line fills it; the simulation makes its own.

use crate::core::QueueLimits;
use raft::{NodeConfig, WhoseDisk};
use seams::Peer;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Config {
    /// `server-1`
    pub name: String,
    pub data_dir: PathBuf,
    /// Where the one HTTPS port listens: API, agents and peers.
    pub listen: SocketAddr,
    /// `host:port` under which the other members and agents reach it.
    pub advertise: String,
    /// All members of a new cluster, this one included; looked at only when `data_dir` is empty. None for a server that joins.
    pub initial_cluster: Vec<Member>,
    /// What the cluster said when this server joined it; needed only when `data_dir` is empty.
    pub joined: Option<Joined>,
    /// The cluster's certificate authority (PEM): of servers, agents and clients.
    pub ca: PathBuf,
    /// This server's certificate (CN = name, O = system:reckon:servers) and key (PEM).
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The authority's key, with which this server signs the certificates of servers that join.
    pub ca_key: Option<PathBuf>,
    /// How long a lost session's node keeps its Ready condition.
    pub node_grace_s: u64,
    /// What a pod tolerates by default of not-ready and unreachable nodes.
    pub default_not_ready_toleration_s: i64,
    /// Where services get their addresses.
    pub service_cidr: String,
    pub retention: HistoryRetention,
    pub snapshots: Snapshots,
    /// Where the leader writes history away as it is made: a URL.
    pub archive: Option<String>,
    pub queue: QueueLimits,
    /// Below it users' writes are refused.
    pub disk_reserve: DiskReserve,
    /// The highest level of the log that this server reads: this program's own, but in tests of upgrades.
    pub most_level: u32,
    /// Outcomes of proposals kept in memory; older ones are read from the disk.
    pub most_outcomes: usize,
}

/// For how long history is kept; the leader's flags count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryRetention {
    pub all: Retain,
    /// Of Events and Leases, if that is shorter.
    pub ephemeral: Retain,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    #[default]
    Forever,
    AgeS(u64),
    /// The newest so many.
    Revisions(u64),
}

/// What is to stay free of the disk that the data directory lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskReserve {
    /// Of the whole disk.
    Percent(u8),
    Bytes(u64),
}

impl DiskReserve {
    /// In bytes, on a disk of so many.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Default for DiskReserve {
    fn default() -> Self {
        Self::Percent(5)
    }
}

/// When raft's log is shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// A snapshot is taken when so many bytes of log have come since the last.
    pub log_bytes: u64,
    /// Entries kept behind a snapshot: a server that lags by more is rebuilt from the snapshot.
    pub keep_entries: u64,
    /// The same in bytes: the lesser of both is kept.
    pub keep_bytes: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        let NodeConfig {
            snapshot_log_bytes,
            keep_entries,
            keep_bytes,
            ..
        } = NodeConfig::new(0, "");
        Self {
            log_bytes: snapshot_log_bytes,
            keep_entries,
            keep_bytes,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// `host:port`
    pub address: String,
}

/// What a server is told when it is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub id: u64,
    /// The cluster's name to raft.
    pub cluster: String,
}

impl Config {
    pub const NODE_GRACE_S: u64 = 40;
    pub const DEFAULT_NOT_READY_TOLERATION_S: i64 = 300;
    pub const MOST_LEVEL: u32 = eventstore::LEVEL;
    pub const MOST_OUTCOMES: usize = eventstore_disk::StoreConfig::MOST_OUTCOMES;
    pub const SERVICE_CIDR: &'static str = "10.96.0.0/16";

    /// The first members. Their ids are their places, from 1.
    pub fn peers(&self) -> Vec<Peer> {
        let peers = self
            .initial_cluster
            .iter()
            .zip(1..)
            .map(|(member, id)| Peer {
                id,
                name: member.name.clone(),
                address: member.address.clone(),
            });
        peers.collect()
    }

    /// Raft's part. The ids of first members are their places in `initial_cluster`, from 1. `known`: whose the directory is.
    pub fn raft(&self, cluster: String, known: Option<WhoseDisk>) -> Result<NodeConfig, String> {
        let peers = self.peers();
        let place = peers
            .iter()
            .find(|peer| peer.name == self.name)
            .map(|peer| peer.id);
        // One that came later may have the name of a first member whose place it took.
        let later = known.filter(|known| known.id > peers.len() as u64 || place.is_none());
        let node = match (later, &self.joined, place) {
            (Some(known), _, _) => NodeConfig::new(known.id, cluster),
            (None, Some(joined), _) => NodeConfig::new(joined.id, &joined.cluster),
            (None, None, Some(id)) => NodeConfig {
                bootstrap: Some(peers),
                ..NodeConfig::new(id, cluster)
            },
            (None, None, None) => {
                return Err(format!(
                    "{} has an empty directory and is none of the first members: it has to join",
                    self.name
                ));
            }
        };
        Ok(NodeConfig {
            snapshot_log_bytes: self.snapshots.log_bytes,
            keep_entries: self.snapshots.keep_entries,
            keep_bytes: self.snapshots.keep_bytes,
            ..node
        })
    }
}
