//! The agent with real containers: its own containerd, runc and CNI. Needs root and what `preflight` asks for; says that it is skipped otherwise.
//! One test function after another would each start a containerd: this is one story instead, told in steps.

#![allow(clippy::unwrap_used)] // A test's own helpers: a panic is their way to fail.

mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use agent::{AgentConfig, StopMode, Timestamp, images};
use serde_json::{Value, json};
use server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

const IMAGE: &str = "reckon.local/busybox:1";

/// An agent in a task, as `reckon agent` runs one.
struct Running {
    stop: oneshot::Sender<StopMode>,
    task: tokio::task::JoinHandle<Result<(), agent::AgentError>>,
}

impl Running {
    fn start(dir: &Path, server: &Server) -> Self {
        let (stop, stopped) = oneshot::channel();
        #[allow(clippy::disallowed_methods)] // The shell's own wall clock: what main.rs passes too.
        let wall_clock = Arc::new(|| Timestamp::from(std::time::SystemTime::now()));
        let config = AgentConfig {
            node_name: "node-1".into(),
            cluster: format!("test-{}", std::process::id()),
            data_dir: dir.join("agent"),
            images_dir: dir.join("images"),
            servers: vec!["in-process".into()],
            node_ip: None,
            pods: 110,
            labels: vec![],
            seed: 1,
            wall_clock,
            stop_grace: Duration::from_secs(3),
        };
        let dialer = Arc::new(server.clone());
        let shutdown = async move { stopped.await.unwrap_or(StopMode::LeavePods) };
        Running {
            stop,
            task: tokio::spawn(agent::run(config, dialer, shutdown)),
        }
    }

    async fn stop(self, mode: StopMode) {
        self.stop.send(mode).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// As kill -9 leaves it: nothing is done on the way out. Its containerd lives in a session of its own.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]})
}

fn is_running(status: &Value) -> bool {
    status["phase"] == "Running"
}

fn is_ready(status: &Value) -> bool {
    condition(status, "Ready") == "True"
}

fn condition(status: &Value, kind: &str) -> String {
    let found = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|held| held["type"] == kind);
    found
        .and_then(|held| held["status"].as_str())
        .unwrap_or_default()
        .to_owned()
}

async fn get(ip: &str, port: u16, path: &str) -> String {
    let address: SocketAddr = format!("{ip}:{port}").parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or(text)
}

/// Lines of a program's output that mention the text.
fn lines_of(program: &str, arguments: &[&str], text: &str) -> Vec<String> {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains(text))
        .map(str::to_owned)
        .collect()
}

/// Command lines of processes that mention the directory.
fn processes(dir: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok() && name != own)
        })
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(dir.to_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_run_in_real_containers() {
    if let Err(error) = agent::preflight() {
        eprintln!("skipped: {error}");
        return;
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter("agent=debug")
        .with_test_writer()
        .try_init();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let spec = images::busybox_image(IMAGE, "1").unwrap();
    images::build_archive(&spec, &root.join("images/busybox.tar")).unwrap();
    let server = Server::default();
    let running = Running::start(&root, &server);
    // Whatever fails below, nothing is to be left behind for the next run.
    let story = tokio::spawn(tell(root.clone(), server.clone(), running)).await;
    let last = match story {
        Ok(running) => running,
        Err(failed) => {
            let again = Running::start(&root, &server);
            tokio::time::sleep(Duration::from_secs(3)).await;
            again.stop(StopMode::RemoveAll).await;
            std::panic::resume_unwind(failed.into_panic());
        }
    };
    let bridge =
        agent::cni::Names::derive(&format!("test-{}", std::process::id()), "node-1").bridge();
    assert!(Path::new("/sys/class/net").join(&bridge).exists());
    last.stop(StopMode::RemoveAll).await;
    assert!(
        !Path::new("/sys/class/net").join(&bridge).exists(),
        "the bridge is left"
    );
    assert_eq!(
        lines_of("cat", &["/proc/self/mountinfo"], root.to_str().unwrap()),
        Vec::<String>::new()
    );
    assert_eq!(processes(&root), Vec::<String>::new());
    let name = bridge.replace("reckon", "reckon-");
    assert_eq!(
        lines_of("iptables", &["-t", "nat", "-S"], &name),
        Vec::<String>::new()
    );
    assert_eq!(
        lines_of(
            "find",
            &["/sys/fs/cgroup", "-maxdepth", "2", "-name", &name],
            &name
        ),
        Vec::<String>::new()
    );
}

async fn tell(root: PathBuf, server: Server, running: Running) -> Running {
    a_web_server_with_everything(&server).await;
    failures_are_told(&server).await;
    let running = an_agent_that_dies_is_followed_by_one_that_adopts(&root, &server, running).await;
    crash_loops_back_off(&server).await;
    deletion_is_graceful(&server).await;
    init_failures_and_ends(&server).await;
    running
}

/// Init container, web server, probes, volumes, environment, host port, logs.
async fn a_web_server_with_everything(server: &Server) {
    server.object(
        "configmaps",
        "settings",
        Some(json!({"data": {"greeting": "hello", "color": "blue"}})),
    );
    server.object(
        "secrets",
        "keys",
        Some(json!({"data": {"password": "aHVudGVyMg=="}})),
    );
    let mut prepare = container("prepare", "echo from-init > /shared/page; echo prepared");
    prepare["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let uid = server.create(
        "web",
        json!({
            "initContainers": [prepare],
            "containers": [{
                "name": "web", "image": IMAGE,
                "command": ["sh", "-c", "env | sort; cp /shared/page /tmp/x; echo started; exec httpd -f -p 8080 -h /"],
                "env": [
                    {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
                    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "ports": [{"name": "http", "containerPort": 8080, "hostPort": 18080}],
                "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
                "readinessProbe": {"httpGet": {"path": "/www/version", "port": "http"}, "periodSeconds": 1},
                "livenessProbe": {"exec": {"command": ["test", "-f", "/tmp/x"]}, "periodSeconds": 1, "failureThreshold": 2},
                "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                "volumeMounts": [
                    {"name": "shared", "mountPath": "/shared"},
                    {"name": "settings", "mountPath": "/settings"},
                    {"name": "keys", "mountPath": "/keys", "readOnly": true},
                    {"name": "memory", "mountPath": "/memory"},
                ],
            }],
            "volumes": [
                {"name": "shared", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
            ],
        }),
    );
    let status = server.until(&uid, "ready", is_ready).await;
    let ip = status["podIP"].as_str().unwrap().to_owned();
    assert_eq!(get(&ip, 8080, "/www/version").await, "1\n");
    assert_eq!(get(&ip, 8080, "/shared/page").await, "from-init\n");
    assert_eq!(get(&ip, 8080, "/settings/greeting").await, "hello");
    assert_eq!(get(&ip, 8080, "/keys/password").await, "hunter2");
    assert!(
        get(&ip, 8080, "/etc/hosts")
            .await
            .contains(&format!("{ip}\tweb\n"))
    );
    let host = status["hostIP"].as_str().unwrap();
    assert_eq!(
        get(host, 18080, "/www/version").await,
        "1\n",
        "by its host port"
    );
    assert_eq!(
        status["initContainerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    assert_eq!(
        status["qosClass"], "BestEffort",
        "what others write is kept"
    );
    for kind in [
        "PodScheduled",
        "Initialized",
        "ContainersReady",
        "Ready",
        "PodReadyToStartContainers",
    ] {
        assert_eq!(condition(&status, kind), "True", "{kind} in {status:#}");
    }
    let (text, _) = server.logs(1, "web", "prepare", |_| {}).await;
    assert_eq!(text, "prepared\n");
    let (text, _) = server.logs(2, "web", "web", |_| {}).await;
    for line in [
        "COLOR=blue",
        "PASSWORD=hunter2",
        &format!("POD_IP={ip}"),
        "HOSTNAME=web",
        "VERSION=1",
        "started",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in {text}"
        );
    }
    let (text, _) = server
        .logs(3, "web", "web", |logs| logs.tail_lines = Some(1))
        .await;
    assert_eq!(text, "started\n");
    let (_, error) = server
        .logs(4, "web", "web", |logs| logs.previous = true)
        .await;
    assert_eq!(
        error.unwrap(),
        "previous terminated container \"web\" in pod \"web\" not found"
    );
    // A change of the ConfigMap reaches the files.
    server.object(
        "configmaps",
        "settings",
        Some(json!({"data": {"greeting": "good day", "color": "red"}})),
    );
    let begin = Instant::now();
    while get(&ip, 8080, "/settings/greeting").await != "good day" {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "the volume was not brought up to date"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let events = server.events(&uid);
    assert!(
        events
            .iter()
            .any(|event| event == "Started: Started container web"),
        "{events:?}"
    );
    let node = server.node();
    assert!(
        node["status"]["nodeInfo"]["containerRuntimeVersion"]
            .as_str()
            .unwrap()
            .starts_with("containerd://"),
        "{node:#}"
    );
}

async fn failures_are_told(server: &Server) {
    let waiting = |status: &Value| {
        status["containerStatuses"][0]["state"]["waiting"]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    server.object("configmaps", "late", None);
    for (name, container, reason) in [
        (
            "never",
            json!({"name": "c", "image": "reckon.local/none:1", "imagePullPolicy": "Never"}),
            "ErrImageNeverPull",
        ),
        (
            "pull",
            json!({"name": "c", "image": "127.0.0.1:9/none:1"}),
            "ImagePullBackOff",
        ),
        (
            "config",
            json!({"name": "c", "image": IMAGE, "command": ["sleep", "1000"],
                "envFrom": [{"configMapRef": {"name": "late"}}]}),
            "CreateContainerConfigError",
        ),
    ] {
        let uid = server.create(name, json!({"containers": [container]}));
        let status = server
            .until(&uid, reason, |status| waiting(status) == reason)
            .await;
        assert_eq!(status["phase"], "Pending");
    }
    assert!(
        server
            .history("pull-uid")
            .iter()
            .any(|status| waiting(status) == "ErrImagePull")
    );
    server.object("configmaps", "late", Some(json!({"data": {"K": "v"}})));
    server.until("config-uid", "running", is_running).await;
    let (_, error) = server.logs(10, "never", "c", |_| {}).await;
    assert_eq!(
        error.unwrap(),
        "container \"c\" in pod \"never\" is waiting to start: ErrImageNeverPull"
    );
    for name in ["never", "pull", "config"] {
        let told = server.history(&format!("{name}-uid")).len();
        assert!(
            told < 12,
            "{name}: a report's own return caused {told} reports"
        );
    }
    for name in ["never", "pull", "config"] {
        server.delete(&format!("{name}-uid"), 0);
        server.until_gone(&format!("{name}-uid")).await;
    }
}

async fn an_agent_that_dies_is_followed_by_one_that_adopts(
    root: &Path,
    server: &Server,
    running: Running,
) -> Running {
    let id = |status: &Value| {
        status["containerStatuses"][0]["containerID"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let before = server.status("web-uid");
    let mut running = running;
    for leave in [false, true] {
        if leave {
            running.stop(StopMode::LeavePods).await;
        } else {
            running.kill().await;
        }
        let sessions = server.sessions();
        let ip = before["podIP"].as_str().unwrap();
        assert_eq!(
            get(ip, 8080, "/www/version").await,
            "1\n",
            "it runs without an agent"
        );
        let told = server.history("web-uid").len();
        running = Running::start(root, server);
        let begin = Instant::now();
        while server.sessions() == sessions || server.history("web-uid").len() == told {
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "no session after the restart"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = server.status("web-uid");
        assert_eq!(
            id(&after),
            id(&before),
            "the container was adopted, not restarted"
        );
        assert_eq!(after["containerStatuses"][0]["restartCount"], 0);
        assert!(
            server.history("web-uid")[told..].iter().all(is_ready),
            "it stayed ready throughout"
        );
    }
    running
}

async fn crash_loops_back_off(server: &Server) {
    let uid = server.create(
        "crash",
        json!({"containers": [
            {"name": "c", "image": IMAGE, "command": ["sh", "-c", "echo attempt; echo why > /dev/termination-log; exit 3"]},
        ]}),
    );
    let status = server
        .until(&uid, "backing off", |status| {
            status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let container = &status["containerStatuses"][0];
    // The first restart comes at once, the second after 10 s.
    assert_eq!(container["restartCount"], 1);
    assert!(
        container["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting"),
        "{container:#}"
    );
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["lastState"]["terminated"]["message"], "why\n");
    assert_eq!(status["phase"], "Running");
    let (text, _) = server
        .logs(20, "crash", "c", |logs| logs.previous = true)
        .await;
    assert_eq!(text, "attempt\n");
    server
        .until(&uid, "at its second restart", |status| {
            status["containerStatuses"][0]["restartCount"] == 2
        })
        .await;
    server.delete(&uid, 0);
    server.until_gone(&uid).await;
}

async fn deletion_is_graceful(server: &Server) {
    let script =
        "trap 'echo told; sleep 1; echo done; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let mut with_hook = container("c", script);
    with_hook["lifecycle"] =
        json!({"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}});
    let uid = server.create("graceful", json!({"containers": [with_hook]}));
    server.until(&uid, "running", is_running).await;
    server.open_logs(30, "graceful", "c", |logs| logs.follow = true);
    wait_for_text(server, 30, "up\n").await;
    server.delete(&uid, 20);
    wait_for_text(server, 30, "up\nhook\ntold\ndone\n").await;
    server.until_gone(&uid).await;
    let last = server.status(&uid);
    assert_eq!(
        last["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0,
        "{last:#}"
    );

    // Deaf to SIGTERM: its grace runs out; and a deletion by force cuts a grace short.
    for (name, grace, then, most) in [("deaf", 2, None, 8), ("forced", 60, Some(0), 10)] {
        let uid = server.create(name, json!({"containers": [container("c", "trap '' TERM; echo up; while :; do sleep 0.1; done")]}));
        server.until(&uid, "running", is_running).await;
        let begin = Instant::now();
        server.delete(&uid, grace);
        if let Some(then) = then {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            server.delete(&uid, then);
        }
        server.until_gone(&uid).await;
        assert!(
            begin.elapsed() < Duration::from_secs(most),
            "{name} took {:?}",
            begin.elapsed()
        );
    }
}

async fn wait_for_text(server: &Server, id: u64, wanted: &str) {
    let begin = Instant::now();
    while server.stream(id).0 != wanted {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{:?} is not {wanted:?}",
            server.stream(id)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn init_failures_and_ends(server: &Server) {
    let done = server.create(
        "done",
        json!({"restartPolicy": "Never", "containers": [container("c", "echo x")]}),
    );
    let failed = server.create(
        "failed",
        json!({"restartPolicy": "Never", "initContainers": [container("i", "exit 4")], "containers": [container("c", "echo x")]}),
    );
    let late = server.create(
        "late",
        json!({"activeDeadlineSeconds": 2, "containers": [container("c", "exec sleep 1000")], "terminationGracePeriodSeconds": 0}),
    );
    let sidecar = server.create(
        "sidecar",
        json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "side", "image": IMAGE, "restartPolicy": "Always",
                "command": ["sh", "-c", "trap 'exit 0' TERM; echo side; while :; do sleep 0.1; done"]}],
            "containers": [container("c", "sleep 1; echo main")],
        }),
    );
    let status = server
        .until(&done, "succeeded", |status| status["phase"] == "Succeeded")
        .await;
    assert_eq!(
        status["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        0
    );
    let status = server
        .until(&failed, "failed", |status| status["phase"] == "Failed")
        .await;
    assert_eq!(
        status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"],
        4
    );
    assert_eq!(condition(&status, "Initialized"), "False");
    let status = server
        .until(&late, "past its deadline", |status| {
            status["phase"] == "Failed"
        })
        .await;
    assert_eq!(status["reason"], "DeadlineExceeded");
    server
        .until(&sidecar, "succeeded", |status| {
            status["phase"] == "Succeeded"
        })
        .await;
    let (text, _) = server.logs(40, "done", "c", |_| {}).await;
    assert_eq!(text, "x\n", "the log of a pod that has ended stays");
    for uid in [done, failed, late, sidecar] {
        server.delete(&uid, 0);
        server.until_gone(&uid).await;
    }
}
