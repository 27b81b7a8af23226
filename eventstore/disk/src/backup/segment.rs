//! A segment: events in a row, with the bodies of what they made.

use super::FileError;
use super::file::{self, Builder};
use crate::history::Recorded;
use crate::store::Published;
use crate::{ReadError, Store, StoreError};
use eventstore::{Archived, Digest, Retention, Text, Time, bodies_of};
use seams::blocking;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

const KIND: &str = "reckon events 1\n";
/// Events read at once.
const CHUNK_EVENTS: usize = 64;

/// What a segment has. Frozen: format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHead {
    /// Whose archive it is.
    pub cluster: Uuid,
    /// The level that must be known to read it.
    pub level: u32,
    /// The first event's first revision, and the last's last.
    pub first: u64,
    pub last: u64,
    pub events: u64,
    /// The last event's time.
    pub time: Time,
    /// Of the chain before the first event, and to the end of the last.
    pub before: Digest,
    pub digest: Digest,
    /// Resources some of whose bodies were pruned before they were archived.
    pub without: Vec<Text>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub head: SegmentHead,
    pub events: Vec<Archived>,
}

impl Segment {
    pub fn read(bytes: &[u8]) -> Result<Self, FileError> {
        let (head, events): (SegmentHead, Vec<Archived>) = file::read(KIND, bytes)?;
        if head.events != events.len() as u64 {
            return Err(FileError::Head(format!("{} events", head.events)));
        }
        let chained = events
            .iter()
            .fold(head.before, |digest, event| digest.chain(&event.envelope));
        if chained != head.digest {
            return Err(FileError::Head(format!("digest {}", head.digest)));
        }
        Ok(Self { head, events })
    }

    /// What a file says of itself, from its first few thousand bytes.
    pub fn read_head(beginning: &[u8]) -> Result<SegmentHead, FileError> {
        Ok(file::head(KIND, beginning)?.0)
    }
}

impl Store {
    /// The events after a revision (an event's end), as a file, with its head: up to about so many bytes before compression, one event at
    /// least. None: there is none yet.
    pub fn segment_after(
        &self,
        after: u64,
        most_bytes: usize,
    ) -> Result<Option<(SegmentHead, Vec<u8>)>, ReadError> {
        self.reading(None, after, |published| {
            if after >= published.view.revision {
                return Ok(None);
            }
            blocking(|| published.segment_after(after, most_bytes).map(Some))
        })
    }
}

impl Published {
    fn segment_after(
        &self,
        after: u64,
        most_bytes: usize,
    ) -> Result<(SegmentHead, Vec<u8>), StoreError> {
        let newest = self.view.revision;
        let mut builder = Builder::new();
        let mut without = BTreeSet::new();
        let mut head = SegmentHead {
            cluster: self.view.cluster,
            level: self.view.level,
            first: 0,
            last: after,
            events: 0,
            time: Time::default(),
            before: self.digest_at(after)?,
            digest: Digest::default(),
            without: Vec::new(),
        };
        let mut bytes = 0;
        while head.last < newest && bytes < most_bytes {
            for recorded in self.history.recorded(head.last + 1, newest, CHUNK_EVENTS)? {
                if head.events == 0 {
                    head.first = recorded.envelope.first;
                }
                head.events += 1;
                (head.last, head.time, head.digest) =
                    (recorded.revision(), recorded.envelope.time, recorded.digest);
                let archived = self.archived(recorded, &self.view.retention, &mut without)?;
                bytes += builder.add(&archived).map_err(|error| packed(&error))?;
                if bytes >= most_bytes {
                    break;
                }
            }
        }
        head.without = without.into_iter().collect();
        let file = builder
            .finish(KIND, &head)
            .map_err(|error| packed(&error))?;
        Ok((head, file))
    }

    fn digest_at(&self, event_end: u64) -> Result<Digest, StoreError> {
        if event_end == 0 {
            return Ok(Digest::default());
        }
        let missing = || {
            self.history
                .corrupt(format_args!("event {event_end}"), "it is missing")
        };
        let event = self.history.recorded(event_end, event_end, 1)?.pop();
        Ok(event.ok_or_else(missing)?.digest)
    }

    fn archived(
        &self,
        recorded: Recorded,
        retention: &Retention,
        without: &mut BTreeSet<Text>,
    ) -> Result<Archived, StoreError> {
        let made = recorded.envelope.happened.changes().iter();
        let made: Vec<_> = made.filter(|record| record.hash.is_some()).collect();
        let kept = |record: &&eventstore::ChangeRecord| {
            record.revision >= retention.horizon_of(&record.key.resource)
        };
        let wanted: Vec<_> = made
            .iter()
            .filter(|record| kept(record))
            .map(|record| (record.key.clone(), record.revision))
            .collect();
        let mut found = self.history.objects(&wanted)?.into_iter();
        let objects = made.iter().map(|record| {
            if kept(record) {
                return found.next();
            }
            without.insert(record.key.resource.clone());
            None
        });
        let bodies = bodies_of(objects.collect::<Vec<_>>());
        Ok(Archived {
            envelope: recorded.encoded,
            bodies,
        })
    }
}

/// Packing into memory fails only if memory does.
fn packed(error: &FileError) -> StoreError {
    StoreError::Broken(format!("a segment cannot be made: {error}"))
}
