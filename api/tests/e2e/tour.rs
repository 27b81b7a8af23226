//! The README's tour, pasted as it stands.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::cluster::{Cluster, Options, reckon, run, said_by};

const README: &str = include_str!("../../../README.md");

#[test]
fn the_tour_can_be_pasted() {
    let cluster = Cluster::start(Options {
        agents: 1,
        simulated_nodes: 0,
        flags: &[],
    });
    // The clone's folder, as `make up` leaves it.
    let clone = tempfile::tempdir().unwrap();
    let at = |name: &str| clone.path().join(name);
    symlink(cluster.path(""), at("reckon-data")).unwrap();
    std::fs::create_dir_all(at("target/debug")).unwrap();
    symlink(reckon(), at("target/debug/reckon")).unwrap();
    std::fs::create_dir(at("bin")).unwrap();
    let kubectl = std::env::var("RECKON_KUBECTL").unwrap_or_else(|_| "kubectl".to_string());
    if kubectl.contains('/') {
        symlink(kubectl, at("bin/kubectl")).unwrap();
    }

    let path = format!(
        "{}:{}",
        at("bin").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut shell = Command::new("bash");
    shell
        .args(["-xeuo", "pipefail", "-c", tour()])
        .current_dir(clone.path())
        .env("HOME", clone.path())
        .env("PATH", path)
        .env_remove("KUBECONFIG");
    let output = run(&mut shell, "");
    let said = said_by(&output);
    println!("{said}");
    assert!(output.status.success(), "{said}");

    let printed = String::from_utf8_lossy(&output.stdout);
    let has = |text: &str| assert!(printed.contains(text), "'{text}' is not in:\n{said}");
    has("Hello from Reckon, version 1");
    has("deployment \"web\" successfully rolled out");
    has("configmap/after-the-leader created");
    // The past has the first three pods; the history, who changed the image; the chain, whose act it was.
    has("3/3");
    has("reckon.local/web:1");
    has("reckon.local/web:2");
    has("kubectl");
    assert!(
        printed.matches("all digests hold").count() >= 2,
        "one server may still be starting, not two:\n{said}"
    );
}

/// The one shell block of the tour's chapter.
fn tour() -> &'static str {
    let chapter = README.split("## A tour in five minutes").nth(1).unwrap();
    let block = chapter.split("```sh\n").nth(1).unwrap();
    block.split("```").next().unwrap()
}
