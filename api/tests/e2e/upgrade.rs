//! A rolling upgrade from one level of the log to the next, server by server, under writes; and a server that is too old for it, or is
//! there from the beginning.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, Options, reckon, said_by};
use crate::wait;
use crate::writes::Writes;

/// Every 5 s the leader looks whether all can read the next level, and asks each for 2 s at the most.
const LOOK: Duration = Duration::from_secs(8);

#[test]
fn server_by_server_to_the_next_level() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--no-restart", "--max-level", "1"],
    });
    assert_eq!(levels(&cluster), [1, 1, 1]);
    let early = cluster.reckon(&["hold", "early"]);
    let said = said_by(&early);
    assert!(
        !early.status.success() && said.contains("every server must be upgraded first"),
        "{said}"
    );

    let writes = Writes::start(&cluster, "rolling");
    let mut servers = Vec::new();
    for number in 1..=3 {
        if number > 1 {
            thread::sleep(LOOK);
        }
        assert_eq!(
            levels(&cluster),
            [1, 1, 1],
            "the level rose while an old server was there"
        );
        writes.check_go_on(&format!("before server-{number} is upgraded"));
        let command = stop(&cluster, number);
        writes.check_go_on(&format!("while server-{number} is away"));
        servers.push(Server::start(&without_max_level(&command)));
        cluster.wait_until_serving(number);
    }
    rises(&cluster);
    writes.check_go_on("at the next level");
    let acknowledged = writes.finish();
    println!(
        "{} writes during the upgrade, the longest gap {:?}",
        acknowledged.count, acknowledged.longest_gap
    );
    acknowledged.check_nothing_stopped();
    cluster.wait_until_level();
    acknowledged.check_present(&cluster);
    cluster.reckon_json(&["hold", "late"]);
    cluster.reckon_json(&["verify"]);

    // An old program on the new log stops before it applies any of it, and says what to do.
    let third = servers.pop().unwrap();
    let command = third.end();
    let old = Command::new(&command[0])
        .args(&command[1..])
        .args(["--max-level", "1"])
        .output()
        .unwrap();
    let said = said_by(&old);
    assert!(
        !old.status.success()
            && said.contains("the log is at level 2")
            && said.contains("upgrade this server"),
        "{said}"
    );
    servers.push(Server::start(&command));
    cluster.wait_until_serving(3);
    cluster.wait_until_level();
    acknowledged.check_present(&cluster);
    for server in servers {
        server.end();
    }
    cluster.stop();
}

/// A new cluster of old and new servers: a new one founds it, and not so that the old one can't take part.
#[test]
fn a_new_cluster_begins_at_what_its_oldest_server_reads() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--no-restart"],
    });
    let commands: Vec<_> = (1..=3).map(|number| stop(&cluster, number)).collect();
    // Its certificates are all that is left of it.
    for number in 1..=3 {
        fs::remove_dir_all(cluster.path(&format!("server-{number}"))).unwrap();
    }
    let mut servers: Vec<_> = commands[..2]
        .iter()
        .map(|command| Server::start(command))
        .collect();
    let leader = cluster.leader();
    let old = ["--max-level", "1"].map(str::to_owned);
    servers.push(Server::start(&[&commands[2][..], &old].concat()));
    for number in 1..=3 {
        cluster.wait_until_serving(number);
    }
    thread::sleep(LOOK);
    assert_eq!(levels(&cluster), [1, 1, 1], "{leader} founded it");
    cluster.kubectl(&["create", "configmap", "early"]);
    cluster.wait_until_level();

    servers.pop().unwrap().end();
    servers.push(Server::start(&commands[2]));
    rises(&cluster);
    cluster.kubectl(&["get", "configmap", "early"]);
    cluster.wait_until_level();
    for server in servers {
        server.end();
    }
    cluster.stop();
}

fn rises(cluster: &Cluster) {
    wait::until("the level to rise", 60, || match levels(cluster) {
        levels if levels == [2, 2, 2] => Ok(()),
        levels => Err(levels),
    });
}

fn levels(cluster: &Cluster) -> Vec<u64> {
    let status = cluster.status();
    let members = status["members"].as_array().cloned().unwrap_or_default();
    members
        .iter()
        .filter_map(|member: &Value| member["level"].as_u64())
        .collect()
}

/// Asks one of `up`'s servers to stop, and tells how it was started.
fn stop(cluster: &Cluster, number: u16) -> Vec<String> {
    let pid = cluster.pid(&format!("server-{number}")).unwrap();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    cluster.signal(pid, Signal::SIGTERM);
    wait::until("the server to end", 30, || {
        match cluster.pid(&format!("server-{number}")) {
            None => Ok(()),
            Some(pid) => Err(pid),
        }
    });
    let own = std::process::id().to_string();
    let words = command
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    let mut words: Vec<String> = words
        .map(|word| String::from_utf8(word.to_vec()).unwrap())
        .collect();
    words[0] = reckon().to_owned();
    // It ends with this test, and not with `up`.
    if let Some(at) = words.iter().position(|word| word == "--follow-parent") {
        words[at + 1] = own;
    }
    words
}

fn without_max_level(command: &[String]) -> Vec<String> {
    let at = command
        .iter()
        .position(|word| word == "--max-level")
        .unwrap();
    [&command[..at], &command[at + 2..]].concat()
}

struct Server {
    command: Vec<String>,
    child: Child,
}

impl Server {
    fn start(command: &[String]) -> Self {
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Self {
            command: command.to_vec(),
            child,
        }
    }

    fn end(mut self) -> Vec<String> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        std::mem::take(&mut self.command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
