//! Rows: lists merged by key, directives, refusals.

use super::*;
use serde_json::json;

fn containers(patch: Value) -> Value {
    json!({"spec": {"template": {"spec": patch}}})
}

#[test]
fn lists_merge_by_key_and_keep_their_order() {
    let schema = Schema::of_kind("apps", "v1", "Deployment").unwrap();
    let current = json!({"metadata": {"name": "d", "finalizers": ["a/a", "b/b"]}, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}, {"name": "b", "image": "1"}]}}}});
    let names = |value: &Value| -> Vec<String> {
        value["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| {
                format!(
                    "{}:{}",
                    c["name"].as_str().unwrap(),
                    c["image"].as_str().unwrap_or("")
                )
            })
            .collect()
    };
    let rows: [(Value, &[&str]); 9] = [
        (
            containers(json!({"containers": [{"name": "b", "image": "2"}]})),
            &["a:1", "b:2"],
        ),
        (
            containers(json!({"containers": [{"name": "c", "image": "1"}]})),
            &["c:1", "a:1", "b:1"],
        ),
        (
            containers(json!({"containers": [{"name": "b", "$patch": "delete"}]})),
            &["a:1"],
        ),
        (
            containers(
                json!({"containers": [{"$patch": "replace"}, {"name": "only", "image": "o"}]}),
            ),
            &["only:o"],
        ),
        (
            containers(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})),
            &["b:1", "a:1"],
        ),
        (
            containers(
                json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}], "containers": [{"name": "c", "image": "1"}]}),
            ),
            &["a:1", "c:1", "b:1"],
        ),
        (containers(json!({"containers": null})), &[]),
        (
            containers(json!({"containers": [{"name": "a", "image": null}]})),
            &["a:", "b:1"],
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [], "$patch": "merge"}}}}),
            &["error"],
        ),
    ];
    for (body, expected) in rows {
        match patch(
            schema,
            &current,
            body.to_string().as_bytes(),
            FieldValidation::Warn,
        ) {
            Ok((value, _)) if value["spec"]["template"]["spec"]["containers"].is_null() => {
                assert!(expected.is_empty(), "{body}")
            }
            Ok((value, _)) => assert_eq!(names(&value), expected, "{body}"),
            Err(error) => assert!(
                expected == ["error"] && error.code == 500,
                "{body}: {error}"
            ),
        }
    }
}

#[test]
fn directives_do_what_they_say() {
    let schema = Schema::of_kind("apps", "v1", "Deployment").unwrap();
    let current = json!({"metadata": {"name": "d", "labels": {"a": "1"}, "finalizers": ["a/a", "b/b"]}, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {"containers": [
        {"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}}}});
    let rows = [
        (
            json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
            "/metadata/labels",
            json!({"b": "2"}),
        ),
        (
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            "/metadata/labels",
            Value::Null,
        ),
        (
            json!({"metadata": {"finalizers": ["c/c"]}}),
            "/metadata/finalizers",
            json!(["c/c", "a/a", "b/b"]),
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}}),
            "/metadata/finalizers",
            json!(["b/b"]),
        ),
        (
            json!({"metadata": {"$setElementOrder/finalizers": ["b/b", "a/a"]}}),
            "/metadata/finalizers",
            json!(["b/b", "a/a"]),
        ),
        (
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            "/spec/strategy",
            json!({"type": "Recreate"}),
        ),
        (
            containers(
                json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "9"}, {"name": "Z", "value": "3"}]}]}),
            ),
            "/spec/template/spec/containers/0/env",
            json!([{"name": "X", "value": "9"}, {"name": "Z", "value": "3"}, {"name": "Y", "value": "2"}]),
        ),
        (
            containers(
                json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "$patch": "delete"}]}),
            ),
            "/spec/template/spec/volumes",
            json!([{"emptyDir": {}, "name": "v"}]),
        ),
    ];
    for (body, pointer, expected) in rows {
        let (value, _) = patch(
            schema,
            &current,
            body.to_string().as_bytes(),
            FieldValidation::Strict,
        )
        .unwrap();
        assert_eq!(
            value.pointer(pointer).cloned().unwrap_or_default(),
            expected,
            "{body}"
        );
    }
}

#[test]
fn patches_that_can_not_be_applied_are_refused() {
    let schema = Schema::of_kind("apps", "v1", "Deployment").unwrap();
    let current = json!({"metadata": {"name": "d"}, "spec": {"strategy": {"type": "RollingUpdate"}, "replicas": 1, "template": {"spec": {"containers": [{"name": "a"}]}}}});
    let rows = [
        (
            "{broken",
            400,
            "invalid character 'b' looking for beginning of object key string",
        ),
        (
            "[]",
            400,
            "json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"image":"example.com/x:1"}]}}}}"#,
            500,
            "map: map[image:example.com/x:1] does not contain declared merge key: name",
        ),
        (
            r#"{"spec":{"strategy":{"$retainKeys":["type"],"rollingUpdate":{}}}}"#,
            400,
            "invalid patch format of retainKeys",
        ),
        (
            r#"{"spec":{"replicas":"2"}}"#,
            422,
            r#" "" is invalid: patch: Invalid value: "map[spec:map[replicas:2]]": unrecognized type: int32"#,
        ),
        (
            r#"{"spec":{"template":{"spec":{"nodeName":3}}}}"#,
            422,
            r#" "" is invalid: patch: Invalid value: "map[spec:map[template:map[spec:map[nodeName:3]]]]": cannot convert int64 to string"#,
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":"x"}}}}"#,
            422,
            r#" "" is invalid: patch: Invalid value: "map[spec:map[template:map[spec:map[containers:x]]]]": cannot restore slice from string"#,
        ),
    ];
    for (body, code, message) in rows {
        let error = patch(schema, &current, body.as_bytes(), FieldValidation::Warn).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (code, message),
            "{body}"
        );
    }
}
