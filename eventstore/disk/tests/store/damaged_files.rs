//! The real files of current state, history and snapshots, with a bit flipped or the end torn off: an error that names the file, and what
//! should have stood there, or the same history as before, and never another one.

use crate::folder::{Kept, crash_image, directory};
use crate::language::*;
use eventstore_disk::{Store, StoreConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Two flushes, so that there is more than one table, and a snapshot of it all. Objects that lie beside their keys, and larger ones that lie in
/// a file of their own.
fn written(folder: &Path) {
    let mut kept = Kept::open(&directory(folder), StoreConfig::default());
    for number in 2..=12 {
        let name = format!("m{}", number % 4);
        let value = format!("{number}").repeat(if number % 2 == 0 { 40 } else { 600 });
        kept.take(objects(
            u128::from(number as u64),
            vec![put(&map(&name), &value)],
        ));
        if number == 6 {
            kept.store.flush().unwrap();
        }
    }
    kept.store.flush().unwrap();
    kept.store.checkpoint("snapshot").unwrap();
}

/// All of it, read the ways a server does: what is current at the start, all events, every version of every object.
fn read(folder: &Path, name: &str) -> Result<(u64, Vec<String>), String> {
    let store = Store::open(directory(folder), name, StoreConfig::default())
        .map_err(|error| error.to_string())?;
    let view = store.view();
    let mut said = Vec::new();
    for number in 0..4 {
        let key = map(&format!("m{number}"));
        let versions = store.history(&key, None, 99);
        for version in versions.map_err(|error| error.to_string())? {
            said.push(format!("{version:?}"));
        }
        let now = store.object_at(&key, view.revision);
        said.push(format!("{:?}", now.map_err(|error| error.to_string())?));
    }
    for revision in 1..=view.revision {
        let event = store.event_at(revision);
        said.push(format!("{:?}", event.map_err(|error| error.to_string())?));
    }
    let verified = store.verify(0..=u64::MAX, |_| {});
    verified.map_err(|error| error.to_string())?;
    Ok((view.revision, said))
}

fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join(name)).unwrap();
    let files = files.map(|file| file.unwrap().path());
    // What RocksDB writes for people, and its lock, are not read.
    let mut files: Vec<_> = files
        .filter(|path| !["LOG", "LOCK"].contains(&path.file_name().unwrap().to_str().unwrap()))
        .collect();
    files.sort();
    files
}

fn damaged(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let good = read(folder.path(), name).unwrap();
    assert_eq!(good.0, 12);
    // What was there before it was opened again.
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let (mut unharmed, mut older) = (0, 0);
    for file in files(folder.path(), name) {
        let content = fs::read(&file).unwrap();
        let step = (content.len() / 40).max(1);
        let flips = (0..content.len()).step_by(step).map(|at| {
            let mut bad = content.clone();
            bad[at] ^= 0x04;
            (format!("flipped at {at}"), bad)
        });
        let cuts = (0..content.len())
            .step_by(step * 4)
            .map(|len| (format!("torn off at {len}"), content[..len].to_vec()));
        for (how, bad) in flips.chain(cuts) {
            let copy = tempfile::tempdir().unwrap();
            crash_image(folder.path(), copy.path());
            let file_name = file.file_name().unwrap().to_str().unwrap();
            let path = copy.path().join(name).join(file_name);
            fs::write(&path, bad).unwrap();
            let what = format!("{file_name} {how} of {}", content.len());
            match read(copy.path(), name) {
                Err(error) => {
                    let kind = file_name.split(['-', '.']).next_back().unwrap();
                    *refused.entry(kind.to_owned()).or_default() += 1;
                    let named = error.contains(&path.display().to_string());
                    // What a table says of itself has no checksum when it is opened, and RocksDB only sees that it makes no sense.
                    let by_sense = file_name.ends_with(".sst") && error.contains("properties");
                    assert!(named || by_sense, "{what}: {error}");
                    assert!(error.contains("corrupt"), "{what}: {error}");
                }
                // Where nothing of it is: a filter, what RocksDB notes of itself.
                Ok(read) if read == good => unharmed += 1,
                // The record of the last flush is the last of the MANIFEST: torn, it never was. The Raft log is kept from the flush
                // before on until there is a snapshot of this one, and one of both is gone back to.
                Ok((revision, said)) => {
                    older += 1;
                    let manifest = file_name.starts_with("MANIFEST") && how.starts_with("torn");
                    assert!(manifest && revision < 12, "{what}: reads another history");
                    let before = revision == 0 || good.1.contains(said.last().unwrap());
                    assert!(before, "{what}: {said:?} never was");
                }
            }
        }
    }
    println!(
        "{name}: refused {refused:?}, {unharmed} unharmed, {older} as of before the last flush"
    );
    assert!(refused["sst"] > 40 && refused["blob"] > 40, "{refused:?}");
}

#[test]
fn damaged_state_is_never_served() {
    damaged("state");
}

#[test]
fn a_damaged_snapshot_is_never_served() {
    damaged("snapshot");
}

/// What is read by its revision: the file it is in, and which it is.
#[test]
fn what_can_not_be_read_of_the_past_is_named_by_file_and_revision() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let mut names = BTreeSet::new();
    // Every read is of the file.
    let mut uncached = StoreConfig::default();
    uncached.disk.cache_bytes = 0;
    for file in files(folder.path(), "state") {
        let file_name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if !file_name.ends_with(".sst") && !file_name.ends_with(".blob") {
            continue;
        }
        let content = fs::read(&file).unwrap();
        for at in (30..content.len() / 2).step_by(16) {
            let copy = tempfile::tempdir().unwrap();
            crash_image(folder.path(), copy.path());
            let path = copy.path().join("state").join(&file_name);
            let store = Store::open(directory(copy.path()), "state", uncached.clone()).unwrap();
            // While it runs: what lives is in memory, and what was is not.
            let mut bad = content.clone();
            bad[at] ^= 0x04;
            fs::write(&path, bad).unwrap();
            let mut first = None;
            for revision in 2..=12 {
                let key = map(&format!("m{}", revision % 4));
                let event = store.event_at(revision).map(drop);
                let object = store.object_at(&key, revision).map(drop);
                for error in [event.err(), object.err()].into_iter().flatten() {
                    let error = error.to_string();
                    let what = format!("{file_name} flipped at {at}, revision {revision}: {error}");
                    assert!(error.contains(&path.display().to_string()), "{what}");
                    // Its own, or that of the version before, which an event shows too.
                    let before = revision - revision.min(4);
                    let of = |revision: u64| error.contains(&format!("revision {revision}:"));
                    assert!(of(revision) || of(before), "{what}");
                    names.insert(file_name.clone());
                    first.get_or_insert(error);
                }
            }
            // The server knows of it from then on.
            let damages = store.damages();
            assert_eq!(damages.first(), first);
            assert_eq!(damages.found() > 0, first.is_some());
        }
    }
    let of_kind = |kind: &str| names.iter().filter(|name| name.ends_with(kind)).count();
    assert!(of_kind(".sst") > 0 && of_kind(".blob") > 0, "{names:?}");
}
