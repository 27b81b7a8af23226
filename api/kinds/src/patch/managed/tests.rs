//! Rows: whom a write makes the owner of what.

use super::*;

const NOW: &str = "2024-01-01T00:00:00Z";
const LATER: &str = "2024-01-01T00:01:00Z";

fn owners(object: &Value) -> Value {
    let short = |entry: &Value| {
        json!([
            entry["manager"],
            entry["operation"],
            entry.get("subresource").unwrap_or(&json!("")),
            entry["fieldsV1"],
            entry["time"]
        ])
    };
    object["metadata"]["managedFields"]
        .as_array()
        .map_or(Value::Null, |entries| entries.iter().map(short).collect())
}

#[test]
fn writers_own_what_they_change() {
    let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
    let mut first = json!({"metadata": {"name": "c", "uid": "u"}, "data": {"a": "1"}});
    update(schema, None, &mut first, "robot", "", NOW);
    assert_eq!(
        owners(&first),
        json!([["robot", "Update", "", {"f:data": {".": {}, "f:a": {}}}, NOW]])
    );

    let mut second = json!({"metadata": {"name": "c", "uid": "u"}, "data": {"a": "1", "b": "2"}});
    update(schema, Some(&first), &mut second, "robot2", "", LATER);
    assert_eq!(
        owners(&second),
        json!([["robot", "Update", "", {"f:data": {".": {}, "f:a": {}}}, NOW], ["robot2", "Update", "", {"f:data": {"f:b": {}}}, LATER]])
    );

    let mut third = json!({"metadata": {"name": "c", "uid": "u"}, "data": {"b": "3"}});
    update(schema, Some(&second), &mut third, "robot", "", LATER);
    assert_eq!(
        owners(&third),
        json!([["robot", "Update", "", {"f:data": {".": {}, "f:b": {}}}, LATER]])
    );

    let mut same = third.clone();
    update(
        schema,
        Some(&third),
        &mut same,
        "other",
        "",
        "2025-01-01T00:00:00Z",
    );
    assert_eq!(same, third, "who changes nothing owns nothing");

    let mut forgotten = third.clone();
    forgotten["metadata"]["managedFields"] = json!([{}]);
    update(schema, Some(&third), &mut forgotten, "robot", "", LATER);
    assert_eq!(owners(&forgotten), Value::Null, "an empty entry resets");
}

#[test]
fn a_subresource_has_its_own_entry_and_no_more() {
    let schema = Schema::of_kind("", "v1", "Pod").unwrap();
    let old = json!({"metadata": {"name": "p", "uid": "u", "managedFields": [{"manager": "a", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:nodeName": {}}}}]}, "spec": {"nodeName": "n"}, "status": {}});
    let mut new = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "other"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}]}});
    update(schema, Some(&old), &mut new, "node", "status", NOW);
    assert_eq!(
        owners(&new),
        json!([["a", "Update", "", {"f:spec": {"f:nodeName": {}}}, null],
            ["node", "Update", "status", {"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}}}, "f:phase": {}}}, NOW]])
    );
}

#[test]
fn the_oldest_updaters_become_one() {
    let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
    let mut object = json!({"metadata": {"name": "c"}, "data": {}});
    for n in 0..13 {
        let mut next = object.clone();
        next["metadata"]["uid"] = json!("u");
        next["data"][format!("k{n:02}")] = json!("v");
        let old = (n > 0).then_some(&object);
        update(
            schema,
            old,
            &mut next,
            &format!("m{n:02}"),
            "",
            &format!("2024-01-01T00:00:{n:02}Z"),
        );
        object = next;
    }
    let managers: Vec<&str> = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["manager"].as_str().unwrap())
        .collect();
    assert_eq!(
        managers,
        [
            "ancient-changes",
            "m04",
            "m05",
            "m06",
            "m07",
            "m08",
            "m09",
            "m10",
            "m11",
            "m12"
        ]
    );
}

#[test]
fn a_manager_is_named_by_its_agent() {
    for (manager, agent, name) in [
        ("x", "robot/1.2 (linux)", "x"),
        ("", "robot/1.2 (linux)", "robot"),
        ("", "", ""),
    ] {
        assert_eq!(manager_name(manager, agent), name);
    }
}
