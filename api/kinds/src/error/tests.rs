//! Rows: how errors print, and what a Status holds.

use super::*;

#[test]
fn field_errors_print_as_kubernetes_prints_them() {
    let rows = [
        (
            FieldError::required("metadata.name", "name or generateName is required"),
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            FieldError::required("spec.ports", ""),
            "spec.ports: Required value",
        ),
        (
            FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0"),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            FieldError::invalid("spec", Value::Null, "x"),
            "spec: Invalid value: null: x",
        ),
        (
            FieldError::invalid("a", json!({"b": "<", "a": 1}), "x"),
            r#"a: Invalid value: {"a":1,"b":"\u003c"}: x"#,
        ),
        (
            FieldError::not_supported("spec.type", "Magic", &["ClusterIP", "NodePort"]),
            r#"spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "NodePort""#,
        ),
        (
            FieldError::duplicate("spec.containers[1].name", "a"),
            r#"spec.containers[1].name: Duplicate value: "a""#,
        ),
        (
            FieldError::not_found("spec.x", "v\"w\n"),
            r#"spec.x: Not found: "v\"w\n""#,
        ),
        (
            FieldError::too_long("[]", 1_048_576),
            "[]: Too long: may not be more than 1048576 bytes",
        ),
        (
            FieldError::too_many("spec.parts", 4, 3),
            "spec.parts: Too many: 4: must have at most 3 items",
        ),
        (
            FieldError::forbidden("data", "field is immutable"),
            "data: Forbidden: field is immutable",
        ),
    ];
    for (error, text) in rows {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_status_carries_reason_and_details() {
    let errors = [
        FieldError::required("a", ""),
        FieldError::forbidden("b", "no"),
        FieldError::required("a", ""),
    ];
    let rows = [
        (
            StatusError::not_found("apps", "deployments", "web"),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "deployments.apps \"web\" not found", "reason": "NotFound", "details": {"name": "web", "group": "apps", "kind": "deployments"}, "code": 404}),
        ),
        (
            StatusError::invalid("", "Pod", "p", errors.clone()),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Pod \"p\" is invalid: [a: Required value, b: Forbidden: no]", "reason": "Invalid", "details": {"name": "p", "kind": "Pod", "causes": [
            {"reason": "FieldValueRequired", "message": "Required value", "field": "a"}, {"reason": "FieldValueForbidden", "message": "Forbidden: no", "field": "b"}, {"reason": "FieldValueRequired", "message": "Required value", "field": "a"}]}, "code": 422}),
        ),
        (
            StatusError::unknown("x"),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "x", "code": 500}),
        ),
        (
            StatusError::forbidden("", "", "", "User \"ann\" cannot get path \"/apis\""),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "forbidden: User \"ann\" cannot get path \"/apis\"", "reason": "Forbidden", "details": {}, "code": 403}),
        ),
        (
            StatusError::modified("", "configmaps", "c"),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your changes to the latest version and try again", "reason": "Conflict", "details": {"name": "c", "kind": "configmaps"}, "code": 409}),
        ),
    ];
    for (error, status) in rows {
        assert_eq!(error.to_value(), status);
    }
}
