//! What RocksDB is made to do.

use std::thread;
use std::time::Duration;

use super::*;

/// Waits until nothing is flushed or compacted.
pub(super) fn rests(disk: &Rocks) {
    let busy = [
        "rocksdb.mem-table-flush-pending",
        "rocksdb.num-running-flushes",
        "rocksdb.compaction-pending",
        "rocksdb.num-running-compactions",
    ];
    let families = disk.families.of(&disk.db).all();
    let is_busy = |property: &&str| {
        families.iter().any(|family| {
            let value = disk.db.property_int_value_cf(*family, *property);
            value.unwrap() > Some(0)
        })
    };
    while busy.iter().any(is_busy) {
        thread::sleep(Duration::from_millis(5));
    }
}

/// A key for each number, in no order.
pub(super) fn numbered(number: u32) -> Vec<u8> {
    number.wrapping_mul(2_654_435_761).to_be_bytes().to_vec()
}

#[test]
fn many_keys_are_read_in_the_order_in_which_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Rocks::open(folder.path(), "state", &DiskOptions::without_wal()).unwrap();
    let mut batch = Batch::new();
    for number in (0..2_000_u32).filter(|number| !number.is_multiple_of(3)) {
        batch.put(numbered(number), number.to_be_bytes().to_vec());
    }
    disk.write(batch, Synced::No).unwrap();
    for count in [0, 1, 63, 64, 65, 512, 2_000] {
        let keys: Vec<_> = (0..count).map(numbered).collect();
        let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
        let expected = (0..count).map(|number: u32| {
            let value = Bytes::from(number.to_be_bytes().to_vec());
            (!number.is_multiple_of(3)).then_some(value)
        });
        let expected: Vec<_> = expected.collect();
        assert_eq!(disk.multi_get(&keys).unwrap(), expected, "{count} keys");
    }
}

#[test]
fn what_comes_in_no_order_is_written_again_as_often_as_it_grows_and_no_more() {
    const FLUSHES: u32 = 144;
    const EACH: u32 = 200;
    let folder = tempfile::tempdir().unwrap();
    let disk = Rocks::open(folder.path(), "state", &DiskOptions::without_wal()).unwrap();
    for flush in 0..FLUSHES {
        let mut batch = Batch::new();
        for number in flush * EACH..(flush + 1) * EACH {
            let key = numbered(number);
            // What can't be compressed, so that bytes count records.
            let value: Vec<u8> = (1..12)
                .flat_map(|part| numbered(number + (part << 20)))
                .collect();
            batch.put(key, value);
        }
        disk.write(batch, Synced::No).unwrap();
        disk.flush().unwrap();
        rests(&disk);
    }
    let written = disk.statistics();
    let times = written.compaction_bytes as f64 / written.flush_bytes as f64;
    // By levels it would be half of a dozen's part of the flushes: six times.
    assert!(times > 0.5 && times < 3.0, "{times} times");
    for number in 0..FLUSHES * EACH {
        assert!(
            disk.get(&numbered(number)).unwrap().is_some(),
            "{number} is gone"
        );
    }
}

#[test]
fn it_takes_at_once_what_no_buffer_waits_before() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        write_buffer_bytes: 256 << 10,
        // What is full takes seconds to be written.
        background_bytes_per_s: 64 << 10,
        ..DiskOptions::without_wal()
    };
    let disk = Rocks::open(folder.path(), "state", &options).unwrap();
    assert!(disk.takes_at_once());
    let mut at_once = 0;
    for number in 0..300_u32 {
        let mut batch = Batch::new();
        batch.put(number.to_be_bytes().to_vec(), vec![number as u8; 1_024]);
        disk.write(batch, Synced::No).unwrap();
        at_once += u32::from(disk.takes_at_once());
    }
    assert!((100..300).contains(&at_once), "{at_once} of 300");
    disk.flush().unwrap();
    assert!(disk.takes_at_once());
    // There each write is synced.
    let log = Rocks::open(folder.path(), "log", &DiskOptions::with_wal()).unwrap();
    assert!(!log.takes_at_once());
}
