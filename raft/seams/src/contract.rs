//! The disk's contract as a test that every side of it must pass: RocksDB here, the simulated disk in `simulations`.
//!
//! What a crash does is not in here: it can't be done to RocksDB in one process, and the simulation checks its own. These
//! functions panic where the contract is broken.

#![allow(
    clippy::unwrap_used,
    reason = "a test suite, which panics to say that the contract is broken"
)]

use std::collections::BTreeMap;

use crate::disk::{Batch, Directory, Disk, DiskOptions, Order, Range, Reader, Synced};

/// All that is asked of a database, with a WAL and without, and with keys apart.
pub fn disk(directory: &dyn Directory) {
    for (name, options) in [
        ("with-wal", DiskOptions::with_wal()),
        ("without-wal", DiskOptions::without_wal()),
        ("in-order", DiskOptions::without_wal().in_order(b"ars")),
    ] {
        let disk = directory.open(name, &options).unwrap();
        reads_what_was_written(&*disk);
        later_operations_win(&*disk);
        scans_both_ways(&*disk);
        a_view_stands_still(&*disk);
        what_is_forgotten_takes_nothing_else(&*disk);
        let all = content(&*disk);
        disk.flush().unwrap();
        drop(disk);
        let again = directory.open(name, &options).unwrap();
        assert_eq!(content(&*again), all, "{name}: opened again");
        drop(again);
        directory.remove(name).unwrap();
        assert!(!directory.exists(name).unwrap());
    }
    checkpoints_are_copies(directory, &DiskOptions::with_wal());
    checkpoints_are_copies(directory, &DiskOptions::without_wal());
    checkpoints_are_copies(directory, &DiskOptions::without_wal().in_order(b"a"));
}

/// All that is asked of a directory besides its databases.
pub fn directory(directory: &dyn Directory) {
    assert_eq!(directory.read_file("small").unwrap(), None);
    directory.write_file("small", b"one").unwrap();
    directory.write_file("small", b"two").unwrap();
    assert_eq!(
        directory.read_file("small").unwrap().as_deref(),
        Some(&b"two"[..])
    );
    assert!(
        !directory.exists("small").unwrap(),
        "a small file is not a database"
    );

    directory.remove("nothing-there").unwrap();
    directory.append_at("copy", "a", 0, b"thrown away").unwrap();
    directory.append_at("copy", "a", 0, b"01234").unwrap();
    directory.append_at("copy", "a", 5, b"56789").unwrap();
    assert!(
        directory.append_at("copy", "a", 3, b"x").is_err(),
        "not at its end"
    );
    directory.sync("copy").unwrap();
    assert_eq!(directory.read_at("copy", "a", 3, 4).unwrap(), "3456");
    assert_eq!(directory.read_at("copy", "a", 8, 4).unwrap(), "89");
    assert_eq!(directory.read_at("copy", "a", 10, 4).unwrap(), "");
    let files: Vec<_> = directory
        .files("copy")
        .unwrap()
        .into_iter()
        .map(|file| (file.name, file.len))
        .collect();
    assert_eq!(files, [("a".to_owned(), 10)]);
    assert!(directory.list().unwrap().contains(&"copy".to_owned()));
    directory.remove("copy").unwrap();
    assert!(!directory.list().unwrap().contains(&"copy".to_owned()));
}

fn put(pairs: &[(&'static str, &'static str)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(*key, *value);
    }
    batch
}

/// All that can be read.
pub(crate) fn content(reader: &(impl Reader + ?Sized)) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let pairs = reader.iterate(&Range::all(), Order::Ascending).unwrap();
    pairs
        .map(|pair| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .unwrap()
        })
        .collect()
}

fn keys(reader: &(impl Reader + ?Sized), range: &Range, order: Order, limit: usize) -> Vec<String> {
    let pairs = reader.scan(range, order, limit).unwrap();
    pairs
        .into_iter()
        .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

fn reads_what_was_written(disk: &dyn Disk) {
    disk.write(put(&[("a", "1"), ("b", "2")]), Synced::Yes)
        .unwrap();
    disk.write(put(&[("c", "")]), Synced::No).unwrap();
    disk.write(Batch::new(), Synced::Yes).unwrap();
    assert_eq!(disk.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(
        disk.get(b"c").unwrap().as_deref(),
        Some(&b""[..]),
        "empty is not absent"
    );
    assert_eq!(disk.get(b"x").unwrap(), None);
    let many = disk.multi_get(&[b"b", b"x", b"a"]).unwrap();
    assert_eq!(
        many.iter().map(Option::as_deref).collect::<Vec<_>>(),
        [Some(&b"2"[..]), None, Some(&b"1"[..])]
    );
}

fn later_operations_win(disk: &dyn Disk) {
    let mut batch = put(&[("a", "3"), ("r1", "x"), ("r2", "x"), ("r3", "x")]);
    batch.delete("a");
    batch.delete_range("r1", "r3");
    batch.put("r2", "y");
    disk.write(batch, Synced::Yes).unwrap();
    assert_eq!(disk.get(b"a").unwrap(), None);
    assert_eq!(
        keys(disk, &Range::prefix("r"), Order::Ascending, 9),
        ["r2", "r3"]
    );
    assert_eq!(disk.get(b"r2").unwrap().as_deref(), Some(&b"y"[..]));
}

fn scans_both_ways(disk: &dyn Disk) {
    disk.write(
        put(&[("s/a", ""), ("s/b", ""), ("s/c", ""), ("s0", ""), ("t", "")]),
        Synced::Yes,
    )
    .unwrap();
    let check = |range: Range, order, limit, want: &[&str]| {
        assert_eq!(
            keys(disk, &range, order, limit),
            want,
            "{range:?} {order:?} {limit}"
        );
    };
    check(
        Range::prefix("s/"),
        Order::Ascending,
        9,
        &["s/a", "s/b", "s/c"],
    );
    check(
        Range::prefix("s/"),
        Order::Descending,
        9,
        &["s/c", "s/b", "s/a"],
    );
    check(Range::prefix("s/"), Order::Descending, 1, &["s/c"]);
    check(
        Range::new("s/b", "t"),
        Order::Ascending,
        9,
        &["s/b", "s/c", "s0"],
    );
    check(Range::new("s/b", "t"), Order::Ascending, 2, &["s/b", "s/c"]);
    check(Range::new("s/b", "t"), Order::Ascending, 0, &[]);
    check(
        Range {
            from: b"s0".to_vec(),
            to: None,
        },
        Order::Descending,
        9,
        &["t", "s0"],
    );
    check(Range::new("u", "v"), Order::Ascending, 9, &[]);
}

fn a_view_stands_still(disk: &dyn Disk) {
    let view = disk.view().unwrap();
    let before = content(disk);
    disk.write(put(&[("b", "later"), ("zz", "later")]), Synced::No)
        .unwrap();
    assert_eq!(content(&*view), before);
    assert_eq!(view.get(b"zz").unwrap(), None);
    assert_eq!(
        view.multi_get(&[b"b", b"zz"]).unwrap()[0].as_deref(),
        Some(&b"2"[..])
    );
    assert_eq!(disk.get(b"b").unwrap().as_deref(), Some(&b"later"[..]));
}

fn what_is_forgotten_takes_nothing_else(disk: &dyn Disk) {
    let before = content(disk);
    let mut batch = put(&[("ra/1", "x"), ("ra/2", "x"), ("ra/3", "x")]);
    batch.forget("ra/", "ra/3");
    batch.put("rb", "y");
    disk.write(batch, Synced::Yes).unwrap();
    disk.reclaim().unwrap();
    let mut after = content(disk);
    assert_eq!(after.remove(&b"ra/3"[..]).as_deref(), Some(&b"x"[..]));
    assert_eq!(after.remove(&b"rb"[..]).as_deref(), Some(&b"y"[..]));
    after.retain(|key, _| !key.starts_with(b"ra/"));
    assert_eq!(after, before);
}

fn checkpoints_are_copies(directory: &dyn Directory, options: &DiskOptions) {
    let disk = directory.open("first", options).unwrap();
    disk.write(put(&[("a", "1"), ("b", "2")]), Synced::No)
        .unwrap();
    disk.checkpoint("second").unwrap();
    assert!(disk.checkpoint("second").is_err(), "it is there already");
    disk.write(put(&[("a", "later")]), Synced::No).unwrap();

    // Read file by file and put together again elsewhere, as a snapshot travels.
    for file in directory.files("second").unwrap() {
        let mut offset = 0;
        while offset < file.len || file.len == 0 {
            let chunk = directory
                .read_at("second", &file.name, offset, 100_000)
                .unwrap();
            directory
                .append_at("third", &file.name, offset, &chunk)
                .unwrap();
            offset += chunk.len() as u64;
            if file.len == 0 {
                break;
            }
        }
    }
    directory.sync("third").unwrap();
    for copy in ["second", "third"] {
        let opened = directory.open(copy, options).unwrap();
        assert_eq!(
            opened.get(b"a").unwrap().as_deref(),
            Some(&b"1"[..]),
            "{copy}"
        );
        opened.write(put(&[("a", copy)]), Synced::Yes).unwrap();
        drop(opened);
        directory.remove(copy).unwrap();
    }
    assert_eq!(
        disk.get(b"a").unwrap().as_deref(),
        Some(&b"later"[..]),
        "the copies are on their own"
    );
    drop(disk);
    directory.remove("first").unwrap();
}
