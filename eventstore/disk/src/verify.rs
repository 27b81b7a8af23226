//! `reckon verify`: is this history what was written, all of it?
//!
//! Recomputes the chain over the events, checks each version against the event that made it, and each body against its salted hash;
//! then that what is current is the newest of each key, and that the outcomes kept are whole. It stops at the first revision that is wrong and names it.

use crate::history::{History, OfVersion, Recorded};
use crate::record::{Meta, Versioned, unseal_coded};
use crate::store::Published;
use crate::{Store, StoreError, current, key_sets, layout, outcomes};
use bytes::Bytes;
use eventstore::{ChangeRecord, Digest, Happened, Key, Object};
use seams::{Reader, blocking};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Events read at once.
const CHUNK_EVENTS: usize = 256;

/// What was found whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub events: u64,
    pub versions: u64,
    /// The last event's revision and digest.
    pub revision: u64,
    pub digest: Digest,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("revision {revision} is wrong: {what}")]
    Wrong { revision: u64, what: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn wrong(revision: u64, what: impl ToString) -> VerifyError {
    VerifyError::Wrong {
        revision,
        what: what.to_string(),
    }
}

/// Damage found on the way belongs to the revision at hand; a disk that fails does not.
fn at(revision: u64) -> impl Fn(StoreError) -> VerifyError {
    move |error| match error {
        error if error.is_corrupt() => wrong(revision, error),
        other => VerifyError::Store(other),
    }
}

impl Store {
    /// Verifies all events named by a revision in this range, and, when it reaches the newest, what is current. `progress` is told the
    /// revision reached, again and again. Reads all of it: minutes for a large history.
    pub fn verify(
        &self,
        range: RangeInclusive<u64>,
        mut progress: impl FnMut(u64),
    ) -> Result<Verified, VerifyError> {
        let (mut from, to) = range.into_inner();
        let mut verified = Verified::default();
        loop {
            let published = self.published();
            match blocking(|| published.verify(from, to, &mut verified, &mut progress)) {
                // What retention took meanwhile is not missing: on from where it still is.
                Err(VerifyError::Wrong { revision, .. })
                    if self.published().view.retention != published.view.retention =>
                {
                    from = revision.max(self.horizon());
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(verified),
            }
        }
    }
}

impl Published {
    fn verify(
        &self,
        from: u64,
        to: u64,
        verified: &mut Verified,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), VerifyError> {
        let newest = self.view.revision;
        let to = to.min(newest);
        let first = from.max(self.view.retention.horizon()).max(1);
        (verified.revision, verified.digest) = self.before(first, newest)?;
        while verified.revision < to {
            let next = verified.revision + 1;
            let chunk = self
                .history
                .recorded(next, to, CHUNK_EVENTS)
                .map_err(at(next))?;
            if chunk.is_empty() {
                // An event that reaches behind the range ends it, unless there is none.
                if to == newest {
                    return Err(wrong(next, "its event is missing"));
                }
                break;
            }
            for recorded in chunk {
                self.link(&recorded, verified)?;
                verified.versions += self.versions_of(&recorded)?;
                verified.events += 1;
                (verified.revision, verified.digest) = (recorded.revision(), recorded.digest);
            }
            progress(verified.revision);
        }
        if to == newest {
            if verified.revision != newest || verified.digest != self.view.digest {
                return Err(wrong(newest, "the state's digest is not the last event's"));
            }
            self.current()?;
            self.living()?;
            self.outcomes()?;
        }
        Ok(())
    }

    /// The link before the first event to verify, revision and digest: that of the event that ends before it.
    fn before(&self, first: u64, newest: u64) -> Result<(u64, Digest), VerifyError> {
        let holding = self
            .history
            .event_holding(first, newest)
            .map_err(at(first))?;
        let end = holding.map_or(first, |event| event.envelope.first) - 1;
        if end == 0 || newest == 0 {
            return Ok((0, Digest::default()));
        }
        match self.history.event_holding(end, newest).map_err(at(end))? {
            Some(event) if event.revision() == end => Ok((end, event.digest)),
            Some(_) | None => Err(wrong(end, "its event is missing")),
        }
    }

    fn link(&self, recorded: &Recorded, before: &Verified) -> Result<(), VerifyError> {
        let envelope = &recorded.envelope;
        if envelope.first != before.revision + 1 {
            return Err(wrong(before.revision + 1, "its event is missing"));
        }
        if before.digest.chain(&recorded.encoded) != recorded.digest {
            return Err(wrong(
                envelope.last,
                "its digest does not follow from the one before",
            ));
        }
        Ok(())
    }

    /// Every version that an event made is there, and is what the event says.
    fn versions_of(&self, recorded: &Recorded) -> Result<u64, VerifyError> {
        let (first, last) = (recorded.envelope.first, recorded.envelope.last);
        let records = recorded.envelope.happened.changes();
        let numbers = match &recorded.envelope.happened {
            // It passes over what another cluster may have given out.
            Happened::Restored { gap, .. } => (*gap).max(1),
            _ => records.len().max(1) as u64,
        };
        if last - first + 1 != numbers {
            return Err(wrong(
                last,
                "its event has another number of changes than of revisions",
            ));
        }
        for (number, record) in records.iter().enumerate() {
            let revision = first + number as u64;
            if record.revision != revision {
                return Err(wrong(revision, "its event numbers its changes otherwise"));
            }
            let key = layout::version(&record.key, revision);
            let value = self
                .history
                .disk
                .get(&key)
                .map_err(|error| at(revision)(error.into()))?;
            if value.is_none() && revision < self.view.retention.horizon_of(&record.key.resource) {
                continue;
            }
            let value = value.ok_or_else(|| {
                wrong(
                    revision,
                    format!("{} is missing", OfVersion(&record.key, revision)),
                )
            })?;
            self.version(record, &key, &value)?;
        }
        Ok(records.len() as u64)
    }

    fn version(
        &self,
        record: &ChangeRecord,
        disk_key: &[u8],
        value: &Bytes,
    ) -> Result<(), VerifyError> {
        let revision = record.revision;
        let (_, version) = self
            .history
            .read_version(&record.key, disk_key, value)
            .map_err(at(revision))?;
        let says = |what: &str| {
            Err(wrong(
                revision,
                format!("{}: {what}", OfVersion(&record.key, revision)),
            ))
        };
        match (&version, record.hash) {
            (Versioned::Gone, None) => Ok(()),
            (Versioned::Gone, Some(_)) => says("a deletion stands in its place"),
            (Versioned::Object(_), None) => says("it stands where a deletion should"),
            (Versioned::Object(object), Some(hash)) => {
                if Digest::of_body(object.salt, &object.body()) != hash || object.hash != hash {
                    return says("its body is not the one that the chain covers");
                }
                let stamps = &object.stamps;
                let stamped = (stamps.uid, stamps.created, stamps.deletion)
                    == (record.uid, record.created, record.deletion);
                let written = &object.bytes[object.cut.0 as usize..object.cut.1 as usize];
                if !stamped || written != stamps.to_json().as_bytes() {
                    return says("its stamps are not the event's");
                }
                Ok(())
            }
        }
    }

    /// On the disk, as of one moment: what is current is the newest version of its key; in memory: the same.
    fn current(&self) -> Result<(), VerifyError> {
        let moment = self.history.disk.view().map_err(StoreError::from)?;
        let current = self.current_at(&*moment).map_err(at(0))?;
        let mut living = self.view.objects().peekable();
        for (key, revision) in current {
            if newest_version(&self.history, &*moment, &key)? != Some(revision) {
                return Err(wrong(
                    revision,
                    format!("{key} has newer versions than the current one"),
                ));
            }
            while let Some(object) = living.next_if(|object| object.key < key) {
                self.went(&*moment, object)?;
            }
            let in_memory = living
                .next_if(|object| object.key == key)
                .map(|object| object.revision());
            if in_memory != Some(revision) && revision <= self.view.revision {
                return Err(wrong(
                    revision,
                    format!("{key} is current on the disk and not in memory"),
                ));
            }
        }
        living.try_for_each(|object| self.went(&*moment, object))
    }

    fn current_at(&self, moment: &dyn Reader) -> Result<BTreeMap<Key, u64>, StoreError> {
        let meta = self.meta_at(moment)?;
        Ok(current::read(&self.history, moment, meta.revision, 0)?.living)
    }

    fn meta_at(&self, moment: &dyn Reader) -> Result<Meta, StoreError> {
        Ok(match moment.get(layout::META)? {
            Some(value) => unseal_coded::<Meta>(layout::META, &value)
                .map_err(|damage| self.history.corrupt("where it stands", damage))?,
            None => Meta::default(),
        })
    }

    /// All outcomes that should be kept are there.
    fn outcomes(&self) -> Result<(), StoreError> {
        let moment = self.history.disk.view()?;
        let oldest = self.meta_at(&*moment)?.outcomes_from;
        let kept = outcomes::numbers(&self.history, &*moment, oldest)?;
        outcomes::recall(&self.history, &*moment, kept, 0).map(drop)
    }

    /// What lives by births and deaths is what is current.
    fn living(&self) -> Result<(), VerifyError> {
        for resource in self.view.resources() {
            let named =
                key_sets::living(&self.history, resource, self.view.revision, &.., usize::MAX)?;
            let mut named = named
                .into_iter()
                .map(|(namespace, name)| Key::new(resource.clone(), namespace, name))
                .peekable();
            for object in self.view.list(resource, None) {
                if let Some(key) = named.next_if(|key| *key < object.key) {
                    return self.not_current(&key);
                }
                if named.next_if(|key| *key == object.key).is_none() {
                    return Err(wrong(
                        object.revision(),
                        format!("{} is current and was never born", object.key),
                    ));
                }
            }
            if let Some(key) = named.next() {
                return self.not_current(&key);
            }
        }
        Ok(())
    }

    fn not_current(&self, key: &Key) -> Result<(), VerifyError> {
        let newest = newest_version(&self.history, &*self.history.disk, key)?;
        Err(wrong(
            newest.unwrap_or_default(),
            format!("{key} lives and is not current"),
        ))
    }

    /// What lives in memory and not on the disk must have gone since.
    fn went(&self, moment: &dyn Reader, object: &Object) -> Result<(), VerifyError> {
        match newest_version(&self.history, moment, &object.key)? {
            Some(revision) if revision > self.view.revision => Ok(()),
            Some(_) | None => Err(wrong(
                object.revision(),
                format!("{} lives in memory and not on the disk", object.key),
            )),
        }
    }
}

fn newest_version(
    history: &History,
    reader: &(impl Reader + ?Sized),
    key: &Key,
) -> Result<Option<u64>, StoreError> {
    let newest = reader.scan(
        &layout::versions_to(key, u64::MAX - 1),
        seams::Order::Descending,
        1,
    )?;
    newest
        .first()
        .map(|(disk_key, value)| {
            history
                .read_version(key, disk_key, value)
                .map(|(revision, _)| revision)
        })
        .transpose()
}
