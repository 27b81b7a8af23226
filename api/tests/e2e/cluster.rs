//! A `reckon up` in a temporary directory on free ports, and what a user does with it.
//!
//! Dropping it stops it; when the test has failed, what is not well with its nodes and pods is printed, and its logs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::{unwell, wait};

/// From start to `ready:`, images imported; from SIGTERM to the end of the process.
const READY_S: u64 = 180;
const STOP_S: u64 = 100;
/// Bytes of each log that are shown of a cluster whose test failed.
const SHOWN_LOG: usize = 6_000;

static MACHINE: Mutex<()> = Mutex::new(());
static PROGRAM: LazyLock<String> = LazyLock::new(|| {
    let named = std::env::var("RECKON_PROGRAM").ok();
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_reckon").to_owned())
});

/// The program under test: what was built with the tests, or what RECKON_PROGRAM names (`make test-release`).
pub fn reckon() -> &'static str {
    &PROGRAM
}

pub struct Options<'a> {
    pub agents: u32,
    pub simulated_nodes: u32,
    /// More flags for `reckon up`.
    pub flags: &'a [&'a str],
}

pub struct Cluster {
    folder: TempDir,
    pub port: u16,
    agents: u32,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    up: Option<Child>,
    /// What `up` said so far.
    said: Arc<Mutex<String>>,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Servers alone.
    pub fn servers() -> Self {
        Self::start(Options {
            agents: 0,
            simulated_nodes: 0,
            flags: &[],
        })
    }

    pub fn start(options: Options) -> Self {
        let mut cluster = Self::prepare(options);
        cluster.up();
        cluster
    }

    /// All but starting it: images may be put into `DIR/images` first.
    pub fn prepare(options: Options) -> Self {
        let alone = MACHINE
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::Builder::new()
            .prefix("reckon-")
            .tempdir()
            .unwrap();
        fs::create_dir_all(folder.path().join("data/images")).unwrap();
        let port = free_ports();
        let mut arguments = vec![
            "up".to_string(),
            "--data-dir".into(),
            folder.path().join("data").to_string_lossy().into(),
        ];
        arguments.extend([
            "--agents".into(),
            options.agents.to_string(),
            "--api-port".into(),
            port.to_string(),
        ]);
        arguments.extend([
            "--simulated-nodes".into(),
            options.simulated_nodes.to_string(),
        ]);
        arguments.extend(options.flags.iter().map(|flag| flag.to_string()));
        Self {
            folder,
            port,
            agents: options.agents,
            arguments,
            environment: Vec::new(),
            up: None,
            said: Arc::default(),
            _alone: alone,
        }
    }

    /// Another value for one of its flags, from the next start on.
    pub fn set(&mut self, flag: &str, value: &str) {
        let at = self.arguments.iter().position(|argument| argument == flag);
        self.arguments[at.unwrap() + 1] = value.to_string();
    }

    /// For it and for reckon's own commands, from the next start on.
    pub fn environment(&mut self, variables: &[(&str, &str)]) {
        let variables = variables.iter();
        self.environment
            .extend(variables.map(|(name, value)| (name.to_string(), value.to_string())));
    }

    /// Starts it, with what the directory holds, and waits for `ready:`.
    pub fn up(&mut self) {
        self.up_as(|_| ());
    }

    /// As a shell starts it in a terminal: in a process group of its own, which Ctrl-C goes to.
    pub fn up_in_foreground(&mut self) {
        self.up_as(|command| {
            command.process_group(0);
        });
    }

    fn up_as(&mut self, how: impl FnOnce(&mut Command)) {
        let mut command = self.privileged(reckon());
        how(&mut command);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        self.said.lock().unwrap().clear();
        follow(child.stdout.take().unwrap(), self.said.clone());
        follow(child.stderr.take().unwrap(), self.said.clone());
        self.up = Some(child);
        let deadline = Instant::now() + Duration::from_secs(READY_S);
        while !self.said().lines().any(|line| line.starts_with("ready: ")) {
            let ended = self.up.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "reckon up ended with {ended:?}:\n{}",
                self.said()
            );
            assert!(
                Instant::now() < deadline,
                "reckon up is not ready after {READY_S} s:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What `up` printed, both streams.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// kubectl, whose standard output is returned; it must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_with(arguments, "");
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            said_by(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with an input, however it ends.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Output {
        run(&mut self.kubectl_command(arguments), input)
    }

    /// Not yet started.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let kubectl = std::env::var("RECKON_KUBECTL").unwrap_or_else(|_| "kubectl".to_string());
        let mut command = Command::new(kubectl);
        // A home of its own, so that no discovery of another cluster is cached.
        command
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.kubeconfig())
            .env_remove("KUBERC")
            .args(arguments);
        command
    }

    pub fn kubectl_json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    /// `kubectl apply -f -`
    pub fn apply(&self, manifest: &str) {
        let output = self.kubectl_with(&["apply", "-f", "-"], manifest);
        assert!(
            output.status.success(),
            "kubectl apply: {}\n{manifest}",
            said_by(&output)
        );
    }

    /// One of reckon's own commands, however it ends.
    pub fn reckon(&self, arguments: &[&str]) -> Output {
        run(
            Command::new(reckon())
                .env("KUBECONFIG", self.kubeconfig())
                .envs(self.environment.iter().cloned())
                .args(arguments),
            "",
        )
    }

    pub fn reckon_json(&self, arguments: &[&str]) -> Value {
        let output = self.reckon(&[arguments, &["-o", "json"]].concat());
        assert!(
            output.status.success(),
            "reckon {arguments:?}: {}",
            said_by(&output)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The API of server 1 to 3, without kubectl.
    pub fn api(&self, server: u16) -> Api {
        Api::new(
            &self.kubeconfig(),
            &format!("https://127.0.0.1:{}", self.port + server - 1),
        )
    }

    /// `reckon status -o json`; nothing when no server answers.
    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.reckon(&["status", "-o", "json"]).stdout).unwrap_or_default()
    }

    pub fn leader(&self) -> String {
        wait::until("a leader", 30, || {
            let status = self.status();
            status["leader"].as_str().map(str::to_string).ok_or(status)
        })
    }

    pub fn pid(&self, member: &str) -> Option<i32> {
        fs::read_to_string(self.path(&format!("{member}.pid")))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    pub fn signal(&self, pid: i32, signal: Signal) {
        if kill(Pid::from_raw(pid), signal) == Err(nix::errno::Errno::EPERM) {
            let number = (signal as i32).to_string();
            let killed = Command::new("sudo")
                .args(["-n", "kill", &format!("-{number}"), "--", &pid.to_string()])
                .status();
            assert!(killed.unwrap().success());
        }
    }

    /// SIGKILL to these members, one right after the other.
    pub fn kill_9(&self, members: &[&str]) {
        let pids: Vec<i32> = members
            .iter()
            .map(|member| self.pid(member).unwrap())
            .collect();
        for pid in pids {
            self.signal(pid, Signal::SIGKILL);
        }
    }

    /// Until one server answers reads that a majority confirms.
    pub fn wait_until_serving(&self, server: u16) {
        let api = self.api(server);
        wait::until("the server to serve", 60, || {
            match api.send(http::Method::GET, "/readyz", "", Vec::new(), 5) {
                Ok(answer) if answer.code == 200 => Ok(()),
                other => Err(other),
            }
        });
    }

    /// Until every server answers, and one of them leads. Returns that status.
    pub fn wait_until_back(&self) -> Value {
        wait::until("all servers to be back", 90, || {
            let status = self.status();
            let back = status["members"]
                .as_array()
                .is_some_and(|members| members.iter().all(|member| member["error"].is_null()));
            if back && !status["leader"].is_null() {
                Ok(status)
            } else {
                Err(status)
            }
        })
    }

    /// Until every server answers for itself, at one revision and with one digest. Returns that status.
    pub fn wait_until_level(&self) -> Value {
        wait::until("all servers at one revision with one digest", 60, || {
            let status = self.status();
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let of = |field: &str| {
                members
                    .iter()
                    .map(|member| member[field].clone())
                    .collect::<Vec<_>>()
            };
            let (revisions, digests) = (of("revision"), of("digest"));
            let known = members.len() == 3 && revisions.iter().all(Value::is_u64);
            if !known || revisions.iter().any(|revision| *revision != revisions[0]) {
                return Err(status);
            }
            // Not a matter of waiting: at one revision there is one digest.
            assert!(
                digests
                    .iter()
                    .all(|digest| digest.is_string() && *digest == digests[0]),
                "the servers have diverged: {status}"
            );
            Ok(status)
        })
    }

    /// What is not well with its nodes and pods, as far as it still answers. For a test that fails already: it must not panic.
    fn unwell(&self) -> String {
        let list = |arguments: &[&str]| -> Value {
            let mut kubectl = self.kubectl_command(arguments);
            let output = kubectl
                .args(["-o", "json", "--request-timeout=5s"])
                .output();
            let output = output.map_or_else(|_| Vec::new(), |output| output.stdout);
            serde_json::from_slice(&output).unwrap_or_default()
        };
        let said = unwell::say(
            &list(&["get", "nodes"]),
            &list(&["get", "pods", "--all-namespaces"]),
        );
        if said.is_empty() {
            return said;
        }
        format!("--- not well:\n{said}")
    }

    /// SIGTERM to `up`, and its end. It must be clean.
    pub fn stop(&mut self) {
        self.stop_by(self.up_pid(), Signal::SIGTERM);
    }

    /// Ctrl-C where `up_in_foreground` runs. Under sudo `up` alone gets it, for sudo would pass on what is not from a terminal.
    pub fn interrupt(&mut self) {
        let of_the_group = if geteuid().is_root() { -1 } else { 1 };
        self.stop_by(of_the_group * self.up_pid(), Signal::SIGINT);
    }

    fn stop_by(&mut self, pid: i32, signal: Signal) {
        let Some(mut up) = self.up.take() else { return };
        self.signal(pid, signal);
        let status = end_of(&mut up, STOP_S);
        assert!(
            status.is_some_and(|status| status.success()),
            "reckon up ended with {status:?}:\n{}",
            self.said()
        );
    }

    /// SIGKILL to `up` itself, which can tell nobody.
    pub fn kill_up(&mut self) {
        let mut up = self.up.take().unwrap();
        self.signal(self.up_pid(), Signal::SIGKILL);
        end_of(&mut up, 10);
    }

    /// `up` itself, not the sudo that it may run under.
    fn up_pid(&self) -> i32 {
        fs::read_to_string(self.path("up.lock"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// A command as root, if this cluster needs root and we are not.
    pub fn privileged(&self, program: &str) -> Command {
        if self.agents == 0 || geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("sudo");
        command.args(["-n", program]);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if let Some(mut up) = self.up.take() {
            if failed {
                eprint!("{}", self.unwell());
            }
            self.signal(self.up_pid(), Signal::SIGTERM);
            if end_of(&mut up, STOP_S).is_none() {
                self.signal(self.up_pid(), Signal::SIGKILL);
            }
        }
        if failed {
            eprintln!("--- reckon up said:\n{}", self.said());
            for entry in fs::read_dir(self.folder.path().join("data"))
                .into_iter()
                .flatten()
                .flatten()
            {
                if entry
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "log")
                {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    let start = (text.len().saturating_sub(SHOWN_LOG)..text.len())
                        .find(|at| text.is_char_boundary(*at))
                        .unwrap_or(0);
                    eprintln!(
                        "--- the end of {}:\n{}",
                        entry.path().display(),
                        &text[start..]
                    );
                }
            }
        }
        // What agents wrote is root's.
        let _ = self
            .privileged("rm")
            .arg("-rf")
            .arg(self.folder.path())
            .status();
    }
}

pub fn said_by(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs to its end with this input.
pub fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_string();
    // It may answer without reading all of it.
    let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

/// The first of three free ports in a row, below those that the kernel gives to outgoing connections.
pub fn free_ports() -> u16 {
    let seed = std::process::id() as u16 % 3_000 * 3;
    let mut first = 20_000 + seed;
    while (first..first + 3).any(|port| TcpListener::bind(("127.0.0.1", port)).is_err()) {
        first += 3;
    }
    first
}

fn follow(stream: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.lock().unwrap().push_str(&(line + "\n"));
        }
    });
}

fn end_of(child: &mut Child, limit_s: u64) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(limit_s);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}
