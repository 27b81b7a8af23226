//! Snapshots: checkpoints of the machine's database, the newest only, and those on their way in.
//!
//! A pointer file names the newest, written and synced after the checkpoint is whole; what it does not name is rubbish
//! and goes at the next start. One that has been replaced stays until the last transfer of it has ended. One that is
//! received is put together in a database of its own, chunk by chunk, each verified by its SHA-256, and is handed to the
//! machine only when every file is complete and synced. All of it is read by its sender first: what is damaged is never sent. The Raft log never travels, for a vote must not.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest as of};
use bytes::Bytes;
use seams::{Damages, Directory, DiskError, FileInfo};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::codec::{self, FlatStoredMembership};
use crate::types::{LogId, Position, SnapshotMeta};

/// Names the newest snapshot.
const POINTER_FILE: &str = "snapshot";
const TAKEN_PREFIX: &str = "snapshot-";
const RECEIVED_PREFIX: &str = "received-";
/// A chunk on its way, well below [`seams::MESSAGE_BYTES_MAX`].
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// A damaged snapshot is replaced at once, and by then not before so long.
const RETAKE_EVERY: Duration = Duration::from_secs(60);
/// Files of one snapshot: a thousand times what RocksDB makes of a large cluster.
const FILES_MAX: usize = 100_000;
/// So many transfers are known again: a message is late by far fewer.
const BEGUN_MAX: usize = 64;

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
    damages: Arc<Damages>,
}

#[derive(Default)]
struct State {
    current: Option<(SnapshotMeta, Snapshot)>,
    incoming: Option<Incoming>,
    /// The names of those that have begun here, and of the database that the machine had at the start; the newest first.
    begun: VecDeque<String>,
    /// When another was last taken in the place of a damaged one.
    retaken: Option<Instant>,
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
    /// Somebody has read all of it, and it was not what was written.
    damaged: AtomicBool,
}

impl Snapshot {
    fn new(directory: &Arc<dyn Directory>, name: String, obsolete: bool) -> Self {
        let held = Held {
            directory: directory.clone(),
            name,
            obsolete: AtomicBool::new(obsolete),
            damaged: AtomicBool::default(),
        };
        Self {
            held: Arc::new(held),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.held.name
    }

    fn is_damaged(&self) -> bool {
        self.held.damaged.load(Ordering::Acquire)
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
            begun: VecDeque::from([machine.to_owned()]),
            ..State::default()
        };
        Ok(Self {
            directory,
            state: Arc::new(Mutex::new(state)),
            damages: Arc::default(),
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

    /// What was found damaged of those that were to be sent.
    pub(crate) fn damages(&self) -> &Arc<Damages> {
        &self.damages
    }

    /// Whether another is to be taken in the place of the newest, which is damaged. One that is taken of damaged files is no better: so
    /// it is tried now and then.
    pub(crate) fn must_be_retaken(&self, snapshot: &Snapshot) -> bool {
        let mut state = self.lock();
        let due = state
            .retaken
            .is_none_or(|retaken| retaken.elapsed() >= RETAKE_EVERY);
        if !snapshot.is_damaged() || !due {
            return false;
        }
        state.retaken = Some(Instant::now());
        true
    }

    /// Reads all of a snapshot, right before it is sent or installed: who receives it reads what lives of it and not what was, and the
    /// digests on the way are those of what was read here. Blocks for as long as that takes.
    pub(crate) fn verify(&self, snapshot: &Snapshot) -> Result<(), DiskError> {
        let held = &snapshot.held;
        if snapshot.is_damaged() {
            let what = format!("snapshot {}", snapshot.name());
            return Err(DiskError::corrupt(what, "it was found so before"));
        }
        let verified = held.directory.verify(snapshot.name());
        verified.inspect_err(|error| {
            if error.is_corrupt() {
                held.damaged.store(true, Ordering::Release);
                self.damages.note(error);
            }
        })
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
        self.verify(snapshot)?;
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

    /// Begins to receive one, in place of any other that was under way. Each transfer begins once: a message that comes again, late, must
    /// not touch what has become the machine's database meanwhile.
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
        let mut state = self.lock();
        if state.incoming(transfer).is_ok() {
            return Ok(());
        }
        if state.begun.contains(&name) {
            return Err(io::Error::other(format!(
                "snapshot transfer {transfer:016x} has ended here"
            )));
        }
        state.begun.truncate(BEGUN_MAX - 1);
        state.begun.push_front(name.clone());
        let snapshot = Snapshot::new(&self.directory, name, true);
        let expected = files.into_iter().collect::<BTreeMap<_, _>>();
        let incoming = Incoming {
            transfer,
            meta,
            expected,
            received: BTreeMap::new(),
            snapshot,
        };
        let before = state.incoming.replace(incoming);
        drop(state);
        // With its files, while nobody waits for the lock.
        drop(before);
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
        let end = chunk.offset.saturating_add(chunk.content.len() as u64);
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

#[cfg(test)]
mod tests {
    use super::*;
    use seams::{Batch, DiskOptions, FileDirectory, Synced};
    use std::fs;
    use std::path::Path;

    const TRANSFER: u64 = 7;

    fn snapshots(folder: &Path) -> Snapshots {
        let directory = FileDirectory::open(folder).unwrap();
        Snapshots::open(Arc::new(directory), "state").unwrap()
    }

    fn meta() -> FlatMeta {
        (&SnapshotMeta::default()).into()
    }

    fn chunk(file: &str, offset: u64, content: &'static [u8]) -> Chunk {
        Chunk {
            transfer: TRANSFER,
            file: file.to_owned(),
            offset,
            sha256: digest(content),
            content: Bytes::from_static(content),
        }
    }

    #[test]
    fn a_chunk_that_is_not_what_was_announced_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = snapshots(folder.path());
        let files = vec![("a.sst".to_owned(), 8), ("b.blob".to_owned(), 3)];
        snapshots.receive(TRANSFER, meta(), files).unwrap();
        let refused = |chunk: Chunk, says: &str| {
            let error = snapshots.chunk(&chunk).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        let mut flipped = chunk("a.sst", 0, b"0123");
        flipped.content = Bytes::from_static(b"0133");
        refused(flipped, "a.sst at 0: its SHA-256 does not match");
        let mut other = chunk("a.sst", 0, b"0123");
        other.sha256[31] ^= 1;
        refused(other, "a.sst at 0: its SHA-256 does not match");
        let more = chunk("b.blob", 0, b"abcd");
        refused(more, "b.blob at 0: longer than announced");
        let far = chunk("b.blob", u64::MAX, b"abc");
        refused(far, "longer than announced");
        for name in ["c.sst", "../state", ""] {
            refused(chunk(name, 0, b"0"), "no file of this snapshot");
        }
        let mut unknown = chunk("a.sst", 0, b"0123");
        unknown.transfer += 1;
        refused(unknown, "is not under way here");
        refused(
            chunk("a.sst", 4, b"4567"),
            "0 bytes are there, and 4 should be",
        );

        // What was refused has left nothing. One file is whole, the other half, and then both are.
        snapshots.chunk(&chunk("b.blob", 0, b"abc")).unwrap();
        snapshots.chunk(&chunk("a.sst", 0, b"0123")).unwrap();
        let error = snapshots.received(TRANSFER).err().unwrap().to_string();
        assert_eq!(error, "a.sst is not complete: 8 bytes were announced");
        snapshots.chunk(&chunk("a.sst", 4, b"4567")).unwrap();
        let (_, received) = snapshots.received(TRANSFER).unwrap();
        let whole = folder.path().join(received.name());
        assert_eq!(fs::read(whole.join("a.sst")).unwrap(), b"01234567");
        assert_eq!(fs::read(whole.join("b.blob")).unwrap(), b"abc");
        // It is nobody's but ours until it is given away, and goes with us.
        drop(received);
        assert!(!whole.exists());
    }

    /// The message that begins it comes twice at once, and again when it has become the machine's database, and after the next start.
    #[test]
    fn a_transfer_begins_once_however_often_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let files = || vec![("a.sst".to_owned(), 4)];
        let begin = |snapshots: &Snapshots, transfer| snapshots.receive(transfer, meta(), files());
        let snapshots_before = snapshots(folder.path());
        begin(&snapshots_before, TRANSFER).unwrap();
        snapshots_before.chunk(&chunk("a.sst", 0, b"0123")).unwrap();
        begin(&snapshots_before, TRANSFER).unwrap();
        let (_, received) = snapshots_before.received(TRANSFER).unwrap();
        let name = received.name().to_owned();
        received.given_away();
        drop(received);
        let database = folder.path().join(&name);
        let late = |snapshots: &Snapshots| {
            let error = begin(snapshots, TRANSFER).unwrap_err().to_string();
            assert_eq!(error, "snapshot transfer 0000000000000007 has ended here");
            // Another takes the place of whatever was under way.
            begin(snapshots, TRANSFER + 1).unwrap();
            begin(snapshots, TRANSFER + 2).unwrap();
            assert!(database.exists());
        };
        late(&snapshots_before);
        drop(snapshots_before);
        let directory = FileDirectory::open(folder.path()).unwrap();
        late(&Snapshots::open(Arc::new(directory), &name).unwrap());
    }

    /// A checkpoint with small values beside their keys and large ones in a file of their own, none of which anybody has read.
    fn checkpoint(folder: &Path) -> (Snapshots, Snapshot) {
        let snapshots = snapshots(folder);
        let options = DiskOptions::without_wal().in_order(b"e");
        let disk = snapshots.directory.open("state", &options).unwrap();
        let mut batch = Batch::new();
        for number in 0..500_u32 {
            let key = |letter: &[u8]| [letter, &number.to_be_bytes()].concat();
            batch.put(key(b"e"), vec![number as u8; 100]);
            batch.put(key(b"v"), number.to_be_bytes().repeat(300));
        }
        disk.write(batch, Synced::Yes).unwrap();
        disk.checkpoint("snapshot-1-1").unwrap();
        let meta = SnapshotMeta::default();
        let snapshot = snapshots.publish(&meta, "snapshot-1-1".to_owned());
        (snapshots, snapshot.unwrap())
    }

    #[test]
    fn one_with_a_flipped_byte_is_not_sent_and_its_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (snapshots, snapshot) = checkpoint(folder.path());
        let files = snapshots.files(&snapshot).unwrap();
        let of_kind = |kind: &str| {
            files
                .iter()
                .filter(|file| file.name.ends_with(kind))
                .count()
        };
        assert!(of_kind(".sst") >= 2 && of_kind(".blob") >= 1, "{files:?}");
        snapshots.verify(&snapshot).unwrap();
        assert_eq!(snapshots.damages().found(), 0);

        let kept = |name: &str| name.ends_with(".sst") || name.ends_with(".blob");
        for file in files.iter().filter(|file| kept(&file.name)) {
            let path = folder.path().join(snapshot.name()).join(&file.name);
            let good = fs::read(&path).unwrap();
            for at in [40, good.len() / 3, good.len() / 2] {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                // In place of the file, which the database's own is a link to.
                fs::remove_file(&path).unwrap();
                fs::write(&path, &bad).unwrap();
                let again = Snapshot::new(&snapshots.directory, snapshot.name().to_owned(), false);
                let error = snapshots.verify(&again).unwrap_err();
                let what = format!("{} flipped at {at}: {error}", file.name);
                assert!(error.is_corrupt(), "{what}");
                assert!(error.to_string().contains(&file.name), "{what}");
                // It is not read again, and another is to be taken.
                assert!(snapshots.verify(&again).unwrap_err().is_corrupt());
                fs::write(&path, &good).unwrap();
            }
        }
        assert!(snapshots.damages().found() >= 6);
        snapshots.verify(&snapshot).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_damaged_is_taken_anew_at_once_and_then_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let (snapshots, snapshot) = checkpoint(folder.path());
        assert!(!snapshots.must_be_retaken(&snapshot));
        snapshot.held.damaged.store(true, Ordering::Release);
        assert!(snapshots.must_be_retaken(&snapshot));
        assert!(!snapshots.must_be_retaken(&snapshot));
        tokio::time::advance(RETAKE_EVERY).await;
        assert!(snapshots.must_be_retaken(&snapshot));
    }
}
