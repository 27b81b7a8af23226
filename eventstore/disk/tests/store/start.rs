//! What a start reads follows what lives, and not what was.

use crate::folder::{Kept, faulty};
use crate::language::*;
use eventstore::Proposal;
use eventstore_disk::StoreConfig;
use std::collections::BTreeMap;
use std::fs;

const OBJECTS: u128 = 100;
const WARM: usize = 50;

fn write(living: u128, number: u128) -> Proposal {
    let name = format!("map-{}", number % living);
    objects(2 + number, vec![put(&map(&name), &number.to_string())])
}

/// Makes so many objects and changes of them; what a start reads then, by the letter of the records.
fn read_by_a_start(living: u128, changes: u128) -> BTreeMap<char, u64> {
    let folder = tempfile::tempdir().unwrap();
    let (faults, directory) = faulty(folder.path());
    let config = StoreConfig {
        most_warm: WARM,
        ..StoreConfig::default()
    };
    let mut kept = Kept::open(&directory, config.clone());
    for number in 0..changes {
        kept.take(write(living, number));
    }
    let before: Vec<_> = kept.store.view().objects().cloned().collect();
    kept.store.flush().unwrap();
    drop(kept);
    faults.take_read();
    let kept = Kept::open(&directory, config);
    let read = faults.take_read();
    let after: Vec<_> = kept.store.view().objects().cloned().collect();
    assert_eq!(before.len(), living as usize);
    assert_eq!(after, before);
    read
}

#[test]
fn twenty_times_the_history_is_no_more_to_read() {
    let once = read_by_a_start(OBJECTS, 5 * OBJECTS);
    let often = read_by_a_start(OBJECTS, 20 * 5 * OBJECTS);
    println!("{once:?}");
    assert_eq!(often, once);
    // Each object once, and the events behind the records of what lives.
    assert_eq!(once[&'v'], OBJECTS as u64);
    assert!(once[&'e'] < 2 * WARM as u64, "{once:?}");
    let all: u64 = once.values().sum();
    assert!(all <= 3 * OBJECTS as u64 + WARM as u64, "{once:?}");
}

/// Of so many the newest files are fetched before; of how many, the size of some tells.
#[test]
fn many_objects_are_read_once_and_some_for_their_size() {
    let living = 600;
    let read = read_by_a_start(living, 2 * living);
    let (living, sampled) = (living as u64, 32);
    assert!(read[&'v'] > living, "none was looked at: {read:?}");
    assert!(read[&'v'] <= living + sampled, "{read:?}");
}

/// A clean stop leaves what lives in one piece. What is right of it is not read from history; whatever else it is, the state is the same.
#[test]
fn what_a_stop_leaves_is_read_in_the_place_of_history() {
    const LIVING: u64 = 600;
    let folder = tempfile::tempdir().unwrap();
    let (faults, directory) = faulty(folder.path());
    let file = folder.path().join("living/versions");
    let mut kept = Kept::open(&directory, StoreConfig::default());
    let mut number = 0;
    while number < 2 * u128::from(LIVING) {
        kept.take(write(LIVING.into(), number));
        number += 1;
    }
    let flip = |at: usize| {
        let mut content = fs::read(&file).unwrap();
        content[at] ^= 1;
        fs::write(&file, content).unwrap();
    };
    let len = |part: u64| fs::metadata(&file).unwrap().len() / part;
    let shorten = |len: u64| {
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(len)
    };
    // what is done to it, how many versions are read from history (None: some), and how many are found damaged
    type Case<'a> = (&'a str, &'a dyn Fn(), Option<u64>, u64);
    let cases: [Case; 6] = [
        ("as it was left", &|| {}, Some(0), 0),
        ("a flipped bit", &|| flip(len(1) as usize - 1), Some(1), 1),
        ("half of it", &|| shorten(len(2)).unwrap(), None, 0),
        ("a length far too large", &|| flip(0), Some(LIVING + 32), 0),
        (
            "nothing in it",
            &|| shorten(0).unwrap(),
            Some(LIVING + 32),
            0,
        ),
        (
            "no such file",
            &|| fs::remove_file(&file).unwrap(),
            Some(LIVING + 32),
            0,
        ),
    ];
    for (what, damage, versions, damages) in cases {
        kept.store.flush().unwrap();
        kept.store.leave_living().unwrap();
        damage();
        let before: Vec<_> = kept.store.view().objects().cloned().collect();
        drop(kept);
        faults.take_read();
        kept = Kept::open(&directory, StoreConfig::default());
        let mut read = faults.take_read();
        let asked = ['c', 'e'].map(|letter| read.remove(&letter).unwrap_or_default());
        // Where it is whole the database is not asked for what lives; the changes before the stop are in its records.
        let unasked = versions == Some(0);
        assert_eq!(asked, [if unasked { 0 } else { LIVING }, 0], "{what}");
        let read = read.remove(&'v').unwrap_or_default();
        let after: Vec<_> = kept.store.view().objects().cloned().collect();
        assert_eq!(after, before, "{what}");
        assert!(
            versions.is_none_or(|versions| versions == read),
            "{what}: {read}"
        );
        assert!(read > 0 || what == "as it was left", "{what}");
        assert_eq!(kept.store.damages().found(), damages, "{what}");
        assert!(!file.exists(), "{what}: it is taken once");
    }

    // What changed after it was left is read from history.
    kept.store.leave_living().unwrap();
    kept.take(write(LIVING.into(), number));
    kept.store.flush().unwrap();
    let before: Vec<_> = kept.store.view().objects().cloned().collect();
    drop(kept);
    faults.take_read();
    let kept = Kept::open(&directory, StoreConfig::default());
    assert_eq!(faults.take_read()[&'v'], 1);
    let after: Vec<_> = kept.store.view().objects().cloned().collect();
    assert_eq!(after, before);
}
