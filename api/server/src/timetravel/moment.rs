//! A moment that a read shows: the present view, or a revision of the past. The two answer alike.

use crate::core::Core;
use crate::http::{past_error, unavailable};
use eventstore::{Key, Object, Text, Time, View};
use eventstore_disk::Store;
use kinds::error::StatusError;
use std::ops::Bound;
use std::sync::Arc;
use tokio::time::Instant;

#[derive(Clone)]
pub(crate) enum Moment {
    Now(View),
    Past {
        store: Store,
        revision: u64,
        /// The time that was asked for, if it was a time.
        time: Option<Time>,
    },
}

/// Some of a list, in the order of namespace, then name.
pub(crate) struct Chunk {
    pub objects: Vec<Arc<Object>>,
    /// There are more behind the last.
    pub more: bool,
}

/// (namespace, name)
pub(crate) type Place = (Text, Text);

impl Moment {
    pub fn now(view: View) -> Self {
        Self::Now(view)
    }

    /// A revision that this server has applied. Inside an event: that event whole.
    pub fn at(core: &Core, revision: u64) -> Result<Self, StatusError> {
        let store = core.store().clone();
        let end = store.event_end(revision).map_err(past_error)?;
        if end != revision {
            store.not_lost(revision).map_err(past_error)?;
        }
        let revision = end;
        let view = core.view();
        Ok(if view.revision == revision {
            Self::Now(view)
        } else {
            Self::Past {
                store,
                revision,
                time: None,
            }
        })
    }

    /// What `/at/<revision or RFC 3339 time>/` names. A time is the last event stamped at or before it, among all that were
    /// acknowledged before this call.
    pub async fn named(core: &Core, text: &str, deadline: Instant) -> Result<Self, StatusError> {
        if let Ok(revision) = text.parse::<u64>() {
            core.not_older_than(revision, deadline)
                .await
                .map_err(|error| {
                    StatusError::too_large_resource_version(error.asked, error.current)
                })?;
            return Self::at(core, revision);
        }
        let time = Time::parse(text).ok_or_else(|| {
            StatusError::bad_request(format!("{text:?} is no moment: name a revision (/at/1207/…) or a time (/at/2026-11-21T08:00:00Z/…)"))
        })?;
        core.linearizable(deadline)
            .await
            .map_err(|error| unavailable(&error))?;
        let now = core.now();
        if time > now {
            return Err(StatusError::bad_request(format!(
                "{text} is in the future: it is {}",
                now.milli()
            )));
        }
        let revision = core.store().revision_at(time).map_err(past_error)?;
        let revision = revision.ok_or_else(|| {
            StatusError::expired(format!("{text} is before this cluster's first event"))
        })?;
        let mut moment = Self::at(core, revision)?;
        if let Self::Past { time: asked, .. } = &mut moment {
            *asked = Some(time);
        }
        Ok(moment)
    }

    /// When it was: the time that was asked for, else the event's. None for the present.
    pub fn time(&self) -> Result<Option<Time>, StatusError> {
        match self {
            Self::Now(_) => Ok(None),
            Self::Past {
                time: Some(time), ..
            } => Ok(Some(*time)),
            Self::Past {
                store, revision, ..
            } => {
                let event = store.recorded_at(*revision).map_err(past_error)?;
                Ok(event.map(|event| event.envelope.time))
            }
        }
    }

    pub fn revision(&self) -> u64 {
        match self {
            Self::Now(view) => view.revision,
            Self::Past { revision, .. } => *revision,
        }
    }

    /// No more objects than this has a resource. Those of the past are not counted: each costs a read of the disk.
    pub fn count_at_most(&self, resource: &str) -> usize {
        match self {
            Self::Now(view) => view.count(resource),
            Self::Past { .. } => usize::MAX,
        }
    }

    /// Reading costs the disk.
    pub fn is_past(&self) -> bool {
        matches!(self, Self::Past { .. })
    }

    pub fn get(&self, key: &Key) -> Result<Option<Arc<Object>>, StatusError> {
        match self {
            Self::Now(view) => Ok(view.get(key).cloned()),
            Self::Past {
                store, revision, ..
            } => store.object_at(key, *revision).map_err(past_error),
        }
    }

    /// At most `limit` objects of a resource behind a place; of one namespace if one is named.
    pub fn chunk(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Chunk, StatusError> {
        let from = match (after, namespace) {
            (Some(place), _) => Bound::Excluded(place.clone()),
            (None, Some(namespace)) => Bound::Included((namespace.into(), "".into())),
            (None, None) => Bound::Unbounded,
        };
        match self {
            Self::Now(view) => {
                let inside = |object: &&Arc<Object>| {
                    namespace.is_none_or(|namespace| *object.key.namespace == *namespace)
                };
                let mut rest = view
                    .range(resource, (from, Bound::Unbounded))
                    .take_while(inside);
                let objects = rest.by_ref().take(limit).cloned().collect();
                Ok(Chunk {
                    objects,
                    more: rest.next().is_some(),
                })
            }
            Self::Past {
                store, revision, ..
            } => {
                let page = store
                    .list_at(
                        resource,
                        namespace,
                        *revision,
                        (from, Bound::Unbounded),
                        limit,
                    )
                    .map_err(past_error)?;
                Ok(Chunk {
                    objects: page.objects,
                    more: page.more,
                })
            }
        }
    }
}
