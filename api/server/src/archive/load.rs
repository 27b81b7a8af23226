//! A database made from an archive.

use super::{Archive, ArchiveError, Contents, Stored};
use eventstore::{Text, Time};
use eventstore_disk::StoreConfig;
use eventstore_disk::backup::{Base, BaseHead, Loader, Segment, SegmentHead};
use futures::{StreamExt, TryStreamExt};
use seams::Directory;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Files whose heads are read at once.
const READS: usize = 16;

/// One cluster's files in the order in which they are loaded.
#[derive(Clone, Debug)]
pub struct Chain {
    pub cluster: Uuid,
    /// Its pages; none where the segments begin with the founding.
    pub base: Vec<Stored>,
    pub base_head: Option<BaseHead>,
    pub segments: Vec<(Stored, SegmentHead)>,
}

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub events: u64,
    pub view: eventstore::View,
}

impl Chain {
    /// The newest base that is whole and the segments that follow it without a gap. An error names what is missing.
    pub async fn of(archive: &Archive, cluster: Uuid) -> Result<Self, ArchiveError> {
        let Contents { bases, segments } = archive.contents(cluster).await?;
        if segments.is_empty() && bases.is_empty() {
            return Err(ArchiveError::Asked(format!(
                "{} has nothing of cluster {cluster}",
                archive.url()
            )));
        }
        let mut chain = Self {
            cluster,
            base: Vec::new(),
            base_head: None,
            segments: Vec::new(),
        };
        for pages in bases.into_values().rev() {
            let Some(last) = pages.last() else { continue };
            let head = archive.base_head(last).await?;
            if head.next.is_none() && head.page as usize + 1 == pages.len() {
                (chain.base, chain.base_head) = (pages, Some(head));
                break;
            }
        }
        let (mut after, mut digest) = match &chain.base_head {
            Some(head) => (head.beginning.revision, head.beginning.digest),
            None => Default::default(),
        };
        let heads = segments.into_values().map(|file| async move {
            let head = archive.segment_head(&file).await?;
            Ok::<_, ArchiveError>((file, head))
        });
        let mut heads = futures::stream::iter(heads).buffered(READS);
        while let Some((file, head)) = heads.try_next().await? {
            if head.last <= after {
                continue;
            }
            let inside_of_base = chain.segments.is_empty() && head.first <= after;
            if !inside_of_base && (head.first != after + 1 || head.before != digest) {
                return Err(ArchiveError::Asked(format!(
                    "{}: events {} to {} are missing before it",
                    file.name,
                    after + 1,
                    head.first.saturating_sub(1)
                )));
            }
            (after, digest) = (head.last, head.digest);
            chain.segments.push((file, head));
        }
        Ok(chain)
    }

    /// The first revision that can be read, and the last.
    pub fn revisions(&self) -> (u64, u64) {
        let begins = self.base_head.as_ref();
        let begins = begins.map_or(1, |head| head.beginning.revision + 1);
        let ends = self.segments.last().map(|(_, head)| head.last);
        (begins, ends.unwrap_or(begins - 1))
    }

    /// The time of the last event.
    pub fn time(&self) -> Time {
        let of_base = self.base_head.as_ref().map(|head| head.beginning.clock);
        let last = self.segments.last().map(|(_, head)| head.time);
        last.or(of_base).unwrap_or_default()
    }

    pub fn bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|(file, _)| file.bytes);
        self.base
            .iter()
            .map(|page| page.bytes)
            .chain(segments)
            .sum()
    }

    pub fn events(&self) -> u64 {
        self.segments.iter().map(|(_, head)| head.events).sum()
    }

    /// Resources whose past is not all there.
    pub fn without(&self) -> BTreeSet<Text> {
        let of_base = self.base_head.iter().flat_map(|head| head.without.clone());
        let of_segments = self
            .segments
            .iter()
            .flat_map(|(_, head)| head.without.clone());
        of_base.chain(of_segments).collect()
    }
}

async fn read_base(archive: &Archive, page: &Stored) -> Result<Base, ArchiveError> {
    Base::read(&archive.read(page).await?).map_err(|error| ArchiveError::File {
        file: page.name.to_string(),
        error,
    })
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
    for page in &chain.base {
        let base = read_base(archive, page).await?;
        loader.base(base).map_err(of(page.name.as_ref()))?;
    }
    let mut events = 0;
    for (file, _) in &chain.segments {
        let segment = Segment::read(&archive.read(file).await?);
        let segment = segment.map_err(|error| ArchiveError::File {
            file: file.name.to_string(),
            error,
        })?;
        events += segment.head.events;
        loader.segment(segment).map_err(of(file.name.as_ref()))?;
        told(loader.view().revision);
    }
    let view = loader.finish().map_err(of(database))?;
    Ok(Loaded { events, view })
}
