//! A machine that keeps every payload it was given under its position, on a real disk.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raft::{Applied, Committed, Machine, MachineError, Position};
use seams::{Batch, Directory, Disk, DiskOptions, Order, Range, Synced};

pub const POINTER: &str = "machine";

/// What a test may look at from outside.
#[derive(Clone, Default)]
pub struct Seen {
    pub disk: Arc<Mutex<Option<Arc<dyn Disk>>>>,
    /// Fails the next apply.
    pub fail: Arc<Mutex<bool>>,
    /// Fails at the end of the next installation of a snapshot.
    pub fail_installed: Arc<Mutex<bool>>,
}

impl Seen {
    /// All payloads applied, in the order of the log.
    pub fn payloads(&self) -> Vec<Bytes> {
        let disk = self.disk.lock().unwrap().clone().unwrap();
        let pairs = disk
            .scan(&Range::prefix("p/"), Order::Ascending, usize::MAX)
            .unwrap();
        pairs.into_iter().map(|(_, payload)| payload).collect()
    }
}

pub struct Keeper {
    directory: Arc<dyn Directory>,
    name: String,
    disk: Arc<dyn Disk>,
    flushed: Option<u64>,
    seen: Seen,
}

impl Keeper {
    pub fn open(directory: Arc<dyn Directory>, seen: Seen) -> Self {
        let name = directory
            .read_file(POINTER)
            .unwrap()
            .map_or("state".into(), |name| String::from_utf8(name).unwrap());
        let disk = directory.open(&name, &DiskOptions::without_wal()).unwrap();
        *seen.disk.lock().unwrap() = Some(disk.clone());
        Self {
            directory,
            name,
            disk,
            flushed: None,
            seen,
        }
    }

    fn position(&self) -> Option<Position> {
        let bytes = self.disk.get(b"m/position").unwrap()?;
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        Some(Position {
            term: number(0),
            index: number(8),
        })
    }
}

impl Machine for Keeper {
    fn applied(&self) -> Result<Applied, MachineError> {
        let membership = self.disk.get(b"m/membership")?.unwrap_or_default();
        Ok(Applied {
            position: self.position(),
            membership,
        })
    }

    fn apply(&mut self, group: Vec<Committed>) -> Result<(), MachineError> {
        if std::mem::take(&mut *self.seen.fail.lock().unwrap()) {
            return Err(MachineError("as the test wants".to_owned()));
        }
        let mut batch = Batch::new();
        for committed in group {
            let Position { term, index } = committed.position;
            if let Some(before) = self.position() {
                assert!(before.index < index, "applied twice or out of order");
            }
            if let Some(payload) = committed.payload {
                batch.put([b"p/", &index.to_be_bytes()[..]].concat(), payload);
            }
            if let Some(membership) = committed.membership {
                batch.put(&b"m/membership"[..], membership);
            }
            batch.put(
                &b"m/position"[..],
                [term.to_be_bytes(), index.to_be_bytes()].concat(),
            );
        }
        Ok(self.disk.write(batch, Synced::No)?)
    }

    fn takes_at_once(&self) -> bool {
        self.disk.takes_at_once()
    }

    fn database(&self) -> String {
        self.name.clone()
    }

    fn clock_ms(&self) -> u64 {
        0
    }

    fn flush(&mut self) -> Result<(), MachineError> {
        let at = self.position().map(|position| position.index);
        self.disk.flush()?;
        self.flushed = at;
        Ok(())
    }

    fn flushed(&self) -> Option<u64> {
        self.flushed
    }

    fn checkpoint(&mut self, into: &str) -> Result<(), MachineError> {
        Ok(self.disk.checkpoint(into)?)
    }

    fn install(&mut self, from: &str) -> Result<(), MachineError> {
        let disk = self.directory.open(from, &DiskOptions::without_wal())?;
        self.directory.write_file(POINTER, from.as_bytes())?;
        let old = std::mem::replace(&mut self.name, from.to_owned());
        *self.seen.disk.lock().unwrap() = Some(disk.clone());
        self.disk = disk;
        if std::mem::take(&mut *self.seen.fail_installed.lock().unwrap()) {
            return Err(MachineError("as the test wants".to_owned()));
        }
        self.directory.remove(&old)?;
        Ok(())
    }
}
