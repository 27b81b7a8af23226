//! Crashes and damage, done to the real files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::record::SECTOR;
use super::*;
use crate::DiskOptions;
use crate::contract::content;
use crate::rocks::Rocks;

const LOG: &str = "log";

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(parent: &Path) -> Result<Journal, DiskError> {
    Journal::open(parent, LOG)
}

fn put(key: &str, len: usize, byte: u8) -> Batch {
    let mut batch = Batch::new();
    batch.put(key.to_owned(), vec![byte; len]);
    batch
}

fn files(parent: &Path, kind: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(parent.join(LOG)).unwrap();
    let mut files: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == kind))
        .collect();
    files.sort();
    files
}

/// The same log with another content of its last segment.
fn with(parent: &Path, segment: &Path, content: &[u8]) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join(LOG)).unwrap();
    for file in files(parent, "segment") {
        let to = copy.path().join(LOG).join(file.file_name().unwrap());
        if file == segment {
            fs::write(to, content).unwrap();
        } else {
            fs::copy(file, to).unwrap();
        }
    }
    // So that no file is filled for nothing.
    let spare = fs::File::create(copy.path().join(LOG).join("0.spare")).unwrap();
    spare.set_len(SEGMENT_BYTES).unwrap();
    copy
}

/// A log in its first file, and one in a file that was used before. Each with the segment that is written.
fn logs() -> Vec<(TempDir, PathBuf, Journal)> {
    let new = tempfile::tempdir().unwrap();
    let log = open(new.path()).unwrap();
    let segment = files(new.path(), "segment").pop().unwrap();
    let used = tempfile::tempdir().unwrap();
    let again = open(used.path()).unwrap();
    // The same key again and again: nothing lives in the older segments.
    for round in 0..30 {
        again
            .write(put("large", 1 << 20, round), Synced::Yes)
            .unwrap();
    }
    again.write(put("large", 10, 0), Synced::Yes).unwrap();
    let current = lock(&again.writer).current().path.clone();
    let (at, bytes) = (lock(&again.writer).at as usize, fs::read(&current).unwrap());
    assert!(
        bytes[at..at + SECTOR] != [0; SECTOR],
        "{current:?} was not used before"
    );
    vec![(new, segment, log), (used, current, again)]
}

/// What was written, and some of what comes behind it: the rest of a segment says no more.
fn beginning(segment: &Path, end: usize) -> Vec<u8> {
    let mut content = fs::read(segment).unwrap();
    content.truncate(end + 4 * SECTOR);
    content
}

#[test]
fn a_crash_keeps_whole_records_up_to_the_last_sync_at_least() {
    for (folder, segment, log) in logs() {
        log.write(put("synced", 700, 1), Synced::Yes).unwrap();
        let synced = content(&log);
        let begin = lock(&log.writer).at as usize;
        // Not synced, of two sectors and of three.
        log.write(put("one", 700, 2), Synced::No).unwrap();
        let one = content(&log);
        log.write(put("two", 1_200, 3), Synced::No).unwrap();
        let two = content(&log);
        let end = lock(&log.writer).at as usize;
        drop(log);
        let whole = beginning(&segment, end);
        let sectors = (end - begin) / SECTOR;
        assert_eq!(sectors, 5);
        for there in 0..1_u32 << sectors {
            let mut torn = whole.clone();
            for sector in (0..sectors).filter(|sector| there & (1 << sector) == 0) {
                let at = begin + sector * SECTOR;
                // What lay there before: of a used file, some sector of it from elsewhere.
                let before = whole[end..end + SECTOR].to_vec();
                torn[at..at + SECTOR].copy_from_slice(&before);
            }
            let folder = with(folder.path(), &segment, &torn);
            let want = match there {
                0b11111 => &two,
                there if there & 0b11 == 0b11 => &one,
                _ => &synced,
            };
            for round in ["recovered", "and again"] {
                let log = open(folder.path()).unwrap();
                assert!(content(&log) == *want, "{segment:?} {there:b}: {round}");
            }
            // What is written on top is not confused with what was torn.
            let log = open(folder.path()).unwrap();
            log.write(put("after", 100, 4), Synced::Yes).unwrap();
            let want = content(&log);
            drop(log);
            assert!(content(&open(folder.path()).unwrap()) == want);
        }
    }
}

#[test]
fn what_was_synced_is_never_taken_for_torn() {
    for (folder, segment, log) in logs() {
        let mut begins = Vec::new();
        for number in 0..3 {
            begins.push(lock(&log.writer).at as usize);
            log.write(put(&format!("key {number}"), 700, number), Synced::Yes)
                .unwrap();
        }
        let end = lock(&log.writer).at as usize;
        drop(log);
        let whole = beginning(&segment, end);
        let before = whole[end..end + SECTOR].to_vec();
        // A disk that lost sectors of a record, though the next one was written after its sync.
        for begin in &begins[..2] {
            for sector in 0..2 {
                let mut lost = whole.clone();
                let at = begin + sector * SECTOR;
                lost[at..at + SECTOR].copy_from_slice(&before);
                refused(
                    &with(folder.path(), &segment, &lost),
                    &format!("lost at {at}"),
                );
            }
        }
        // A bit anywhere in what was written.
        for at in begins[0]..end {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at * 5 % 8);
            refused(
                &with(folder.path(), &segment, &flipped),
                &format!("flipped at {at}"),
            );
        }
    }
}

fn refused(folder: &TempDir, what: &str) {
    let Err(error) = open(folder.path()) else {
        panic!("{what}: not seen");
    };
    assert!(
        matches!(error, DiskError::Corrupt { .. }),
        "{what}: {error}"
    );
    let error = error.to_string();
    assert!(
        error.contains(".segment") && error.contains("the record at byte"),
        "{what}: {error}"
    );
}

#[test]
fn damage_after_the_start_is_seen_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    log.write(put("key", 2_000, 7), Synced::Yes).unwrap();
    let segment = files(folder.path(), "segment").pop().unwrap();
    let mut content = fs::read(&segment).unwrap();
    content[1_000] ^= 1;
    fs::write(&segment, content).unwrap();
    let error = log.get(b"key").unwrap_err();
    assert!(matches!(error, DiskError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("segment"), "{error}");
}

/// Against a plain map: values of all sizes, files that are used again and again, and starts in between.
#[test]
fn it_holds_what_was_written_through_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    let mut model = Content::new();
    let mut random = 11_u64;
    let mut below = |limit: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % limit
    };
    for step in 0..600 {
        let mut batch = Batch::new();
        for _ in 0..=below(3) {
            let key = vec![b'k', below(20) as u8];
            match below(8) {
                0 => {
                    model.remove(&key);
                    batch.delete(key);
                }
                1 => {
                    let to = vec![b'k', key[1] + 3];
                    model.retain(|other, _| *other < key || *other >= to);
                    batch.delete_range(key, to);
                }
                size => {
                    let len = if size == 2 { 1 << 20 } else { 64 * size };
                    let value = vec![below(256) as u8; below(len) as usize];
                    model.insert(key.clone(), value.clone());
                    batch.put(key, value);
                }
            }
        }
        // A mark that is written once, and has to be carried from file to file.
        if step == 0 {
            model.insert(b"mark".to_vec(), b"once".to_vec());
            batch.put("mark", "once");
        }
        let synced = if below(2) == 0 {
            Synced::Yes
        } else {
            Synced::No
        };
        log.write(batch, synced).unwrap();
        if step % 40 == 0 {
            assert!(content(&log) == model, "step {step}");
            drop(log);
            log = open(folder.path()).unwrap();
            assert!(content(&log) == model, "step {step}, opened again");
        }
    }
    let rolled = lock(&log.writer).current().number;
    let kept = files(folder.path(), "segment").len() + files(folder.path(), "spare").len();
    assert!(rolled > 6, "{rolled} segments were written");
    // At most 20 values of 1 MiB live.
    assert!(kept <= 7, "{kept} of {rolled} files are kept");
}

#[test]
fn a_record_larger_than_a_segment_gets_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let large = SEGMENT_BYTES as usize + 1_000;
    for (key, len) in [("a", 10), ("large", large), ("z", 10)] {
        log.write(put(key, len, 5), Synced::Yes).unwrap();
    }
    let want = content(&log);
    drop(log);
    let log = open(folder.path()).unwrap();
    assert!(content(&log) == want);
    // The first holds nothing any more: its one small value was carried.
    assert_eq!(files(folder.path(), "segment").len(), 2);
    // Its file is of no use for another.
    log.write(put("large", 10, 5), Synced::Yes).unwrap();
    for round in 0..3 {
        log.write(put("a", SEGMENT_BYTES as usize / 2, round), Synced::Yes)
            .unwrap();
    }
    let sizes = files(folder.path(), "segment")
        .into_iter()
        .chain(files(folder.path(), "spare"));
    for file in sizes {
        assert_eq!(
            fs::metadata(&file).unwrap().len(),
            SEGMENT_BYTES,
            "{file:?}"
        );
    }
}

/// As where a log is cut off below, and the server stops.
#[test]
fn what_little_is_left_of_much_holds_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    log.write(put("mark", 10, 1), Synced::Yes).unwrap();
    for number in 10..50 {
        log.write(
            put(&format!("entry-{number}"), 1 << 20, number),
            Synced::Yes,
        )
        .unwrap();
    }
    assert!(files(folder.path(), "segment").len() > 4);
    let mut batch = Batch::new();
    batch.delete_range("entry-10", "entry-48");
    log.write(batch, Synced::Yes).unwrap();
    let want = content(&log);
    assert_eq!(want.len(), 3);
    drop(log);
    assert!(files(folder.path(), "segment").len() <= 2);
    assert!(content(&open(folder.path()).unwrap()) == want);
}

#[test]
fn a_missing_segment_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    for number in 0..30 {
        log.write(put(&number.to_string(), 1 << 20, number), Synced::Yes)
            .unwrap();
    }
    drop(log);
    let segments = files(folder.path(), "segment");
    assert!(segments.len() > 3, "{segments:?}");
    fs::remove_file(&segments[1]).unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("segment 2 is missing"), "{error}");
}

#[test]
fn what_rocksdb_held_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let rocks = Rocks::open(folder.path(), LOG, &DiskOptions::with_wal()).unwrap();
    for number in 0..50_u8 {
        let mut batch = Batch::new();
        batch.put(vec![number], vec![number; 300_000]);
        rocks.write(batch, Synced::Yes).unwrap();
    }
    rocks.write(put("vote", 10, 1), Synced::Yes).unwrap();
    let want = content(&rocks);
    drop(rocks);
    // Broken off before its end, by whatever stopped it.
    fs::create_dir(folder.path().join(LOG).join("migrating")).unwrap();
    fs::write(folder.path().join(LOG).join("migrating/1.segment"), "x").unwrap();
    for round in 0..2 {
        let log = open(folder.path()).unwrap();
        assert!(content(&log) == want, "round {round}");
        let left = fs::read_dir(folder.path().join(LOG)).unwrap();
        for file in left {
            let path = file.unwrap().path();
            let own = ["segment", "spare"].map(Some);
            let kind = path.extension().map(|kind| kind.to_str().unwrap());
            assert!(
                own.contains(&kind) || path.ends_with("unfinished"),
                "{path:?}"
            );
        }
    }
    let log = open(folder.path()).unwrap();
    log.write(put("vote", 10, 2), Synced::Yes).unwrap();
    assert_eq!(log.get(b"vote").unwrap().unwrap(), vec![2; 10]);
}

/// Its own reader would take some damage for an end.
#[test]
fn what_rocksdb_held_is_taken_over_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let rocks = Rocks::open(folder.path(), LOG, &DiskOptions::with_wal()).unwrap();
    let (mut versions, mut ends) = (vec![content(&rocks)], vec![0]);
    let wal = files(folder.path(), "log").pop().unwrap();
    for number in 0..4 {
        let batch = put(&number.to_string(), 50, number);
        rocks.write(batch, Synced::Yes).unwrap();
        versions.push(content(&rocks));
        ends.push(fs::metadata(&wal).unwrap().len() as usize);
    }
    // As a server that was killed leaves them: closing it would change them.
    let copy = |written: &[u8]| {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join(LOG)).unwrap();
        for file in fs::read_dir(folder.path().join(LOG)).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, copy.path().join(LOG).join(path.file_name().unwrap())).unwrap();
        }
        fs::write(
            copy.path().join(LOG).join(wal.file_name().unwrap()),
            written,
        )
        .unwrap();
        copy
    };
    let whole = fs::read(&wal).unwrap();
    for len in 0..=whole.len() {
        let torn = copy(&whole[..len]);
        let want = ends.iter().rposition(|end| *end <= len).unwrap();
        assert!(
            content(&open(torn.path()).unwrap()) == versions[want],
            "torn off at {len}"
        );
    }
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at * 5 % 8);
        let damaged = copy(&bad);
        let error = open(damaged.path())
            .err()
            .unwrap_or_else(|| panic!("flipped at {at}: not seen"));
        assert!(
            matches!(error, DiskError::Corrupt { .. }),
            "flipped at {at}: {error}"
        );
        assert!(
            error.to_string().contains("/log"),
            "flipped at {at}: {error}"
        );
        assert!(
            files(damaged.path(), "segment").is_empty(),
            "flipped at {at}"
        );
    }
}
