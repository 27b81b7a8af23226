//! Dependencies between our crates point one way (README, code map): `cargo metadata` is read, and each crate may name only these.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// package -> the packages of ours that it may depend on.
const MAY: &[(&str, &[&str])] = &[
    ("base2histogram", &[]),
    ("reckon-seams", &[]),
    ("reckon-raft", &["reckon-seams"]),
    ("reckon-eventstore", &[]),
    (
        "reckon-eventstore-disk",
        &["reckon-eventstore", "reckon-seams"],
    ),
    ("reckon-reconcilers", &["reckon-eventstore"]),
    ("reckon-agent", &[]),
    ("reckon-kinds", &[]),
    (
        "reckon-server",
        &[
            "reckon-agent",
            "reckon-eventstore",
            "reckon-eventstore-disk",
            "reckon-kinds",
            "reckon-raft",
            "reckon-reconcilers",
            "reckon-seams",
        ],
    ),
    (
        "reckon-simulations",
        &[
            "reckon-agent",
            "reckon-eventstore",
            "reckon-eventstore-disk",
            "reckon-kinds",
            "reckon-raft",
            "reckon-reconcilers",
            "reckon-seams",
            "reckon-server",
        ],
    ),
    ("reckon-benchmarks", &[]),
    (
        "reckon",
        &[
            "reckon-agent",
            "reckon-eventstore",
            "reckon-eventstore-disk",
            "reckon-kinds",
            "reckon-raft",
            "reckon-seams",
            "reckon-server",
            "reckon-simulations",
        ],
    ),
];

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let may: BTreeMap<_, BTreeSet<_>> = MAY
        .iter()
        .map(|(name, may)| (*name, may.iter().copied().collect()))
        .collect();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<_> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        may.keys().copied().collect(),
        "every crate has its row"
    );
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            // Tests may use more; what is shipped may not.
            let normal = dependency["kind"].is_null();
            assert!(
                !normal || !names.contains(on) || may[name].contains(on),
                "{name} must not depend on {on}"
            );
        }
    }
}
