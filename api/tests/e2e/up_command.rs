//! `reckon up` as a command: what it refuses before it makes anything, what it leaves behind when it ends, and what it carries on with.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};

use crate::cluster::{Cluster, Options, free_ports, reckon, run, said_by};
use crate::{image, machine, pods, wait};

#[test]
fn a_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let port = free_ports();
    // The second server's.
    let taken = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    let output = up(&data, port);
    check_refused(
        &output,
        &[
            &format!("port {} is taken", port + 1),
            &format!("process {}", std::process::id()),
            "--api-port",
        ],
    );
    assert!(!data.exists(), "it made its directory before it looked");
    drop(taken);
}

#[test]
fn a_directory_in_use() {
    let mut cluster = Cluster::servers();
    let output = up(&cluster.path("."), free_ports());
    let holder = fs::read_to_string(cluster.path("up.lock")).unwrap();
    check_refused(
        &output,
        &[
            "in use",
            &format!("process {}", holder.trim()),
            "--data-dir",
        ],
    );
    // And the one that has it was not disturbed.
    cluster.kubectl(&["get", "namespaces"]);
    cluster.stop();
}

#[test]
fn bad_flags() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let check = |flags: &[&str], part: &str| {
        let output = run(
            Command::new(reckon())
                .args(["up", "--data-dir", &data, "--agents", "0"])
                .args(flags),
            "",
        );
        check_refused(&output, &[part]);
        assert!(!Path::new(&data).exists(), "{flags:?}");
    };
    check(&["--servers", "0"], "--servers");
    check(&["--api-port", "0"], "--api-port");
    check(&["--listen", "example.com"], "--listen");
    check(&["--listen", "203.0.113.77"], "no address 203.0.113.77");
    check(&["--node-grace", "soon"], "--node-grace");
}

/// The same objects, the same certificates, the same ports.
#[test]
fn a_second_start_carries_on() {
    let mut cluster = Cluster::servers();
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    let before = cluster.wait_until_level();
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).unwrap();
    check_pid_files(&cluster, &["server-1", "server-2", "server-3"]);
    cluster.stop();
    check_pid_files(&cluster, &[]);

    cluster.up();
    assert_eq!(
        fs::read_to_string(cluster.kubeconfig()).unwrap(),
        kubeconfig
    );
    assert_eq!(
        cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]),
        "b"
    );
    let after = cluster.wait_until_level();
    let revision = |status: &serde_json::Value| status["members"][0]["revision"].as_u64().unwrap();
    assert!(
        revision(&after) >= revision(&before),
        "{before} then {after}"
    );

    // Killed outright it can tell nobody, and its servers end all the same.
    let pids: Vec<i32> = ["server-1", "server-2", "server-3"]
        .map(|server| cluster.pid(server).unwrap())
        .to_vec();
    cluster.kill_up();
    wait::until("the servers of a killed up to end", 30, || {
        let left: Vec<&i32> = pids.iter().filter(|pid| is_running(**pid)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    cluster.up();
    assert_eq!(
        cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]),
        "b"
    );

    // A single member that dies is started again, and said so.
    let old = cluster.pid("server-2").unwrap();
    cluster.kill_9(&["server-2"]);
    wait::until("server-2 to be started again", 30, || {
        match cluster.pid("server-2") {
            Some(pid) if pid != old => Ok(()),
            other => Err(other),
        }
    });
    cluster.wait_until_level();
    let said = cluster.said();
    assert!(
        said.contains("server-2 died (signal: 9") && said.contains("server-2 started again"),
        "{said}"
    );
    cluster.stop();
}

#[test]
fn no_restart_leaves_it_dead() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--no-restart"],
    });
    cluster.kill_9(&["server-3"]);
    wait::until("the pid file to go", 10, || {
        cluster.pid("server-3").map_or(Ok(()), Err)
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(cluster.pid("server-3"), None);
    // Two of three serve on, and reckon's own commands and status show who is missing.
    cluster.kubectl(&["create", "configmap", "two-of-three"]);
    let status = cluster.reckon_json(&["status"]);
    let third = &status["members"][2];
    assert!(
        third["name"] == "server-3" && third["error"].is_string(),
        "{status}"
    );
    cluster.stop();
}

#[test]
fn a_stop_leaves_nothing_behind() {
    check_nothing_is_left(&[], |_| ());
}

/// An agent that was killed cannot clear away after itself: the stop starts it once more to do so.
#[test]
fn a_stop_after_an_agent_was_killed_leaves_nothing_behind() {
    check_nothing_is_left(&["--no-restart"], |cluster| {
        cluster.kill_9(&["agent-1"]);
        wait::until("the pid file to go", 10, || {
            cluster.pid("agent-1").map_or(Ok(()), Err)
        });
    });
}

/// Ctrl-C goes to all that a terminal's foreground has; `up` alone acts on it, in order. Each agent has a network of its own.
#[test]
fn ctrl_c_with_two_agents_leaves_nothing_behind() {
    let mut cluster = Cluster::prepare(Options {
        agents: 2,
        simulated_nodes: 1,
        flags: &["--servers", "1"],
    });
    image::provide(&cluster, "v1");
    let before = machine::seen(&cluster);
    cluster.up_in_foreground();
    let ready: Vec<String> = cluster
        .said()
        .lines()
        .filter(|line| line.starts_with("ready: "))
        .map(str::to_string)
        .collect();
    let kubeconfig = cluster.kubeconfig();
    assert_eq!(
        ready,
        [format!(
            "ready: 1 server, 2 agents, 1 simulated node; next: export KUBECONFIG={} && kubectl get nodes",
            kubeconfig.display()
        )]
    );
    check_pid_files(
        &cluster,
        &["agent-1", "agent-2", "server-1", "simulated-nodes"],
    );
    cluster.kubectl(&["cordon", "simulated-1"]);
    cluster.apply(&image::deployment(4, "v1", ""));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let nodes = "jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}";
    let nodes = cluster.kubectl(&["get", "pods", "-o", nodes]);
    let nodes: BTreeSet<&str> = nodes.lines().collect();
    assert_eq!(nodes, BTreeSet::from(["agent-1", "agent-2"]));
    for pod in pods::running(&cluster) {
        assert_eq!(
            image::version_at(&pod.address).as_deref(),
            Ok("v1"),
            "{pod:?}"
        );
    }
    cluster.interrupt();
    let left = machine::left(&cluster, &before);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// Servers that listen everywhere are reached at any of the machine's addresses, and their certificates name it.
#[test]
fn listening_everywhere() {
    let addresses = nix::ifaddrs::getifaddrs().unwrap();
    let mut addresses =
        addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--listen", "0.0.0.0"],
    });
    // A machine without a network has the loopback alone.
    let address = addresses
        .find(|address| !address.is_loopback())
        .unwrap_or([127, 0, 0, 1].into());
    for number in 0..3 {
        let server = format!("https://{address}:{}", cluster.port + number);
        cluster.kubectl(&["--server", &server, "get", "namespaces"]);
    }
    cluster.stop();
}

/// Before anything is made, with the package that is missing.
#[test]
fn no_containerd() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // A mount namespace in which containerd is no program.
    let script = "mount --bind /dev/null \"$(command -v containerd)\" && exec \"$@\"";
    let port = free_ports().to_string();
    let mut command = Command::new(if geteuid().is_root() { "env" } else { "sudo" });
    command
        .args([
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            reckon(),
            "up",
        ])
        .args(["--data-dir", &data.to_string_lossy(), "--api-port", &port]);
    let output = run(&mut command, "");
    check_refused(
        &output,
        &["containerd", "apt-get install containerd", "--agents 0"],
    );
    assert!(!data.exists(), "it made its directory before it looked");
}

/// Agents take root, servers do not: as nobody, whoever runs this test.
#[test]
fn without_root() {
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("reckon");
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(folder.path());
        if geteuid().is_root() {
            command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
        }
        command
    };
    // The build's folder may be root's alone.
    fs::copy(reckon(), &program).unwrap();
    if geteuid().is_root() {
        chown(folder.path(), Some(nobody.uid), Some(nobody.gid)).unwrap();
    }
    let port = free_ports().to_string();
    let output = run(&mut as_nobody(&["up", "--api-port", &port]), "");
    check_refused(&output, &["needs root", "sudo reckon up", "--agents 0"]);
    assert!(!folder.path().join("reckon-data").exists());

    let flags = [
        "up",
        "--agents",
        "0",
        "--simulated-nodes",
        "1",
        "--api-port",
        &port,
    ];
    let mut up = as_nobody(&flags).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(up.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    // The kubeconfig of the working directory is reckon's own default.
    let output = run(&mut as_nobody(&["status", "-o", "json"]), "");
    kill(Pid::from_raw(up.id() as i32), Signal::SIGTERM).unwrap();
    let status = up.wait().unwrap();
    assert!(
        line.starts_with("ready: 3 servers, 1 simulated node;"),
        "{line}"
    );
    assert!(output.status.success(), "{}", said_by(&output));
    assert!(status.success(), "{status}");
}

/// Containers, mounts, bridge, rules, processes: as if it had never been.
fn check_nothing_is_left(flags: &[&str], before_the_stop: impl FnOnce(&Cluster)) {
    let mut cluster = Cluster::prepare(Options {
        agents: 1,
        simulated_nodes: 0,
        flags,
    });
    image::provide(&cluster, "v1");
    let before = machine::seen(&cluster);
    cluster.up();
    cluster.apply(&image::deployment(2, "v1", ""));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let during = machine::left(&cluster, &before);
    assert!(
        during.len() > 3,
        "containers leave traces while they run: {during:?}"
    );
    before_the_stop(&cluster);
    cluster.stop();
    let left = machine::left(&cluster, &before);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

fn up(data: &Path, port: u16) -> Output {
    let data = data.to_string_lossy();
    run(
        Command::new(reckon()).args([
            "up",
            "--agents",
            "0",
            "--data-dir",
            &data,
            "--api-port",
            &port.to_string(),
        ]),
        "",
    )
}

fn check_refused(output: &Output, parts: &[&str]) {
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "{}", said_by(output));
    for part in parts {
        assert!(
            said_by(output).contains(part),
            "{part:?} is not in: {}",
            said_by(output)
        );
    }
}

/// Exactly these members have pid files, and they run.
fn check_pid_files(cluster: &Cluster, members: &[&str]) {
    let files = fs::read_dir(cluster.path(""))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let found: BTreeSet<String> = files
        .filter_map(|name| name.strip_suffix(".pid").map(str::to_string))
        .collect();
    assert_eq!(
        found,
        members.iter().map(|member| member.to_string()).collect()
    );
    for member in members {
        assert!(is_running(cluster.pid(member).unwrap()), "{member}");
    }
}

fn is_running(pid: i32) -> bool {
    // A zombie has ended.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
