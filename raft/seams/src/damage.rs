//! What was found damaged since a thing was opened, for whoever asks how the server stands. The reader gets its error all the same.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::disk::{Batch, Disk, DiskError, Order, Pairs, Range, Reader, Statistics, Synced};

/// Damage found.
#[derive(Debug, Default)]
pub struct Damages {
    first: Mutex<Option<String>>,
    found: AtomicU64,
}

impl Damages {
    /// One more time. The first is said in the log: what comes after it is most often the same once more.
    pub fn note(&self, what: impl Display) {
        self.found.fetch_add(1, Ordering::Relaxed);
        let mut first = self.lock();
        if first.is_none() {
            tracing::error!(damage = %what, "the disk has not kept what was written to it");
            *first = Some(what.to_string());
        }
    }

    /// Says more of what was noted last: what stood where it could not be read.
    pub fn explain(&self, what: impl Display) {
        let what = what.to_string();
        let mut first = self.lock();
        if first.as_ref().is_some_and(|first| what.contains(first)) {
            *first = Some(what);
        }
    }

    /// The first that was found.
    pub fn first(&self) -> Option<String> {
        self.lock().clone()
    }

    /// How often something was.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see<T>(&self, result: Result<T, DiskError>) -> Result<T, DiskError> {
        if let Err(error) = &result
            && error.is_corrupt()
        {
            self.note(error);
        }
        result
    }
}

/// A database whose damage is noted, whoever comes upon it.
pub fn noting(disk: Arc<dyn Disk>, damages: Arc<Damages>) -> Arc<dyn Disk> {
    Arc::new(Noting { of: disk, damages })
}

struct Noting<D> {
    of: D,
    damages: Arc<Damages>,
}

impl<D: std::ops::Deref<Target: Reader> + Send + Sync> Reader for Noting<D> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.damages.see(self.of.get(key))
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        self.damages.see(self.of.multi_get(keys))
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        let pairs = self.damages.see(self.of.iterate(range, order))?;
        Ok(Box::new(pairs.map(|pair| self.damages.see(pair))))
    }
}

impl Disk for Noting<Arc<dyn Disk>> {
    fn view(&self) -> Result<Box<dyn Reader>, DiskError> {
        Ok(Box::new(Noting {
            of: self.of.view()?,
            damages: self.damages.clone(),
        }))
    }

    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        self.damages.see(self.of.write(batch, synced))
    }

    fn takes_at_once(&self) -> bool {
        self.of.takes_at_once()
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.damages.see(self.of.flush())
    }

    fn checkpoint(&self, into: &str) -> Result<(), DiskError> {
        self.damages.see(self.of.checkpoint(into))
    }

    fn reclaim(&self) -> Result<(), DiskError> {
        self.damages.see(self.of.reclaim())
    }

    fn prefetch(&self, newest_bytes: u64) {
        self.of.prefetch(newest_bytes);
    }

    fn statistics(&self) -> Statistics {
        self.of.statistics()
    }

    fn size(&self) -> Result<u64, DiskError> {
        self.of.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;
    use crate::{Directory, DiskOptions, FileDirectory};

    #[test]
    fn it_is_the_database_that_it_stands_for() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FileDirectory::open(folder.path()).unwrap();
        let options = DiskOptions::without_wal();
        let (damages, disk) = (
            Arc::new(Damages::default()),
            directory.open("state", &options),
        );
        let disk = noting(disk.unwrap(), damages.clone());
        let mut batch = Batch::new();
        for number in 0..9_u8 {
            batch.put(vec![number], vec![number; 600]);
        }
        disk.write(batch, Synced::Yes).unwrap();
        assert_eq!(
            contract::content(&*disk),
            contract::content(&*disk.view().unwrap())
        );
        assert_eq!(contract::content(&*disk).len(), 9);
        assert_eq!((damages.found(), damages.first()), (0, None));
    }

    #[test]
    fn the_first_is_kept_and_explained_once() {
        let damages = Damages::default();
        damages.explain("event 7: reading a.sst: corrupt: bad");
        assert_eq!((damages.found(), damages.first()), (0, None));
        damages.note("reading a.sst: corrupt: bad");
        damages.explain("event 7: reading a.sst: corrupt: bad");
        damages.note("reading b.sst: corrupt: bad");
        damages.explain("event 9: reading b.sst: corrupt: bad");
        let first = Some("event 7: reading a.sst: corrupt: bad".to_owned());
        assert_eq!((damages.found(), damages.first()), (2, first));
    }
}
