//! Workers on a runtime in memory and a paused clock: what they call, and what they report.

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;
use crate::proto::agent_message::Kind;
use crate::runtime::fake::FakeRuntime;

struct Bench {
    runtime: Arc<FakeRuntime>,
    context: Arc<NodeContext>,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Arc::new(FakeRuntime::default());
    let begin = Instant::now();
    let context = Arc::new(NodeContext {
        runtime: runtime.clone(),
        archives: tokio::sync::Mutex::new(Importer::new(
            dir.path().join("images"),
            "ctr".into(),
            dir.path().join("containerd.sock"),
            "native",
            dir.path().join("imported.json"),
        )),
        outbox: Outbox::default(),
        objects: Objects::default(),
        facts: NodeFacts {
            cgroup_parent: "/t".into(),
            memory_bytes: 1 << 30,
            resolv_conf: String::new(),
        },
        host_ip: "192.0.2.1".into(),
        allocatable_cpu_milli: 1000,
        allocatable_memory: 1 << 30,
        pods_dir: dir.path().join("pods"),
        logs_dir: dir.path().join("logs"),
        wall_clock: Arc::new(move || {
            Timestamp::UNIX_EPOCH + chrono::TimeDelta::from_std(begin.elapsed()).unwrap()
        }),
        views: Mutex::default(),
    });
    Bench {
        runtime,
        context,
        _dir: dir,
    }
}

fn pod(deleted: Option<u32>) -> Pod {
    let mut object = json!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "web", "image": "i:1", "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}],
        },
        "status": {"phase": "Pending"},
    });
    if let Some(grace) = deleted {
        object["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    }
    Pod::parse(&object).unwrap()
}

/// Waits for the next report that passes; events count as none.
async fn until(bench: &Bench, what: &str, passes: impl Fn(&Kind) -> bool) {
    let waiting = async {
        loop {
            while let Some(message) = bench.context.outbox.take() {
                if passes(&message.kind.unwrap()) {
                    return;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1_000), waiting)
        .await
        .unwrap_or_else(|_| panic!("never {what}: {:?}", bench.runtime.calls()));
}

fn shows(kind: &Kind, text: &str) -> bool {
    matches!(kind, Kind::PodStatus(report) if String::from_utf8_lossy(&report.status).contains(text))
}

fn is_gone(kind: &Kind) -> bool {
    matches!(kind, Kind::PodGone(_))
}

#[tokio::test(start_paused = true)]
async fn a_life() {
    let bench = bench();
    let (handle, task) = spawn(bench.context.clone(), pod(None), 1);
    until(&bench, "running", |kind| {
        shows(kind, r#""phase":"Running""#)
    })
    .await;
    handle.changed(pod(Some(30)), 2);
    until(&bench, "gone", is_gone).await;
    task.await.unwrap();
    assert_eq!(
        bench.runtime.calls(),
        [
            "run sandbox-0",
            "create web-0",
            "exec web-0 bye",
            "stop web-0 30",
            "remove web-0",
            "remove sandbox-0",
        ]
    );
    assert!(!bench.context.pods_dir.join("u").exists());
}

#[tokio::test(start_paused = true)]
async fn a_restart_backs_off() {
    let bench = bench();
    let (handle, _task) = spawn(bench.context.clone(), pod(None), 1);
    until(&bench, "running", |kind| {
        shows(kind, r#""phase":"Running""#)
    })
    .await;
    bench.runtime.exit("web", 1, bench.context.now());
    handle.wake();
    until(&bench, "restarted at once", |kind| {
        shows(kind, r#""restartCount":1"#)
    })
    .await;
    let begin = Instant::now();
    bench.runtime.exit("web", 1, bench.context.now());
    handle.wake();
    until(&bench, "backing off", |kind| {
        shows(kind, "CrashLoopBackOff")
    })
    .await;
    until(&bench, "restarted", |kind| {
        shows(kind, r#""restartCount":2"#)
    })
    .await;
    assert!(
        (9..=11).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_asked_for_again() {
    let bench = bench();
    bench.runtime.take_image("i:1");
    let (_handle, _task) = spawn(bench.context.clone(), pod(None), 1);
    until(&bench, "refused", |kind| shows(kind, "ErrImagePull")).await;
    until(&bench, "backing off", |kind| {
        shows(kind, "ImagePullBackOff")
    })
    .await;
    let begin = Instant::now();
    bench.runtime.give_images();
    until(&bench, "running", |kind| {
        shows(kind, r#""phase":"Running""#)
    })
    .await;
    assert!(
        (6..=11).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn force_cuts_a_grace_short() {
    let bench = bench();
    bench.runtime.obeys_after(1_000);
    let (handle, task) = spawn(bench.context.clone(), pod(None), 1);
    until(&bench, "running", |kind| {
        shows(kind, r#""phase":"Running""#)
    })
    .await;
    let begin = Instant::now();
    handle.changed(pod(Some(600)), 2);
    sleep(Duration::from_secs(5)).await;
    handle.changed(pod(Some(0)), 3);
    until(&bench, "gone", is_gone).await;
    task.await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        bench
            .runtime
            .calls()
            .iter()
            .filter(|call| call.starts_with("exec"))
            .count(),
        1,
        "the hook ran once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_says_nothing() {
    let bench = bench();
    let (handle, task) = spawn(bench.context.clone(), pod(None), 1);
    until(&bench, "running", |kind| {
        shows(kind, r#""phase":"Running""#)
    })
    .await;
    while bench.context.outbox.take().is_some() {}
    handle.halt(1);
    task.await.unwrap();
    assert!(bench.context.outbox.take().is_none());
    assert_eq!(bench.runtime.calls().last().unwrap(), "remove sandbox-0");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_in_a_while() {
    let bench = bench();
    bench.runtime.take_image("i:1");
    bench.runtime.keep_sandboxes(true);
    let (handle, task) = spawn(bench.context.clone(), pod(None), 1);
    until(&bench, "refused", |kind| shows(kind, "ErrImagePull")).await;
    handle.changed(pod(Some(0)), 2);
    sleep(Duration::from_secs(20)).await;
    let tries = bench
        .runtime
        .calls()
        .iter()
        .filter(|call| *call == "remove sandbox-0")
        .count();
    assert!((15..=21).contains(&tries), "{tries} tries in 20 s");
    bench.runtime.keep_sandboxes(false);
    until(&bench, "gone", is_gone).await;
    task.await.unwrap();
}
