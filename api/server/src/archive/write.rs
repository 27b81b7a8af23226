//! Brings an archive up to what a cluster has: `reckon backup create` through the API, `--archive` on the leader.

use super::{Archive, ArchiveError};
use async_trait::async_trait;
use bytes::Bytes;
use eventstore_disk::backup::{Base, Continue, FileError, Segment, SegmentHead};
use uuid::Uuid;

/// Where the files come from: a store, or a server's API.
#[async_trait]
pub trait Source: Send + Sync {
    async fn cluster(&self) -> Result<Uuid, ArchiveError>;

    /// A page of the base; None: none is needed.
    async fn base_page(&self, from: Option<Continue>) -> Result<Option<Bytes>, ArchiveError>;

    /// The next segment; None: there is nothing after that revision yet.
    async fn segment_after(&self, after: u64) -> Result<Next, ArchiveError>;
}

pub enum Next {
    Segment(Bytes),
    Nothing,
    /// History begins only later: a new base is needed.
    Pruned,
}

/// What was written, and how far the archive reaches now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub cluster: Uuid,
    pub files: u64,
    pub bytes: u64,
    pub revision: u64,
    pub digest: eventstore::Digest,
}

/// Writes all that is not there yet. `told` is called with how far it reaches, first as it was found and then after each file. `known`: what an earlier call returned, so
/// that the archive need not be listed again.
pub async fn write(
    archive: &Archive,
    source: &dyn Source,
    known: Option<&Written>,
    told: impl Fn(&Written) + Send,
) -> Result<Written, ArchiveError> {
    let mut written = Written {
        cluster: source.cluster().await?,
        ..Written::default()
    };
    let cluster = written.cluster;
    let reached = match known.filter(|known| known.cluster == cluster) {
        Some(known) => Some((known.revision, known.digest)),
        None => reached(archive, cluster).await?,
    };
    let mut after = match reached {
        Some((revision, digest)) => {
            (written.revision, written.digest) = (revision, digest);
            revision
        }
        None => base(archive, source, &mut written).await?,
    };
    told(&written);
    loop {
        let file = match source.segment_after(after).await? {
            Next::Segment(file) => file,
            Next::Nothing => return Ok(written),
            Next::Pruned => {
                after = base(archive, source, &mut written).await?;
                continue;
            }
        };
        let head = Segment::read_head(&file).map_err(of_source)?;
        follows(&head, after, &written)?;
        let name = archive.segment_name(cluster, head.first);
        let bytes = file.len() as u64;
        if archive.put_new(&name, file.into()).await? {
            written.files += 1;
            written.bytes += bytes;
            (after, written.revision, written.digest) = (head.last, head.last, head.digest);
            told(&written);
        } else {
            // Somebody else archives too: go on behind what is there.
            match self::reached(archive, cluster).await? {
                Some((revision, digest)) if revision > after => {
                    (after, written.revision, written.digest) = (revision, revision, digest);
                }
                _ => {
                    return Err(ArchiveError::Asked(format!(
                        "{name} is there already and is not of this history"
                    )));
                }
            }
        }
    }
}

fn follows(head: &SegmentHead, after: u64, written: &Written) -> Result<(), ArchiveError> {
    if after > 0 && head.before != written.digest {
        return Err(ArchiveError::Asked(format!(
            "what is archived up to revision {after} is another history than this cluster's: its digest is {}, here it is {}",
            written.digest, head.before
        )));
    }
    Ok(())
}

/// How far the archive reaches, and the digest there.
async fn reached(
    archive: &Archive,
    cluster: Uuid,
) -> Result<Option<(u64, eventstore::Digest)>, ArchiveError> {
    let contents = archive.contents(cluster).await?;
    let segment = match contents.segments.last_key_value() {
        Some((_, last)) => {
            let head = archive.segment_head(last).await?;
            Some((head.last, head.digest))
        }
        None => None,
    };
    let mut base = None;
    for pages in contents.bases.values().rev() {
        let Some((_, last)) = pages.last_key_value() else {
            continue;
        };
        let head = archive.base_head(last).await?;
        // One that broke off is none.
        if head.next.is_none() && head.page as usize + 1 == pages.len() {
            base = Some((head.beginning.revision, head.beginning.digest));
            break;
        }
    }
    Ok(segment.max(base))
}

/// Writes a base, if one is needed; says where the segments begin.
async fn base(
    archive: &Archive,
    source: &dyn Source,
    written: &mut Written,
) -> Result<u64, ArchiveError> {
    let mut from = None;
    let mut revision = 0;
    while let Some(page) = source.base_page(from).await? {
        let mut head = Base::read_head(&page).map_err(of_source)?;
        revision = head.beginning.revision;
        let name = archive.base_name(written.cluster, revision, head.page);
        let bytes = page.len() as u64;
        if archive.put_new(&name, page.into()).await? {
            written.files += 1;
            written.bytes += bytes;
        } else {
            // One that is there is of the same moment, but may end elsewhere: fewer resources may reach back so far by now.
            let (there, digest) = (archive.stored(name).await?, head.beginning.digest);
            head = archive.base_head(&there).await?;
            if (head.beginning.revision, head.beginning.digest) != (revision, digest) {
                return Err(ArchiveError::Asked(format!(
                    "{} is there already and is not of this history",
                    there.name
                )));
            }
        }
        (written.revision, written.digest) = (revision, head.beginning.digest);
        from = head.next;
        if from.is_none() {
            break;
        }
    }
    Ok(revision)
}

fn of_source(error: FileError) -> ArchiveError {
    ArchiveError::Source(format!("the server sent no part of a backup: {error}"))
}
