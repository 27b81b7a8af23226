//! The real data directory: a folder with one subfolder a database, small files beside them, and a lock.
//!
//! A small file is written beside, synced and renamed over the old one, and the folder is synced, so that a crash leaves
//! the one or the other; a checksum behind its content tells whether it is what was written. A database is removed by renaming it out of sight first, so that no half of it is ever opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use crate::disk::{Directory, Disk, DiskError, DiskOptions, FileInfo, Room};
use crate::journal::Journal;
use crate::rocks::Rocks;
use crate::rocks::verify::verify;

/// Holds the id of the process that has the directory.
const LOCK_FILE: &str = "lock";
/// Ends the name of a file that is being written.
const UNFINISHED: &str = ".unfinished";
/// Ends the name of a database that is being removed.
const REMOVED: &str = ".removed";

/// Ends a small file, behind its content's checksum. A file of before has neither.
const SEAL: [u8; 4] = *b"\nsum";

/// A folder of the file system, locked for this process until it is dropped.
#[derive(Debug)]
pub struct FileDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl FileDirectory {
    /// Makes the folder where it is missing, and locks it. [`DiskError::InUse`] names the process that has it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let path = path.into();
        fs::create_dir_all(&path)
            .map_err(|error| DiskError::io(format!("creating {}", path.display()), error))?;
        let lock = lock(&path)?;
        let directory = Self { path, _lock: lock };
        directory.sweep()?;
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finishes what a crash cut short: removals, and files not yet in place.
    fn sweep(&self) -> Result<(), DiskError> {
        for name in self.names()? {
            let path = self.path.join(&name);
            let swept = if name.ends_with(REMOVED) {
                fs::remove_dir_all(&path)
            } else if name.ends_with(UNFINISHED) {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            swept.map_err(|error| DiskError::io(format!("removing {}", path.display()), error))?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, DiskError> {
        let failed = |error| DiskError::io(format!("listing {}", self.path.display()), error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            // What is not UTF-8 is not ours.
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn at(&self, name: &str) -> Result<PathBuf, DiskError> {
        Ok(self.path.join(plain(name)?))
    }
}

fn lock(folder: &Path) -> Result<Flock<File>, DiskError> {
    let path = folder.join(LOCK_FILE);
    let failed = |error| DiskError::io(format!("locking {}", path.display()), error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).map_err(failed)?;
            lock.write_all(std::process::id().to_string().as_bytes())
                .map_err(failed)?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            Err(DiskError::InUse {
                path: folder.display().to_string(),
                pid: pid.trim().parse().ok(),
            })
        }
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

fn sum(content: &[u8]) -> [u8; 4] {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content);
    (sum as u32).to_le_bytes()
}

/// A small file's content. One of the two being right tells that both were written.
fn unsealed(path: &Path, mut bytes: Vec<u8>) -> Result<Vec<u8>, DiskError> {
    let Some((content, [sum_0, sum_1, sum_2, sum_3, seal @ ..])) = bytes.split_last_chunk::<8>()
    else {
        return Ok(bytes);
    };
    let sums = sum(content) == [*sum_0, *sum_1, *sum_2, *sum_3];
    match (sums, *seal == SEAL) {
        (true, true) => {
            bytes.truncate(content.len());
            Ok(bytes)
        }
        (false, false) => Ok(bytes),
        (true, false) | (false, true) => Err(DiskError::corrupt(
            format!("reading {}", path.display()),
            "its checksum does not match",
        )),
    }
}

/// A name that stays inside its folder.
fn plain(name: &str) -> Result<&str, DiskError> {
    let fine = !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fine {
        Ok(name)
    } else {
        Err(DiskError::io(
            format!("name {name:?}"),
            io::Error::from(ErrorKind::InvalidFilename),
        ))
    }
}

/// Makes the entries of a folder durable: what was created in it, renamed or removed.
pub(crate) fn sync_folder(path: &Path) -> Result<(), DiskError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| DiskError::io(format!("syncing {}", path.display()), error))
}

impl Directory for FileDirectory {
    fn open(&self, name: &str, options: &DiskOptions) -> Result<Arc<dyn Disk>, DiskError> {
        let name = plain(name)?;
        Ok(if options.wal {
            Arc::new(Journal::open(&self.path, name)?)
        } else {
            Arc::new(Rocks::open(&self.path, name, options)?)
        })
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        Ok(self.at(name)?.is_dir())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let path = self.at(name)?;
        let doomed = self.path.join(format!("{name}{REMOVED}"));
        let failed = |error| DiskError::io(format!("removing {}", path.display()), error);
        match fs::rename(&path, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        sync_folder(&self.path)?;
        fs::remove_dir_all(&doomed).map_err(failed)
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let names = self.names()?;
        Ok(names
            .into_iter()
            .filter(|name| !name.ends_with(REMOVED) && self.path.join(name).is_dir())
            .collect())
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.at(name)?;
        match fs::read(&path) {
            Ok(bytes) => unsealed(&path, bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::io(format!("reading {}", path.display()), error)),
        }
    }

    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), DiskError> {
        let path = self.at(name)?;
        let beside = self.path.join(format!("{name}{UNFINISHED}"));
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(content)?;
            file.write_all(&sum(content))?;
            file.write_all(&SEAL)?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        });
        written.map_err(|error| DiskError::io(format!("writing {}", path.display()), error))?;
        sync_folder(&self.path)
    }

    fn room(&self) -> Result<Room, DiskError> {
        let about = statvfs(&self.path).map_err(|errno| {
            DiskError::io(format!("measuring {}", self.path.display()), errno.into())
        })?;
        let unit = about.fragment_size();
        Ok(Room {
            total: about.blocks() * unit,
            free: about.blocks_available() * unit,
        })
    }

    fn files(&self, name: &str) -> Result<Vec<FileInfo>, DiskError> {
        let folder = self.at(name)?;
        let failed = |error| DiskError::io(format!("listing {}", folder.display()), error);
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let about = entry.metadata().map_err(failed)?;
            if let (true, Ok(name)) = (about.is_file(), entry.file_name().into_string()) {
                files.push(FileInfo {
                    name,
                    len: about.len(),
                });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn read_at(&self, name: &str, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let path = self.at(name)?.join(plain(file)?);
        let mut content = Vec::new();
        File::open(&path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(offset))?;
                file.take(len as u64).read_to_end(&mut content)
            })
            .map_err(|error| DiskError::io(format!("reading {}", path.display()), error))?;
        Ok(Bytes::from(content))
    }

    fn verify(&self, name: &str) -> Result<(), DiskError> {
        verify(&self.at(name)?)
    }

    fn append_at(
        &self,
        name: &str,
        file: &str,
        offset: u64,
        content: &[u8],
    ) -> Result<(), DiskError> {
        let folder = self.at(name)?;
        let path = folder.join(plain(file)?);
        let appended = fs::create_dir_all(&folder).and_then(|()| {
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            if offset == 0 {
                file.set_len(0)?;
            }
            let len = file.metadata()?.len();
            if len != offset {
                return Err(io::Error::other(format!(
                    "{len} bytes are there, and {offset} should be"
                )));
            }
            file.write_all(content)
        });
        appended.map_err(|error| DiskError::io(format!("appending to {}", path.display()), error))
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        let folder = self.at(name)?;
        for file in self.files(name)? {
            let path = folder.join(&file.name);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|error| DiskError::io(format!("syncing {}", path.display()), error))?;
        }
        sync_folder(&folder)?;
        sync_folder(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[test]
    fn the_real_disks_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        contract::disk(&directory);
        contract::directory(&directory);
    }

    #[test]
    fn a_directory_in_use_names_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = FileDirectory::open(folder.path()).unwrap();
        let refused = FileDirectory::open(folder.path()).unwrap_err();
        assert!(
            matches!(refused, DiskError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
            "{refused}"
        );
        drop(held);
        FileDirectory::open(folder.path()).unwrap();
    }

    #[test]
    fn there_is_room_and_less_of_it_free() {
        let folder = tempfile::tempdir().unwrap();
        let room = FileDirectory::open(folder.path()).unwrap().room().unwrap();
        assert!(room.free > 0 && room.free <= room.total, "{room:?}");
    }

    #[test]
    fn a_removal_cut_short_is_finished_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state.removed")).unwrap();
        fs::write(folder.path().join("node.unfinished"), "half").unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        assert_eq!(directory.names().unwrap(), [LOCK_FILE]);
    }

    #[test]
    fn a_small_file_with_a_flipped_bit_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        for content in [&b""[..], b"x", b"received-0123456789abcdef"] {
            directory.write_file("node", content).unwrap();
            assert_eq!(directory.read_file("node").unwrap().unwrap(), content);
            let path = folder.path().join("node");
            let good = fs::read(&path).unwrap();
            for bit in 0..8 * good.len() {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, bad).unwrap();
                let error = directory.read_file("node").unwrap_err();
                assert!(error.is_corrupt(), "bit {bit}: {error}");
                assert!(error.to_string().contains("/node"), "bit {bit}: {error}");
            }
        }
        // As it was written before there was a checksum.
        for content in [&b""[..], b"x", b"received-0123456789abcdef"] {
            fs::write(folder.path().join("node"), content).unwrap();
            assert_eq!(directory.read_file("node").unwrap().unwrap(), content);
        }
    }

    #[test]
    fn names_stay_inside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        for name in ["", ".", "..", "../x", "a/b", "/etc"] {
            assert!(directory.write_file(name, b"x").is_err(), "{name:?}");
            assert!(directory.read_at("state", name, 0, 1).is_err(), "{name:?}");
        }
    }

    #[test]
    fn every_synced_write_syncs_the_wal_and_no_other_does() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        let disk = directory.open("log", &DiskOptions::with_wal()).unwrap();
        let write = |synced| {
            let before = disk.statistics().wal_syncs;
            let mut batch = crate::Batch::new();
            batch.put(&b"key"[..], &b"value"[..]);
            disk.write(batch, synced).unwrap();
            disk.statistics().wal_syncs - before
        };
        assert_eq!(write(crate::Synced::No), 0);
        assert_eq!(write(crate::Synced::Yes), 1);
    }

    #[test]
    fn who_flushes_comes_after_all_others() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        let disk = directory
            .open("state", &DiskOptions::without_wal())
            .unwrap();
        let mut batch = crate::Batch::new();
        batch.put(&b"key"[..], &b"value"[..]);
        disk.write(batch, crate::Synced::Yes).unwrap();
        let threads = fs::read_dir("/proc/self/task").unwrap();
        // "tid (name) state …", and the priority is the 19th field.
        let stats =
            threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        let priorities: Vec<_> = stats
            .filter_map(|stat| {
                let (name, fields) = stat.split_once(") ")?;
                let nice = fields.split(' ').nth(16)?.to_owned();
                name.contains("(rocksdb:high").then_some(nice)
            })
            .collect();
        assert!(priorities.iter().any(|nice| nice == "19"), "{priorities:?}");
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        // Values that lie beside their keys, and such that lie in a file of their own.
        // And of those: a record, the beginning, a flag in it, the end.
        for (value, suffix, at) in [
            (100, ".sst", 40),
            (1_000, ".blob", 700),
            (1_000, ".blob", 0),
            (1_000, ".blob", 20),
            (1_000, ".blob", usize::MAX),
            (100, "CURRENT", 0),
            (100, "CURRENT", 12),
            (100, "CURRENT", usize::MAX),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let directory = FileDirectory::open(folder.path()).unwrap();
            let options = DiskOptions::without_wal();
            let disk = directory.open("state", &options).unwrap();
            let mut batch = crate::Batch::new();
            for number in 0..1_000_u32 {
                batch.put(number.to_be_bytes().to_vec(), vec![number as u8; value]);
            }
            disk.write(batch, crate::Synced::Yes).unwrap();
            drop(disk);
            let file = directory
                .files("state")
                .unwrap()
                .into_iter()
                .find(|file| file.name.ends_with(suffix))
                .unwrap();
            let path = folder.path().join("state").join(&file.name);
            let mut content = fs::read(&path).unwrap();
            let at = at.min(content.len() - 1);
            content[at] ^= 0x01;
            fs::write(&path, content).unwrap();
            let read = directory.open("state", &options).and_then(|disk| {
                crate::Reader::scan(&*disk, &crate::Range::all(), crate::Order::Ascending, 100)
            });
            let error = read.unwrap_err();
            assert!(matches!(error, DiskError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(&file.name), "{error}");
            // Without the file that names the others it is no new database.
            fs::remove_file(folder.path().join("state/CURRENT")).unwrap();
            let error = directory.open("state", &options).err().unwrap();
            assert!(error.is_corrupt(), "{error}");
            assert!(error.to_string().contains("CURRENT is gone"), "{error}");
        }
    }

    #[test]
    fn the_room_of_what_is_deleted_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        let disk = directory
            .open("state", &DiskOptions::without_wal())
            .unwrap();
        // What can't be compressed; nine of ten go, so that no file goes by itself.
        let mut random = 7_u64;
        let mut value = || -> Vec<u8> {
            std::iter::repeat_with(|| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (random >> 56) as u8
            })
            .take(4 << 10)
            .collect()
        };
        let (batches, each) = (16_u32, 100_u32);
        for batch in 0..batches {
            let mut writes = crate::Batch::new();
            for number in 0..each {
                writes.put((batch * each + number).to_be_bytes().to_vec(), value());
            }
            disk.write(writes, crate::Synced::Yes).unwrap();
        }
        let full = disk.size().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut number = 0;
        while disk.size().unwrap() > full / 2 {
            assert!(
                std::time::Instant::now() < deadline,
                "{} of {full} bytes are left",
                disk.size().unwrap()
            );
            let mut deletes = crate::Batch::new();
            for key in (number..batches * each)
                .take(100)
                .filter(|key| key % 10 > 0)
            {
                deletes.delete(key.to_be_bytes().to_vec());
            }
            number += 100;
            // In the end nothing is deleted any more, and still something is written, as it always is.
            deletes.put(&b"z"[..], number.to_be_bytes().to_vec());
            disk.write(deletes, crate::Synced::Yes).unwrap();
            disk.reclaim().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
