//! A disk that has not kept what was written to it: its server serves nothing of that, names it, and says how it is rebuilt. The others go on,
//! and done as it says, it is a member again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::api::Answer;
use crate::cluster::{Cluster, Options, said_by};
use crate::members::wait_for;
use crate::process::Process;
use crate::wait;
use crate::writes::Writes;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// So that state reaches its files soon.
const SNAPSHOTS: &[&str] = &[
    "--snapshot-log-bytes",
    "65536",
    "--snapshot-keep-entries",
    "50",
];
const NUMBER: u16 = 3;
const NAME: &str = "server-3";

/// The server that is damaged: a process of the test's own.
struct Victim {
    folder: PathBuf,
    process: Process,
    arguments: Vec<String>,
}

impl Victim {
    fn start(folder: PathBuf, arguments: Vec<String>) -> Self {
        let process = run(&folder, &arguments);
        Self {
            folder,
            process,
            arguments,
        }
    }

    /// In the place of the one that `reckon up` started, which is gone.
    fn of(cluster: &Cluster) -> Self {
        let members: Vec<_> = (1..=3)
            .map(|number| format!("server-{number}={}", address(cluster, number)))
            .collect();
        let path = |name: &str| cluster.path(name).to_string_lossy().into_owned();
        let mut arguments: Vec<String> = ["--name", NAME, "--listen", &address(cluster, NUMBER)]
            .map(str::to_owned)
            .into();
        arguments.extend(["--initial-cluster".to_owned(), members.join(",")]);
        arguments.extend(["--ca".to_owned(), path("pki/ca.crt")]);
        arguments.extend(["--cert".to_owned(), path("pki/server-3.crt")]);
        arguments.extend(["--key".to_owned(), path("pki/server-3.key")]);
        arguments.extend(SNAPSHOTS.iter().map(|flag| (*flag).to_owned()));
        Self::start(cluster.path(NAME), arguments)
    }

    /// As it says itself: sent away, added anew, and started with an empty directory.
    fn rebuilt(self, cluster: &Cluster, folder: &str) -> Self {
        drop(self.process);
        let removed = cluster.reckon(&["member", "remove", NAME]);
        assert!(removed.status.success(), "{}", said_by(&removed));
        let address = address(cluster, NUMBER);
        let added = cluster.reckon_json(&["member", "add", NAME, &address, "--promote"]);
        let servers = added["servers"].as_array().unwrap().iter();
        let servers: Vec<_> = servers.map(|server| server.as_str().unwrap()).collect();
        let token = added["token"].as_str().unwrap();
        let mut arguments: Vec<String> = ["--listen", &address, "--token", token]
            .map(str::to_owned)
            .into();
        arguments.extend(["--join".to_owned(), servers.join(",")]);
        arguments.extend(SNAPSHOTS.iter().map(|flag| (*flag).to_owned()));
        let victim = Self::start(cluster.path(folder), arguments);
        wait_for(cluster, NAME, "voter");
        cluster.wait_until_serving(NUMBER);
        cluster.wait_until_level();
        let verified = cluster.reckon_json(&["verify"]);
        let servers = verified["servers"].as_array().map_or(0, Vec::len);
        assert_eq!((&verified["ok"], servers), (&true.into(), 3), "{verified}");
        victim
    }

    /// It does not start, and says why and what to do.
    fn refuses(&self, file: &Path, also: &[&str]) {
        // What it says now, and not what it said before.
        fs::write(self.folder.with_extension("log"), "").unwrap();
        let (well, said) = run(&self.folder, &self.arguments).end(60);
        let file = file.to_string_lossy().into_owned();
        let parts = [
            &file,
            "corrupt",
            "reckon member remove server-3",
            "reckon member add NAME HOST:PORT",
            "empty directory",
            "reckon restore --from URL --data-dir DIR",
        ];
        for part in parts.into_iter().chain(also.iter().copied()) {
            assert!(!well && said.contains(part), "{part:?} is not in {said}");
        }
    }
}

fn run(folder: &Path, arguments: &[String]) -> Process {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Process::start(folder, &arguments)
}

fn address(cluster: &Cluster, number: u16) -> String {
    format!("127.0.0.1:{}", cluster.port + number - 1)
}

fn flip(file: &Path, at: usize) {
    let mut content = fs::read(file).unwrap();
    content[at] ^= 0x08;
    fs::write(file, content).unwrap();
}

/// Text that nothing makes smaller, so that it lies in the files as it is.
fn text(seed: u64) -> String {
    let mut random = seed;
    let mut letter = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
                [(random >> 58) as usize],
        )
    };
    (0..4_000).map(|_| letter()).collect()
}

fn put(cluster: &Cluster, name: &str, text: &str) -> Answer {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}});
    let path = format!("{MAPS}/{name}?fieldManager=test&force=true");
    let kind = "application/apply-patch+yaml";
    let body = map.to_string().into_bytes();
    let answer = cluster
        .api(1)
        .send(http::Method::PATCH, &path, kind, body, 30)
        .unwrap();
    assert!([200, 201].contains(&answer.code), "{answer:?}");
    answer
}

fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = files.map(|file| file.path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == kind))
        .collect();
    files.sort();
    files
}

/// Where a text lies in the files of large values of the state in use.
fn find(folder: &Path, text: &str) -> Option<(PathBuf, usize)> {
    // Behind the checksum of what it was written with.
    let state = fs::read(folder.join("state.current")).unwrap_or_default();
    let state = String::from_utf8_lossy(&state[..state.len().saturating_sub(8)]).into_owned();
    let state = if state.is_empty() { "state" } else { &state };
    let wanted = &text.as_bytes()[1_000..1_032];
    files(&folder.join(state), "blob")
        .into_iter()
        .find_map(|file| {
            let content = fs::read(&file).ok()?;
            let at = content
                .windows(wanted.len())
                .position(|part| part == wanted);
            at.map(|at| (file, at))
        })
}

fn wait_for_text(folder: &Path, text: &str) {
    wait::until("the state to be in its files", 60, || {
        find(folder, text).map(drop).ok_or("not there")
    });
}

#[test]
fn a_damaged_server_says_how_it_is_rebuilt_and_is() {
    let flags = [&["--no-restart"], SNAPSHOTS].concat();
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &flags,
    });
    cluster.kill_9(&[NAME]);
    wait::until("it to be gone", 10, || {
        cluster.pid(NAME).map_or(Ok(()), Err)
    });
    let mut victim = Victim::of(&cluster);
    cluster.wait_until_serving(NUMBER);
    let (live, past) = (text(1), text(2));
    put(&cluster, "live", &live);
    let first = put(&cluster, "past", &past);
    put(&cluster, "past", "short");
    let writes = Writes::start(&cluster, "meanwhile");

    // Its log, and the small files beside it.
    wait_for_text(&victim.folder, &live);
    let pointer = victim.folder.join("snapshot");
    wait::until("a snapshot", 30, || {
        pointer.exists().then_some(()).ok_or(())
    });
    victim.process.kill_9();
    for name in ["node", "snapshot"] {
        let file = victim.folder.join(name);
        let good = fs::read(&file).unwrap();
        flip(&file, good.len() / 2);
        victim.refuses(&file, &[]);
        fs::write(&file, good).unwrap();
    }
    let segment = files(&victim.folder.join("log"), "segment").pop().unwrap();
    let content = fs::read(&segment).unwrap();
    let written = content.iter().rposition(|byte| *byte != 0).unwrap();
    flip(&segment, written / 2);
    victim.refuses(&segment, &["the record at byte"]);
    let mut victim = victim.rebuilt(&cluster, "after-log");

    // What lives, in its state.
    wait_for_text(&victim.folder, &live);
    victim.process.kill_9();
    let (file, at) = find(&victim.folder, &live).unwrap();
    flip(&file, at);
    victim.refuses(&file, &["object configmaps/default/live at revision"]);
    let mut victim = victim.rebuilt(&cluster, "after-state");

    // What was: nobody reads it at a start, so it is found when somebody asks for it.
    wait_for_text(&victim.folder, &past);
    victim.process.kill_9();
    let (file, at) = find(&victim.folder, &past).unwrap();
    flip(&file, at);
    victim.process = run(&victim.folder, &victim.arguments);
    cluster.wait_until_serving(NUMBER);
    let revision = first.body["metadata"]["resourceVersion"].as_str().unwrap();
    let asked = |server| {
        cluster
            .api(server)
            .get(&format!("/at/{revision}{MAPS}/past"))
    };
    let damaged = "reckon_damaged_reads_total{of=\"state\"}";
    assert_eq!(cluster.api(NUMBER).metric(damaged), 0.0);
    let answer = asked(NUMBER);
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert_eq!(answer.code, 500, "{answer:?}");
    for part in [
        &*file.to_string_lossy(),
        "object configmaps/default/past",
        &format!("revision {revision}"),
        "'reckon status' says what is to be done",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    assert_eq!(asked(1).body["data"]["text"], past);
    let now = cluster.api(NUMBER).get(&format!("{MAPS}/past"));
    assert_eq!(now.body["data"]["text"], "short", "{now:?}");
    assert!(cluster.api(NUMBER).metric(damaged) >= 1.0);
    let said = said_by(&cluster.reckon(&["status"]));
    for part in [
        "the disk of server-3 is damaged",
        &*file.to_string_lossy(),
        "reckon member remove server-3",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let _victim = victim.rebuilt(&cluster, "after-past");
    let again = asked(NUMBER);
    assert_eq!(again.body["data"]["text"], past, "{again:?}");
    let warnings = |status: &Value| status["members"][2]["warnings"].clone();
    let status = cluster.status();
    assert_eq!(warnings(&status), json!([]), "{status}");

    // All the while the others took writes, and nothing of that is lost.
    let acknowledged = writes.finish();
    let gap = acknowledged.longest_gap.as_secs_f32();
    println!(
        "{} writes, longest gap {gap:.2} s",
        acknowledged.names.len()
    );
    assert!(gap < 15.0, "nothing was acknowledged for {gap} s");
    acknowledged.check_present(&cluster);
    cluster.stop();
}
