//! Simulated nodes against a server played by channels, on a paused clock.

use std::sync::Mutex;

use futures::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::dial::{Connection, DialError};
use crate::proto::agent_message::Kind as Up;
use crate::proto::server_message::Kind as Down;
use crate::proto::{AgentMessage, ServerMessage};

type Accepted = (mpsc::Receiver<AgentMessage>, mpsc::Sender<ServerMessage>);

/// Hands each dialed session to the test.
struct ChannelDialer {
    accepted: mpsc::UnboundedSender<Accepted>,
    dialed: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Dialer for ChannelDialer {
    async fn dial(&self, server: &str) -> Result<Connection, DialError> {
        self.dialed.lock().unwrap().push(server.to_owned());
        let ((up, up_rx), (down_tx, down)) = (mpsc::channel(64), mpsc::channel(64));
        self.accepted.send((up_rx, down_tx)).unwrap();
        Ok(Connection {
            up,
            down: ReceiverStream::new(down).map(Ok).boxed(),
        })
    }
}

fn start(
    count: u32,
) -> (
    mpsc::UnboundedReceiver<Accepted>,
    Arc<ChannelDialer>,
    tokio::task::JoinHandle<()>,
) {
    let (accepted, sessions) = mpsc::unbounded_channel();
    let dialer = Arc::new(ChannelDialer {
        accepted,
        dialed: Mutex::default(),
    });
    let config = SimulatedConfig {
        count,
        servers: vec!["one".into(), "two".into()],
        ..Default::default()
    };
    let begin = Instant::now();
    let clock: WallClock = Arc::new(move || {
        Timestamp::UNIX_EPOCH + chrono::TimeDelta::from_std(begin.elapsed()).unwrap()
    });
    let task = tokio::spawn(run_simulated(config, dialer.clone(), clock));
    (sessions, dialer, task)
}

async fn say(down: &mpsc::Sender<ServerMessage>, kind: Down) {
    down.send(ServerMessage { kind: Some(kind) }).await.unwrap();
}

fn welcome(epoch: u64) -> Down {
    Down::Welcome(proto::Welcome {
        epoch,
        cluster_id: "c".into(),
        revision: epoch,
        ..Default::default()
    })
}

fn pod(revision: u64, deleted: bool) -> Down {
    let mut pod = json!({
        "metadata": {"namespace": "d", "name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    });
    if deleted {
        pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:30Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    }
    Down::PodAssigned(proto::PodAssigned {
        pod: pod.to_string().into_bytes(),
        revision,
    })
}

/// The next report, heartbeats skipped.
async fn next(up: &mut mpsc::Receiver<AgentMessage>) -> Up {
    loop {
        match up.recv().await.unwrap().kind.unwrap() {
            Up::Heartbeat(_) => {}
            other => return other,
        }
    }
}

fn phase(report: &Up) -> String {
    let Up::PodStatus(report) = report else {
        panic!("no status: {report:?}")
    };
    let status: Value = serde_json::from_slice(&report.status).unwrap();
    assert_eq!(status["qosClass"], "BestEffort");
    format!(
        "{}@{} {}",
        status["phase"].as_str().unwrap(),
        report.base_revision,
        status["podIP"].as_str().unwrap_or("-")
    )
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_goes() {
    let (mut sessions, _, task) = start(1);
    let (mut up, down) = sessions.recv().await.unwrap();
    let Up::Hello(hello) = next(&mut up).await else {
        panic!()
    };
    assert_eq!(
        (hello.node_name.as_str(), hello.simulated),
        ("simulated-1", true)
    );
    say(&down, welcome(1)).await;
    say(&down, pod(1, false)).await;
    say(&down, Down::SnapshotEnd(proto::SnapshotEnd { revision: 1 })).await;
    assert_eq!(phase(&next(&mut up).await), "Pending@1 -");
    assert_eq!(phase(&next(&mut up).await), "Running@1 100.64.1.2");
    say(&down, pod(3, true)).await;
    assert!(matches!(next(&mut up).await, Up::PodGone(gone) if gone.uid == "u"));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_taken_up_at_the_next_server() {
    let (mut sessions, dialer, task) = start(1);
    let (mut up, down) = sessions.recv().await.unwrap();
    next(&mut up).await;
    say(&down, welcome(1)).await;
    say(&down, pod(1, false)).await;
    say(&down, Down::SnapshotEnd(proto::SnapshotEnd { revision: 1 })).await;
    next(&mut up).await;
    next(&mut up).await;
    drop((up, down));
    let (mut up, down) = sessions.recv().await.unwrap();
    let Up::Hello(hello) = next(&mut up).await else {
        panic!()
    };
    assert_eq!(
        (
            hello.last_epoch,
            hello.last_revision,
            hello.cluster_id.as_str()
        ),
        (1, 1, "c")
    );
    say(&down, welcome(2)).await;
    assert_eq!(
        phase(&next(&mut up).await),
        "Running@1 100.64.1.2",
        "reports are sent again"
    );
    let dialed = dialer.dialed.lock().unwrap().clone();
    assert_ne!(dialed[0], dialed[1], "the other server was dialed");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session() {
    let (mut sessions, _, task) = start(1);
    let (mut up, down) = sessions.recv().await.unwrap();
    next(&mut up).await;
    say(&down, welcome(1)).await;
    let begin = Instant::now();
    let reading = tokio::spawn(async move { while up.recv().await.is_some() {} });
    let (_up, _down) = sessions.recv().await.unwrap();
    assert!(
        begin.elapsed() >= Duration::from_secs(10) && begin.elapsed() < Duration::from_secs(16),
        "{:?}",
        begin.elapsed()
    );
    reading.await.unwrap();
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_nodes_register() {
    let (mut sessions, _, task) = start(1_000);
    let mut names = BTreeSet::new();
    let mut held = Vec::new();
    for _ in 0..1_000 {
        let (mut up, down) = sessions.recv().await.unwrap();
        let Up::Hello(hello) = next(&mut up).await else {
            panic!()
        };
        names.insert(hello.node_name);
        held.push((up, down));
    }
    assert_eq!(names.len(), 1_000);
    task.abort();
}
