//! A pod's life through its hooks.

use super::*;
use crate::resources::recorded::{context, decoded, messages};
use crate::resources::strategy;

fn made(spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": {"phase": "Running"}});
    if object["spec"]["containers"].is_null() {
        object["spec"]["containers"] =
            json!([{"name": "main", "image": "registry.k8s.io/pause:3.10"}]);
    }
    let mut object = decoded(&KIND, object);
    strategy::create(&KIND, &mut object, &context()).unwrap();
    object
}

#[test]
fn a_pod_is_filled_in() {
    assert_eq!(
        made(json!({"schedulerName": "by-hand"})),
        json!({
            "metadata": {"name": "p", "namespace": "n", "generation": 1},
            "spec": {
                "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10", "resources": {}, "terminationMessagePath": "/dev/termination-log",
                                "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "securityContext": {}, "schedulerName": "by-hand", "enableServiceLinks": true,
            },
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        })
    );
}

#[test]
fn own_tolerations_stand() {
    let toleration = |key: &str, seconds: i64| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    let rows = [
        (
            json!({}),
            json!([toleration(NOT_READY, 300), toleration(UNREACHABLE, 300)]),
        ),
        (
            json!({"tolerations": [toleration(NOT_READY, 5)]}),
            json!([toleration(NOT_READY, 5), toleration(UNREACHABLE, 300)]),
        ),
        (
            json!({"tolerations": [{"operator": "Exists"}]}),
            json!([{"operator": "Exists"}]),
        ),
    ];
    for (mut spec, expected) in rows {
        tolerate_a_lost_node(spec.as_object_mut().unwrap(), 300);
        assert_eq!(spec["tolerations"], expected);
    }
}

#[test]
fn what_may_change() {
    let tolerations = json!([{"key": "own", "operator": "Exists"}]);
    let old = made(
        json!({"terminationGracePeriodSeconds": 7, "activeDeadlineSeconds": 50, "tolerations": tolerations}),
    );
    type Change = fn(&mut Value);
    let rows: &[(&str, Change, i64, &[&str])] = &[
        ("nothing", |_| {}, 1, &[]),
        (
            "labels",
            |pod| pod["metadata"]["labels"] = json!({"a": "b"}),
            1,
            &[],
        ),
        (
            "image",
            |pod| pod["spec"]["containers"][0]["image"] = json!("i:2"),
            2,
            &[],
        ),
        (
            "sooner",
            |pod| pod["spec"]["activeDeadlineSeconds"] = json!(5),
            2,
            &[],
        ),
        (
            "later",
            |pod| pod["spec"]["activeDeadlineSeconds"] = json!(51),
            2,
            &["spec.activeDeadlineSeconds must be less than or equal"],
        ),
        (
            "one more toleration",
            |pod| {
                pod["spec"]["tolerations"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"key": "a", "operator": "Exists"}))
            },
            2,
            &[],
        ),
        (
            "fewer tolerations",
            |pod| pod["spec"]["tolerations"] = json!([]),
            2,
            &["spec.tolerations existing toleration can not be modified"],
        ),
        (
            "grace",
            |pod| pod["spec"]["terminationGracePeriodSeconds"] = json!(8),
            2,
            &["spec pod updates may not change fields other than"],
        ),
        (
            "command",
            |pod| pod["spec"]["containers"][0]["command"] = json!(["a"]),
            2,
            &["spec pod updates may not change fields other than"],
        ),
        (
            "one container more",
            |pod| {
                pod["spec"]["containers"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": "b"}))
            },
            2,
            &["spec.containers pod updates may not add or remove containers"],
        ),
    ];
    for (what, change, generation, expected) in rows {
        let mut new = old.clone();
        change(&mut new);
        messages(what, update::validate(&old, &new), expected);
        prepare_update(&old, &mut new, &context());
        assert_eq!(new["metadata"]["generation"], *generation, "{what}");
    }
    let mut new = old.clone();
    new["spec"]["hostname"] = json!("h");
    let detail = update::validate(&old, &new).remove(0).detail;
    assert!(
        detail.ends_with("previously negative)\n@@ -1,0 +1,1 @@\n+ spec.hostname: \"h\"\n"),
        "{detail}"
    );
}

#[test]
fn grace() {
    let bound = json!({"nodeName": "n", "terminationGracePeriodSeconds": 7});
    let rows = [
        (
            "unbound",
            json!({"terminationGracePeriodSeconds": 7}),
            "Pending",
            Some(9),
            0,
        ),
        ("bound", bound.clone(), "Running", None, 7),
        ("asked", bound.clone(), "Running", Some(9), 9),
        ("by force", bound.clone(), "Running", Some(0), 0),
        ("less than nothing", bound.clone(), "Running", Some(-1), 1),
        ("finished", bound, "Succeeded", None, 0),
    ];
    for (what, spec, phase, asked, expected) in rows {
        assert_eq!(
            delete_grace(&json!({"spec": spec, "status": {"phase": phase}}), asked),
            Some(expected),
            "{what}"
        );
    }
}

#[test]
fn status_is_the_agents() {
    let old = made(json!({}));
    let mut new = old.clone();
    new["spec"]["activeDeadlineSeconds"] = json!(5);
    new["metadata"]["labels"] = json!({"from": "status"});
    new["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "1"}]);
    new["status"] = json!({"phase": "Running", "podIP": "10.2.3.4"});
    let mut new = decoded(&KIND, new);
    strategy::update_status(&KIND, &old, &mut new, &context()).unwrap();
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(
        new["metadata"],
        json!({"name": "p", "namespace": "n", "generation": 1, "labels": {"from": "status"}})
    );
    assert_eq!(
        new["status"],
        json!({"phase": "Running", "podIP": "10.2.3.4", "podIPs": [{"ip": "10.2.3.4"}], "qosClass": "BestEffort"})
    );
    new["status"]["podIPs"] = json!([{"ip": "nowhere"}]);
    messages(
        "address",
        update::validate_status(&old, &new),
        &["status.podIPs[0] must be a valid IP address"],
    );
}

#[test]
fn what_is_over_stays_over() {
    let of = |policy: &str, state: Value| json!({"spec": {"restartPolicy": policy}, "status": {"containerStatuses": [{"name": "a", "state": state}]}});
    let failed = json!({"terminated": {"exitCode": 1}});
    let running = json!({"running": {}});
    let rows: &[(&str, &str, &[&str])] = &[
        ("for ever", "Always", &[]),
        ("until it succeeds", "OnFailure", &[]),
        (
            "once",
            "Never",
            &["status.containerStatuses[0].state may not be transitioned"],
        ),
    ];
    for (what, policy, expected) in rows {
        messages(
            what,
            update::validate_status(&of(policy, failed.clone()), &of(policy, running.clone())),
            expected,
        );
    }
}

#[test]
fn begun_deletions_count() {
    let mut pod = made(json!({}));
    strategy::begin_delete(&KIND, &mut pod);
    assert_eq!(pod["metadata"]["generation"], 2);
}
