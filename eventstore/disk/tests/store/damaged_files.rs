//! The real files of current state, history and snapshots, with a bit flipped or the end torn off: an error that says what it is about,
//! or the same history as before, and never another one.

use crate::folder::{Kept, crash_image, directory};
use crate::language::*;
use eventstore_disk::{Store, StoreConfig};
use std::fs;
use std::path::{Path, PathBuf};

/// Two flushes, so that there is more than one table, and a snapshot of it all.
fn written(folder: &Path) {
    let mut kept = Kept::open(&directory(folder), StoreConfig::default());
    for number in 2..=12 {
        let name = format!("m{}", number % 4);
        let value = format!("{number}").repeat(40);
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
    let (mut refused, mut unharmed, mut older) = (0, 0, 0);
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
            let file_name = file.file_name().unwrap();
            fs::write(copy.path().join(name).join(file_name), bad).unwrap();
            let what = format!("{} {how}", file_name.display());
            match read(copy.path(), name) {
                // It says which database or file, and where in it.
                Err(error) => {
                    refused += 1;
                    assert!(error.contains(name), "{what}: {error}");
                }
                Ok(read) if read == good => unharmed += 1,
                // The record of the last flush is the last of the MANIFEST: torn, it never was. The Raft log is kept from the flush
                // before on, and is applied again.
                Ok((revision, _)) => {
                    older += 1;
                    let manifest = file_name.to_str().unwrap().starts_with("MANIFEST");
                    assert!(manifest && revision < 12, "{what}: reads another history");
                }
            }
        }
    }
    println!("{name}: {refused} refused, {unharmed} unharmed, {older} as of before the last flush");
    assert!(refused > 40);
}

#[test]
fn damaged_state_is_never_served() {
    damaged("state");
}

#[test]
fn a_damaged_snapshot_is_never_served() {
    damaged("snapshot");
}
