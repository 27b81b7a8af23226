//! A database made from an archive.

use super::{Archive, ArchiveError, Stored, of_file};
use eventstore::{Digest, Text, Time, View};
use eventstore_disk::StoreConfig;
use eventstore_disk::backup::{Base, BaseHead, FileError, Loader, Segment, SegmentHead};
use seams::Directory;
use std::collections::BTreeSet;
use std::fmt;
use uuid::Uuid;

/// A base that is whole.
#[derive(Clone, Debug)]
pub struct BaseFiles {
    pub pages: Vec<Stored>,
    /// Of the last page.
    pub head: BaseHead,
    /// Where the event begins at whose end it stands.
    pub first: u64,
    /// Resources whose past does not reach back so far, by any page.
    pub without: BTreeSet<Text>,
}

/// An unbroken stretch of one cluster's history: its files in the order in which they are loaded.
#[derive(Clone, Debug)]
pub struct Chain {
    pub cluster: Uuid,
    /// None where the segments begin with the founding.
    pub base: Option<BaseFiles>,
    pub segments: Vec<(Stored, SegmentHead)>,
}

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub events: u64,
    pub view: View,
    /// As of the base, of which the database can tell no more once there is anything behind it.
    pub begins: Option<View>,
}

impl Chain {
    /// What follows a base, or the founding, without a gap.
    pub(super) fn from(
        cluster: Uuid,
        base: Option<BaseFiles>,
        segments: &[(Stored, SegmentHead)],
    ) -> Self {
        let mut chain = Self {
            cluster,
            base,
            segments: Vec::new(),
        };
        for (file, head) in segments {
            let (after, digest) = (chain.last(), chain.digest());
            if head.last <= after {
                continue;
            }
            // One that begins before is looked at as it is loaded.
            let follows = head.first == after + 1 && head.before == digest;
            if !follows && head.first > after {
                break;
            }
            chain.segments.push((file.clone(), head.clone()));
        }
        chain
    }

    /// The first revision that can be restored.
    pub fn first(&self) -> u64 {
        self.base.as_ref().map_or(1, |base| base.first)
    }

    pub fn last(&self) -> u64 {
        let of_base = self.base.as_ref().map(|base| base.head.beginning.revision);
        let last = self.segments.last().map(|(_, head)| head.last);
        last.or(of_base).unwrap_or_default()
    }

    /// Of the chain up to its last event.
    pub fn digest(&self) -> Digest {
        let of_base = self.base.as_ref().map(|base| base.head.beginning.digest);
        let last = self.segments.last().map(|(_, head)| head.digest);
        last.or(of_base).unwrap_or_default()
    }

    /// The time of its base; None: it begins with the founding.
    pub fn begins(&self) -> Option<Time> {
        self.base.as_ref().map(|base| base.head.beginning.clock)
    }

    /// The time of the last event.
    pub fn time(&self) -> Time {
        let last = self.segments.last().map(|(_, head)| head.time);
        last.or(self.begins()).unwrap_or_default()
    }

    /// Whether its base stands at the event right behind another's end: nothing happened between.
    pub(super) fn adjoins(&self, before: &Self) -> bool {
        self.base.as_ref().is_some_and(|base| {
            before.last() + 1 == base.first
                && before.digest().chain(&base.head.event) == base.head.beginning.digest
        })
    }

    pub fn files(&self) -> impl Iterator<Item = &Stored> {
        let pages = self.base.iter().flat_map(|base| &base.pages);
        pages.chain(self.segments.iter().map(|(file, _)| file))
    }

    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    pub fn events(&self) -> u64 {
        self.segments.iter().map(|(_, head)| head.events).sum()
    }

    /// Resources whose past is not all there.
    pub fn without(&self) -> BTreeSet<Text> {
        let of_base = self.base.iter().flat_map(|base| base.without.clone());
        let of_segments = self
            .segments
            .iter()
            .flat_map(|(_, head)| head.without.clone());
        of_base.chain(of_segments).collect()
    }
}

/// `revisions 1 to 120 (up to 2026-01-31T12:00:00.000Z)`
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revisions {} to {} (", self.first(), self.last())?;
        match self.begins() {
            Some(begins) => write!(f, "{} to {})", begins.milli(), self.time().milli()),
            None => write!(f, "up to {})", self.time().milli()),
        }
    }
}

pub(super) async fn read_page(archive: &Archive, page: &Stored) -> Result<Base, ArchiveError> {
    Base::read(&archive.read(page).await?).map_err(of_file(page))
}

pub(super) async fn read_segment(
    archive: &Archive,
    file: &Stored,
) -> Result<Segment, ArchiveError> {
    Segment::read(&archive.read(file).await?).map_err(of_file(file))
}

/// Loads all of a chain into a database that is not there yet; every checksum, hash and digest is checked on the way. `told` is called
/// after each file with the revision reached.
pub async fn load(
    archive: &Archive,
    chain: &Chain,
    directory: &dyn Directory,
    database: &str,
    told: impl Fn(u64),
) -> Result<Loaded, ArchiveError> {
    let of = |file: &str| {
        let file = file.to_owned();
        move |error| ArchiveError::Load { file, error }
    };
    let config = StoreConfig::default();
    let mut loader =
        Loader::new(directory, database, &config, chain.without()).map_err(of(database))?;
    let mut begins = None;
    if let Some(base) = &chain.base {
        for (page, number) in base.pages.iter().zip(0..) {
            let read = read_page(archive, page).await?;
            let (at, wanted) = (&read.head.beginning, &base.head.beginning);
            if (at.revision, read.head.page) != (wanted.revision, number) {
                return Err(of_file(page)(other(format_args!(
                    "page {} of revision {}",
                    read.head.page, at.revision
                ))));
            }
            loader.base(read).map_err(of(page.name.as_ref()))?;
        }
        begins = Some(loader.view().clone());
    }
    let mut events = 0;
    for (file, head) in &chain.segments {
        let segment = read_segment(archive, file).await?;
        if segment.head != *head {
            return Err(of_file(file)(other(format_args!(
                "revisions {} to {}",
                segment.head.first, segment.head.last
            ))));
        }
        events += segment.head.events;
        loader.segment(segment).map_err(of(file.name.as_ref()))?;
        told(loader.view().revision);
    }
    let view = loader.finish().map_err(of(database))?;
    Ok(Loaded {
        events,
        view,
        begins,
    })
}

/// It is not what it was when its head was read.
fn other(what: fmt::Arguments<'_>) -> FileError {
    FileError::Head(what.to_string())
}
