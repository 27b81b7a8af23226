//! What of a cluster can be seen on the machine from outside of it: interfaces, namespaces, mounts, processes, rules.

use std::collections::BTreeSet;
use std::fs;

use crate::cluster::{Cluster, run};

/// Folders that container runtimes make for all their containers at the first one ever, and that nobody removes again.
const ROOTS: [&str; 3] = ["run/containerd", "run/netns", "run/runc"];

/// One line for each of them.
pub fn seen(cluster: &Cluster) -> BTreeSet<String> {
    let data = cluster
        .path("")
        .to_string_lossy()
        .trim_end_matches('/')
        .to_string();
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir("/sys/class/net").unwrap().flatten() {
        seen.insert(format!("interface {}", entry.file_name().to_string_lossy()));
    }
    // Where CNI keeps network namespaces, and programs what is only for now.
    for folder in [
        "/run/netns",
        "/var/run/netns",
        "/run",
        "/var/lib/cni/networks",
    ] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if !ROOTS.iter().any(|root| path.ends_with(root)) {
                seen.insert(format!("file {}", path.display()));
            }
        }
    }
    for line in fs::read_to_string("/proc/mounts")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&data))
    {
        seen.insert(format!("mount {line}"));
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // Not what only talks about it: this test, a kubectl.
        if command.contains(&data) {
            seen.insert(format!(
                "process {} {command}",
                process.file_name().to_string_lossy()
            ));
        }
    }
    for tables in [
        &["iptables", "-t", "filter", "-S"][..],
        &["iptables", "-t", "nat", "-S"],
        &["nft", "-s", "list", "ruleset"],
    ] {
        let output = run(cluster.privileged(tables[0]).args(&tables[1..]), "");
        for line in String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| !is_bare(line))
        {
            seen.insert(format!("{} {line}", tables[0]));
        }
    }
    seen
}

/// Tables and chains of the system that the first rule ever makes, and that nobody removes again.
fn is_bare(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("-P ")
        || line == "}"
        || line.is_empty()
        || line.starts_with("table ")
        || line.starts_with("type ")
        || line.starts_with("chain ")
        || line.starts_with("-N CNI-HOSTPORT")
        || line.starts_with('#')
}

/// What is there now and was not there before.
pub fn left(cluster: &Cluster, before: &BTreeSet<String>) -> Vec<String> {
    seen(cluster).difference(before).cloned().collect()
}
