//! A database made from an archive's files: the base, if there is one, then every event.
//!
//! It is of use once `finish` has returned; one that broke off is removed and made again.

use super::{Base, Segment};
use crate::record::{ResourceBooks, seal_coded, seal_event, seal_number, seal_object};
use crate::write::Writer;
use crate::{StoreConfig, StoreError, key_sets, layout, open};
use bytes::Bytes;
use eventstore::{Applied, Horizons, LEVEL, ReplayError, Retention, State, Text, View};
use seams::{Batch, Directory, Synced};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Events written as one batch.
const GROUP_EVENTS: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("{0}")]
    Wrong(String),
}

pub struct Loader {
    writer: Writer,
    state: State,
    /// Resources whose past the archive does not have whole: none of it is loaded.
    left_out: BTreeSet<Text>,
}

impl Loader {
    /// Into a database that is not there yet.
    pub fn new(
        directory: &dyn Directory,
        name: &str,
        config: &StoreConfig,
        left_out: impl IntoIterator<Item = Text>,
    ) -> Result<Self, LoadError> {
        if directory.exists(name).map_err(StoreError::from)? {
            return Err(LoadError::Wrong(format!(
                "there is a database {name} already"
            )));
        }
        let opened = open::open(directory, name, config)?;
        Ok(Self {
            writer: opened.writer,
            state: opened.state,
            left_out: left_out.into_iter().collect(),
        })
    }

    pub fn view(&self) -> &View {
        self.state.view()
    }

    /// A page of the base, in order.
    pub fn base(&mut self, page: Base) -> Result<(), LoadError> {
        let beginning = page.head.beginning;
        check_level(beginning.level)?;
        if page.head.page == 0 && self.view().revision == 0 {
            self.state = State::begin(beginning.clone());
        } else if page.head.page == 0 || self.view().digest != beginning.digest {
            return Err(LoadError::Wrong(
                "the pages of the base are not of one moment".to_owned(),
            ));
        }
        let mut batch = Batch::new();
        let objects = page.objects.into_iter();
        for object in objects.filter(|object| !self.left_out.contains(&object.key.resource)) {
            let object = self.state.begin_with(object);
            let version = layout::version(&object.key, object.revision());
            let value = seal_object(&version, &object);
            batch.put(version, value);
            let current = layout::current(&object.key);
            let value = seal_number(&current, object.revision());
            batch.put(current, value);
        }
        if page.head.next.is_none() {
            let key = layout::event(beginning.revision);
            let value = seal_event(&key, beginning.digest, &page.head.event);
            batch.put(key, value);
            self.writer.warm.begin(&mut batch, beginning.revision);
            self.end_base(&mut batch);
        }
        let disk = &self.writer.history.disk;
        disk.write(batch, Synced::No).map_err(StoreError::from)?;
        Ok(())
    }

    /// Who lived then, and that nothing before can be read.
    fn end_base(&mut self, batch: &mut Batch) {
        let horizons = Horizons {
            all: self.view().revision + 1,
            resources: Vec::new(),
        };
        let retention = Retention::reaching(&horizons);
        batch.put(layout::RETENTION, seal_coded(layout::RETENTION, &retention));
        self.state.set_retention(retention);
        let view = self.state.view();
        for resource in view.resources() {
            key_sets::write(batch, view, resource);
            let books = ResourceBooks {
                last_change: view.last_change(resource),
                births: 0,
            };
            self.writer.books.insert(resource.clone(), books);
            let key = layout::resource(resource);
            let value = seal_coded(&key, &books);
            batch.put(key, value);
        }
    }

    /// The next segment. It may begin before what is loaded.
    pub fn segment(&mut self, segment: Segment) -> Result<(), LoadError> {
        let head = &segment.head;
        check_level(head.level)?;
        if head.last <= self.view().revision {
            return Ok(());
        }
        let mut known = head.first <= self.view().revision;
        if !known && head.before != self.view().digest {
            return Err(LoadError::Wrong(format!(
                "the events from {} on do not follow from those before: their digests differ",
                head.first
            )));
        }
        let mut digest = head.before;
        let mut group = Vec::with_capacity(GROUP_EVENTS);
        for archived in segment.events {
            if known {
                digest = digest.chain(&archived.envelope);
                // Where the base stands inside of this segment.
                known = digest != self.view().digest;
                continue;
            }
            let event = self
                .state
                .replay(&archived.envelope, archived.bodies, |resource| {
                    self.left_out.contains(resource)
                })?;
            group.push((Arc::new(event), archived.envelope));
            if group.len() == GROUP_EVENTS {
                self.write(std::mem::take(&mut group))?;
            }
        }
        self.write(group)?;
        if known {
            return Err(LoadError::Wrong(format!(
                "what was loaded before is of no event up to {}: it is another history",
                head.last
            )));
        }
        Ok(())
    }

    fn write(&mut self, events: Vec<(Arc<eventstore::Event>, Bytes)>) -> Result<(), LoadError> {
        if events.is_empty() {
            return Ok(());
        }
        let applied = Applied {
            position: self.view().position,
            events,
            ..Applied::default()
        };
        self.writer.begin();
        let view = self.state.view();
        self.writer.write(&[applied], view, &[])?;
        Ok(())
    }

    /// Makes it durable. What was left out can be read from here on only.
    pub fn finish(mut self) -> Result<View, LoadError> {
        let mut batch = Batch::new();
        // A start must not take from the events what was left out.
        let all = self.view().revision + 1;
        self.writer.warm.cool(&mut batch, all);
        // Of a base alone nothing has said it yet.
        self.writer.put_meta(&mut batch, self.state.view(), &[]);
        if !self.left_out.is_empty() {
            let view = self.state.view();
            let horizons = Horizons {
                all: view.retention.horizon(),
                resources: self
                    .left_out
                    .iter()
                    .map(|resource| (resource.clone(), view.revision + 1))
                    .collect(),
            };
            let retention = Retention::reaching(&horizons);
            batch.put(layout::RETENTION, seal_coded(layout::RETENTION, &retention));
            self.state.set_retention(retention);
        }
        let disk = &self.writer.history.disk;
        disk.write(batch, Synced::No).map_err(StoreError::from)?;
        disk.flush().map_err(StoreError::from)?;
        Ok(self.state.view().clone())
    }
}

fn check_level(level: u32) -> Result<(), LoadError> {
    if level > LEVEL {
        return Err(LoadError::Wrong(format!(
            "the archive is of level {level}, this program knows {LEVEL}: take a newer one"
        )));
    }
    Ok(())
}
