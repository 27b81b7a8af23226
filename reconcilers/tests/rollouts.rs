//! What holds at every moment of any rollout, whatever the order in which pods become ready: never more pods than the surge allows, and
//! never fewer available ones than asked for less what may be unavailable.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]
mod testbed;

use eventstore::{Key, State};
use proptest::prelude::*;
use serde_json::json;
use testbed::{Bed, deployment, node};

const REPLICAS: i64 = 5;

/// Read back from the deployment itself, for the check is a plain function.
fn within_budget(state: &State) {
    let Some(deployment) = state.view().get(&web()).map(|object| object.to_value()) else {
        return;
    };
    let number = |name: &str| {
        deployment["metadata"]["annotations"][name]
            .as_str()
            .and_then(|text| text.parse::<usize>().ok())
    };
    let (Some(most), Some(least)) = (number("test/most"), number("test/least")) else {
        return;
    };
    let mut pods = 0;
    let mut available = 0;
    for object in state
        .view()
        .list("pods", None)
        .filter(|object| object.living())
    {
        pods += 1;
        let pod = object.to_value();
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        available += usize::from(
            conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        );
    }
    assert!(pods <= most, "{pods} pods, at most {most} may be");
    assert!(
        available >= least,
        "{available} pods are available, at least {least} must be"
    );
}

fn web() -> Key {
    Key::new("apps/deployments", "default", "web")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn stay_within_their_budget(
        surge in 0_i64..=3,
        unavailable in 0_i64..=3,
        steps in proptest::collection::vec((0_u8..=5, any::<u16>()), 5..60),
    ) {
        let mut bed = Bed::new();
        // The scripts try every decision twice; here it is the moments between decisions that count.
        bed.check_level = false;
        for name in ["n1", "n2", "n3"] {
            bed.put(&Key::new("nodes", "", name), &node(name, "64"));
        }
        let mut object = deployment("web", REPLICAS, "img:0");
        object["spec"]["strategy"]["rollingUpdate"] = json!({ "maxSurge": surge, "maxUnavailable": unavailable });
        bed.put(&web(), &object);
        bed.settle();
        bed.pod_keys().iter().for_each(|key| bed.make_ready(key));
        bed.settle();
        // Both none counts as one unavailable, for else nothing could move.
        let allowed = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        bed.patch(&web(), &json!({ "metadata": { "annotations": {
            "test/most": (REPLICAS + surge).to_string(), "test/least": (REPLICAS - allowed).to_string(),
        } } }));
        bed.always = Some(within_budget);
        let mut image = 0;
        for (what, which) in steps {
            step(&mut bed, what, usize::from(which), &mut image);
        }
        finish(&mut bed, image);
    }
}

fn step(bed: &mut Bed, what: u8, which: usize, image: &mut u32) {
    match what {
        // A new version, also in the middle of a rollout; now and then back to an earlier one.
        0 => {
            *image = if which.is_multiple_of(3) {
                image.saturating_sub(1)
            } else {
                *image + 1
            };
            let container = json!([{ "name": "main", "image": format!("img:{image}") }]);
            bed.patch(
                &web(),
                &json!({ "spec": { "template": { "spec": { "containers": container } } } }),
            );
        }
        1 | 2 => {
            let unready: Vec<Key> = unready(bed);
            if !unready.is_empty() {
                bed.make_ready(&unready[which % unready.len()]);
            }
        }
        3 => bed.confirm_gone(),
        // One round only: readiness then comes between decisions.
        4 => {
            bed.round();
        }
        _ => bed.settle(),
    }
}

fn unready(bed: &Bed) -> Vec<Key> {
    let keys = bed.pod_keys().into_iter().filter(|key| {
        let object = bed.state.view().get(key).unwrap();
        let pod = object.to_value();
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        object.living()
            && pod["spec"]["nodeName"].is_string()
            && !conditions
                .iter()
                .any(|condition| condition["type"] == "Ready")
    });
    keys.collect()
}

/// With every pod becoming ready in the end, the rollout completes.
fn finish(bed: &mut Bed, image: u32) {
    for _ in 0..40 {
        bed.settle();
        unready(bed).iter().for_each(|key| bed.make_ready(key));
        bed.settle();
        bed.confirm_gone();
    }
    bed.settle();
    let deployment = bed.get(&web()).unwrap();
    let pods = bed.list("pods");
    assert_eq!(deployment["status"]["availableReplicas"], REPLICAS);
    assert_eq!(deployment["status"]["updatedReplicas"], REPLICAS);
    assert_eq!(pods.len() as i64, REPLICAS);
    for pod in pods {
        assert_eq!(
            pod["spec"]["containers"][0]["image"],
            format!("img:{image}")
        );
    }
}
