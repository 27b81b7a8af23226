//! What lives, in one piece, as a clean stop leaves it for the next start.
//!
//! History has each version where it was written: between others of its time, most of which have been replaced since. To read what lives
//! from there is to read several times as much. A server that stops has it all in memory, and writes it behind one another.
//!
//! It is a copy and nothing else. Where it is whole, and of the event that is the last one, it is all that lives, and nothing more is
//! read. Otherwise the database tells what lives: a version never changes, so one that is wanted and is here is right, whatever came after
//! the stop; one that is damaged or missing is read from history. It is taken once, and then removed.

use crate::history::History;
use crate::record::{Versioned, seal_coded, seal_object, unseal_coded, unseal_version};
use crate::{StoreError, layout};
use bytes::Bytes;
use eventstore::{Digest, Key, Object, View};
use seams::{Directory, DiskError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Beside the databases.
const FOLDER: &str = "living";
const FILE: &str = "versions";
/// Written and read at once.
const PIECE: usize = 1 << 20;
/// A copy as large as this part of the room that is left is not worth having.
const PART_OF_ROOM: u64 = 4;

/// Versions by their keys in the database, as they are written there.
#[derive(Default)]
pub(crate) struct Living {
    of: Option<Of>,
    versions: HashMap<Bytes, Bytes>,
}

/// What it is of: the last event, and how many lived. Written first, under `OF`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    revision: u64,
    digest: Digest,
    count: u64,
}

const OF: &[u8] = b"of";

/// Writes what lives in a view.
pub(crate) fn leave(directory: &dyn Directory, view: &View) -> Result<(), StoreError> {
    directory.remove(FOLDER)?;
    let bytes: usize = view.objects().map(|object| object.bytes.len()).sum();
    if bytes as u64 > directory.room()?.free / PART_OF_ROOM {
        return Ok(());
    }
    let of = Of {
        revision: view.revision,
        digest: view.digest,
        count: view.objects().count() as u64,
    };
    let (mut piece, mut written) = (Vec::with_capacity(2 * PIECE), 0);
    put(&mut piece, OF, &seal_coded(OF, &of));
    let mut append = |piece: &mut Vec<u8>| {
        directory.append_at(FOLDER, FILE, written, piece)?;
        written += piece.len() as u64;
        piece.clear();
        Ok::<_, DiskError>(())
    };
    for object in view.objects() {
        let key = layout::version(&object.key, object.revision());
        put(&mut piece, &key, &seal_object(&key, object));
        if piece.len() >= PIECE {
            append(&mut piece)?;
        }
    }
    append(&mut piece)?;
    directory.sync(FOLDER)?;
    Ok(())
}

/// It has been read, or is of no more use.
pub(crate) fn remove(directory: &dyn Directory) -> Result<(), DiskError> {
    directory.remove(FOLDER)
}

impl Living {
    /// What the last stop left. It is a copy: what can't be read is as good as not there.
    pub fn read(directory: &dyn Directory) -> Self {
        let mut living = Self::default();
        let _ = living.read_all(directory);
        living
    }

    fn read_all(&mut self, directory: &dyn Directory) -> Result<(), DiskError> {
        if !directory.exists(FOLDER)? {
            return Ok(());
        }
        let (mut unread, mut offset) = (Vec::new(), 0);
        loop {
            let piece = directory.read_at(FOLDER, FILE, offset, PIECE)?;
            offset += piece.len() as u64;
            unread.extend_from_slice(&piece);
            let mut rest = &unread[..];
            while let Some((key, value, behind)) = next(rest) {
                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                if key == OF {
                    self.of = unseal_coded(OF, &value).ok();
                } else {
                    self.versions.insert(key, value);
                }
                rest = behind;
            }
            let left = rest.len();
            if piece.len() < PIECE {
                return Ok(());
            }
            unread.drain(..unread.len() - left);
        }
    }

    /// All that lives, in the order of keys, if this is it: of this last event, and whole.
    pub fn all(&self, revision: u64, digest: Digest) -> Option<Vec<Arc<Object>>> {
        let of = Of {
            revision,
            digest,
            count: self.versions.len() as u64,
        };
        if self.of.as_ref() != Some(&of) {
            return None;
        }
        let objects = self.versions.iter().map(|(disk_key, value)| {
            let (key, _) = layout::key_of_version(disk_key)?;
            match unseal_version(disk_key, &key, value) {
                Ok(Versioned::Object(object)) => Some(object),
                Ok(Versioned::Gone) | Err(_) => None,
            }
        });
        let mut objects: Vec<_> = objects.collect::<Option<_>>()?;
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Some(objects)
    }

    /// Takes out a version, if it is here and whole. That it is damaged is noted among what was found so in `history`.
    pub fn take(&mut self, history: &History, key: &Key, revision: u64) -> Option<Arc<Object>> {
        let disk_key = layout::version(key, revision);
        let value = self.versions.remove(&disk_key[..])?;
        let here = History {
            name: FOLDER.into(),
            ..history.clone()
        };
        match here.read_version(key, &disk_key, &value) {
            Ok((_, Versioned::Object(object))) => Some(object),
            Ok((_, Versioned::Gone)) | Err(_) => None,
        }
    }
}

fn put(piece: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        piece.extend_from_slice(&(part.len() as u32).to_be_bytes());
        piece.extend_from_slice(part);
    }
}

/// The first key and value, and what is behind them. None: they are not whole.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (len, rest) = bytes.split_first_chunk()?;
        rest.split_at_checked(u32::from_be_bytes(*len) as usize)
    }
    let (key, rest) = part(bytes)?;
    let (value, rest) = part(rest)?;
    Some((key, value, rest))
}
