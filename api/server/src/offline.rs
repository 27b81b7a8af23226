//! A server that does not run: what its directory holds, and making a cluster of it alone when a majority is lost for good.
//!
//! To say at which revision it would stand, the log behind what `state/` has flushed is folded in memory: nothing is applied, for
//! what is in the log may be taken back once the server meets its leader.

use crate::core;
use eventstore::{LevelTooHigh, Position, State};
use eventstore_disk::{Store, StoreConfig, StoreError};
use raft::{Applied, Member, Offline};
use seams::{Directory, DiskError, FileDirectory, SystemEntropy};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("{0} is no server's directory: there is no file 'node' in it")]
    NoServer(PathBuf),
    #[error("a server runs on {path}{}: stop it first, or look at a copy", pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Running { path: String, pid: Option<u32> },
    #[error("the directory: {0}")]
    Disk(DiskError),
    #[error("the Raft log: {0}")]
    Log(#[from] std::io::Error),
    #[error("the state: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Level(#[from] LevelTooHigh),
}

/// A moment of the history.
#[derive(Clone, Debug, Serialize)]
pub struct Stands {
    /// The log entry that it is behind.
    pub index: u64,
    pub revision: u64,
    /// The log's clock, RFC 3339.
    pub time: String,
    pub digest: String,
}

/// What a directory holds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    pub id: u64,
    pub name: Option<String>,
    /// The cluster's name to raft: the authority's digest, with an end of its own after a recovery.
    pub cluster: String,
    /// The last term that it has heard of.
    pub term: u64,
    pub last_term: u64,
    pub last_index: u64,
    /// What its state has on disk.
    pub applied: Stands,
    /// What it is known to have heard is committed: at least this was acknowledged to somebody, or may have been.
    pub committed: Stands,
    /// All that its log has.
    pub whole: Stands,
    /// Entries that are in its log and not known to be committed.
    pub uncommitted_entries: u64,
    pub members: Vec<InspectedMember>,
}

#[derive(Clone, Debug, Serialize)]
pub struct InspectedMember {
    pub id: u64,
    pub name: String,
    pub address: String,
    pub voter: bool,
}

impl From<Member> for InspectedMember {
    fn from(member: Member) -> Self {
        Self {
            id: member.peer.id,
            name: member.peer.name,
            address: member.peer.address,
            voter: member.voter,
        }
    }
}

/// What a recovery made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// As it was before.
    pub before: Inspection,
    /// The cluster's new name to raft.
    pub cluster: String,
    /// Where it stands: all that its log had, also what is not known to have been committed.
    pub revision: u64,
    /// None: there was no other member, so nothing is.
    pub may_be_missing: Option<MayBeMissing>,
}

/// What others may have acknowledged that the cluster goes on without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MayBeMissing {
    /// Every change above this revision, which the recovered cluster gives anew.
    pub above_revision: u64,
    /// The log's clock at that revision, RFC 3339: what was written later is missing.
    pub after: String,
    /// Who may have it.
    pub on_servers: Vec<String>,
}

impl Recovery {
    fn of(before: Inspection, cluster: String) -> Self {
        let others = before
            .members
            .iter()
            .filter(|member| member.id != before.id);
        let others: Vec<String> = others.map(|member| member.name.clone()).collect();
        let may_be_missing = (!others.is_empty()).then(|| MayBeMissing {
            above_revision: before.whole.revision,
            after: before.whole.time.clone(),
            on_servers: others,
        });
        Self {
            cluster,
            revision: before.whole.revision,
            may_be_missing,
            before,
        }
    }
}

/// Reads a server's directory. Nothing of what the server keeps is changed.
pub fn inspect(data_dir: &Path) -> Result<Inspection, OfflineError> {
    Opened::open(data_dir)?.inspect()
}

/// Makes the server of this directory the only member, with all that its log has.
pub fn recover(data_dir: &Path) -> Result<Recovery, OfflineError> {
    let opened = Opened::open(data_dir)?;
    let before = opened.inspect()?;
    let whose = opened.log.recover(&opened.applied, &SystemEntropy)?;
    Ok(Recovery::of(before, whose.cluster))
}

struct Opened {
    log: Offline,
    state: State,
    applied: Applied,
}

impl Opened {
    fn open(data_dir: &Path) -> Result<Self, OfflineError> {
        // Opening would make it.
        if !data_dir.join("node").is_file() {
            return Err(OfflineError::NoServer(data_dir.to_owned()));
        }
        let directory = FileDirectory::open(data_dir).map_err(|error| match error {
            DiskError::InUse { path, pid } => OfflineError::Running { path, pid },
            error => OfflineError::Disk(error),
        })?;
        let directory: Arc<dyn Directory> = Arc::new(directory);
        let log = Offline::open(directory.clone())?;
        let database = core::current_database(&*directory)?;
        let (state, membership) =
            Store::read_state(&*directory, &database, &StoreConfig::default())?;
        let Position { term, index } = state.view().position;
        let applied = Applied {
            position: (index > 0).then_some(raft::Position { term, index }),
            membership,
        };
        Ok(Self {
            log,
            state,
            applied,
        })
    }

    fn inspect(&self) -> Result<Inspection, OfflineError> {
        let members = self.log.members(&self.applied)?;
        let whose = self.log.whose();
        let applied = stands(&self.state);
        let mut state = self.state.clone();
        let committed_index = self.log.committed().map_or(0, |committed| committed.index);
        let (mut committed, mut uncommitted_entries) = (applied.clone(), 0);
        self.log.entries(self.applied.position, |entry| {
            let position = Position {
                term: entry.position.term,
                index: entry.position.index,
            };
            // The entry with which a cluster begins: the store counts from 1.
            if position.index == 0 {
                return Ok(());
            }
            match &entry.payload {
                Some(payload) => {
                    let entry = Store::read_entry(position, payload)?;
                    state.can_apply(&entry)?;
                    state.apply(position, &entry);
                }
                None => state.advance(position),
            }
            if position.index <= committed_index {
                committed = stands(&state);
            } else {
                uncommitted_entries += 1;
            }
            Ok::<(), OfflineError>(())
        })?;
        let last = self.log.last().unwrap_or_default();
        let own = members.iter().find(|member| member.peer.id == whose.id);
        Ok(Inspection {
            id: whose.id,
            name: own.map(|member| member.peer.name.clone()),
            cluster: whose.cluster,
            term: self.log.term(),
            last_term: last.term,
            last_index: last.index,
            applied,
            committed,
            whole: stands(&state),
            uncommitted_entries,
            members: members.into_iter().map(InspectedMember::from).collect(),
        })
    }
}

fn stands(state: &State) -> Stands {
    let view = state.view();
    Stands {
        index: view.position.index,
        revision: view.revision,
        time: view.clock.milli(),
        digest: view.digest.to_string(),
    }
}
