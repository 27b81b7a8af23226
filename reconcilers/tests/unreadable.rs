//! An object that can't be read as its kind is set aside with a reason; everything else goes on.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]
mod testbed;

use eventstore::Key;
use serde_json::json;
use testbed::{Bed, deployment, node, pod};

#[test]
fn skips_what_it_cannot_read() {
    let mut bed = Bed::new();
    bed.put(&Key::new("nodes", "", "n1"), &node("n1", "4"));
    let mut broken = pod("broken", &json!({}), "1");
    broken["spec"]["containers"] = json!("none");
    bed.put(&Key::new("pods", "default", "broken"), &broken);
    let mut odd = deployment("odd", 1, "img:1");
    odd["spec"]["replicas"] = json!("many");
    bed.put(&Key::new("apps/deployments", "default", "odd"), &odd);
    let mut no_quantity = node("n2", "lots");
    no_quantity["metadata"]["labels"] = json!(null);
    bed.put(&Key::new("nodes", "", "n2"), &no_quantity);
    bed.put(
        &Key::new("pods", "default", "sound"),
        &pod("sound", &json!({}), "1"),
    );
    bed.settle();
    assert_eq!(
        bed.get(&Key::new("pods", "default", "sound")).unwrap()["spec"]["nodeName"],
        "n1"
    );
    assert!(bed.get(&Key::new("pods", "default", "broken")).unwrap()["spec"]["nodeName"].is_null());
    let waiting = &bed.waiting[&(
        "deployment-controller".to_owned(),
        Key::new("apps/deployments", "default", "odd"),
    )];
    assert!(
        waiting.starts_with("cannot be read: invalid type: string \"many\""),
        "{waiting}"
    );
    // Mended, it is decided like any other.
    bed.put(
        &Key::new("apps/deployments", "default", "odd"),
        &deployment("odd", 1, "img:1"),
    );
    bed.settle();
    assert_eq!(bed.list("apps/replicasets").len(), 1);
}
