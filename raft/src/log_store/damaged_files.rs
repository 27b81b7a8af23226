//! The log's real files, torn off at a byte or with a byte flipped, as a crash or a bad disk leaves them.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use seams::{Directory, DiskOptions, FileDirectory, ThreadRuntime};
use tempfile::TempDir;

use super::*;
use crate::types::{EntryPayload, Payload};

const ENTRIES: u64 = 6;
const SECTOR: usize = 512;

fn entry(index: u64) -> Entry {
    let payload = format!("payload {index} that says enough to be told from others");
    let payload = EntryPayload::Normal(Payload(Bytes::from(payload)));
    Entry {
        log_id: Position { term: 1, index }.into(),
        payload,
    }
}

fn open(folder: &Path) -> io::Result<LogStore> {
    let directory = FileDirectory::open(folder).unwrap();
    let disk = directory.open("log", &DiskOptions::with_wal());
    LogStore::open(disk.map_err(io::Error::other)?, &ThreadRuntime)
}

/// The one file that entries are in.
fn segment(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("log")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let mut segments = files.filter(|path| path.extension().is_some_and(|end| end == "segment"));
    let newest = segments.next().unwrap();
    assert_eq!(segments.next(), None);
    newest
}

/// What has been written to it: behind that it is filled with zeros, to the end of a sector too.
fn content(folder: &Path) -> Vec<u8> {
    let mut content = fs::read(segment(folder)).unwrap();
    let zeros = content.iter().rev().take_while(|byte| **byte == 0).count();
    content.truncate((content.len() - zeros).next_multiple_of(SECTOR));
    content
}

/// A log of entries, each synced by itself, and where in the file each of them ends.
async fn written() -> (TempDir, Vec<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    let mut ends = Vec::new();
    for index in 0..ENTRIES {
        let (sender, receiver) = Types::oneshot();
        log.append([entry(index)], IOFlushed::signal(sender))
            .await
            .unwrap();
        receiver.await.unwrap().unwrap();
        ends.push(content(folder.path()).len());
    }
    (folder, ends)
}

/// The same log with another content of that file.
fn with(folder: &Path, content: &[u8]) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    let name = segment(folder).file_name().unwrap().to_owned();
    fs::write(copy.path().join("log").join(name), content).unwrap();
    // So that no file is filled for the next segment.
    let spare = fs::File::create(copy.path().join("log/0.spare")).unwrap();
    spare.set_len(8 << 20).unwrap();
    copy
}

async fn entries(log: &mut LogStore) -> Vec<Entry> {
    log.try_get_log_entries(..).await.unwrap()
}

/// What was not synced may be torn, and nothing of it is read; what was, is all there.
#[tokio::test]
async fn a_torn_write_leaves_whole_entries() {
    let (folder, ends) = written().await;
    let content = content(folder.path());
    for len in (0..=content.len()).step_by(5).chain([content.len()]) {
        let torn = with(folder.path(), &content[..len]);
        let mut log = open(torn.path()).unwrap();
        let whole = ends.iter().filter(|end| **end <= len).count() as u64;
        let want: Vec<_> = (0..whole).map(entry).collect();
        assert_eq!(entries(&mut log).await, want, "torn off at {len}");
    }
}

/// It is no torn write, and is not taken for one: what stands behind it was acknowledged.
#[tokio::test]
async fn a_flipped_bit_is_never_read() {
    let (folder, ends) = written().await;
    let content = content(folder.path());
    for at in 0..content.len() {
        let mut bad = content.clone();
        bad[at] ^= 1 << (at * 5 % 8);
        let damaged = with(folder.path(), &bad);
        let Err(error) = open(damaged.path()) else {
            panic!("flipped at {at}, of records that end at {ends:?}: not seen");
        };
        let error = error.to_string();
        let named = error.contains("corrupt") && error.contains("/log/1.segment");
        assert!(named, "flipped at {at}: {error}");
    }
}
