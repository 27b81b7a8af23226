//! `--archive URL`: the leader writes history away as it is made.

use super::write::{Next, Source, Written, write};
use super::{Archive, ArchiveError, pins};
use crate::core::Core;
use async_trait::async_trait;
use bytes::Bytes;
use eventstore::Time;
use eventstore_disk::backup::Continue;
use eventstore_disk::{ReadError, Store};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

/// Between two looks for what is new: so much may be lost with all servers at once.
const INTERVAL: Duration = Duration::from_secs(5);
/// A segment's bytes before compression.
pub(crate) const SEGMENT_BYTES: usize = 8 << 20;

/// How the archive stands, as this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Archiving {
    pub url: String,
    /// All up to here is archived.
    pub revision: u64,
    /// How old the oldest event is that is not, while the last try failed.
    pub lag_s: u64,
    pub files: u64,
    pub bytes: u64,
    pub failures: u64,
    /// Why the last try failed, until one succeeds.
    pub error: Option<String>,
}

/// What all may look at while it is kept.
pub(crate) type Shown = Arc<Mutex<Option<Archiving>>>;

/// Runs as long as the server; works while it leads.
pub async fn keep(core: Core, url: String, shown: Shown) {
    let show = |change: &dyn Fn(&mut Archiving)| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        change(shown.get_or_insert_with(|| Archiving {
            url: url.clone(),
            ..Archiving::default()
        }));
    };
    show(&|_| {});
    let mut known: Option<Written> = None;
    loop {
        sleep(INTERVAL).await;
        if !core.node().status().leads() || core.view().level == 0 {
            // Another knows how it stands, and writes.
            known = None;
            show(&|shown| (shown.lag_s, shown.error) = (0, None));
            continue;
        }
        let source = OfServer {
            core: core.clone(),
            of: OfStore {
                store: core.store().clone(),
                segment_bytes: SEGMENT_BYTES,
            },
        };
        let result = match Archive::begin(&url) {
            Ok(archive) => write(&archive, &source, known.as_ref(), |_| {}).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(written) => {
                show(&|shown| {
                    shown.revision = written.revision;
                    shown.files += written.files;
                    shown.bytes += written.bytes;
                    (shown.lag_s, shown.error) = (0, None);
                });
                known = Some(written);
            }
            Err(error) => {
                known = None;
                tracing::warn!(%error, "history could not be archived; trying again");
                show(&|shown| {
                    shown.failures += 1;
                    shown.error = Some(error.to_string());
                    shown.lag_s = lag_s(&core, shown.revision);
                });
            }
        }
    }
}

/// The age of the first event behind a revision.
fn lag_s(core: &Core, revision: u64) -> u64 {
    let first = core.store().recorded_at(revision + 1).ok().flatten();
    let since: Option<Time> = first.map(|event| event.envelope.time);
    since.map_or(0, |since| {
        (core.now().ms() - since.ms()).max(0) as u64 / 1_000
    })
}

/// A server's own store, of which no horizon passes what is being read.
struct OfServer {
    core: Core,
    of: OfStore,
}

#[async_trait]
impl Source for OfServer {
    async fn cluster(&self) -> Result<Uuid, ArchiveError> {
        self.of.cluster().await
    }

    async fn base_page(&self, from: Option<Continue>) -> Result<Option<Bytes>, ArchiveError> {
        pins::of_base(&self.core, from.as_ref()).await;
        self.of.base_page(from).await
    }

    async fn segment_after(&self, after: u64) -> Result<Next, ArchiveError> {
        pins::pin(&self.core, after).await;
        self.of.segment_after(after).await
    }
}

/// A store, whose horizon may move on meanwhile.
pub struct OfStore {
    pub store: Store,
    /// Before compression.
    pub segment_bytes: usize,
}

#[async_trait]
impl Source for OfStore {
    async fn cluster(&self) -> Result<Uuid, ArchiveError> {
        Ok(self.store.view().cluster)
    }

    async fn base_page(&self, from: Option<Continue>) -> Result<Option<Bytes>, ArchiveError> {
        let page = self.store.base_page(from).map_err(of_store)?;
        Ok(page.map(|(_, page)| page.into()))
    }

    async fn segment_after(&self, after: u64) -> Result<Next, ArchiveError> {
        match self.store.segment_after(after, self.segment_bytes) {
            Ok(Some((_, file))) => Ok(Next::Segment(file.into())),
            // Who led before has archived what is not folded here yet.
            Ok(None) | Err(ReadError::FutureRevision { .. }) => Ok(Next::Nothing),
            Err(ReadError::Compacted { .. }) => Ok(Next::Pruned),
            Err(error) => Err(of_store(error)),
        }
    }
}

fn of_store(error: ReadError) -> ArchiveError {
    ArchiveError::Source(error.to_string())
}
