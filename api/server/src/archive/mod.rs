//! Where backups lie: files of a cluster's history under a URL, on a disk or in an object store.
//!
//! `<url>/<cluster id>/events/<first revision>` are segments, in a row; `<url>/<cluster id>/base/<revision>-<page>` the bases, for clusters
//! whose history no longer went back to their founding when the archive was begun, or to where it was broken off. A file is written once and
//! never changed, so any number of writers can work on one archive: the first wins, and what the others would have written is the same
//! history.
//!
//! What is in the files is `eventstore_disk::backup`'s.

mod chains;
mod keep;
mod load;
pub(crate) mod pins;
pub mod restore;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub use chains::{Chains, Gap, Moment, Wrong};
pub use keep::{Archiving, OfStore, keep};
pub(crate) use keep::{SEGMENT_BYTES, Shown, shown};
pub use load::{BaseFiles, Chain, Loaded, load};
pub use verify::{Report, Verified, verify};
pub use write::{Next, Source, Written, write};

use bytes::Bytes;
use eventstore_disk::backup::{Base, BaseHead, FileError, LoadError, Segment, SegmentHead};
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use uuid::Uuid;

/// What most heads are read from.
const HEAD_BYTES: u64 = 64 << 10;
/// For how long a request that failed is tried again.
const RETRY: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(
        "'{url}' is no URL of an archive: {why}; say file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )]
    Url { url: String, why: String },
    #[error("{url}: {error}")]
    Store {
        url: String,
        error: object_store::Error,
    },
    #[error("{file}: {error}")]
    File { file: String, error: FileError },
    #[error("{file}: {error}")]
    Load { file: String, error: LoadError },
    #[error("{0}")]
    Source(String),
    #[error("{0}")]
    Asked(String),
}

/// All clusters' archives under one URL.
#[derive(Clone, Debug)]
pub struct Archive {
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// A file, by its name, and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub name: Path,
    pub bytes: u64,
}

/// What there is of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The pages of each base, by its revision.
    pub bases: BTreeMap<u64, BTreeMap<u32, Stored>>,
    /// By their first revision.
    pub segments: BTreeMap<u64, Stored>,
}

impl Archive {
    /// To write to: a directory that is not there yet is made.
    pub fn begin(url: &str) -> Result<Self, ArchiveError> {
        if let Ok(Ok(folder)) = Url::parse(url).map(|url| match url.scheme() {
            "file" => url.to_file_path(),
            _ => Err(()),
        }) {
            std::fs::create_dir_all(&folder).map_err(|error| ArchiveError::Url {
                url: url.to_owned(),
                why: format!("{}: {error}", folder.display()),
            })?;
        }
        Self::open(url)
    }

    /// To read from. Credentials and endpoints of object stores come from the environment, as their own tools take them: `AWS_ACCESS_KEY_ID`,
    /// `AWS_ENDPOINT`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on.
    pub fn open(url: &str) -> Result<Self, ArchiveError> {
        let no_url = |why: String| ArchiveError::Url {
            url: url.to_owned(),
            why,
        };
        let parsed = Url::parse(url).map_err(|error| no_url(error.to_string()))?;
        let failed = |error| ArchiveError::Store {
            url: url.to_owned(),
            error,
        };
        let (store, prefix): (Arc<dyn ObjectStore>, Path) = match parsed.scheme() {
            "file" => {
                let folder = parsed
                    .to_file_path()
                    .map_err(|()| no_url("it names no directory of this machine".to_owned()))?;
                if !folder.is_dir() {
                    return Err(no_url(format!("{} is no directory", folder.display())));
                }
                let store = LocalFileSystem::new_with_prefix(&folder).map_err(failed)?;
                (Arc::new(store.with_fsync(true)), Path::default())
            }
            "s3" => {
                let retry = RetryConfig {
                    retry_timeout: RETRY,
                    ..RetryConfig::default()
                };
                let store = AmazonS3Builder::from_env()
                    .with_url(url)
                    .with_retry(retry)
                    .build()
                    .map_err(failed)?;
                (Arc::new(store), Path::from(parsed.path()))
            }
            "gs" | "az" => {
                let environment =
                    std::env::vars().map(|(key, value)| (key.to_ascii_lowercase(), value));
                let (store, prefix) =
                    object_store::parse_url_opts(&parsed, environment).map_err(failed)?;
                (Arc::from(store), prefix)
            }
            other => return Err(no_url(format!("{other} is not known"))),
        };
        Ok(Self {
            url: url.to_owned(),
            store,
            prefix,
        })
    }

    /// In this process's memory, as long as anybody holds it: the simulation has no files and no network of the machine.
    pub fn in_memory() -> Self {
        Self {
            url: "memory:///".to_owned(),
            store: Arc::new(InMemory::new()),
            prefix: Path::default(),
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    fn failed(&self) -> impl Fn(object_store::Error) -> ArchiveError + '_ {
        |error| ArchiveError::Store {
            url: self.url.clone(),
            error,
        }
    }

    /// The clusters that have an archive here.
    pub async fn clusters(&self) -> Result<Vec<Uuid>, ArchiveError> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix)).await;
        let folders = listed.map_err(self.failed())?.common_prefixes;
        let names = folders.iter().filter_map(|folder| folder.filename());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    pub async fn contents(&self, cluster: Uuid) -> Result<Contents, ArchiveError> {
        let folder = self.folder(cluster);
        let mut contents = Contents::default();
        let mut files: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(self.failed())?;
        files.sort_by(|one, other| one.location.cmp(&other.location));
        for file in files {
            let rest: Vec<_> = file
                .location
                .prefix_match(&folder)
                .into_iter()
                .flatten()
                .map(|part| part.as_ref().to_owned())
                .collect();
            let stored = Stored {
                name: file.location,
                bytes: file.size,
            };
            match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["events", first] => {
                    if let Ok(first) = first.parse() {
                        contents.segments.insert(first, stored);
                    }
                }
                ["base", page] => {
                    if let Some((revision, page)) = page.split_once('-')
                        && let (Ok(revision), Ok(page)) = (revision.parse(), page.parse())
                    {
                        let pages = contents.bases.entry(revision).or_default();
                        pages.insert(page, stored);
                    }
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    /// One that is there.
    async fn stored(&self, name: Path) -> Result<Stored, ArchiveError> {
        let found = self.store.head(&name).await.map_err(self.failed())?;
        Ok(Stored {
            name,
            bytes: found.size,
        })
    }

    pub async fn read(&self, file: &Stored) -> Result<Bytes, ArchiveError> {
        let found = self.store.get(&file.name).await.map_err(self.failed())?;
        found.bytes().await.map_err(self.failed())
    }

    /// What a segment says it has.
    pub async fn segment_head(&self, file: &Stored) -> Result<SegmentHead, ArchiveError> {
        self.head(file, Segment::read_head).await
    }

    /// What a page of a base says it has.
    pub async fn base_head(&self, file: &Stored) -> Result<BaseHead, ArchiveError> {
        self.head(file, Base::read_head).await
    }

    async fn head<H>(
        &self,
        file: &Stored,
        read: impl Fn(&[u8]) -> Result<H, FileError>,
    ) -> Result<H, ArchiveError> {
        let range = 0..HEAD_BYTES.min(file.bytes);
        let beginning = self.store.get_range(&file.name, range).await;
        match read(&beginning.map_err(self.failed())?) {
            // A base's has an event, which may have changed many objects.
            Err(FileError::Short) if file.bytes > HEAD_BYTES => read(&self.read(file).await?),
            head => head,
        }
        .map_err(of_file(file))
    }

    /// Writes a file that is not there yet; false: it is.
    async fn put_new(&self, name: &Path, content: Vec<u8>) -> Result<bool, ArchiveError> {
        let options = PutOptions::from(PutMode::Create);
        match self
            .store
            .put_opts(name, PutPayload::from(content), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed()(error)),
        }
    }

    fn folder(&self, cluster: Uuid) -> Path {
        self.prefix.clone().join(cluster.to_string())
    }

    fn segment_name(&self, cluster: Uuid, first: u64) -> Path {
        self.folder(cluster)
            .join("events")
            .join(format!("{first:020}"))
    }

    fn base_name(&self, cluster: Uuid, revision: u64, page: u32) -> Path {
        self.folder(cluster)
            .join("base")
            .join(format!("{revision:020}-{page:06}"))
    }
}

fn of_file(file: &Stored) -> impl FnOnce(FileError) -> ArchiveError {
    let file = file.name.to_string();
    move |error| ArchiveError::File { file, error }
}
