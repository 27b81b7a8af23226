//! What a start reads follows what lives, and not what was.

use crate::folder::{Faults, FaultyDirectory, Kept, directory};
use crate::language::*;
use eventstore::Proposal;
use eventstore_disk::StoreConfig;
use seams::Directory;
use std::collections::BTreeMap;
use std::sync::Arc;

const OBJECTS: u128 = 100;
const WARM: usize = 50;

fn write(living: u128, number: u128) -> Proposal {
    let name = format!("map-{}", number % living);
    objects(2 + number, vec![put(&map(&name), &number.to_string())])
}

/// Makes so many objects and changes of them; what a start reads then, by the letter of the records.
fn read_by_a_start(living: u128, changes: u128) -> BTreeMap<char, u64> {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let directory: Arc<dyn Directory> = Arc::new(FaultyDirectory {
        inner: directory(folder.path()),
        faults: faults.clone(),
    });
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
    let mut read = faults.take_read();
    // Outcomes of the last 200,000 proposals are no history: they are kept, all of them, for those who ask again.
    let outcomes = read.remove(&'q').unwrap_or_default();
    assert!(outcomes <= changes as u64 + 2, "{outcomes}");
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
