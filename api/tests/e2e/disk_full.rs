//! Disks that fill up and are emptied again: real servers, the directory of each on a small disk of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;
use serde_json::json;

use crate::api::Answer;
use crate::cluster::{Cluster, Options, said_by};
use crate::wait;
use crate::writes::Writes;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SIZE: &str = "size=400m,mode=1777";
const RESERVE: &str = "100MiB";
/// What is left when it is filled: below the reserve, and enough for the log to go on.
const LEFT: u64 = 60 << 20;
/// The servers look every 2 s, and ask each other then.
const NOTICED_S: u64 = 15;

/// A disk in memory.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        as_root(&["mount", "-t", "tmpfs", "-o", SIZE, "tmpfs"], &at);
        Self(at)
    }

    fn fill(&self) {
        let about = statvfs(&self.0).unwrap();
        let free = about.blocks_available() * about.fragment_size();
        let zeros = vec![0; 1 << 20];
        let mut file = File::create(self.0.join("filler")).unwrap();
        for _ in 0..(free - LEFT) >> 20 {
            file.write_all(&zeros).unwrap();
        }
    }

    /// To the last page.
    fn fill_up(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        let zeros = vec![0; 64 << 10];
        while file.write_all(&zeros).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Tmpfs {
    /// Out of sight at once, and gone when the last file in it is closed.
    fn drop(&mut self) {
        as_root(&["umount", "--lazy"], &self.0);
    }
}

fn as_root(command: &[&str], path: &Path) {
    let sudo: &[&str] = if geteuid().is_root() {
        &[]
    } else {
        &["sudo", "-n"]
    };
    let words = [sudo, command].concat();
    let status = Command::new(words[0]).args(&words[1..]).arg(path).status();
    assert!(status.unwrap().success(), "{words:?} {}", path.display());
}

fn create(cluster: &Cluster, server: u16, name: &str) -> Answer {
    let map = json!({"metadata": {"name": name}, "data": {"n": "1"}}).to_string();
    let kind = "application/json";
    let api = cluster.api(server);
    api.send(Method::POST, MAPS, kind, map.into_bytes(), 30)
        .unwrap()
}

/// Writes through each server, until all of them take it; what they took.
fn taken(cluster: &Cluster, what: &str) -> Vec<String> {
    let write = |server: u16| {
        let name = format!("{what}-{server}");
        wait::until(&format!("{name} to be taken"), NOTICED_S, || {
            let answer = create(cluster, server, &name);
            if answer.code == 201 {
                Ok(())
            } else {
                Err(answer)
            }
        });
        name
    };
    (1..=3).map(write).collect()
}

/// Until each server refuses, saying this.
fn refused(cluster: &Cluster, what: &str, says: &[&str]) {
    for server in 1..=3 {
        let mut taken = 0;
        let answer = wait::until("a write to be refused", NOTICED_S, || {
            taken += 1;
            let answer = create(cluster, server, &format!("{what}-{server}-{taken}"));
            if answer.code == 507 {
                Ok(answer)
            } else {
                Err(answer)
            }
        });
        assert_eq!(answer.body["reason"], "InsufficientStorage", "{answer:?}");
        let message = answer.body["message"].as_str().unwrap();
        for part in says {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        let read = cluster.api(server).get(MAPS);
        assert_eq!(read.code, 200, "{read:?}");
    }
}

#[test]
fn users_writes_stop_at_the_reserve_and_go_on_when_there_is_room() {
    let mut cluster = Cluster::prepare(Options {
        agents: 0,
        simulated_nodes: 2,
        flags: &["--disk-reserve", RESERVE],
    });
    // After the cluster, so that it goes before the cluster's folder does.
    let disks: Vec<Tmpfs> = (1..=3)
        .map(|number| Tmpfs::mount(cluster.path(&format!("server-{number}"))))
        .collect();
    cluster.up();
    let mut there = taken(&cluster, "before");
    let leader = cluster.leader();
    let number: usize = leader.trim_start_matches("server-").parse().unwrap();
    let followers: Vec<usize> = (1..=3).filter(|other| *other != number).collect();
    let disk = |number: usize| &disks[number - 1];

    // One follower: the others are a majority.
    disk(followers[0]).fill();
    let short = format!("server-{}", followers[0]);
    let status = wait::until("the status to show it", NOTICED_S, || {
        let output = cluster.reckon(&["status"]);
        let said = said_by(&output);
        if said.contains("below its reserve of 100.0 MiB") {
            Ok(said)
        } else {
            Err(said)
        }
    });
    assert!(status.contains(&format!("{short} has ")), "{status}");
    there.extend(taken(&cluster, "one-follower"));
    disk(followers[0]).clear();

    // The leader, with another or not.
    disk(number).fill();
    let says = format!("{leader} has ");
    refused(
        &cluster,
        "leader",
        &[&says, "free of 400.0 MiB, below its reserve of 100.0 MiB"],
    );
    let output = cluster.kubectl_with(&["create", "configmap", "by-kubectl"], "");
    let said = said_by(&output);
    assert!(
        !output.status.success() && said.contains("below its reserve"),
        "{said}"
    );
    let output = cluster.kubectl_with(&["delete", "configmap", &there[0]], "");
    assert!(!output.status.success(), "{}", said_by(&output));
    let metrics = cluster.api(number as u16);
    let free = metrics.metric("reckon_disk_free_bytes");
    assert!(free < metrics.metric("reckon_disk_reserve_bytes"), "{free}");
    assert!(metrics.metric("reckon_proposals_total{outcome=\"no_room\"}") > 0.0);
    disk(number).clear();
    there.extend(taken(&cluster, "leader-again"));

    followers.iter().for_each(|follower| disk(*follower).fill());
    refused(&cluster, "majority", &["only 1 of 3 servers have room"]);
    followers
        .iter()
        .for_each(|follower| disk(*follower).clear());
    there.extend(taken(&cluster, "majority-again"));

    // Nobody led in between but who led, no node was lost, nothing is lost.
    assert_eq!(cluster.leader(), leader);
    let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]);
    assert_eq!(nodes.matches(" Ready ").count(), 2, "{nodes}");
    cluster.wait_until_level();
    for server in 1..=3 {
        for name in &there {
            let map = cluster.api(server).get(&format!("{MAPS}/{name}"));
            assert_eq!(map.code, 200, "{map:?}");
        }
    }
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}

/// A follower alone is written to until its disk is full: the others are a majority, and it stores what it can. Then it ends, says why, and has
/// acknowledged nothing that it has not; with room it is started again and catches up.
#[test]
fn a_follower_whose_disk_is_full_ends_and_catches_up_when_there_is_room() {
    let mut cluster = Cluster::prepare(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--disk-reserve", RESERVE],
    });
    let disks: Vec<Tmpfs> = (1..=3)
        .map(|number| Tmpfs::mount(cluster.path(&format!("server-{number}"))))
        .collect();
    cluster.up();
    let mut there = taken(&cluster, "before");
    let leader = cluster.leader();
    let number: u16 = leader.trim_start_matches("server-").parse().unwrap();
    let full = (1..=3).find(|other| *other != number).unwrap();
    let name = format!("server-{full}");
    let before = cluster.pid(&name).unwrap();
    let disk = &disks[usize::from(full) - 1];
    disk.fill_up();

    // What its log has set aside takes some of them.
    let writes = Writes::start(&cluster, "meanwhile");
    let log = || std::fs::read_to_string(cluster.path(&format!("{name}.log"))).unwrap_or_default();
    let mut large = 0;
    wait::until("it to end", 120, || {
        large += 1;
        let map = format!("large-{large}");
        let text = "x".repeat(200 << 10);
        let body = json!({"metadata": {"name": map}, "data": {"text": text}}).to_string();
        let kind = "application/json";
        let answer = cluster
            .api(number)
            .send(Method::POST, MAPS, kind, body.into_bytes(), 30)
            .unwrap();
        assert_eq!(answer.code, 201, "the others go on: {answer:?}");
        there.push(map);
        if cluster.pid(&name) == Some(before) {
            Err(log())
        } else {
            Ok(())
        }
    });
    assert!(log().contains("no space left on the disk"), "{}", log());
    wait::until("the status to say so", 60, || {
        let status = cluster.status();
        let shown = &status["members"][usize::from(full) - 1];
        shown["error"].as_str().map(drop).ok_or(status.clone())
    });
    let acknowledged = writes.finish();
    let gap = acknowledged.longest_gap.as_secs_f32();
    println!(
        "{} and {large} large writes were acknowledged, longest gap {gap:.2} s",
        acknowledged.names.len()
    );
    assert!(gap < 5.0, "nothing was acknowledged for {gap} s");

    disk.clear();
    // It is started again by itself, half a minute later at the latest.
    cluster.wait_until_serving(full);
    cluster.wait_until_level();
    acknowledged.check_present(&cluster);
    for map in &there {
        let map = cluster.api(full).get(&format!("{MAPS}/{map}"));
        assert_eq!(map.code, 200, "{map:?}");
    }
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}
