//! Rows and short stories: who owns what after which apply.

use super::*;

fn applied(
    live: Option<&Value>,
    manager: &str,
    force: bool,
    config: &Value,
) -> Result<Value, StatusError> {
    let kind = config["kind"].as_str().unwrap();
    let group = if kind == "Deployment" { "apps" } else { "" };
    let schema = Schema::of_kind(group, "v1", kind).unwrap();
    let asked = Apply {
        manager,
        force,
        subresource: "",
        now: "2024-01-01T00:00:00Z",
        validation: FieldValidation::Strict,
    };
    apply(schema, live, config.to_string().as_bytes(), asked).map(|(mut value, _)| {
        value["metadata"]["uid"] = json!("u");
        value
    })
}

fn config(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn owners(object: &Value) -> Value {
    let short = |entry: &Value| {
        json!([
            entry["manager"],
            entry["fieldsV1"],
            entry.get("time").is_some()
        ])
    };
    object["metadata"]["managedFields"]
        .as_array()
        .map_or(Value::Null, |entries| entries.iter().map(short).collect())
}

/// The scenario of two people and one ConfigMap: share, conflict, force, give up, remove.
#[test]
fn appliers_share_fight_and_leave() {
    let ann = applied(None, "ann", false, &config(json!({"a": "1", "b": "2"}))).unwrap();
    assert_eq!(
        owners(&ann),
        json!([["ann", {"f:data": {"f:a": {}, "f:b": {}}}, true]])
    );
    for (data, message) in [
        (
            json!({"a": "9"}),
            "Apply failed with 1 conflict: conflict with \"ann\": .data.a",
        ),
        (
            json!({"a": "9", "b": "8"}),
            "Apply failed with 2 conflicts: conflicts with \"ann\":\n- .data.a\n- .data.b",
        ),
    ] {
        assert_eq!(
            applied(Some(&ann), "bob", false, &config(data))
                .unwrap_err()
                .message,
            message
        );
    }
    let shared = applied(Some(&ann), "bob", false, &config(json!({"a": "1"}))).unwrap();
    assert_eq!(
        owners(&shared),
        json!([["bob", {"f:data": {"f:a": {}}}, false], ["ann", {"f:data": {"f:a": {}, "f:b": {}}}, true]])
    );
    let forced = applied(Some(&shared), "bob", true, &config(json!({"a": "5"}))).unwrap();
    assert_eq!(
        (&forced["data"], owners(&forced)),
        (
            &json!({"a": "5", "b": "2"}),
            json!([["ann", {"f:data": {"f:b": {}}}, true], ["bob", {"f:data": {"f:a": {}}}, true]])
        )
    );
    let again = applied(Some(&forced), "ann", false, &config(json!({"b": "2"}))).unwrap();
    assert_eq!(again, forced, "what changes nothing is no change");
    let removed = applied(Some(&forced), "bob", false, &config(json!({}))).unwrap();
    assert_eq!(
        (&removed["data"], owners(&removed)),
        (
            &json!({"b": "2"}),
            json!([["ann", {"f:data": {"f:b": {}}}, true], ["bob", {"f:data": {}}, true]])
        )
    );
}

#[test]
fn lists_are_owned_by_item() {
    let with = |containers: Value, replicas: i64| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": containers}}}});
    let only = |containers: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": containers}}}});
    let names = |object: &Value| object["spec"]["template"]["spec"]["containers"].clone();
    let ann = applied(None, "ann", false, &with(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]), 0)).unwrap();
    assert_eq!(
        owners(&ann),
        json!([["ann", {"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}}, true]])
    );
    let two = applied(
        Some(&ann),
        "bob",
        false,
        &only(
            json!([{"name": "b", "image": "1"}, {"name": "a", "ports": [{"containerPort": 81}]}]),
        ),
    )
    .unwrap();
    assert_eq!(
        names(&two),
        json!([{"name": "b", "image": "1", "resources": {}}, {"name": "a", "image": "1", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81}], "resources": {}}])
    );
    let conflict = applied(
        Some(&two),
        "carl",
        false,
        &with(json!([{"name": "a", "image": "1"}]), 2),
    )
    .unwrap_err();
    assert_eq!(
        conflict.message,
        "Apply failed with 1 conflict: conflict with \"ann\": .spec.replicas"
    );
    let left = applied(
        Some(&two),
        "bob",
        false,
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}),
    )
    .unwrap();
    assert_eq!((names(&left), owners(&left)), (names(&ann), owners(&ann)));
    let twice = applied(
        Some(&ann),
        "bob",
        false,
        &only(json!([{"name": "x"}, {"name": "x"}])),
    )
    .unwrap_err();
    assert_eq!(
        (twice.code, twice.message.as_str()),
        (
            500,
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"x\"]"
        )
    );
}

#[test]
fn kubectl_takes_over_from_its_client_side_self() {
    let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
    let last = "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"1\",\"b\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"c\"}}\n";
    let mut live = json!({"metadata": {"name": "c", "uid": "u", "annotations": {LAST_APPLIED: last}}, "data": {"a": "1", "b": "2"}});
    managed::update(
        schema,
        None,
        &mut live,
        "kubectl-client-side-apply",
        "",
        "2023-01-01T00:00:00Z",
    );
    let value = applied(Some(&live), "kubectl", false, &config(json!({"a": "2"}))).unwrap();
    assert_eq!(value["data"], json!({"a": "2", "b": "2"}));
    assert_eq!(
        value["metadata"]["annotations"][LAST_APPLIED],
        "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\"}}\n"
    );
    let refused = applied(Some(&live), "someone", false, &config(json!({"a": "2"}))).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.a"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let rows = [
        (
            "a: [",
            400,
            "error decoding YAML: error converting YAML to JSON: yaml: ",
        ),
        (
            "[]",
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}",
            400,
            "invalid object type: /v1, Kind=Secret",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {managedFields: []}",
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndatta: {}",
            500,
            "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .datta: field not declared in schema",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: 1}",
            500,
            "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
    ];
    let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
    let asked = Apply {
        manager: "m",
        force: false,
        subresource: "",
        now: "",
        validation: FieldValidation::Warn,
    };
    for (body, code, message) in rows {
        let error = apply(schema, None, body.as_bytes(), asked).unwrap_err();
        assert!(
            error.code == code && error.message.starts_with(message),
            "{body}: {error}"
        );
    }
}
