//! Families: the keys of one first letter in files of their own.
//!
//! Keys that only grow, as events' do, need no compaction where they lie by themselves: each flushed file follows the one before, and
//! RocksDB moves it down as it is. Among keys in random places they would be written again with them. In a database of before they lie
//! there still, and are read there too.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io;
use std::iter::{Peekable, once};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, IteratorMode, Options, Snapshot};

use crate::disk::{DiskError, Order, Pair, Pairs, Range};

const DEFAULT: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
const PREFIX: &str = "letter-";

/// Those of one database.
#[derive(Clone)]
pub(super) struct Families(Arc<[Family]>);

struct Family {
    letter: u8,
    name: String,
    /// Keys of this letter lie among the others too.
    mixed: bool,
}

fn name_of(letter: u8) -> String {
    format!("{PREFIX}{letter:02x}")
}

fn letter_of(name: &str) -> Option<u8> {
    u8::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()
}

/// Opens a database with families for these letters, and for those that it has already. One that has others is refused: what is in
/// them belongs to the rest, and only a program that knows them can tell how.
pub(super) fn open(
    path: &Path,
    letters: &[u8],
    options: &Options,
    apart: &Options,
) -> Result<(DB, Families), DiskError> {
    let opening = format!("opening {}", path.display());
    // None where there is no database yet. What is wrong with one, opening it says.
    let there = DB::list_cf(options, path).unwrap_or_default();
    let known = |name: &str| {
        name == DEFAULT || letter_of(name).is_some_and(|letter| name_of(letter) == name)
    };
    let unknown: Vec<_> = there
        .iter()
        .map(String::as_str)
        .filter(|name| !known(name))
        .collect();
    if !unknown.is_empty() {
        let what = format!(
            "it has column families that this program does not know, {}: a later release has written it; start that release here, or \
             one after it",
            unknown.join(" and ")
        );
        return Err(DiskError::io(
            opening,
            io::Error::new(io::ErrorKind::Unsupported, what),
        ));
    }
    let failed = |error| super::translate(path, &opening, error);
    let letters: BTreeSet<u8> = there
        .iter()
        .filter_map(|name| letter_of(name))
        .chain(letters.iter().copied())
        .collect();
    let families = letters
        .iter()
        .map(|letter| ColumnFamilyDescriptor::new(name_of(*letter), apart.clone()));
    let default = ColumnFamilyDescriptor::new(DEFAULT, options.clone());
    let db =
        DB::open_cf_descriptors(options, path, once(default).chain(families)).map_err(failed)?;
    let families = letters.into_iter().map(|letter| {
        let range = Range::prefix([letter]);
        let among = db
            .iterator_opt(IteratorMode::Start, super::bounded(&range, None))
            .next()
            .transpose()?;
        Ok(Family {
            letter,
            name: name_of(letter),
            mixed: among.is_some(),
        })
    });
    let families = families.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok((db, Families(families.into())))
}

impl Families {
    pub fn of<'a>(&'a self, db: &'a DB) -> Handles<'a> {
        let handle = |name: &str| {
            db.cf_handle(name)
                .expect("a family is there from the opening on")
        };
        let families = self.0.iter();
        Handles {
            default: handle(DEFAULT),
            families: families
                .map(|family| (family, handle(&family.name)))
                .collect(),
        }
    }
}

/// The families of an open database.
pub(super) struct Handles<'a> {
    default: &'a ColumnFamily,
    families: Vec<(&'a Family, &'a ColumnFamily)>,
}

impl<'a> Handles<'a> {
    pub fn all(&self) -> Vec<&'a ColumnFamily> {
        let families = self.families.iter().map(|(_, handle)| *handle);
        families.chain(once(self.default)).collect()
    }

    /// Where a key is put.
    pub fn put(&self, key: &[u8]) -> &'a ColumnFamily {
        self.family(key).map_or(self.default, |(_, handle)| handle)
    }

    /// Where a key may be: the first that has it, has it as it was put last.
    pub fn find(&self, key: &[u8]) -> impl Iterator<Item = &'a ColumnFamily> + use<'a> {
        let family = self.family(key);
        let among = family.is_none_or(|(family, _)| family.mixed);
        let family = family.map(|(_, handle)| handle);
        family.into_iter().chain(among.then_some(self.default))
    }

    /// Where keys of a range may be, in the same order.
    pub fn span(&self, range: &Range) -> Vec<&'a ColumnFamily> {
        let overlapping = self.families.iter().filter(|(family, _)| {
            let letter = Range::prefix([family.letter]);
            range.to.as_ref().is_none_or(|to| *to > letter.from)
                && letter.to.is_none_or(|to| range.from < to)
        });
        let overlapping: Vec<_> = overlapping.collect();
        let among = match overlapping.as_slice() {
            [(family, _)] => family.mixed || !family.has_all(range),
            _ => true,
        };
        let families = overlapping.into_iter().map(|(_, handle)| *handle);
        families.chain(among.then_some(self.default)).collect()
    }

    /// Where what is forgotten lies: by itself, and among others.
    pub fn forget(&self, range: &Range) -> (Option<u8>, Option<&'a ColumnFamily>) {
        match self.family(&range.from) {
            Some((family, _)) if family.has_all(range) => {
                let among = family.mixed.then_some(self.default);
                (Some(family.letter), among)
            }
            _ => (None, Some(self.default)),
        }
    }

    pub fn of_letter(&self, letter: u8) -> Option<(&'a str, &'a ColumnFamily)> {
        let (family, handle) = self.family(&[letter])?;
        Some((&family.name, handle))
    }

    fn family(&self, key: &[u8]) -> Option<(&'a Family, &'a ColumnFamily)> {
        let letter = key.first()?;
        let mut families = self.families.iter().copied();
        families.find(|(family, _)| family.letter == *letter)
    }
}

impl Family {
    /// Whether a range has no keys of other letters.
    fn has_all(&self, range: &Range) -> bool {
        let letter = Range::prefix([self.letter]);
        range.from >= letter.from
            && match (&range.to, &letter.to) {
                (_, None) => true,
                (Some(to), Some(end)) => to <= end,
                (None, Some(_)) => false,
            }
    }
}

/// Several lists of pairs as one, in their order. Of pairs with one key the first list's counts. `moment` is kept as long as they are read.
pub(super) fn merged<'a>(
    lists: Vec<Pairs<'a>>,
    order: Order,
    moment: Option<Snapshot<'a>>,
) -> Pairs<'a> {
    match <[_; 1]>::try_from(lists) {
        Ok([only]) => only,
        Err(lists) => Box::new(Merged {
            lists: lists.into_iter().map(Iterator::peekable).collect(),
            order,
            _moment: moment,
        }),
    }
}

struct Merged<'a> {
    lists: Vec<Peekable<Pairs<'a>>>,
    order: Order,
    _moment: Option<Snapshot<'a>>,
}

impl Iterator for Merged<'_> {
    type Item = Result<Pair, DiskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next: Option<(usize, Bytes)> = None;
        for (number, list) in self.lists.iter_mut().enumerate() {
            let key = match list.peek() {
                None => continue,
                // It is the end of what can be said in order.
                Some(Err(_)) => return list.next(),
                Some(Ok((key, _))) => key.clone(),
            };
            let compared = next.as_ref().map(|(_, least)| match self.order {
                Order::Ascending => key.cmp(least),
                Order::Descending => least.cmp(&key),
            });
            match compared {
                None | Some(Ordering::Less) => next = Some((number, key)),
                Some(Ordering::Equal) => drop(list.next()),
                Some(Ordering::Greater) => {}
            }
        }
        self.lists[next?.0].next()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::thread;

    use rocksdb::{DB, Options};

    use crate::contract::content;
    use crate::rocks::Rocks;
    use crate::rocks::tests::rests;
    use crate::{Batch, Disk, DiskOptions, Order, Range, Reader, Synced};

    type Content = BTreeMap<Vec<u8>, Vec<u8>>;

    fn asked(reader: &dyn Reader, model: &Content, from: &[u8], to: Option<&[u8]>) {
        let range = Range {
            from: from.to_vec(),
            to: to.map(<[u8]>::to_vec),
        };
        let mut wanted: Vec<_> = model
            .iter()
            .filter(|(key, _)| range.contains(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for order in [Order::Ascending, Order::Descending] {
            let found = reader.scan(&range, order, usize::MAX).unwrap();
            let found: Vec<_> = found
                .into_iter()
                .map(|(key, value)| (key.to_vec(), value.to_vec()))
                .collect();
            assert_eq!(found, wanted, "{range:?} {order:?}");
            wanted.reverse();
        }
    }

    fn holds(reader: &dyn Reader, model: &Content) {
        for (from, to) in [
            (&b""[..], None),
            (b"d", Some(&b"f"[..])),
            (b"e", Some(b"f")),
            (b"e\x03", Some(b"e\x05")),
            (b"e\x03", Some(b"g\x05")),
            (b"e", None),
            (b"\xff", None),
            (b"f", Some(b"f\x04")),
        ] {
            asked(reader, model, from, to);
        }
        let keys: Vec<_> = [b'd', b'e', b'f', b'\xff']
            .into_iter()
            .flat_map(|letter| (0..9).map(move |number| vec![letter, number]))
            .collect();
        let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
        let values = reader.multi_get(&keys).unwrap();
        for (key, value) in keys.into_iter().zip(values) {
            let wanted = model.get(key).map(Vec::as_slice);
            assert_eq!(value.as_deref(), wanted, "{key:?}");
            assert_eq!(reader.get(key).unwrap().as_deref(), wanted, "{key:?}");
        }
    }

    /// Against a plain map: a database of before, and ones with more and more letters apart, once or for good.
    #[test]
    fn keys_are_found_in_whichever_family_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Content::new();
        let mut random = 5_u64;
        let mut below = |limit: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % limit
        };
        for letters in [&b""[..], b"e", b"e", b"", b"e\xff", b"ef"] {
            let options = DiskOptions::without_wal().in_order(letters);
            let disk = Rocks::open(folder.path(), "state", &options).unwrap();
            assert_eq!(content(&disk), model);
            for step in 0..60 {
                let before = (disk.view().unwrap(), model.clone());
                let mut batch = Batch::new();
                for _ in 0..=below(4) {
                    let letter = [b'd', b'e', b'f', b'\xff'][below(4) as usize];
                    let key = vec![letter, below(9) as u8];
                    match below(8) {
                        0 | 1 => {
                            model.remove(&key);
                            batch.delete(key);
                        }
                        2 => {
                            let to = [vec![letter, 9], vec![b'f', 3]][below(2) as usize].clone();
                            if key < to {
                                model.retain(|other, _| *other < key || *other >= to);
                                batch.delete_range(key, to);
                            }
                        }
                        _ => {
                            let value = vec![below(256) as u8; below(700) as usize];
                            model.insert(key.clone(), value.clone());
                            batch.put(key, value);
                        }
                    }
                }
                disk.write(batch, Synced::No).unwrap();
                holds(&disk, &model);
                holds(&*before.0, &before.1);
                if step % 20 == 7 {
                    disk.flush().unwrap();
                    holds(&disk, &model);
                }
            }
            disk.flush().unwrap();
            disk.checkpoint(&format!("copy-{}", below(1 << 30)))
                .unwrap();
        }
    }

    #[test]
    fn a_database_of_a_later_release_is_left_alone_and_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let options = DiskOptions::without_wal().in_order(b"e");
            Rocks::open(folder.path(), "state", &options)
        };
        let disk = open().unwrap();
        let mut batch = Batch::new();
        batch.put("e1", "x");
        disk.write(batch, Synced::Yes).unwrap();
        drop(disk);
        let path = folder.path().join("state");
        let later = ["default", "letter-65", "letter-0065", "sealed"];
        let mut options = Options::default();
        options.create_missing_column_families(true);
        drop(DB::open_cf(&options, &path, later).unwrap());
        let error = open().err().unwrap().to_string();
        let wanted = format!(
            "opening {}: it has column families that this program does not know, letter-0065 and sealed: a later release has written \
             it; start that release here, or one after it",
            path.display()
        );
        assert_eq!(error, wanted);
        drop(DB::open_cf(&options, &path, later).unwrap());
    }

    /// All families go back to the same moment: one that was flushed without the other would be half a batch.
    #[test]
    fn families_are_flushed_together() {
        let folder = tempfile::tempdir().unwrap();
        let options = DiskOptions {
            write_buffer_bytes: 64 << 10,
            ..DiskOptions::without_wal().in_order(b"e")
        };
        let disk = Rocks::open(folder.path(), "state", &options).unwrap();
        let mut checkpoints = 0;
        for number in 0..4_000_u32 {
            let mut batch = Batch::new();
            // What is not in order fills its buffer ten times as fast.
            batch.put([&b"e"[..], &number.to_be_bytes()].concat(), vec![1; 20]);
            batch.put([&b"v"[..], &number.to_be_bytes()].concat(), vec![1; 200]);
            disk.write(batch, Synced::No).unwrap();
            if number % 1_000 == 777 {
                rests(&disk);
                let copy = tempfile::tempdir().unwrap();
                copied(&folder.path().join("state"), &copy.path().join("state"));
                let crashed = Rocks::open(copy.path(), "state", &options).unwrap();
                let count = |letter: u8| {
                    let range = Range::prefix([letter]);
                    let pairs = crashed.iterate(&range, Order::Ascending).unwrap();
                    pairs.map(Result::unwrap).count()
                };
                let (events, versions) = (count(b'e'), count(b'v'));
                assert_eq!(events, versions);
                assert!(events <= number as usize + 1);
                checkpoints += usize::from(events > 0);
            }
        }
        assert!(checkpoints > 0, "nothing was ever flushed");
    }

    /// As a crash at this moment would leave it, but for what the disk itself loses.
    fn copied(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    #[test]
    fn a_scan_is_of_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let options = DiskOptions::without_wal().in_order(b"e");
        let disk = Rocks::open(folder.path(), "state", &options).unwrap();
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for number in 0..20_000_u32 {
                    let mut batch = Batch::new();
                    for letter in [b"e", b"v"] {
                        batch.put([&letter[..], &number.to_be_bytes()].concat(), "");
                    }
                    disk.write(batch, Synced::No).unwrap();
                }
            });
            while !writing.is_finished() {
                for order in [Order::Ascending, Order::Descending] {
                    let pairs = disk.scan(&Range::all(), order, usize::MAX).unwrap();
                    let events = pairs.iter().filter(|(key, _)| key[0] == b'e').count();
                    assert_eq!(events * 2, pairs.len(), "{order:?}");
                }
            }
        });
    }

    #[test]
    fn what_comes_in_order_is_written_once() {
        let compacted = |letters: &[u8]| {
            let folder = tempfile::tempdir().unwrap();
            let options = DiskOptions::without_wal().in_order(letters);
            let disk = Rocks::open(folder.path(), "state", &options).unwrap();
            let mut number = 0_u32;
            for _ in 0..40 {
                let mut batch = Batch::new();
                for _ in 0..500 {
                    number += 1;
                    let value: Vec<u8> = (0..400_u32)
                        .map(|at| (number.wrapping_mul(at) >> 7) as u8)
                        .collect();
                    batch.put([&b"e"[..], &number.to_be_bytes()].concat(), value);
                    let anywhere = number.wrapping_mul(2_654_435_761).to_be_bytes();
                    batch.put([&b"v"[..], &anywhere].concat(), vec![0; 40]);
                }
                disk.write(batch, Synced::Yes).unwrap();
            }
            rests(&disk);
            disk.statistics().compaction_bytes
        };
        let (among, apart) = (compacted(b""), compacted(b"e"));
        assert!(apart > 0, "nothing was compacted");
        assert!(
            3 * apart < among,
            "{apart} bytes apart, {among} among others"
        );
    }
}
