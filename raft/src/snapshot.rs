//! Snapshots: checkpoints of the machine's database, the newest only, and those on their way in.
//!
//! A pointer file names the newest, written and synced after the checkpoint is whole; what it does not name is rubbish
//! and goes at the next start. One that has been replaced stays until the last transfer of it has ended. One that is
//! received is put together in a database of its own, chunk by chunk, each verified by its SHA-256, and is handed to the
//! machine only when every file is complete and synced. The Raft log never travels, for a vote must not.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest as of};
use bytes::Bytes;
use seams::{Directory, DiskError, FileInfo};
use serde::{Deserialize, Serialize};

use crate::codec::{self, FlatStoredMembership};
use crate::types::{LogId, Position, SnapshotMeta};

/// Names the newest snapshot.
const POINTER_FILE: &str = "snapshot";
const TAKEN_PREFIX: &str = "snapshot-";
const RECEIVED_PREFIX: &str = "received-";
/// A chunk on its way, well below [`seams::MESSAGE_BYTES_MAX`].
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Files of one snapshot: a thousand times what RocksDB makes of a large cluster.
const FILES_MAX: usize = 100_000;

pub(crate) type Digest32 = [u8; 32];

pub(crate) fn digest(content: &[u8]) -> Digest32 {
    let mut digest = Digest32::default();
    digest.copy_from_slice(of(&SHA256, content).as_ref());
    digest
}

/// The snapshots of this server; clones are handles on the same.
#[derive(Clone)]
pub(crate) struct Snapshots {
    directory: Arc<dyn Directory>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    current: Option<(SnapshotMeta, Snapshot)>,
    incoming: Option<Incoming>,
}

/// A snapshot that is kept as long as anyone holds this.
#[derive(Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

struct Held {
    directory: Arc<dyn Directory>,
    name: String,
    /// Nobody's pointer names it any more: it goes with its last holder.
    obsolete: AtomicBool,
}

impl Snapshot {
    fn new(directory: &Arc<dyn Directory>, name: String, obsolete: bool) -> Self {
        let held = Held {
            directory: directory.clone(),
            name,
            obsolete: AtomicBool::new(obsolete),
        };
        Self {
            held: Arc::new(held),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.held.name
    }

    /// It came from another server.
    pub(crate) fn is_received(&self) -> bool {
        self.held.name.starts_with(RECEIVED_PREFIX)
    }

    /// The database has become another's, who will remove it when it is no longer needed.
    pub(crate) fn given_away(&self) {
        self.held.obsolete.store(false, Ordering::Release);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if *self.obsolete.get_mut()
            && let Err(error) = self.directory.remove(&self.name)
        {
            // The next start removes it.
            tracing::warn!(%error, "an old snapshot stays");
        }
    }
}

/// What the pointer file says.
#[derive(Serialize, Deserialize)]
struct Pointer {
    name: String,
    meta: FlatMeta,
}

/// A snapshot's metadata, flat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FlatMeta {
    last: Option<Position>,
    membership: FlatStoredMembership,
}

impl From<&SnapshotMeta> for FlatMeta {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.map(Position::from),
            membership: (&meta.last_membership).into(),
        }
    }
}

impl TryFrom<FlatMeta> for SnapshotMeta {
    type Error = io::Error;

    fn try_from(flat: FlatMeta) -> io::Result<Self> {
        Ok(Self {
            last_log_id: flat.last.map(LogId::from),
            last_membership: flat.membership.try_into()?,
        })
    }
}

impl Snapshots {
    /// Finds the newest, and removes what a crash has left; the machine's own database may be one that was received.
    pub(crate) fn open(directory: Arc<dyn Directory>, machine: &str) -> io::Result<Self> {
        let mut current = None;
        if let Some(bytes) = directory
            .read_file(POINTER_FILE)
            .map_err(io::Error::other)?
        {
            let pointer: Pointer = codec::decode(&bytes).map_err(|error| {
                let what = format!("the file '{POINTER_FILE}'");
                io::Error::other(DiskError::corrupt(what, error.to_string()))
            })?;
            if directory.exists(&pointer.name).map_err(io::Error::other)? {
                let snapshot = Snapshot::new(&directory, pointer.name, false);
                current = Some((pointer.meta.try_into()?, snapshot));
            }
        }
        let kept = current
            .as_ref()
            .map(|(_, snapshot): &(SnapshotMeta, Snapshot)| snapshot.name().to_owned());
        for name in directory.list().map_err(io::Error::other)? {
            let taken = name.starts_with(TAKEN_PREFIX) && Some(&name) != kept.as_ref();
            let received = name.starts_with(RECEIVED_PREFIX) && name != machine;
            if taken || received {
                directory.remove(&name).map_err(io::Error::other)?;
            }
        }
        let state = State {
            current,
            incoming: None,
        };
        Ok(Self {
            directory,
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// What a checkpoint taken here is called.
    pub(crate) fn name_for(&self, position: Option<Position>) -> String {
        let position = position.unwrap_or_default();
        format!("{TAKEN_PREFIX}{}-{}", position.term, position.index)
    }

    /// Makes room for a checkpoint of this name, which a try before may have left.
    pub(crate) fn discard(&self, name: &str) -> Result<(), DiskError> {
        let mut state = self.lock();
        if let Some((_, current)) = state.current.take_if(|(_, current)| current.name() == name) {
            // The very same moment again: the old one has nothing that the new one will not have.
            current.given_away();
        }
        drop(state);
        self.directory.remove(name)
    }

    /// Makes a whole checkpoint the newest snapshot.
    pub(crate) fn publish(&self, meta: &SnapshotMeta, name: String) -> io::Result<Snapshot> {
        let pointer = Pointer {
            name: name.clone(),
            meta: meta.into(),
        };
        self.directory
            .write_file(POINTER_FILE, &codec::encode(&pointer))
            .map_err(io::Error::other)?;
        let snapshot = Snapshot::new(&self.directory, name, false);
        let before = self
            .lock()
            .current
            .replace((meta.clone(), snapshot.clone()));
        if let Some((_, before)) = before {
            before.held.obsolete.store(true, Ordering::Release);
        }
        Ok(snapshot)
    }

    pub(crate) fn current(&self) -> io::Result<Option<(SnapshotMeta, Snapshot)>> {
        Ok(self.lock().current.clone())
    }

    /// A snapshot's files, to be sent.
    pub(crate) fn files(&self, snapshot: &Snapshot) -> Result<Vec<FileInfo>, DiskError> {
        let mut files = snapshot.held.directory.files(snapshot.name())?;
        // What RocksDB writes for people, and its lock, are no part of the database.
        files.retain(|file| !file.name.starts_with("LOG") && file.name != "LOCK");
        Ok(files)
    }

    pub(crate) fn read(
        &self,
        snapshot: &Snapshot,
        file: &str,
        offset: u64,
    ) -> Result<Bytes, DiskError> {
        snapshot
            .held
            .directory
            .read_at(snapshot.name(), file, offset, CHUNK_BYTES)
    }

    /// A copy of a checkpoint, as if it had been received.
    pub(crate) fn copy(&self, snapshot: &Snapshot) -> Result<Snapshot, DiskError> {
        let name = format!("{RECEIVED_PREFIX}{}", snapshot.name());
        self.directory.remove(&name)?;
        let copy = Snapshot::new(&self.directory, name, true);
        for file in self.files(snapshot)? {
            let mut offset = 0;
            loop {
                let content = self.read(snapshot, &file.name, offset)?;
                self.directory
                    .append_at(copy.name(), &file.name, offset, &content)?;
                offset += content.len() as u64;
                if content.is_empty() || offset >= file.len {
                    break;
                }
            }
        }
        self.directory.sync(copy.name())?;
        Ok(copy)
    }

    /// Begins to receive one, in place of any other that was under way.
    pub(crate) fn receive(
        &self,
        transfer: u64,
        meta: FlatMeta,
        files: Vec<(String, u64)>,
    ) -> io::Result<()> {
        if files.len() > FILES_MAX {
            return Err(io::Error::other(format!(
                "{} files are too many for a snapshot",
                files.len()
            )));
        }
        let name = format!("{RECEIVED_PREFIX}{transfer:016x}");
        let snapshot = Snapshot::new(&self.directory, name, true);
        let expected = files.into_iter().collect::<BTreeMap<_, _>>();
        let incoming = Incoming {
            transfer,
            meta,
            expected,
            received: BTreeMap::new(),
            snapshot,
        };
        self.lock().incoming = Some(incoming);
        Ok(())
    }

    /// Takes the next chunk of a file.
    pub(crate) fn chunk(&self, chunk: &Chunk) -> io::Result<()> {
        let mut state = self.lock();
        let incoming = state.incoming(chunk.transfer)?;
        incoming.take(chunk, &*self.directory)
    }

    /// Ends receiving: all files are complete and synced.
    pub(crate) fn received(&self, transfer: u64) -> io::Result<(SnapshotMeta, Snapshot)> {
        let incoming = {
            let mut state = self.lock();
            state.incoming(transfer)?.complete()?;
            state.incoming.take().ok_or_else(|| unknown(transfer))?
        };
        self.directory
            .sync(incoming.snapshot.name())
            .map_err(io::Error::other)?;
        Ok((incoming.meta.try_into()?, incoming.snapshot))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn incoming(&mut self, transfer: u64) -> io::Result<&mut Incoming> {
        self.incoming
            .as_mut()
            .filter(|incoming| incoming.transfer == transfer)
            .ok_or_else(|| unknown(transfer))
    }
}

fn unknown(transfer: u64) -> io::Error {
    io::Error::other(format!(
        "snapshot transfer {transfer:016x} is not under way here"
    ))
}

/// A piece of a file on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) transfer: u64,
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) sha256: Digest32,
    pub(crate) content: Bytes,
}

/// A snapshot that is being received.
struct Incoming {
    transfer: u64,
    meta: FlatMeta,
    /// Name and length of each file.
    expected: BTreeMap<String, u64>,
    received: BTreeMap<String, u64>,
    snapshot: Snapshot,
}

impl Incoming {
    fn take(&mut self, chunk: &Chunk, directory: &dyn Directory) -> io::Result<()> {
        let refuse = |why: &str| {
            Err(io::Error::other(format!(
                "{} at {}: {why}",
                chunk.file, chunk.offset
            )))
        };
        let Some(len) = self.expected.get(&chunk.file) else {
            return refuse("no file of this snapshot");
        };
        if digest(&chunk.content) != chunk.sha256 {
            return refuse("its SHA-256 does not match");
        }
        let end = chunk.offset + chunk.content.len() as u64;
        if end > *len {
            return refuse("longer than announced");
        }
        directory
            .append_at(
                self.snapshot.name(),
                &chunk.file,
                chunk.offset,
                &chunk.content,
            )
            .map_err(io::Error::other)?;
        self.received.insert(chunk.file.clone(), end);
        Ok(())
    }

    fn complete(&self) -> io::Result<()> {
        match self
            .expected
            .iter()
            .find(|(file, len)| self.received.get(*file) != Some(len))
        {
            None => Ok(()),
            Some((file, len)) => Err(io::Error::other(format!(
                "{file} is not complete: {len} bytes were announced"
            ))),
        }
    }
}
