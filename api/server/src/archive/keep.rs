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
    /// Where it leads: how old the oldest event is that is not.
    pub lag_s: u64,
    pub files: u64,
    pub bytes: u64,
    pub failures: u64,
    /// Why the last try failed, until one succeeds.
    pub error: Option<String>,
    /// The revision at which it came to lead; None: it does not. What is before it another may have archived.
    #[serde(skip)]
    led_from: Option<u64>,
}

/// What all may look at while it is kept.
pub(crate) type Shown = Arc<Mutex<Option<Archiving>>>;

/// Runs as long as the server; works while it leads.
pub async fn keep(core: Core, url: String, shown: Shown) {
    let begin = || Archive::begin(&url);
    keep_every(INTERVAL, &core, &url, &shown, begin).await;
}

async fn keep_every(
    interval: Duration,
    core: &Core,
    url: &str,
    shown: &Shown,
    begin: impl Fn() -> Result<Archive, ArchiveError>,
) {
    let show = |change: &dyn Fn(&mut Archiving)| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        change(shown.get_or_insert_with(|| Archiving {
            url: url.to_owned(),
            ..Archiving::default()
        }));
    };
    show(&|_| {});
    let mut known: Option<Written> = None;
    loop {
        sleep(interval).await;
        if !core.node().status().leads() || core.view().level == 0 {
            // Another knows how it stands, and writes.
            known = None;
            show(&|shown| (shown.led_from, shown.error) = (None, None));
            continue;
        }
        let newest = core.view().revision;
        show(&|shown| shown.led_from = shown.led_from.or(Some(newest)));
        let source = OfServer {
            core: core.clone(),
            of: OfStore {
                store: core.store().clone(),
                segment_bytes: SEGMENT_BYTES,
            },
        };
        let reached = |written: &Written| show(&|shown| shown.revision = written.revision);
        let result = match begin() {
            Ok(archive) => write(&archive, &source, known.as_ref(), reached).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(written) => {
                show(&|shown| {
                    shown.revision = written.revision;
                    shown.files += written.files;
                    shown.bytes += written.bytes;
                    shown.error = None;
                });
                known = Some(written);
            }
            Err(error) => {
                known = None;
                tracing::warn!(%error, "history could not be archived; trying again");
                show(&|shown| {
                    shown.failures += 1;
                    shown.error = Some(error.to_string());
                });
            }
        }
    }
}

/// How it stands at this moment, also while something is being written; None: no archive is kept.
pub(crate) fn shown(core: &Core, shown: &Shown) -> Option<Archiving> {
    let shown = shown
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()?;
    let lag_s = match shown.led_from {
        Some(revision) if core.node().status().leads() => lag_s(core, shown.revision.max(revision)),
        Some(_) | None => 0,
    };
    Some(Archiving { lag_s, ..shown })
}

/// The age of the first event behind a revision, as far as history reaches.
fn lag_s(core: &Core, revision: u64) -> u64 {
    let store = core.store();
    let first = store.recorded_at((revision + 1).max(store.horizon()));
    let first = first.ok().flatten();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{Server, server};
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use serde_json::json;

    const FOR_EVER: Duration = Duration::from_secs(3_600);
    const OFTEN: Duration = Duration::from_millis(20);

    async fn write(server: &Server, name: &str) {
        let map = json!({"metadata": {"name": name}});
        let maps = "/api/v1/namespaces/default/configmaps";
        assert_eq!(server.json("POST", maps, map).await.0, 201);
    }

    async fn until(server: &Server, seen: &Shown, holds: impl Fn(&Archiving) -> bool) -> Archiving {
        for _ in 0..1_000 {
            if let Some(stands) = shown(server.core(), seen).filter(&holds) {
                return stands;
            }
            sleep(OFTEN).await;
        }
        panic!("it stands at {:?}", shown(server.core(), seen));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_lag_is_told_while_nothing_comes_to_an_end() {
        let server = server().await;
        let store = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
        let store = Arc::new(store);
        let archive = Archive {
            url: "memory:".to_owned(),
            store: store.clone(),
            prefix: Path::default(),
        };
        let seen = Shown::default();
        let keeping = {
            let (core, seen) = (server.core().clone(), seen.clone());
            let begin = move || Ok(archive.clone());
            tokio::spawn(async move { keep_every(OFTEN, &core, "memory:", &seen, begin).await })
        };
        write(&server, "a").await;
        let written = server.core().view().revision;
        let stands = until(&server, &seen, |stands| stands.revision >= written).await;
        assert!(stands.lag_s < 2 && stands.files > 0, "{stands:?}");

        // What was begun does not end.
        store.config_mut(|config| config.wait_put_per_call = FOR_EVER);
        write(&server, "b").await;
        let stands = until(&server, &seen, |stands| stands.lag_s >= 2).await;
        assert_eq!((stands.failures, &stands.error), (0, &None), "{stands:?}");
        keeping.abort();

        // What ends in failure, between two tries.
        let failing = {
            let (core, seen) = (server.core().clone(), seen.clone());
            let begin = || Err(ArchiveError::Asked("refused".to_owned()));
            tokio::spawn(async move { keep_every(OFTEN, &core, "memory:", &seen, begin).await })
        };
        let stands = until(&server, &seen, |stands| stands.failures >= 2).await;
        assert!(stands.lag_s >= 2, "{stands:?}");
        let later = until(&server, &seen, |later| later.lag_s > stands.lag_s).await;
        assert_eq!(later.error.as_deref(), Some("refused"));
        failing.abort();
    }
}
