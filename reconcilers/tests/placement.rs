//! The scheduler at size: no node is overcommitted by its binds, pods of one owner spread evenly, and the same world gives the same binds.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]
mod testbed;

use eventstore::Key;
use serde_json::json;
use std::collections::BTreeMap;
use testbed::{Bed, deployment, node, pod};

const NODES: usize = 200;
const PODS: i64 = 1000;

#[test]
fn spreads_a_thousand_pods_evenly() {
    let mut bed = Bed::new();
    bed.check_level = false;
    for number in 0..NODES {
        let name = format!("n{number:04}");
        bed.put(&Key::new("nodes", "", name.as_str()), &node(&name, "4"));
    }
    bed.put(
        &Key::new("apps/deployments", "default", "web"),
        &deployment("web", PODS, "img:1"),
    );
    bed.settle();
    let mut on_node: BTreeMap<String, i64> = BTreeMap::new();
    for pod in bed.list("pods") {
        *on_node
            .entry(pod["spec"]["nodeName"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    assert_eq!(on_node.len(), NODES);
    assert!(
        on_node.values().all(|count| *count == PODS / NODES as i64),
        "{on_node:?}"
    );
}

#[test]
fn never_overcommits() {
    // Two nodes of one cpu each; pods that ask for more than there is.
    let mut bed = Bed::new();
    for name in ["n1", "n2"] {
        bed.put(&Key::new("nodes", "", name), &node(name, "1"));
    }
    for number in 0..9 {
        let name = format!("p{number}");
        bed.put(
            &Key::new("pods", "default", name.as_str()),
            &pod(&name, &json!({}), "300m"),
        );
    }
    bed.settle();
    let mut on_node: BTreeMap<String, i64> = BTreeMap::new();
    for pod in bed.list("pods") {
        *on_node
            .entry(pod["spec"]["nodeName"].as_str().unwrap_or("-").to_owned())
            .or_insert(0) += 1;
    }
    let expected = [("-", 3), ("n1", 3), ("n2", 3)].map(|(node, count)| (node.to_owned(), count));
    assert_eq!(on_node, BTreeMap::from(expected));
}

#[test]
fn gives_way_to_a_bind_that_came_between() {
    let mut bed = Bed::new();
    bed.put(&Key::new("nodes", "", "n1"), &node("n1", "1"));
    bed.settle();
    bed.put(
        &Key::new("pods", "default", "ours"),
        &pod("ours", &json!({}), "800m"),
    );
    let world = bed.world.clone();
    let outcome = reconcilers::run_round(
        &bed.reconcilers,
        &world,
        &mut bed.due,
        bed.now,
        reconcilers::Limits::default(),
    );
    // Decided, and before it is applied a user binds another pod there, as the API writes it.
    let mut theirs = pod("theirs", &json!({}), "800m");
    theirs["spec"]["nodeName"] = json!("n1");
    let binds = reconcilers::World::binds_key("n1");
    let claim = eventstore::Body::of_claim("n1", &serde_json::Map::new());
    let put = |key: Key, body| eventstore::Change {
        key,
        what: eventstore::What::Put {
            body,
            delete_grace_s: None,
        },
    };
    let body = eventstore::Body::cut(&theirs).unwrap();
    bed.objects(vec![
        put(Key::new("pods", "default", "theirs"), body),
        put(binds, claim),
    ]);
    let refused: Vec<String> = outcome
        .drafts
        .into_iter()
        .filter_map(|decided| bed.accept(decided.reconciler, 0, decided.draft).err())
        .collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("~binds/n1"), "{refused:?}");
    bed.due.everything(&bed.reconcilers, &bed.world);
    bed.settle();
    assert!(bed.get(&Key::new("pods", "default", "ours")).unwrap()["spec"]["nodeName"].is_null());
}

#[test]
fn decides_alike_from_the_same_world() {
    let mut bed = Bed::new();
    for name in ["n1", "n2", "n3"] {
        bed.put(&Key::new("nodes", "", name), &node(name, "4"));
    }
    bed.put(
        &Key::new("apps/deployments", "default", "web"),
        &deployment("web", 7, "img:1"),
    );
    bed.round();
    bed.round();
    let decide = || {
        let world = reconcilers::World::from_view(bed.state.view());
        let mut due = reconcilers::Due::default();
        due.everything(&bed.reconcilers, &world);
        let limits = reconcilers::Limits::default();
        let outcome = reconcilers::run_round(&bed.reconcilers, &world, &mut due, bed.now, limits);
        outcome
            .drafts
            .into_iter()
            .map(|decided| decided.draft)
            .collect::<Vec<_>>()
    };
    let first = decide();
    assert_eq!(first, decide());
    assert!(
        first
            .iter()
            .filter(|draft| matches!(draft.intent, eventstore::Intent::Bind { .. }))
            .count()
            == 7,
        "{first:?}"
    );
}
