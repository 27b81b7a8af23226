//! A segment: a file of records, written from its beginning to its end and then never again until it is used anew.
//!
//! A file whose blocks are there already is written over without a change to what the file system knows of it, so that a sync has only the
//! record to wait for; that is why files are used again, and why a new one is filled with zeros first.
//!
//! Records go past the system's cache where the file system can do that, and are on the disk when the write returns (`O_DIRECT`,
//! `O_DSYNC`): one wait in place of three, and sectors in place of pages. They are read through the cache, seldom.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::record::{Header, SECTOR, Stamps, Within, Written};
use crate::directory::sync_folder;
use crate::disk::{DiskError, Operation};

/// What a segment takes; only a record that is larger makes a larger one.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;
const SEGMENT: &str = "segment";
const SPARE: &str = "spare";
/// The name of a spare that is being filled.
const UNFINISHED: &str = "unfinished";
/// What is written to fill a new file before it is synced: as little as keeps a record's sync from waiting long behind it, and as much as
/// keeps such syncs few.
const FILLED_AT_ONCE: u64 = 1 << 20;
/// What comes faster than a file is filled with such pauses goes without: many records share a sync then, and filling would cost as much
/// as it saves.
const FILL_PAUSE: Duration = Duration::from_millis(200);
/// The system keeps in its cache as one what was written as one, and counts all of it as written when a byte of it changes.
const PAGE: usize = 4 << 10;

/// A file of records.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) stamps: Stamps,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    file: File,
    /// The same, past the cache. None: the file system can't.
    direct: Option<File>,
    /// The disk can't either: its sectors are larger than a record's.
    refused: AtomicBool,
    /// Something was written to the cache, and not synced.
    unsynced: AtomicBool,
}

impl Segment {
    fn new(number: u64, path: PathBuf, len: u64, file: File) -> Self {
        Self {
            number,
            stamps: Stamps::of(number),
            direct: opened_direct(&path),
            path,
            len,
            file,
            refused: AtomicBool::new(false),
            // As far as it is known.
            unsynced: AtomicBool::new(true),
        }
    }

    /// A new file, without its blocks.
    pub(super) fn create(folder: &Path, number: u64, len: u64) -> Result<Self, DiskError> {
        let path = folder.join(named(number));
        let made = || {
            let file = File::create_new(&path)?;
            file.set_len(len)?;
            opened(&path)
        };
        let file = made().map_err(|error| failed("creating", &path, error))?;
        sync_folder(folder)?;
        Ok(Self::new(number, path, len, file))
    }

    /// A file that was made before, or used.
    pub(super) fn reuse(folder: &Path, number: u64, spare: &Spare) -> Result<Self, DiskError> {
        let path = folder.join(named(number));
        let file = fs::rename(&spare.path, &path)
            .and_then(|()| opened(&path))
            .map_err(|error| failed("using again", &spare.path, error))?;
        // Before anything is in it: under its old name it would be of no segment.
        sync_folder(folder)?;
        Ok(Self::new(number, path, SEGMENT_BYTES, file))
    }

    /// All of a folder, oldest first.
    pub(super) fn all(folder: &Path) -> Result<Vec<Self>, DiskError> {
        let mut segments = Vec::new();
        for (path, name) in files(folder)? {
            let Some(number) = numbered(&name, SEGMENT) else {
                continue;
            };
            let file = opened(&path).map_err(|error| failed("opening", &path, error))?;
            let len = file
                .metadata()
                .map_err(|error| failed("opening", &path, error))?
                .len();
            segments.push(Self::new(number, path, len.max(SEGMENT_BYTES), file));
        }
        segments.sort_by_key(|segment| segment.number);
        Ok(segments)
    }

    /// Writes a record, aligned as [`super::record::Image`] makes it. It is on the disk after the next `sync`.
    pub(super) fn write(&self, record: &[u8], at: u64) -> Result<(), DiskError> {
        match &self.direct {
            Some(direct) if !self.refused.load(Ordering::Relaxed) => {
                match direct.write_all_at(record, at) {
                    Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                        self.refused.store(true, Ordering::Relaxed);
                        self.write_cached(record, at)
                    }
                    written => written.map_err(|error| failed("writing to", &self.path, error)),
                }
            }
            _ => self.write_cached(record, at),
        }
    }

    fn write_cached(&self, bytes: &[u8], at: u64) -> Result<(), DiskError> {
        self.unsynced.store(true, Ordering::Relaxed);
        self.file
            .write_all_at(bytes, at)
            .map_err(|error| failed("writing to", &self.path, error))
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        // One that fails is never asked again: nothing more is written then.
        if !self.unsynced.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        self.file
            .sync_data()
            .map_err(|error| failed("syncing", &self.path, error))
    }

    /// A value of the record that begins there.
    pub(super) fn read(&self, record: u64, within: Within) -> Result<Vec<u8>, DiskError> {
        let range = within.range();
        let mut bytes = vec![0; range.len()];
        self.file
            .read_exact_at(&mut bytes, record + range.start as u64)
            .map_err(|error| failed("reading", &self.path, error))?;
        Ok(within.strip(&bytes))
    }

    /// Gives each whole record to `each`, with where it begins; says where they end. Whatever a crash tore behind that is wiped. What is
    /// in the file is read into `content`, whose memory the next segment uses again.
    pub(super) fn recover(
        &self,
        content: &mut Vec<u8>,
        last: bool,
        sequence: &mut Option<u64>,
        mut each: impl FnMut(u64, Vec<(Operation, Within)>),
    ) -> Result<u64, DiskError> {
        content.clear();
        (&self.file)
            .read_to_end(content)
            .map_err(|error| failed("reading", &self.path, error))?;
        let damaged = |at: usize| {
            DiskError::corrupt(
                format!("reading {}", self.path.display()),
                format!("the record at byte {at} is damaged"),
            )
        };
        let records = Records {
            content,
            stamps: &self.stamps,
        };
        let end = records
            .whole(sequence, |at, operations| each(at as u64, operations))
            .map_err(damaged)?;
        let torn = records.torn(end, sequence.unwrap_or(1)).map_err(damaged)?;
        if !torn.is_empty() {
            if !last {
                return Err(damaged(end));
            }
            tracing::info!(
                segment = %self.path.display(),
                at = end,
                sectors = torn.len(),
                "a write that a crash tore is taken back"
            );
            for at in torn {
                self.write_cached(&[0; SECTOR], at as u64)?;
            }
            self.sync()?;
        }
        Ok(end as u64)
    }

    /// No longer a part of the log. The file is kept as a spare, or gone.
    pub(super) fn retire(&self, keep: bool) -> Result<Option<Spare>, DiskError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let spare = Spare {
            path: folder.join(format!("{}.{SPARE}", self.number)),
        };
        let kept = keep && self.len == SEGMENT_BYTES;
        let moved = if kept {
            fs::rename(&self.path, &spare.path)
        } else {
            fs::remove_file(&self.path)
        };
        moved.map_err(|error| failed("removing", &self.path, error))?;
        // Before the next goes: a gap between segments is damage.
        sync_folder(folder)?;
        Ok(kept.then_some(spare))
    }
}

/// What is in a segment's file.
struct Records<'a> {
    content: &'a [u8],
    stamps: &'a Stamps,
}

impl<'a> Records<'a> {
    /// A sector that is there wholly.
    fn sector(&self, at: usize) -> Option<&'a [u8]> {
        self.content.get(at..at + SECTOR)
    }

    fn written(&self, at: usize) -> Written {
        self.sector(at)
            .map_or(Written::No, |sector| self.stamps.read(sector))
    }

    /// Gives each whole record to `each`, and says where they end. The error is where the damage begins.
    fn whole(
        &self,
        sequence: &mut Option<u64>,
        mut each: impl FnMut(usize, Vec<(Operation, Within)>),
    ) -> Result<usize, usize> {
        let mut at = 0;
        loop {
            match self.written(at) {
                Written::First => {}
                Written::No => return Ok(at),
                Written::Rest | Written::Damaged => return Err(at),
            }
            let header = self.sector(at).and_then(Header::of).ok_or(at)?;
            if sequence.is_some_and(|expected| expected != header.sequence) {
                return Err(at);
            }
            let end = at + header.len();
            let record = self.content.get(at..end);
            let Some(operations) = record.and_then(|record| header.operations(record)) else {
                let sectors = (at..end).step_by(SECTOR).skip(1);
                let torn = sectors
                    .into_iter()
                    .any(|at| self.written(at) == Written::No);
                return if torn { Ok(at) } else { Err(at) };
            };
            each(at, operations);
            *sequence = Some(header.sequence + 1);
            at = end;
        }
    }

    /// The sectors behind the last whole record that were written. The error: this was no crash, for the next record was synced.
    fn torn(&self, end: usize, missing: u64) -> Result<Vec<usize>, usize> {
        let mut torn = Vec::new();
        for at in (end..self.content.len()).step_by(SECTOR) {
            match self.written(at) {
                Written::No => continue,
                Written::Damaged => return Err(at),
                Written::Rest => {}
                Written::First => match self.sector(at).and_then(Header::of) {
                    None => return Err(at),
                    Some(header) if header.durable > missing => return Err(end),
                    Some(_) => {}
                },
            }
            torn.push(at);
        }
        Ok(torn)
    }
}

/// A file to be used for the next segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
}

impl Spare {
    /// A new one, filled with zeros; None once `stop` says so.
    /// The thread can be woken from its pauses.
    pub(super) fn fill(
        folder: &Path,
        waited_for: bool,
        stop: impl Fn() -> bool,
    ) -> Result<Option<Self>, DiskError> {
        let unfinished = folder.join(UNFINISHED);
        let spare = Self {
            path: folder.join(format!("0.{SPARE}")),
        };
        let filled = || {
            let file = File::create(&unfinished)?;
            for at in (0..SEGMENT_BYTES).step_by(PAGE) {
                file.write_all_at(&[0; PAGE], at)?;
                if (at + PAGE as u64).is_multiple_of(FILLED_AT_ONCE) {
                    file.sync_data()?;
                    if stop() {
                        return Ok(false);
                    }
                    if !waited_for {
                        std::thread::park_timeout(FILL_PAUSE);
                    }
                }
            }
            file.sync_all()?;
            fs::rename(&unfinished, &spare.path)?;
            Ok(true)
        };
        let filled = filled().map_err(|error| failed("filling", &unfinished, error))?;
        Ok(filled.then_some(spare))
    }

    /// All of a folder. What was not finished is removed.
    pub(super) fn all(folder: &Path) -> Result<Vec<Self>, DiskError> {
        let mut spares = Vec::new();
        for (path, name) in files(folder)? {
            let whole = fs::metadata(&path).is_ok_and(|about| about.len() == SEGMENT_BYTES);
            match numbered(&name, SPARE) {
                Some(_) if whole => spares.push(Self { path }),
                None if name != UNFINISHED => {}
                _ => fs::remove_file(&path).map_err(|error| failed("removing", &path, error))?,
            }
        }
        Ok(spares)
    }
}

fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>, DiskError> {
    let listed = || -> io::Result<Vec<_>> {
        let mut files = Vec::new();
        for file in fs::read_dir(folder)? {
            let file = file?;
            files.push((file.path(), file.file_name().to_string_lossy().into_owned()));
        }
        Ok(files)
    };
    listed().map_err(|error| failed("listing", folder, error))
}

/// Whether there are segments in a folder.
pub(super) fn any(folder: &Path) -> Result<bool, DiskError> {
    Ok(files(folder)?
        .iter()
        .any(|(_, name)| numbered(name, SEGMENT).is_some()))
}

fn named(number: u64) -> String {
    format!("{number}.{SEGMENT}")
}

fn numbered(name: &str, kind: &str) -> Option<u64> {
    name.strip_suffix(kind)?.strip_suffix('.')?.parse().ok()
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn opened_direct(path: &Path) -> Option<File> {
    let flags = OFlag::O_DIRECT | OFlag::O_DSYNC;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open(path);
    file.ok()
}

pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> DiskError {
    DiskError::io(format!("{doing} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::super::record::Image;
    use super::*;
    use crate::disk::Batch;

    #[test]
    fn what_can_not_go_past_the_cache_goes_through_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut batch = Batch::new();
        batch.put("key", vec![7; 10_000]);
        let mut image = Image::default();
        let segment = Segment::create(folder.path(), 1, SEGMENT_BYTES).unwrap();
        segment.sync().unwrap();
        let (record, _) = image.record(&segment.stamps, 1, 1, &batch);
        let record = record.to_vec();
        let len = record.len() as u64;
        let placed = |aligned: bool| {
            let mut memory = vec![0; 1 << 20];
            let at = memory.as_ptr().align_offset(PAGE) + usize::from(!aligned);
            memory[at..at + record.len()].copy_from_slice(&record);
            (memory, at..at + record.len())
        };
        // What this file system and disk do without us: some take anything.
        let (memory, there) = placed(false);
        let takes_any = segment
            .direct
            .as_ref()
            .is_some_and(|direct| direct.write_all_at(&memory[there], 0).is_ok());
        let past_the_cache = segment.direct.is_some();
        // Where it lies in memory; whether a sync has something to do then. A refusal is remembered.
        for (number, (aligned, waits)) in [
            (true, !past_the_cache),
            (false, !takes_any),
            (true, !takes_any),
        ]
        .into_iter()
        .enumerate()
        {
            let (memory, there) = placed(aligned);
            let place = number as u64 * len;
            segment.write(&memory[there], place).unwrap();
            let unsynced = segment.unsynced.load(Ordering::Relaxed);
            assert_eq!(unsynced, waits, "{number}");
            segment.sync().unwrap();
            assert!(!segment.unsynced.load(Ordering::Relaxed), "{number}");
            // Through the cache, which has not kept what was there before.
            let mut read = vec![0; record.len()];
            segment.file.read_exact_at(&mut read, place).unwrap();
            assert!(read == record, "{number}");
        }
        assert_eq!(
            segment.refused.load(Ordering::Relaxed),
            past_the_cache && !takes_any,
            "of the one that was not aligned"
        );
    }
}
