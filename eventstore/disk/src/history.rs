//! A database of history, read by its own words: versions of objects, events, births, key sets.
//!
//! It decides nothing about which revisions may be read: what lies above the published revision is written but not yet true for
//! readers, and callers bound what they ask for. A record that is damaged or missing is an error that names it.

use crate::StoreError;
use crate::layout::{self, Birth};
use crate::record::{Damage, Versioned, unseal_birth, unseal_event, unseal_version};
use bytes::Bytes;
use eventstore::{Digest, Envelope, Event, Folded, Key, Object, Retention, decode};
use seams::{Damages, Directory, Disk, DiskError, DiskOptions, Order, Range, Reader, noting};
use std::fmt::Display;
use std::sync::Arc;

const MISSING: &str = "it is missing";
/// Versions fetched at once.
const FETCH_KEYS: usize = 512;

/// An event without the objects it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub envelope: Envelope,
    /// Of the chain up to and with this event.
    pub digest: Digest,
    /// The envelope as the chain covers it.
    pub encoded: Bytes,
}

impl Recorded {
    /// The revision that names it.
    pub fn revision(&self) -> u64 {
        self.envelope.last
    }
}

#[derive(Clone)]
pub(crate) struct History {
    pub disk: Arc<dyn Disk>,
    pub name: Arc<str>,
    /// What was found damaged since it was opened.
    pub damages: Arc<Damages>,
}

impl History {
    pub fn open(
        directory: &dyn Directory,
        name: &str,
        options: &DiskOptions,
    ) -> Result<Self, DiskError> {
        let damages = Arc::default();
        Ok(Self {
            disk: noting(directory.open(name, options)?, Arc::clone(&damages)),
            name: name.into(),
            damages,
        })
    }

    pub fn corrupt(&self, what: impl Display, damage: impl Display) -> StoreError {
        let error = self.named(what, damage);
        self.damages.note(&error);
        error
    }

    /// What should be there is not. Not noted yet: whoever reads knows whether retention has taken it meanwhile.
    pub fn missing(&self, what: impl Display) -> StoreError {
        self.named(what, MISSING)
    }

    /// It was not retention.
    pub fn note_missing<T>(&self, result: &Result<T, StoreError>) {
        if let Err(error @ StoreError::Corrupt { detail, .. }) = result
            && detail == MISSING
        {
            self.damages.note(error);
        }
    }

    /// What the disk could not give back whole: its error names the file, and what should have stood there is known here.
    fn unread(&self, what: impl Display, error: DiskError) -> StoreError {
        if !error.is_corrupt() {
            return error.into();
        }
        let error = self.named(what, error);
        self.damages.explain(&error);
        error
    }

    fn named(&self, what: impl Display, damage: impl Display) -> StoreError {
        StoreError::Corrupt {
            database: self.name.to_string(),
            what: what.to_string(),
            detail: damage.to_string(),
        }
    }

    /// The version that an object had at a revision: the newest not above it. None: it was never there up to then.
    pub fn version_at(
        &self,
        key: &Key,
        revision: u64,
    ) -> Result<Option<(u64, Versioned)>, StoreError> {
        Ok(self.versions(key, revision, 1)?.pop())
    }

    /// An object's versions from a revision down, newest first.
    pub fn versions(
        &self,
        key: &Key,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Versioned)>, StoreError> {
        let pairs = self
            .disk
            .scan(&layout::versions_to(key, from), Order::Descending, limit)
            .map_err(|error| {
                self.unread(format_args!("object {key} as of revision {from}"), error)
            })?;
        pairs
            .iter()
            .map(|(disk_key, value)| self.read_version(key, disk_key, value))
            .collect()
    }

    /// The objects of exactly these versions, in order. One that is missing, or records a deletion, is corruption.
    pub fn objects(&self, wanted: &[(Key, u64)]) -> Result<Vec<Arc<Object>>, StoreError> {
        let mut objects = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(FETCH_KEYS) {
            let keys: Vec<_> = some
                .iter()
                .map(|(key, revision)| layout::version(key, *revision))
                .collect();
            let values = self
                .disk
                .multi_get(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>())
                .map_err(|error| self.unread_among(some, &keys, error))?;
            for (((key, revision), disk_key), value) in some.iter().zip(&keys).zip(values) {
                let missing = || self.missing(OfVersion(key, *revision));
                let (_, version) = self.read_version(key, disk_key, &value.ok_or_else(missing)?)?;
                match version {
                    Versioned::Object(object) => objects.push(object),
                    Versioned::Gone => {
                        return Err(self
                            .corrupt(OfVersion(key, *revision), "a deletion stands in its place"));
                    }
                }
            }
        }
        Ok(objects)
    }

    /// Which of several versions it was.
    fn unread_among(
        &self,
        wanted: &[(Key, u64)],
        keys: &[Vec<u8>],
        error: DiskError,
    ) -> StoreError {
        let unread = wanted.iter().zip(keys);
        for ((key, revision), disk_key) in unread {
            if let Err(error) = self.disk.get(disk_key) {
                return self.unread(OfVersion(key, *revision), error);
            }
        }
        error.into()
    }

    pub fn read_version(
        &self,
        key: &Key,
        disk_key: &[u8],
        value: &Bytes,
    ) -> Result<(u64, Versioned), StoreError> {
        let revision = layout::last_number(disk_key).unwrap_or_default();
        let damaged = |damage| self.corrupt(OfVersion(key, revision), damage);
        let version = unseal_version(disk_key, key, value).map_err(damaged)?;
        match &version {
            Versioned::Object(object) if object.revision() != revision => {
                Err(damaged(Damage::Sense("it names another revision")))
            }
            Versioned::Object(_) | Versioned::Gone => Ok((revision, version)),
        }
    }

    /// The event whose range holds a revision.
    pub fn event_holding(
        &self,
        revision: u64,
        newest: u64,
    ) -> Result<Option<Recorded>, StoreError> {
        Ok(self.recorded(revision, newest, 1)?.pop())
    }

    /// Events whose last revision is in `from..=to`, in order.
    pub fn recorded(&self, from: u64, to: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        let pairs = self
            .disk
            .scan(&layout::events(from, to), Order::Ascending, limit)
            .map_err(|error| self.unread(Events(from, to, limit), error))?;
        pairs
            .iter()
            .map(|(disk_key, value)| self.read_event(disk_key, value))
            .collect()
    }

    pub fn read_event(&self, disk_key: &[u8], value: &Bytes) -> Result<Recorded, StoreError> {
        let last = layout::last_number(disk_key).unwrap_or_default();
        let damaged = |damage| self.corrupt(format_args!("event {last}"), damage);
        let (digest, encoded) = unseal_event(disk_key, value).map_err(damaged)?;
        let envelope: Envelope = decode(&encoded).map_err(|error| damaged(error.into()))?;
        if envelope.last != last || envelope.first > last {
            return Err(damaged(Damage::Sense("it names other revisions")));
        }
        Ok(Recorded {
            envelope,
            digest,
            encoded,
        })
    }

    /// An event with the objects before and after each of its changes, as far as these are kept.
    pub fn whole(&self, recorded: Recorded, retention: &Retention) -> Result<Event, StoreError> {
        let records: Vec<_> = recorded
            .envelope
            .happened
            .changes()
            .iter()
            .filter(|record| record.revision >= retention.horizon_of(&record.key.resource))
            .collect();
        let mut wanted = Vec::with_capacity(2 * records.len());
        for record in &records {
            wanted.extend((record.before > 0).then(|| (record.key.clone(), record.before)));
            wanted.extend(record.hash.map(|_| (record.key.clone(), record.revision)));
        }
        let mut found = self.objects(&wanted)?.into_iter();
        let mut objects = Vec::with_capacity(records.len());
        for record in records {
            let before = if record.before > 0 {
                found.next()
            } else {
                None
            };
            let after = record.hash.and_then(|_| found.next());
            objects.push(Folded {
                key: record.key.clone(),
                revision: record.revision,
                before,
                after,
            });
        }
        Ok(Event {
            envelope: recorded.envelope,
            digest: recorded.digest,
            objects,
        })
    }

    /// Who of a resource began (true) or ceased to live after one revision, up to and with another; in order.
    pub fn births(&self, resource: &str, after: u64, to: u64) -> Result<Vec<Birth>, StoreError> {
        let mut births = Vec::new();
        for pair in self
            .disk
            .iterate(&layout::births(resource, after, to), Order::Ascending)?
        {
            let (disk_key, value) = pair.map_err(|error| {
                let what = format_args!("births of {resource} from revision {after} to {to}");
                self.unread(what, error)
            })?;
            births.push(unseal_birth(&disk_key, &value).map_err(|damage| {
                let revision = layout::last_number(&disk_key).unwrap_or_default();
                self.corrupt(
                    format_args!("a birth of {resource} at revision {revision}"),
                    damage,
                )
            })?);
        }
        Ok(births)
    }

    /// The pairs of a range, read as they are asked for.
    pub fn pairs<'a>(
        &'a self,
        reader: &'a (impl Reader + ?Sized),
        range: &Range,
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + 'a, StoreError> {
        Ok(reader
            .iterate(range, Order::Ascending)?
            .map(|pair| pair.map_err(StoreError::from)))
    }
}

/// Names events to people: those named by a revision of a range, or the first of them.
struct Events(u64, u64, usize);

impl Display for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(from, to, limit) = *self;
        if limit == 1 || from == to {
            write!(f, "the event at revision {from}")
        } else {
            write!(f, "events of revisions {from} to {to}")
        }
    }
}

/// Names a version to people.
pub(crate) struct OfVersion<'a>(pub &'a Key, pub u64);

impl Display for OfVersion<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "object {} at revision {}", self.0, self.1)
    }
}
