//! What this crate may never depend on: whatever can do I/O, read a clock or roll dice. Read from `cargo tree`, so that a dependency's
//! dependency counts too.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]
use std::process::Command;

const FORBIDDEN: [&str; 14] = [
    "tokio",
    "rocksdb",
    "librocksdb-sys",
    "tonic",
    "hyper",
    "rand",
    "getrandom",
    "mio",
    "socket2",
    "rustls",
    "openraft",
    "reqwest",
    "futures",
    "tracing",
];

/// Of our own crates, the one that is pure as well.
const OURS: [&str; 2] = ["reckon-reconcilers", "reckon-eventstore"];

#[test]
fn depends_on_nothing_that_can_do_io() {
    let arguments = [
        "tree",
        "-p",
        "reckon-reconcilers",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        packages.contains(&"reckon-eventstore") && packages.len() > 10,
        "cargo tree says something else now: {tree}"
    );
    for package in packages {
        assert!(
            !FORBIDDEN.contains(&package),
            "{package} is in the tree of the reconcilers"
        );
        assert!(
            !package.starts_with("reckon-") || OURS.contains(&package),
            "{package} is in the tree of the reconcilers"
        );
    }
}
