//! Rows: bodies in canonical form, and bodies refused.

use super::*;

fn schema(kind: &str) -> &'static Schema {
    match kind {
        "Deployment" => Schema::of_kind("apps", "v1", kind).unwrap(),
        kind => Schema::of_kind("", "v1", kind).unwrap(),
    }
}

#[test]
fn objects_come_out_in_canonical_form() {
    let rows = [
        (
            "ConfigMap",
            json!({"data": {"b": "2", "a": null}, "metadata": {"name": "c", "labels": {}}, "immutable": false}),
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "", "b": "2"}, "immutable": false}),
        ),
        (
            "Pod",
            json!({"spec": {"containers": [{"name": "m", "image": "", "resources": {"limits": {"cpu": "0.5", "memory": 1024}}, "ports": [{"hostPort": 0}], "env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "x"}}}]}], "hostNetwork": false, "priority": 0, "nodeName": null}, "status": {"conditions": [{"type": "Ready", "lastTransitionTime": "2024-01-02T03:04:05.678+01:00"}]}}),
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}, "spec": {"containers": [{"name": "m", "env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"divisor": "0", "resource": "x"}}}], "ports": [{"containerPort": 0}], "resources": {"limits": {"cpu": "500m", "memory": "1024"}}}], "priority": 0},
               "status": {"conditions": [{"lastProbeTime": null, "lastTransitionTime": "2024-01-02T02:04:05Z", "status": "", "type": "Ready"}]}}),
        ),
        (
            "Deployment",
            json!({"spec": {"replicas": 0, "minReadySeconds": 0, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}, "template": {"spec": {"containers": []}}}}),
            json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {}, "spec": {"replicas": 0, "selector": null, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}, "template": {"metadata": {}, "spec": {"containers": null}}}, "status": {}}),
        ),
        (
            "Secret",
            json!({"data": {"a": "aGk=", "b": ""}, "type": "Opaque"}),
            json!({"kind": "Secret", "apiVersion": "v1", "metadata": {}, "data": {"a": "aGk=", "b": ""}, "type": "Opaque"}),
        ),
    ];
    for (kind, sent, canonical) in rows {
        let (value, warnings) = decode(
            schema(kind),
            Body::Json(sent.to_string().as_bytes()),
            FieldValidation::Warn,
        )
        .unwrap();
        assert_eq!(
            (value.to_string(), warnings),
            (reordered(&canonical, &value), vec![]),
            "{kind}"
        );
        let mut again = value.clone();
        canonicalise(schema(kind), &mut again);
        assert_eq!(again, value, "canonical form is its own canonical form");
    }
}

/// The expected value, written with the keys in the order they came out: equality of text then shows any difference at all.
fn reordered(expected: &Value, found: &Value) -> String {
    if expected == found {
        found.to_string()
    } else {
        expected.to_string()
    }
}

#[test]
fn bodies_that_do_not_fit_are_refused_in_the_servers_words() {
    let rows = [
        (
            "ConfigMap",
            "{not json",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of object key string ({not json)",
        ),
        (
            "ConfigMap",
            "",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            "ConfigMap",
            "[]",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b5d)",
        ),
        (
            "ConfigMap",
            r#"{"apiVersion":"v1","kind":"Secret"}"#,
            "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
        (
            "ConfigMap",
            r#"{"apiVersion":"v2","kind":"ConfigMap"}"#,
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "ConfigMap",
            r#"{"data":{"a":1}}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "Deployment",
            r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":"2"}}"#,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Deployment",
            r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}}}"#,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":{}}}"#,
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":[{"imagePullPolicy":true}]}}"#,
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal bool into Go struct field Container.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            "Pod",
            r#"{"spec":{"priority":3000000000}}"#,
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            "Pod",
            r#"{"spec":{"priority":"x","containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#,
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "Secret",
            r#"{"data":{"a":"a!bc"}}"#,
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 1",
        ),
        (
            "Service",
            r#"{"spec":{"ports":[{"targetPort":true}]}}"#,
            "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32",
        ),
        (
            "Pod",
            r#"{"metadata":{"deletionTimestamp":"yesterday"}}"#,
            "Pod in version \"v1\" cannot be handled as a Pod: parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
        ),
    ];
    for (kind, body, message) in rows {
        let error = decode(
            schema(kind),
            Body::Json(body.as_bytes()),
            FieldValidation::Warn,
        )
        .unwrap_err();
        assert_eq!(
            (error.code, error.reason, error.message.as_str()),
            (400, "BadRequest", message),
            "{body}"
        );
    }
}

#[test]
fn unknown_and_repeated_fields_are_told_as_asked() {
    let body = r#"{"spec":{"containers":[{"name":"m","imagee":"x"}],"restartPolice":"Never"},"metadata":{"name":"a","name":"b"}}"#;
    let said = [
        "duplicate field \"metadata.name\"",
        "unknown field \"spec.containers[0].imagee\"",
        "unknown field \"spec.restartPolice\"",
    ];
    let decoded = |validation| decode(schema("Pod"), Body::Json(body.as_bytes()), validation);
    assert_eq!(decoded(FieldValidation::Warn).unwrap().1, said);
    assert_eq!(
        decoded(FieldValidation::Ignore).unwrap().1,
        Vec::<String>::new()
    );
    assert_eq!(
        decoded(FieldValidation::Strict).unwrap_err().message,
        format!(
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}",
            said.join(", ")
        )
    );
    let harsh = FieldValidation::parse("Harsh", "CreateOptions").unwrap_err();
    assert_eq!(
        harsh.message,
        "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Harsh\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
    );
}

#[test]
fn yaml_is_read_as_kubernetes_reads_it() {
    let rows = [
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  a: b\n",
            Ok(json!({"a": "b"})),
            0,
        ),
        ("data:\n  a: \"1\"\n  a: \"2\"\n", Ok(json!({"a": "2"})), 1),
        (
            "data:\n  a: yes\n",
            Err(
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal bool into Go struct field ConfigMap.data of type string",
            ),
            0,
        ),
        (
            "a: [",
            Err(
                "the object provided is unrecognized (must be of type ConfigMap): error converting YAML to JSON: yaml: ",
            ),
            0,
        ),
    ];
    for (body, expected, warnings) in rows {
        match (
            decode(
                schema("ConfigMap"),
                Body::Yaml(body.as_bytes()),
                FieldValidation::Warn,
            ),
            expected,
        ) {
            (Ok((value, told)), Ok(data)) => {
                assert_eq!((&value["data"], told.len()), (&data, warnings), "{body}")
            }
            (Err(error), Err(message)) => assert!(
                error.message.starts_with(message),
                "{body}: {}",
                error.message
            ),
            (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
        }
    }
}
