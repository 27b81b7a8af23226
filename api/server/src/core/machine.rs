//! The store as raft drives it: groups of committed entries go in, and the database is what a snapshot is a copy of.

use super::Tamper;
use bytes::Bytes;
use eventstore::Position;
use eventstore_disk::{Retired, Store, StoreError};
use raft::{Applied, Committed, Machine, MachineError};
use seams::{Directory, DiskError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The small file that names the database in use: a snapshot that was received takes the place of the one before.
const POINTER: &str = "state.current";
/// The database of a server that never received a snapshot.
const FIRST: &str = "state";

pub(super) struct StoreMachine {
    store: Store,
    directory: Arc<dyn Directory>,
    database: String,
    retired: Vec<Retired>,
    tamper: Option<Tamper>,
    /// Of the entry at index 0, with which a cluster begins: the store counts from 1, so it goes in with the next.
    first_membership: Option<Bytes>,
    installed: Arc<AtomicU64>,
}

/// The name of the database in use.
pub(crate) fn current_database(directory: &dyn Directory) -> Result<String, StoreError> {
    let Some(pointer) = directory.read_file(POINTER)? else {
        return Ok(FIRST.to_owned());
    };
    let what = || format!("the file '{POINTER}'");
    let name = String::from_utf8(pointer)
        .map_err(|_| DiskError::corrupt(what(), "the name in it is not UTF-8"))?;
    // Opening one that is not there would make an empty one.
    if !directory.list()?.contains(&name) {
        let detail = format!("it names {name:?}, and there is no such database");
        return Err(DiskError::corrupt(what(), detail).into());
    }
    Ok(name)
}

impl StoreMachine {
    pub fn new(
        store: Store,
        directory: Arc<dyn Directory>,
        database: String,
        tamper: Option<Tamper>,
    ) -> Self {
        Self {
            store,
            directory,
            database,
            retired: Vec::new(),
            tamper,
            first_membership: None,
            installed: Arc::default(),
        }
    }

    /// Counts the snapshots that are installed.
    pub fn installed(&self) -> Arc<AtomicU64> {
        self.installed.clone()
    }

    /// Removes the databases that a snapshot took the place of, once nobody reads them any more.
    fn sweep(&mut self) -> Result<(), MachineError> {
        let (free, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(Retired::is_free);
        self.retired = held;
        free.iter().try_for_each(|retired| {
            self.directory
                .remove(&retired.name)
                .map_err(MachineError::from)
        })
    }
}

fn failed(error: StoreError) -> MachineError {
    MachineError(error.to_string())
}

impl Machine for StoreMachine {
    fn applied(&self) -> Result<Applied, MachineError> {
        let (position, membership) = self.store.applied();
        let position = (position.index > 0).then_some(raft::Position {
            term: position.term,
            index: position.index,
        });
        Ok(Applied {
            position,
            membership,
        })
    }

    fn apply(&mut self, group: Vec<Committed>) -> Result<(), MachineError> {
        let mut membership = match self.first_membership.take() {
            Some(first) => first,
            None => self.store.applied().1,
        };
        let mut entries = Vec::with_capacity(group.len());
        for committed in group {
            let position = Position {
                term: committed.position.term,
                index: committed.position.index,
            };
            if let Some(changed) = committed.membership {
                membership = changed;
            }
            if position.index == 0 {
                continue;
            }
            let entry = committed
                .payload
                .map(|payload: Bytes| Store::read_entry(position, &payload))
                .transpose();
            // What can't be read may be of the level that one before it raises to: then that is what there is to say.
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.store.admit(&entries).map_err(failed)?;
                    return Err(failed(error));
                }
            };
            let entry = entry.map(|mut entry| {
                if let Some(tamper) = &self.tamper {
                    tamper(position, &mut entry);
                }
                entry
            });
            entries.push((position, entry));
        }
        if entries.is_empty() {
            self.first_membership = Some(membership);
            return Ok(());
        }
        self.store.apply(entries, &membership).map_err(failed)?;
        Ok(())
    }

    fn takes_at_once(&self) -> bool {
        self.store.takes_at_once()
    }

    fn database(&self) -> String {
        self.database.clone()
    }

    fn clock_ms(&self) -> u64 {
        self.store.view().clock.ms().max(0) as u64
    }

    fn flush(&mut self) -> Result<(), MachineError> {
        self.store.flush().map_err(failed)?;
        self.sweep()
    }

    fn flushed(&self) -> Option<u64> {
        Some(self.store.flushed().index).filter(|index| *index > 0)
    }

    fn checkpoint(&mut self, into: &str) -> Result<(), MachineError> {
        self.store.checkpoint(into).map_err(failed)?;
        Ok(())
    }

    fn install(&mut self, from: &str) -> Result<(), MachineError> {
        // Opened and read before the pointer names it: one that can't be opened changes nothing.
        let retired = self.store.switch(from).map_err(failed)?;
        self.directory.write_file(POINTER, from.as_bytes())?;
        from.clone_into(&mut self.database);
        self.retired.push(retired);
        self.installed.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            revision = self.store.view().revision,
            "rebuilt from the leader's snapshot, for the log that was missed is no longer kept"
        );
        self.sweep()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventstore::{
        Act, Actor, Cause, Entry, Intent, LEVEL, Proposal, ProposalId, Salt, Time, encode,
    };
    use eventstore_disk::StoreConfig;
    use seams::{DiskOptions, FileDirectory};

    fn entry(number: u64, act: Act) -> Bytes {
        let proposal = Proposal {
            id: ProposalId {
                uuid: uuid::Uuid::from_u128(u128::from(number)),
                attempt: 0,
            },
            actor: Actor::Server {
                name: "server-1".into(),
            },
            cause: Cause::default(),
            intent: Intent::Found,
            first_sent: 0,
            salt: Salt::default(),
            expectations: Vec::new(),
            act,
        };
        let entry = Entry {
            clock: Time::from_ms(1),
            proposals: vec![proposal],
        };
        encode(&entry).into()
    }

    /// What the next release says after it has raised the level need not be readable here.
    #[test]
    fn a_level_too_high_is_said_before_what_that_level_says() {
        let unreadable = Bytes::from_static(b"of the next release");
        let found = Act::Found {
            cluster: uuid::Uuid::from_u128(1),
            level: 1,
        };
        let raise = Act::RaiseLevel { level: LEVEL + 1 };
        let upgrade = format!(
            "the log is at level {}, this program knows level {LEVEL}: upgrade this server",
            LEVEL + 1
        );
        for (group, says) in [
            (vec![entry(2, raise.clone())], upgrade.as_str()),
            (vec![entry(2, raise), unreadable.clone()], &upgrade),
            // Nothing explains this one.
            (vec![unreadable], "entry 1.2: "),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let directory: Arc<dyn Directory> =
                Arc::new(FileDirectory::open(folder.path()).unwrap());
            let store = Store::open(directory.clone(), FIRST, StoreConfig::default()).unwrap();
            let mut machine = StoreMachine::new(store.clone(), directory, FIRST.to_owned(), None);
            let committed = |(index, payload)| Committed {
                position: raft::Position { term: 1, index },
                payload: Some(payload),
                membership: None,
            };
            let first = committed((1, entry(1, found.clone())));
            machine.apply(vec![first]).unwrap();
            let group = (2..).zip(group).map(committed).collect();
            let error = machine.apply(group).unwrap_err();
            assert!(error.0.contains(says), "{error}");
            assert_eq!(store.position().index, 1, "nothing of the group is applied");
        }
    }

    #[test]
    fn a_pointer_that_leads_nowhere_is_damage_and_no_empty_state() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        assert_eq!(current_database(&directory).unwrap(), FIRST);
        let options = DiskOptions::without_wal();
        directory.open("received-07", &options).unwrap();
        directory.write_file(POINTER, b"received-07").unwrap();
        assert_eq!(current_database(&directory).unwrap(), "received-07");
        // As it was written before there was a checksum, with a bit flipped and without.
        let pointer = folder.path().join(POINTER);
        std::fs::write(&pointer, "received-07").unwrap();
        assert_eq!(current_database(&directory).unwrap(), "received-07");
        for bad in [
            &b"received-06"[..],
            b"received-\xb07",
            b"",
            b"received-07\0",
        ] {
            std::fs::write(&pointer, bad).unwrap();
            let error = current_database(&directory).unwrap_err();
            assert!(error.is_corrupt(), "{bad:?}: {error}");
            assert!(error.to_string().contains(POINTER), "{bad:?}: {error}");
        }
    }
}
