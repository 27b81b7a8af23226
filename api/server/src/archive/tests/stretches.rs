//! Archives that were broken off for longer than history was kept: any moment that is there can be restored, and no other is taken for it.

use super::*;
use crate::archive::{Chains, Gap, OfStore, verify};
use serde_json::Value;
use std::path::PathBuf;
use tempfile::TempDir;

const MAP: &str = "/api/v1/namespaces/default/configmaps/m";
const GAP: u64 = 1_000;

/// What was so.
#[derive(Clone, Debug)]
pub struct Was {
    pub revision: u64,
    pub time: Time,
    pub data: BTreeMap<String, Value>,
}

/// A server, and an archive of three stretches of its history.
pub struct Scene {
    pub server: Server,
    pub folder: TempDir,
    pub archive: Archive,
    /// While it was archived, by stretch, and between.
    pub archived: Vec<Vec<Was>>,
    pub lost: Vec<Was>,
    pub written: Vec<u64>,
    pub digests: Vec<String>,
}

fn data(store: &Store) -> BTreeMap<String, Value> {
    let view = store.view();
    let maps = view.list("configmaps", None);
    maps.map(|map| (map.key.to_string(), map.to_value()["data"].clone()))
        .collect()
}

impl Scene {
    pub async fn begin() -> Self {
        let server = server().await;
        let folder = tempfile::tempdir().unwrap();
        let scene = Self {
            server,
            archive: begun(&folder),
            folder,
            archived: Vec::new(),
            lost: Vec::new(),
            written: Vec::new(),
            digests: Vec::new(),
        };
        for name in ["m", "often"] {
            let map = json!({"metadata": {"name": name}});
            assert_eq!(scene.server.json("POST", MAPS, map).await.0, 201);
        }
        scene
    }

    pub async fn new() -> Self {
        let mut scene = Self::begin().await;
        for stretch in 0..3 {
            if stretch > 0 {
                goes_on(&scene.server).await;
                let lost = scene.write(&format!("lost {stretch}")).await;
                scene.lost.push(lost);
                for _ in 0..2 {
                    goes_on(&scene.server).await;
                }
            }
            let mut archived = Vec::new();
            for number in 0..3 {
                archived.push(scene.write(&format!("{stretch}.{number}")).await);
            }
            scene.archived.push(archived);
            scene.archive().await;
        }
        scene
    }

    pub async fn write(&self, value: &str) -> Was {
        let patch = json!({"data": {"value": value}});
        assert_eq!(self.server.json("PATCH", MAP, patch).await.0, 200);
        // So that no two have the same time.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let store = self.server.core().store();
        let revision = store.view().revision;
        let event = store.recorded_at(revision).unwrap().unwrap();
        Was {
            revision,
            time: event.envelope.time,
            data: data(store),
        }
    }

    pub fn source(&self) -> OfStore {
        OfStore {
            store: self.server.core().store().clone(),
            segment_bytes: 2_000,
        }
    }

    pub async fn archive(&mut self) {
        let source = self.source();
        let written = write(&self.archive, &source, None, |_| {}).await.unwrap();
        self.written.push(written.revision);
        self.digests.push(written.digest.to_string());
    }

    pub async fn chains(&self) -> Chains {
        let cluster = self.server.core().view().cluster;
        Chains::of(&self.archive, cluster).await.unwrap()
    }

    pub fn files(&self, kind: &str) -> Vec<PathBuf> {
        let cluster = self.server.core().view().cluster.to_string();
        let folder = self.folder.path().join("backups").join(cluster).join(kind);
        let files = std::fs::read_dir(folder).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    }

    pub async fn restored(&self, at: Option<&str>) -> Result<(Restored, Store), String> {
        let place = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        restored(&self.archive, &place.join("new"), at, GAP).await
    }

    /// What is restored is what was, and goes on above all that any stretch has.
    pub async fn restores(&self, at: Option<&str>, was: &Was, stretch: usize) {
        let (made, store) = self.restored(at).await.unwrap();
        let ends = self.written[stretch];
        assert_eq!(
            (made.at, made.before_revision),
            (was.revision, ends),
            "{at:?}"
        );
        assert_eq!(data(&store), was.data, "{at:?}");
        let highest = *self.written.last().unwrap();
        assert_eq!(made.archive_revision, highest);
        assert_eq!(made.gap, GAP + highest - ends, "{at:?}");
        assert!(made.revision >= highest + GAP, "{made:?}");
        assert_eq!(made.before_digest, self.digests[stretch], "{at:?}");
        store
            .verify(store.horizon().max(1)..=u64::MAX, |_| {})
            .unwrap();
        let first = store
            .recorded(ends + 1..=made.revision, 1)
            .unwrap()
            .remove(0);
        let Happened::Restored { digest, at, .. } = &first.envelope.happened else {
            panic!("{first:?}");
        };
        assert_eq!(
            (digest.to_string(), *at),
            (made.before_digest, was.revision)
        );
    }

    pub async fn refuses(&self, at: Option<&str>, parts: &[&str]) {
        let said = match self.restored(at).await {
            Ok((made, _)) => panic!("{at:?}: {made:?}"),
            Err(said) => said,
        };
        for part in parts {
            assert!(said.contains(part), "{at:?}: {part} is not in {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_any_stretch() {
    let scene = Scene::new().await;
    let chains = scene.chains().await;
    let stretches: Vec<String> = chains.all.iter().map(ToString::to_string).collect();
    let [founded, second, third] = &chains.all[..] else {
        panic!("{stretches:?}");
    };
    let ends: Vec<u64> = chains.all.iter().map(|chain| chain.last()).collect();
    assert_eq!(ends, scene.written);
    assert_eq!((founded.first(), founded.begins()), (1, None));
    assert!(founded.segments.len() > 1, "{stretches:?}");
    let gaps: Vec<Gap> = [(founded, second), (second, third)]
        .map(|(before, next)| Gap {
            first: before.last() + 1,
            last: next.first() - 1,
        })
        .into();
    assert_eq!(chains.gaps(), gaps);

    for (stretch, archived) in scene.archived.iter().enumerate() {
        for was in archived {
            let at = was.revision.to_string();
            scene.restores(Some(&at), was, stretch).await;
        }
        let was = &archived[1];
        let at = was.time.milli();
        scene.restores(Some(&at), was, stretch).await;
    }
    let last = scene.archived[2].last().unwrap();
    scene.restores(None, last, 2).await;
    scene.restores(Some(&last.time.milli()), last, 2).await;

    // No moment of a gap is taken for one beside it.
    let named: Vec<&str> = stretches.iter().map(String::as_str).collect();
    for (lost, gap) in scene.lost.iter().zip(&gaps) {
        for revision in [gap.first, lost.revision, gap.last] {
            let why = format!("does not have revision {revision}");
            let parts = [&[&*why], &named[..]].concat();
            scene.refuses(Some(&revision.to_string()), &parts).await;
        }
    }
    for (lost, archived) in scene.lost.iter().zip(&scene.archived) {
        let end = archived.last().unwrap();
        let why = format!("name the revision, {}", end.revision);
        scene
            .refuses(Some(&end.time.milli()), &[&why, named[0]])
            .await;
        for time in [end.time.plus_ms(1), lost.time] {
            let parts = [&["the archive does not have what happened"], &named[..]].concat();
            scene.refuses(Some(&time.milli()), &parts).await;
        }
    }
    for next in [second, third] {
        let before = next.begins().unwrap().plus_ms(-1);
        scene
            .refuses(Some(&before.milli()), &["does not have what happened"])
            .await;
    }
    let behind = (ends[2] + 1).to_string();
    scene
        .refuses(Some(&behind), &["the archive ends at revision", named[2]])
        .await;
    scene
        .refuses(Some("0"), &["the archive begins at revision 1"])
        .await;

    let place = scene.folder.path().join("verified");
    let report = verify(&scene.archive, &chains, &place, |_| {})
        .await
        .unwrap();
    assert_eq!(report.wrong, Vec::<String>::new());
    assert_eq!((report.sound.len(), &report.gaps), (3, &gaps));
    let last: Vec<u64> = report
        .sound
        .iter()
        .map(|sound| sound.chain.last())
        .collect();
    assert_eq!(last, scene.written);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}

/// The base has it whole, though of what is loaded nothing before the next event can be read.
#[tokio::test(flavor = "multi_thread")]
async fn the_moment_of_a_base_itself() {
    let mut scene = Scene::new().await;
    let chains = scene.chains().await;
    let base = chains.all[2].base.clone().unwrap();
    let beginning = &base.head.beginning;
    // `m` was as in the gap, and `often` was patched by turns.
    let store = scene.server.core().store().clone();
    let past = store.list_at("configmaps", None, beginning.revision, .., 100);
    let past = past.unwrap().objects.into_iter();
    let was = Was {
        revision: beginning.revision,
        time: beginning.clock,
        data: past
            .map(|map| (map.key.to_string(), map.to_value()["data"].clone()))
            .collect(),
    };
    assert_eq!(was.data["configmaps/default/m"]["value"], "lost 2");
    for revision in base.first..=beginning.revision {
        scene.restores(Some(&revision.to_string()), &was, 2).await;
    }
    let next = store
        .recorded(beginning.revision + 1..=u64::MAX, 1)
        .unwrap();
    if next[0].envelope.time > beginning.clock {
        scene
            .restores(Some(&beginning.clock.milli()), &was, 2)
            .await;
    }

    // Nothing came behind it.
    for (file, head) in &chains.all[2].segments {
        let name = file.name.filename().unwrap().to_owned();
        assert!(head.first > beginning.revision);
        let files = scene.files("events");
        let file = files.iter().find(|file| file.ends_with(&name)).unwrap();
        std::fs::remove_file(file).unwrap();
    }
    scene.written[2] = beginning.revision;
    scene.digests[2] = beginning.digest.to_string();
    let chain = &scene.chains().await.all[2];
    assert_eq!(
        (chain.first(), chain.last()),
        (base.first, beginning.revision)
    );
    scene.restores(None, &was, 2).await;
    scene
        .restores(Some(&beginning.clock.milli()), &was, 2)
        .await;
}

/// Nothing happened between one stretch's end and the event that the next one's base is of, and so any time between is the end's.
#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_that_adjoins_the_next() {
    let scene = Scene::begin().await;
    for number in 0..110 {
        scene.write(&number.to_string()).await;
    }
    // An event a file.
    let source = |scene: &Scene| OfStore {
        segment_bytes: 1,
        ..scene.source()
    };
    write(&scene.archive, &source(&scene), None, |_| {})
        .await
        .unwrap();
    retention::look(scene.server.core(), &SHORT).await;
    let other = scene.folder.path().join("other");
    let other = Archive::begin(&format!("file://{}", other.display())).unwrap();
    let written = write(&other, &source(&scene), None, |_| {}).await.unwrap();
    let chain = Chains::of(&other, written.cluster)
        .await
        .unwrap()
        .all
        .remove(0);
    let base = chain.base.clone().unwrap();

    // What the base is of goes, and all behind it; then come the base and what follows it.
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<u64>();
    for file in scene.files("events") {
        if named(&file).unwrap() >= base.first {
            std::fs::remove_file(file).unwrap();
        }
    }
    for file in chain.files() {
        let from = scene.folder.path().join("other").join(file.name.as_ref());
        let to = scene.folder.path().join("backups").join(file.name.as_ref());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
    let chains = scene.chains().await;
    let [before, next] = &chains.all[..] else {
        panic!("{chains:?}");
    };
    assert_eq!((before.last() + 1, chains.gaps()), (next.first(), vec![]));
    let (end, begins) = (before.time(), next.begins().unwrap());
    assert!(end < begins, "they have times of their own");
    for (time, at) in [
        (end, before.last()),
        (end.plus_ms(1), before.last()),
        (begins.plus_ms(-1), before.last()),
        (begins, base.head.beginning.revision),
    ] {
        let (made, _) = scene.restored(Some(&time.milli())).await.unwrap();
        assert_eq!(made.at, at, "{time:?}");
    }
}

/// Revisions that an earlier restore passed over never were a moment of anyone's.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_passed_over_is_no_moment() {
    let mut scene = Scene::begin().await;
    scene.write("some").await;
    scene.archive().await;
    let (made, store) = scene.restored(None).await.unwrap();
    let place = scene.folder.path().join("second");
    let second = Archive::begin(&format!("file://{}", place.display())).unwrap();
    let source = OfStore {
        store,
        segment_bytes: 2_000,
    };
    let written = write(&second, &source, None, |_| {}).await.unwrap();
    assert_eq!(
        (written.cluster, written.revision),
        (made.cluster, made.revision)
    );
    for (at, lost) in [
        (made.before_revision, false),
        (made.before_revision + 1, true),
        (made.before_revision + GAP - 1, true),
        (made.before_revision + GAP, false),
    ] {
        let to = scene.folder.path().join(format!("of-second-{at}"));
        let made = restored(&second, &to, Some(&at.to_string()), GAP).await;
        match made {
            Ok((made, _)) => assert_eq!((made.at, lost), (at, false)),
            Err(error) => assert!(lost && error.contains("it is lost"), "{at}: {error}"),
        }
    }
}
