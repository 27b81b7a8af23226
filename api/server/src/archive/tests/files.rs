//! Archives whose files are not all there, or not what their names say.

use super::stretches::Scene;
use super::*;
use crate::archive::{Chains, OfStore, verify};
use crate::core::Draft;
use eventstore::{Act, Actor, Body, Cause, Change, Intent, Key, What};
use eventstore_disk::backup::Segment;
use std::fs;
use std::path::Path;

async fn wrong(scene: &Scene) -> Vec<String> {
    let chains = scene.chains().await;
    let place = scene.folder.path().join("verified");
    let report = verify(&scene.archive, &chains, &place, |_| {}).await;
    report.unwrap().wrong
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(&aside, other).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_name_belongs_to() {
    let scene = Scene::new().await;
    let [first, .., last] = &scene.archived[..] else {
        panic!("{:?}", scene.archived);
    };
    let at = |revision: u64| revision.to_string();
    let segments = scene.chains().await.all[2].segments.clone();
    assert!(segments.len() > 1);
    let files = scene.files("events");
    let [.., one, other] = &files[..] else {
        panic!("{files:?}");
    };
    swap(one, other);
    let said = wrong(&scene).await;
    let [.., (_, before), (_, head)] = &segments[..] else {
        panic!("{segments:?}");
    };
    for (path, named, says) in [
        (one, before.first, head.first),
        (other, head.first, before.first),
    ] {
        let expected = format!(
            "{}: by its name it begins at revision {named}, by its head at {says}",
            name(path)
        );
        assert!(
            said.iter().any(|wrong| wrong.ends_with(&expected)),
            "{said:?}"
        );
    }
    // It is named where its moment is asked for, and no other is refused.
    scene
        .refuses(None, &["by its head at", "Name a moment with --at"])
        .await;
    scene
        .refuses(Some(&at(last[2].revision)), &["does not have revision"])
        .await;
    let (made, _) = scene.restored(Some(&at(first[1].revision))).await.unwrap();
    let highest = *scene.written.last().unwrap();
    assert_eq!(
        (made.at, made.archive_revision),
        (first[1].revision, highest)
    );
    swap(one, other);
    assert_eq!(wrong(&scene).await, Vec::<String>::new());

    let pages = scene.files("base");
    let [one, other] = &pages[..] else {
        panic!("{pages:?}");
    };
    swap(one, other);
    let said = wrong(&scene).await;
    let revisions = scene.chains().await;
    let named = |path: &Path| {
        name(path)
            .split('-')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    for (path, says) in [(one, named(other)), (other, named(one))] {
        let expected = format!(
            "{}: by its name it is page 0 of revision {}, by its head page 0 of revision {says}",
            name(path),
            named(path),
        );
        assert!(
            said.iter().any(|wrong| wrong.ends_with(&expected)),
            "{said:?}"
        );
    }
    assert_eq!(revisions.all.len(), 1, "{revisions:?}");
    scene
        .refuses(Some(&at(last[0].revision)), &["does not have revision"])
        .await;
    scene.restored(Some(&at(first[0].revision))).await.unwrap();
    let aside = one.with_file_name(format!("{}-000001", named(one)));
    swap(one, other);
    fs::rename(one, &aside).unwrap();
    let said = wrong(&scene).await;
    let expected = "by its name it is page 1 of revision";
    assert!(
        said.iter().any(|wrong| wrong.contains(expected)),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_missing_or_damaged_file() {
    let mut scene = Scene::begin().await;
    let mut moments = Vec::new();
    for number in 0..40 {
        moments.push(scene.write(&number.to_string()).await);
    }
    scene.archive().await;
    let chains = scene.chains().await;
    let segments = &chains.all[0].segments;
    assert!(segments.len() > 4, "{segments:?}");
    let (file, head) = &segments[segments.len() - 3];
    let path = scene.folder.path().join("backups").join(file.name.as_ref());
    let good = fs::read(&path).unwrap();
    let before = moments.iter().rev().find(|was| was.revision < head.first);
    let before = before.unwrap().revision.to_string();
    let behind = moments.last().unwrap().revision.to_string();
    let missing = format!(
        "events {} to {} are missing before it",
        head.first, head.last
    );
    let lost = &*missing;
    let mut rows: Vec<(Option<Vec<u8>>, String)> = vec![(None, missing.clone())];
    // A bit of its head: of the cluster, and of revisions.
    for at in [25, 40, 45, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let named = format!("{}: ", file.name);
        rows.push((Some(bad), named));
    }
    for (content, said) in rows {
        match content {
            None => fs::remove_file(&path).unwrap(),
            Some(content) => fs::write(&path, content).unwrap(),
        }
        let found = wrong(&scene).await;
        assert!(
            found.iter().any(|wrong| wrong.contains(&said)),
            "{said}: {found:?}"
        );
        scene
            .refuses(Some("99999999"), &["What can be restored: revisions 1 to"])
            .await;
        // Only what is read tells that of a file whose head is right.
        if scene.chains().await.all[0].last() < head.first {
            scene.refuses(None, &["Name a moment with --at"]).await;
            scene
                .refuses(Some(&behind), &["does not have revision"])
                .await;
            let (made, store) = scene.restored(Some(&before)).await.unwrap();
            assert_eq!(made.at.to_string(), before);
            assert_eq!(made.before_revision, head.first - 1);
            assert_eq!(made.archive_revision, scene.written[0]);
            assert!(made.revision > scene.written[0]);
            store.verify(1..=u64::MAX, |_| {}).unwrap();
        } else {
            scene
                .refuses(Some(&before), &[&*file.name.to_string(), "checksum"])
                .await;
        }
        let behind = found.iter().any(|wrong| wrong.contains(lost));
        assert!(behind || said != missing, "{found:?}");
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(wrong(&scene).await, Vec::<String>::new());

    // A head that tells of more than there ever was makes no gap that wide.
    let (file, head) = segments.last().unwrap();
    let path = scene.folder.path().join("backups").join(file.name.as_ref());
    let good = fs::read(&path).unwrap();
    let flipped = |bit: usize| {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    };
    let further = (0..8 * 200).map(flipped).find(|bad| {
        Segment::read_head(bad).is_ok_and(|bad| {
            (bad.cluster, bad.first) == (head.cluster, head.first) && bad.last > head.last
        })
    });
    fs::write(&path, further.unwrap()).unwrap();
    let (made, _) = scene.restored(Some(&before)).await.unwrap();
    assert_eq!(
        (made.before_revision, made.archive_revision),
        (head.first - 1, head.first)
    );
    scene
        .refuses(None, &[&*file.name.to_string(), "its checksum is wrong"])
        .await;
}

/// The pages of a base up to one, where whoever writes it is stopped.
struct Stopped {
    of: OfStore,
    pages: AtomicUsize,
}

#[async_trait]
impl Source for Stopped {
    async fn cluster(&self) -> Result<Uuid, ArchiveError> {
        self.of.cluster().await
    }

    async fn base_page(&self, from: Option<Continue>) -> Result<Option<Bytes>, ArchiveError> {
        match self.pages.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(ArchiveError::Source("stopped".to_owned())),
            _ => self.of.base_page(from).await,
        }
    }

    async fn segment_after(&self, after: u64) -> Result<Next, ArchiveError> {
        self.of.segment_after(after).await
    }
}

/// It is written on by one to whom fewer resources reach back so far.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_was_stopped_is_no_base_until_it_is_written_on() {
    const EVENTS: HistoryRetention = HistoryRetention {
        all: Retain::Forever,
        ephemeral: Retain::Revisions(10),
    };
    let mut scene = Scene::begin().await;
    let was = scene.write("archived").await;
    scene.archive().await;
    let text = "x".repeat(200_000);
    for number in 0..50 {
        let event = json!({
            "metadata": {"name": format!("e{number}"), "annotations": {"text": text}}, "reason": "Some", "type": "Normal",
            "involvedObject": {"kind": "ConfigMap", "namespace": "default", "name": "m"},
        });
        let path = "/api/v1/namespaces/default/events";
        let (code, said) = scene.server.json("POST", path, event).await;
        assert_eq!(code, 201, "{said}");
    }
    for number in 0..20 {
        let secret = json!({"metadata": {"name": format!("s{number:02}")}, "stringData": {"text": "x".repeat(600_000)}});
        let path = "/api/v1/namespaces/default/secrets";
        assert_eq!(scene.server.json("POST", path, secret).await.0, 201);
    }
    goes_on(&scene.server).await;
    let end = scene.written[0];
    let stopped = Stopped {
        of: scene.source(),
        pages: AtomicUsize::new(2),
    };
    let error = write(&scene.archive, &stopped, None, |_| {})
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "stopped");
    let chains = scene.chains().await;
    assert_eq!((chains.all.len(), chains.broken_off.len()), (1, 2));
    assert_eq!(wrong(&scene).await, Vec::<String>::new());
    let horizon = scene.server.core().store().horizon();
    assert!(chains.highest >= horizon && horizon > end);
    let (made, store) = scene.restored(None).await.unwrap();
    assert_eq!((made.at, made.archive_revision), (end, chains.highest));
    assert!(made.revision >= chains.highest + 1_000);
    assert_eq!(made.at, was.revision);
    store.verify(1..=u64::MAX, |_| {}).unwrap();

    // Events go meanwhile.
    for number in 0..110 {
        scene.write(&format!("later {number}")).await;
    }
    retention::look(scene.server.core(), &EVENTS).await;
    let view = scene.server.core().view();
    assert_eq!(view.retention.horizon(), horizon);
    assert!(view.retention.horizon_of("events") > horizon);
    scene.archive().await;
    assert_eq!(wrong(&scene).await, Vec::<String>::new());
    let chains = scene.chains().await;
    assert_eq!((chains.all.len(), chains.broken_off.len()), (2, 0));
    let base = chains.all[1].base.as_ref().unwrap();
    assert!(
        base.pages.len() > 2 && base.without.contains("events"),
        "{base:?}"
    );
    for at in [Some(base.head.beginning.revision.to_string()), None] {
        let (_, store) = scene.restored(at.as_deref()).await.unwrap();
        let view = store.view();
        let secrets = view.list("secrets", None);
        let secrets = secrets
            .filter(|secret| secret.key.name.starts_with('s'))
            .count();
        assert_eq!(secrets, 20, "{at:?}");
        assert_eq!(view.list("events", None).count(), 0);
        store
            .verify(store.horizon().max(1)..=u64::MAX, |_| {})
            .unwrap();
    }
}

/// A base is of no use where a stretch has its moment anyway, and does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_inside_of_a_stretch() {
    let mut scene = Scene::begin().await;
    scene.archive().await;
    for number in 0..110 {
        scene.write(&number.to_string()).await;
    }
    scene.archive().await;
    retention::look(scene.server.core(), &SHORT).await;
    let cluster = scene.server.core().view().cluster.to_string();
    let other = scene.folder.path().join("other");
    let to = Archive::begin(&format!("file://{}", other.display())).unwrap();
    write(&to, &scene.source(), None, |_| {}).await.unwrap();
    let (from, to) = (
        other.join(&cluster),
        scene.folder.path().join("backups").join(&cluster),
    );
    for folder in ["base", "events"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for file in fs::read_dir(from.join(folder)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(folder).join(file.file_name())).unwrap();
        }
    }
    let chains = scene.chains().await;
    assert_eq!((chains.all.len(), chains.spare.len()), (1, 1));
    assert_eq!(chains.gaps(), vec![]);
    assert_eq!(wrong(&scene).await, Vec::<String>::new());
    let (made, store) = scene.restored(Some("5")).await.unwrap();
    assert!(made.at >= 5 && store.horizon() == 0);
    store.verify(1..=u64::MAX, |_| {}).unwrap();
    let base = scene.files("base").remove(0);
    let mut bad = fs::read(&base).unwrap();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    fs::write(&base, bad).unwrap();
    let said = wrong(&scene).await;
    assert!(
        said[0].contains(&name(&base)) && said[0].contains("checksum"),
        "{said:?}"
    );
    scene.restored(None).await.unwrap();
}

/// The head of a base has the event that it is of, whatever its size.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_of_a_large_event() {
    let scene = Scene::begin().await;
    let core = scene.server.core();
    let change = |number: u32| Change {
        key: Key::new("configmaps", "default", format!("one-of-many-{number:04}")),
        what: What::Put {
            body: Body::cut(&json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("one-of-many-{number:04}"), "namespace": "default"},
            }))
            .unwrap(),
            delete_grace_s: None,
        },
    };
    let draft = Draft {
        intent: Intent::Restore { at: 1 },
        expectations: Vec::new(),
        act: Act::Objects((0..900).map(change).collect()),
    };
    let actor = Actor::Server {
        name: core.name().into(),
    };
    let mut request = core.request(actor, Cause::default());
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    core.propose(&mut request, draft, deadline).await.unwrap();
    let large = core.view().revision;
    // The horizon is to stand there.
    for number in 0..130 {
        scene.write(&format!("later {number}")).await;
    }
    let retention = HistoryRetention {
        all: Retain::Revisions(core.view().revision - large),
        ephemeral: Retain::Forever,
    };
    retention::look(core, &retention).await;
    assert_eq!(
        core.store().event_end(core.store().horizon()).unwrap(),
        large
    );
    let source = scene.source();
    write(&scene.archive, &source, None, |_| {}).await.unwrap();
    let again = write(&scene.archive, &source, None, |_| {}).await.unwrap();
    assert_eq!(again.files, 0);
    let chains = Chains::of(&scene.archive, again.cluster).await.unwrap();
    let base = chains.all[0].base.as_ref().unwrap();
    assert!(base.head.event.len() > 64 << 10);
    let (made, store) = scene.restored(Some(&large.to_string())).await.unwrap();
    assert_eq!(made.at, large);
    let maps = store.view();
    let many = maps.list("configmaps", Some("default"));
    let many = many.filter(|map| map.key.name.starts_with("one-of-many"));
    assert_eq!(many.count(), 900);
}
