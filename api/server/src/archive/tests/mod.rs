//! Archives of a server whose horizon moves while they are made.

mod files;
mod stretches;

use super::pins;
use super::restore::{Asked, Restored, restore};
use super::write::{Next, Source, write};
use super::{Archive, ArchiveError, SEGMENT_BYTES};
use crate::config::{HistoryRetention, Retain};
use crate::http::tests::{Server, cluster, server};
use crate::retention;
use async_trait::async_trait;
use bytes::Bytes;
use eventstore::{Happened, Time};
use eventstore_disk::backup::Continue;
use eventstore_disk::{ReadError, Store, StoreConfig};
use seams::{Directory, FileDirectory};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// All but the newest revisions may go.
const SHORT: HistoryRetention = HistoryRetention {
    all: Retain::Revisions(10),
    ephemeral: Retain::Forever,
};

/// More events than a horizon's step, and a look at whether it is to move.
async fn goes_on(server: &Server) {
    for number in 0..110 {
        let patch = json!({"data": {"number": number.to_string()}});
        let path = format!("{MAPS}/often");
        assert_eq!(server.json("PATCH", &path, patch).await.0, 200);
    }
    retention::look(server.core(), &SHORT).await;
}

/// A server's files, between any two of which others write and the horizon is to move.
struct Moving {
    server: Server,
    moves: AtomicUsize,
    pages: AtomicUsize,
}

impl Moving {
    fn of(server: Server, moves: usize) -> Self {
        Self {
            server,
            moves: AtomicUsize::new(moves),
            pages: AtomicUsize::new(0),
        }
    }

    async fn goes_on(&self) {
        let left = self
            .moves
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |moves| {
                moves.checked_sub(1)
            });
        if left.is_ok() {
            goes_on(&self.server).await;
        }
    }
}

/// An archive in a folder, with nothing in it yet.
fn begun(folder: &tempfile::TempDir) -> Archive {
    let url = format!("file://{}", folder.path().join("backups").display());
    Archive::begin(&url).unwrap()
}

fn failed(error: ReadError) -> ArchiveError {
    ArchiveError::Source(error.to_string())
}

#[async_trait]
impl Source for Moving {
    async fn cluster(&self) -> Result<Uuid, ArchiveError> {
        Ok(self.server.core().view().cluster)
    }

    async fn base_page(&self, from: Option<Continue>) -> Result<Option<Bytes>, ArchiveError> {
        let page = pins::base_page(self.server.core(), from).await;
        let page = page.map_err(failed)?.map(|(_, page)| page.into());
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.goes_on().await;
        Ok(page)
    }

    async fn segment_after(&self, after: u64) -> Result<Next, ArchiveError> {
        self.goes_on().await;
        let segment = pins::segment_after(self.server.core(), after, SEGMENT_BYTES).await;
        let segment = segment.map_err(failed)?;
        Ok(segment.map_or(Next::Nothing, |(_, file)| Next::Segment(file.into())))
    }
}

fn maps(store: &Store) -> BTreeMap<String, Bytes> {
    let view = store.view();
    let maps = view.list("configmaps", None);
    maps.map(|map| (map.key.to_string(), map.body().tail.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_of_one_moment_though_the_horizon_is_to_move() {
    let server = server().await;
    let post = async |object| assert_eq!(server.json("POST", MAPS, object).await.0, 201);
    post(json!({"metadata": {"name": "often"}})).await;
    // A page has 8 MiB.
    for number in 0..22 {
        let name = format!("large-{number:02}");
        post(json!({"metadata": {"name": name}, "data": {"text": "x".repeat(900_000)}})).await;
    }
    goes_on(&server).await;
    let horizon = server.core().store().horizon();
    assert!(horizon > 0, "there is something that a base is needed for");

    let folder = tempfile::tempdir().unwrap();
    let archive = begun(&folder);
    let moving = Moving::of(server, 5);
    let written = write(&archive, &moving, None, |_| {}).await.unwrap();
    let store = moving.server.core().store().clone();
    assert_eq!(moving.pages.load(Ordering::Relaxed), 3);
    assert_eq!(moving.moves.load(Ordering::Relaxed), 0);
    assert_eq!(store.horizon(), horizon, "it waited");
    let contents = archive.contents(written.cluster).await.unwrap();
    assert_eq!(contents.bases.len(), 1, "{contents:?}");
    let pages = contents.bases.values().next().unwrap();
    assert_eq!(pages.len(), 3, "{pages:?}");

    let place = folder.path().join("restored");
    let at = written.revision.to_string();
    let (made, restored) = restored(&archive, &place, Some(&at), 1_000).await.unwrap();
    assert_eq!(made.before_digest, written.digest.to_string());
    let (was, is) = (maps(&store), maps(&restored));
    assert!(was.len() >= 23, "{:?}", was.keys());
    assert_eq!(was, is);
    assert_eq!(restored.view().revision, made.revision);
}

#[test]
fn only_what_writes_makes_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("backups/here");
    let url = format!("file://{}", there.display());
    let error = Archive::open(&url).unwrap_err().to_string();
    assert!(
        error.contains(&format!("{} is no directory", there.display())),
        "{error}"
    );
    assert!(!folder.path().join("backups").exists());
    Archive::begin(&url).unwrap();
    Archive::open(&url).unwrap();
    let error = Archive::begin("file://elsewhere/x").unwrap_err();
    assert!(error.to_string().contains("no URL"), "{error}");
}

/// What a restore of these files makes.
async fn restored(
    archive: &Archive,
    folder: &std::path::Path,
    at: Option<&str>,
    gap: u64,
) -> Result<(Restored, Store), String> {
    let asked = Asked {
        cluster: None,
        at: at.map(str::to_owned),
        gap,
        user: "tester".to_owned(),
    };
    let made = restore(archive, folder, &asked, |_, _| {}).await;
    let made = made.map_err(|error| error.to_string())?;
    let directory: Arc<dyn Directory> = Arc::new(FileDirectory::open(folder).unwrap());
    let database = crate::core::current_database(&*directory).unwrap();
    let store = Store::open(directory, &database, StoreConfig::default()).unwrap();
    Ok((made, store))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_is_a_revision_or_a_time() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        let map = json!({"metadata": {"name": name}});
        assert_eq!(server.json("POST", MAPS, map).await.0, 201);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let archive = begun(&folder);
    let source = Moving::of(server, 0);
    let written = write(&archive, &source, None, |_| {}).await.unwrap();
    let old = source.server.core().store().clone();
    let events: Vec<(u64, u64, Time)> = old
        .recorded(1..=written.revision, 10_000)
        .unwrap()
        .iter()
        .map(|event| {
            let envelope = &event.envelope;
            (envelope.first, envelope.last, envelope.time)
        })
        .collect();
    let (first, last) = (events[0], events[events.len() - 1]);
    // The last of all that were at the same time.
    let at_or_before = |time: Time| {
        let until = events.iter().filter(|event| event.2 <= time);
        until.map(|event| event.1).max().unwrap()
    };
    let some = events[events.len() / 2];
    let long = events.iter().find(|event| event.0 < event.1).unwrap();
    let rows = [
        (None, Ok(last.1)),
        (Some(some.1.to_string()), Ok(some.1)),
        (Some(long.0.to_string()), Ok(long.1)),
        (Some(some.2.milli()), Ok(at_or_before(some.2))),
        (
            Some(some.2.plus_ms(1).milli()),
            Ok(at_or_before(some.2.plus_ms(1))),
        ),
        (Some(last.2.milli()), Ok(last.1)),
        (
            Some(first.2.plus_ms(-1).milli()),
            Err("the archive has nothing from before"),
        ),
        (Some(last.2.plus_ms(60_000).milli()), Err("is behind it")),
        (
            Some("noon".to_owned()),
            Err("neither a revision nor a time"),
        ),
    ];
    for (row, (at, expected)) in rows.into_iter().enumerate() {
        let place = folder.path().join(format!("restored-{row}"));
        let result = restored(&archive, &place, at.as_deref(), 10).await;
        match (result, expected) {
            (Ok((made, _)), Ok(revision)) => assert_eq!(made.at, revision, "{at:?}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{at:?}: {error}"),
            (result, expected) => {
                let made = result.map(|(made, _)| made);
                panic!("{at:?}: {made:?} and not {expected:?}")
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_cluster_says_what_it_was_made_of() {
    const GAP: u64 = 12_345;
    let server = server().await;
    let map = json!({"metadata": {"name": "a"}});
    assert_eq!(server.json("POST", MAPS, map).await.0, 201);
    let at = server.core().view().revision.to_string();
    let (code, _) = server.json("DELETE", &format!("{MAPS}/a"), json!({})).await;
    assert_eq!(code, 200);
    let folder = tempfile::tempdir().unwrap();
    let archive = begun(&folder);
    let source = Moving::of(server, 0);
    let written = write(&archive, &source, None, |_| {}).await.unwrap();
    let place = folder.path().join("restored");
    let (made, store) = restored(&archive, &place, Some(&at), GAP).await.unwrap();
    let old = source.server.core().store().clone();
    let ends = written.revision;
    let digest = old.recorded_at(ends).unwrap().unwrap().digest;
    assert_eq!((made.gap, made.before_revision), (GAP, ends));
    assert_eq!(made.before_digest, digest.to_string());
    assert_eq!(made.before, old.view().cluster);
    assert_ne!(made.cluster, made.before);
    assert_eq!(store.view().cluster, made.cluster);
    let events = store.recorded(ends + 1..=made.revision, 100).unwrap();
    let [restored, rest @ ..] = &events[..] else {
        panic!("there is no event behind revision {ends}");
    };
    assert_eq!(
        restored.envelope.happened,
        Happened::Restored {
            before: made.before,
            digest,
            cluster: made.cluster,
            gap: GAP,
            at: made.at,
        }
    );
    assert_eq!(
        (restored.envelope.first, restored.envelope.last),
        (ends + 1, ends + GAP)
    );
    assert!(!rest.is_empty(), "an object came back");
    // One restore: under one id, each event behind the one before.
    let mut before = (0, restored.envelope.id.uuid);
    for event in &events {
        let envelope = &event.envelope;
        assert_eq!((envelope.cause.revision, envelope.id.uuid), before);
        before.0 = envelope.last;
    }
    let names: Vec<String> = maps(&store).into_keys().collect();
    assert!(
        names.contains(&"configmaps/default/a".to_owned()),
        "{names:?}"
    );
}

/// Whichever server a backup reads from.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_tells_the_leader_what_is_read() {
    let servers = cluster(3).await;
    let leads = |server: &&Server| server.core().node().status().leads();
    let leader = servers.iter().find(leads).unwrap();
    let follower = servers.iter().find(|server| !leads(server)).unwrap();
    let read = pins::segment_after(follower.core(), 3, SEGMENT_BYTES).await;
    assert!(read.unwrap().is_some());
    let floor = async |server: &Server| pins::floor(&*server.core().pins().lock().await);
    assert_eq!(floor(leader).await, Some(3));
    assert_eq!(floor(follower).await, None);
}
