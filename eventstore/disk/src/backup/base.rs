//! A base: what lived where an archive begins, in pages.

use super::FileError;
use super::file::{self, Builder};
use crate::{ReadError, Store, StoreError};
use bytes::Bytes;
use eventstore::{Beginning, Key, Object, Salt, Stamps, Text};
use serde::{Deserialize, Serialize};
use std::ops::Bound;

const KIND: &str = "reckon base 1\n";
/// Objects of a page, and their bytes before compression.
const PAGE_OBJECTS: usize = 2_000;
const PAGE_BYTES: usize = 8 << 20;

/// What a page has. Frozen: format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseHead {
    pub beginning: Beginning,
    /// The envelope of the event whose end that is.
    pub event: Bytes,
    /// From 0.
    pub page: u32,
    /// Where the next page begins; None: this is the last.
    pub next: Option<Continue>,
    pub objects: u64,
    /// Resources whose past does not reach back so far.
    pub without: Vec<Text>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub head: BaseHead,
    pub objects: Vec<Object>,
}

/// What is written of an object.
#[derive(Serialize, Deserialize)]
struct Written {
    key: Key,
    stamps: Stamps,
    salt: Salt,
    body: eventstore::Body,
}

impl Base {
    pub fn read(bytes: &[u8]) -> Result<Self, FileError> {
        let (head, objects): (BaseHead, Vec<Written>) = file::read(KIND, bytes)?;
        if head.objects != objects.len() as u64 {
            return Err(FileError::Head(format!("{} objects", head.objects)));
        }
        let objects = objects
            .into_iter()
            .map(|written| Object::stamp(written.key, &written.body, written.stamps, written.salt));
        Ok(Self {
            head,
            objects: objects.collect(),
        })
    }

    /// What a file says of itself, from its first few thousand bytes.
    pub fn read_head(beginning: &[u8]) -> Result<BaseHead, FileError> {
        Ok(file::head(KIND, beginning)?.0)
    }
}

/// Where the next page of a base begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    /// The revision of all pages.
    pub revision: u64,
    page: u32,
    resource: String,
    /// Behind this one.
    after: Option<(String, String)>,
}

impl Store {
    /// A page of what lived at the horizon, as a file, with its head. None: history goes back to the founding,
    /// and an archive needs no base.
    pub fn base_page(
        &self,
        from: Option<Continue>,
    ) -> Result<Option<(BaseHead, Vec<u8>)>, ReadError> {
        let horizon = self.horizon();
        let mut at = match from {
            Some(from) => from,
            None if horizon == 0 => return Ok(None),
            None => Continue {
                revision: self.event_end(horizon)?,
                page: 0,
                resource: String::new(),
                after: None,
            },
        };
        let published = self.published();
        let retention = published.view.retention.clone();
        let missing = || {
            let what = format_args!("event {}", at.revision).to_string();
            published.history.corrupt(what, "it is missing")
        };
        let event = self.recorded_at(at.revision)?.ok_or_else(missing)?;
        let mut builder = Builder::new();
        let (mut objects, mut bytes) = (0, 0);
        let (mut next, mut without) = (None, Vec::new());
        let resources: Vec<Text> = published.view.resources().cloned().collect();
        for resource in &resources {
            if retention.horizon_of(resource) > at.revision {
                without.push(resource.clone());
            }
        }
        'all: for resource in &resources {
            if **resource < *at.resource || without.contains(resource) {
                continue;
            }
            let mut after = at.after.take().filter(|_| **resource == *at.resource);
            loop {
                let start = after
                    .as_ref()
                    .map_or(Bound::Unbounded, |(namespace, name)| {
                        Bound::Excluded((Text::from(&**namespace), Text::from(&**name)))
                    });
                let range = (start, Bound::Unbounded);
                let page = self.list_at(resource, None, at.revision, range, PAGE_OBJECTS)?;
                for object in &page.objects {
                    let written = Written {
                        key: object.key.clone(),
                        stamps: object.stamps,
                        salt: object.salt,
                        body: object.body(),
                    };
                    bytes += builder.add(&written).map_err(|error| packed(&error))?;
                    objects += 1;
                    let key = &object.key;
                    after = Some((key.namespace.to_string(), key.name.to_string()));
                    if objects >= PAGE_OBJECTS || bytes >= PAGE_BYTES {
                        next = Some(Continue {
                            revision: at.revision,
                            page: at.page + 1,
                            resource: resource.to_string(),
                            after,
                        });
                        break 'all;
                    }
                }
                if !page.more {
                    break;
                }
            }
        }
        let head = BaseHead {
            beginning: Beginning {
                cluster: published.view.cluster,
                level: published.view.level,
                revision: at.revision,
                digest: event.digest,
                position: event.envelope.position,
                clock: event.envelope.time,
            },
            event: event.encoded,
            page: at.page,
            next,
            objects: objects as u64,
            without,
        };
        let file = builder
            .finish(KIND, &head)
            .map_err(|error| packed(&error))?;
        Ok(Some((head, file)))
    }
}

/// Packing into memory fails only if memory does.
fn packed(error: &FileError) -> StoreError {
    StoreError::Broken(format!("a base cannot be made: {error}"))
}
