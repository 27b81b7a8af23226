//! Reads of the past: an object, a list, an event, an object's history, as of any revision or time.
//!
//! All of them go by revision. A revision inside an event is a moment that never was for anyone: `event_end` gives the one that was.
//! These functions read the disk and move other tasks out of their way first.

use crate::history::Recorded;
use crate::key_sets;
use crate::layout::Name;
use crate::record::Versioned;
use crate::store::Published;
use crate::{ReadError, Store, StoreError};
use eventstore::{Event, Happened, Key, Object, Text, Time};
use seams::blocking;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

type Bounds = (Bound<Name>, Bound<Name>);

/// Part of a list of the past.
#[derive(Clone, Debug)]
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    /// There are more behind the last.
    pub more: bool,
}

/// One change in an object's history.
#[derive(Clone, Debug)]
pub struct Version {
    pub revision: u64,
    /// The event that made it.
    pub event: Recorded,
    pub before: Option<Arc<Object>>,
    /// None: it went.
    pub after: Option<Arc<Object>>,
}

impl Store {
    /// The first revision whose past can be read; 0: all of it.
    pub fn horizon(&self) -> u64 {
        self.published().view.retention.horizon()
    }

    /// An object as it was at a revision.
    pub fn object_at(&self, key: &Key, revision: u64) -> Result<Option<Arc<Object>>, ReadError> {
        self.reading(Some(&key.resource), revision, |published| {
            if let Some(object) = published.living_at(key, revision) {
                return Ok(Some(object.clone()));
            }
            let version = blocking(|| published.history.version_at(key, revision))?;
            Ok(version.and_then(|(_, version)| object_of(version)))
        })
    }

    /// A resource's objects as they were at a revision, in the order of namespace, then name: those of one namespace if one is named,
    /// inside a range of (namespace, name), and at most `limit`. Its cost follows what lived then.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
        range: impl RangeBounds<Name>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let bounds = within(namespace, &range);
        let most = limit.saturating_add(1);
        let mut objects: Vec<_> = self.reading(Some(resource), revision, |published| {
            if published.view.last_change(resource) > revision {
                return blocking(|| published.past_list(resource, revision, &bounds, most));
            }
            let objects = published
                .view
                .range(resource, (bounds.0.clone(), Bound::Unbounded));
            let inside = |object: &&Arc<Object>| {
                !key_sets::is_behind(
                    &bounds,
                    &(object.key.namespace.clone(), object.key.name.clone()),
                )
            };
            Ok(objects.take_while(inside).take(most).cloned().collect())
        })?;
        let more = objects.len() > limit;
        objects.truncate(limit);
        Ok(Page { objects, more })
    }

    /// The event whose range holds a revision. None: there is no such event yet, or the revision is 0.
    pub fn event_at(&self, revision: u64) -> Result<Option<Arc<Event>>, ReadError> {
        if revision > self.published().view.revision {
            return Ok(None);
        }
        self.reading(None, revision, |published| {
            blocking(|| match published.event_holding(revision)? {
                Some(recorded) => published.whole(recorded).map(Some),
                None => Ok(None),
            })
        })
    }

    /// The same without the objects.
    pub fn recorded_at(&self, revision: u64) -> Result<Option<Recorded>, ReadError> {
        if revision > self.published().view.revision {
            return Ok(None);
        }
        self.reading(None, revision, |published| {
            blocking(|| published.event_holding(revision))
        })
    }

    /// The end of the event that holds a revision: where a read of the past stands.
    pub fn event_end(&self, revision: u64) -> Result<u64, ReadError> {
        self.reading(None, revision, |published| {
            if revision == 0 || revision == published.view.revision {
                return Ok(revision);
            }
            match blocking(|| published.event_holding(revision))? {
                Some(recorded) => Ok(recorded.revision()),
                None => {
                    let what = format_args!("event {revision}");
                    Err(published.history.missing(what))
                }
            }
        })
    }

    /// Whether what was so at a revision can be known: it is none of those that a restore passed over.
    pub fn not_lost(&self, revision: u64) -> Result<(), ReadError> {
        let published = self.published();
        if revision == 0 || revision >= published.view.revision {
            return Ok(());
        }
        // What retention has removed is refused as such.
        let Some(recorded) = blocking(|| published.event_holding(revision))? else {
            return Ok(());
        };
        let envelope = &recorded.envelope;
        let passed_over = (envelope.first..envelope.last).contains(&revision);
        if passed_over && matches!(envelope.happened, Happened::Restored { .. }) {
            return Err(ReadError::Lost {
                asked: revision,
                ends: envelope.first - 1,
            });
        }
        Ok(())
    }

    /// Events named by a revision in this range, in order.
    pub fn events(
        &self,
        range: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, ReadError> {
        let Some((from, to)) = self.bounded(range) else {
            return Ok(Vec::new());
        };
        self.reading(None, from, |published| {
            blocking(|| {
                let recorded = published.history.recorded(from, to, limit)?;
                recorded
                    .into_iter()
                    .map(|recorded| published.whole(recorded))
                    .collect()
            })
        })
    }

    /// The same without the objects.
    pub fn recorded(
        &self,
        range: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let Some((from, to)) = self.bounded(range) else {
            return Ok(Vec::new());
        };
        self.reading(None, from, |published| {
            blocking(|| published.history.recorded(from, to, limit))
        })
    }

    /// An object's changes, newest first: from before a revision, if one is given. Ends at the horizon.
    pub fn history(
        &self,
        key: &Key,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Version>, ReadError> {
        loop {
            let published = self.published();
            let newest = before.map_or(published.view.revision, |before| {
                before.saturating_sub(1).min(published.view.revision)
            });
            let horizon = published.view.retention.horizon_of(&key.resource);
            let history = blocking(|| published.history_of(key, newest, limit));
            // A horizon that moved meanwhile may have taken what was being read.
            if self.published().view.retention.horizon_of(&key.resource) == horizon {
                published.history.note_missing(&history);
                return Ok(history?);
            }
        }
    }

    /// The last event's revision stamped at or before a time. None: the time is before the first.
    pub fn revision_at(&self, time: Time) -> Result<Option<u64>, ReadError> {
        let published = self.published();
        if published.view.revision > 0 && published.view.clock <= time {
            return Ok(Some(published.view.revision));
        }
        let horizon = published.view.retention.horizon();
        let found = self.reading(None, horizon, |published| {
            blocking(|| published.last_stamped(time, horizon.max(1)))
        })?;
        match found {
            None if horizon > 0 => Err(ReadError::Compacted {
                asked: horizon - 1,
                horizon,
            }),
            found => Ok(found),
        }
    }

    /// Reads as of a revision. What retention takes away while it is read is no wrong answer and no corruption.
    pub(crate) fn reading<T>(
        &self,
        resource: Option<&str>,
        revision: u64,
        read: impl FnOnce(&Published) -> Result<T, StoreError>,
    ) -> Result<T, ReadError> {
        let published = self.published();
        published.readable(resource, revision)?;
        let result = read(&published);
        // Records go only after their horizon was published: one that is not yet behind it has been there all the while.
        self.published().kept(resource, revision)?;
        published.history.note_missing(&result);
        Ok(result?)
    }

    fn bounded(&self, range: RangeInclusive<u64>) -> Option<(u64, u64)> {
        let (from, to) = range.into_inner();
        let to = to.min(self.published().view.revision);
        (from <= to).then_some((from, to))
    }
}

impl Published {
    /// Whether this revision is there, and its past is kept: of one resource, or of all.
    pub(crate) fn readable(&self, resource: Option<&str>, revision: u64) -> Result<(), ReadError> {
        let current = self.view.revision;
        if revision > current {
            return Err(ReadError::FutureRevision {
                asked: revision,
                current,
            });
        }
        self.kept(resource, revision)
    }

    fn kept(&self, resource: Option<&str>, revision: u64) -> Result<(), ReadError> {
        let retention = &self.view.retention;
        let horizon = resource.map_or(retention.horizon(), |resource| {
            retention.horizon_of(resource)
        });
        if revision < horizon {
            return Err(ReadError::Compacted {
                asked: revision,
                horizon,
            });
        }
        Ok(())
    }

    fn living_at(&self, key: &Key, revision: u64) -> Option<&Arc<Object>> {
        self.view
            .get(key)
            .filter(|object| object.revision() <= revision)
    }

    pub(crate) fn whole(&self, recorded: Recorded) -> Result<Arc<Event>, StoreError> {
        let event = self.history.whole(recorded, &self.view.retention)?;
        Ok(Arc::new(event))
    }

    fn event_holding(&self, revision: u64) -> Result<Option<Recorded>, StoreError> {
        if revision == 0 {
            return Ok(None);
        }
        self.history.event_holding(revision, self.view.revision)
    }

    fn past_list(
        &self,
        resource: &str,
        revision: u64,
        bounds: &Bounds,
        limit: usize,
    ) -> Result<Vec<Arc<Object>>, StoreError> {
        let mut objects = Vec::new();
        for (namespace, name) in key_sets::living(&self.history, resource, revision, bounds, limit)?
        {
            let key = Key::new(resource, namespace, name);
            if let Some(current) = self.living_at(&key, revision) {
                objects.push(current.clone());
                continue;
            }
            let version = self
                .history
                .version_at(&key, revision)?
                .and_then(|(_, version)| object_of(version));
            let missing = || {
                let what = format_args!("object {key} as of revision {revision}");
                self.history.missing(what)
            };
            objects.push(version.ok_or_else(missing)?);
        }
        Ok(objects)
    }

    fn history_of(&self, key: &Key, newest: u64, limit: usize) -> Result<Vec<Version>, StoreError> {
        // One more than asked for: each change shows the version before it.
        let versions = self
            .history
            .versions(key, newest, limit.saturating_add(1))?;
        let versions: Vec<_> = versions
            .into_iter()
            .map(|(revision, version)| (revision, object_of(version)))
            .collect();
        let before = versions
            .iter()
            .skip(1)
            .map(|(_, object)| object.clone())
            .chain([None]);
        let horizon = self.view.retention.horizon_of(&key.resource);
        let mut history = Vec::new();
        for ((revision, after), before) in versions.iter().zip(before).take(limit) {
            // What stands before the horizon is kept only for what it was then; who made it is gone.
            if *revision < horizon {
                break;
            }
            let missing = || {
                self.history
                    .corrupt(format_args!("event {revision}"), "it is missing")
            };
            let event = self.event_holding(*revision)?.ok_or_else(missing)?;
            history.push(Version {
                revision: *revision,
                event,
                before,
                after: after.clone(),
            });
        }
        Ok(history)
    }

    /// Events' times only grow, so a search by halves finds it in one seek for each doubling of history. None: before `first`.
    fn last_stamped(&self, time: Time, first: u64) -> Result<Option<u64>, StoreError> {
        let (mut low, mut high) = (first - 1, self.view.revision);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let missing = || {
                self.history
                    .corrupt(format_args!("event {middle}"), "it is missing")
            };
            let event = self.event_holding(middle)?.ok_or_else(missing)?.envelope;
            if event.time <= time {
                low = event.last;
            } else {
                high = event.first.max(first) - 1;
            }
        }
        Ok((low >= first).then_some(low))
    }
}

fn object_of(version: Versioned) -> Option<Arc<Object>> {
    match version {
        Versioned::Object(object) => Some(object),
        Versioned::Gone => None,
    }
}

/// A range of (namespace, name), narrowed to a namespace.
fn within(namespace: Option<&str>, range: &impl RangeBounds<Name>) -> Bounds {
    let (mut start, mut end) = (range.start_bound().cloned(), range.end_bound().cloned());
    if let Some(namespace) = namespace {
        let first = (Text::from(namespace), Text::from(""));
        if !matches!(&start, Bound::Included(name) | Bound::Excluded(name) if *name >= first) {
            start = Bound::Included(first);
        }
        // The first name behind all of a namespace's, for no namespace holds a NUL.
        let behind = (Text::from(format!("{namespace}\0")), Text::from(""));
        if !matches!(&end, Bound::Included(name) | Bound::Excluded(name) if *name < behind) {
            end = Bound::Excluded(behind);
        }
    }
    (start, end)
}
