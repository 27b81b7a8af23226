//! Pods as a client sends them: defaulted, then checked.

use super::*;
use crate::resources::core::pod::{KIND, defaults};
use crate::resources::recorded::{decoded, messages};
use serde_json::json;

#[track_caller]
fn check(rows: &[(&str, Value, &[&str])]) {
    for (what, spec, expected) in rows {
        let object = decoded(
            &KIND,
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}),
        );
        messages(what, pod(&object), expected);
    }
}

/// One container with these fields.
fn with(fields: Value) -> Value {
    json!({"containers": [merged(json!({"name": "main", "image": "i:1"}), fields)]})
}

/// A pod spec with one container and these fields.
fn spec_with(fields: Value) -> Value {
    merged(with(json!({})), fields)
}

fn merged(mut whole: Value, fields: Value) -> Value {
    for (key, value) in fields.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole
}

#[test]
fn containers() {
    check(&[
        ("plain", with(json!({})), &[]),
        ("none", json!({}), &["spec.containers "]),
        (
            "no image",
            json!({"containers": [{"name": "a"}]}),
            &["spec.containers[0].image "],
        ),
        (
            "two of a name",
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
            &["spec.containers[1].name "],
        ),
        (
            "port",
            with(json!({"ports": [{"containerPort": 70000}]})),
            &["spec.containers[0].ports[0].containerPort must be between 1 and 65535"],
        ),
        (
            "port names",
            with(
                json!({"ports": [{"containerPort": 80, "name": "x"}, {"containerPort": 81, "name": "x"}]}),
            ),
            &["spec.containers[0].ports[1].name "],
        ),
        (
            "host port twice",
            with(
                json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]}),
            ),
            &["spec.containers[0].ports[1].hostPort "],
        ),
        (
            "everything wrong",
            merged(
                json!({"containers": [{"name": "A", "image": " ", "imagePullPolicy": "Maybe", "ports": [{"containerPort": 0, "protocol": "ICMP"}]}]}),
                json!({"dnsPolicy": "Never"}),
            ),
            &[
                "spec.containers[0].name a lowercase RFC 1123 label must",
                "spec.containers[0].image must not have leading or trailing",
                "spec.containers[0].imagePullPolicy supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                "spec.containers[0].ports[0].containerPort ",
                "spec.containers[0].ports[0].protocol supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.dnsPolicy supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
            ],
        ),
        (
            "init with a probe",
            spec_with(
                json!({"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["true"]}}}]}),
            ),
            &["spec.initContainers[0].livenessProbe may not be set for init containers"],
        ),
        (
            "sidecar with a probe",
            spec_with(
                json!({"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["true"]}}}]}),
            ),
            &[],
        ),
    ]);
}

#[test]
fn resources() {
    let of = |resources: Value| with(json!({"resources": resources}));
    check(&[
        (
            "plain",
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            &[],
        ),
        (
            "over the limit",
            of(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
            &["spec.containers[0].resources.requests must be less than or equal to cpu limit of 1"],
        ),
        (
            "negative",
            of(json!({"limits": {"cpu": "-1"}})),
            &[
                "spec.containers[0].resources.limits[cpu] must be greater",
                "spec.containers[0].resources.requests[cpu] must be greater",
            ],
        ),
        (
            "unknown",
            of(json!({"limits": {"speed": "1"}})),
            &[
                "spec.containers[0].resources.limits[speed] must be a standard resource for containers",
                "spec.containers[0].resources.requests[speed] must be a standard resource for containers",
            ],
        ),
        (
            "half a device",
            of(json!({"limits": {"example.com/gpu": "500m"}})),
            &[
                "spec.containers[0].resources.limits[example.com/gpu] must be an integer",
                "spec.containers[0].resources.requests[example.com/gpu] must be an integer",
            ],
        ),
        (
            "a device without limit",
            of(json!({"requests": {"example.com/gpu": "1"}})),
            &["spec.containers[0].resources.limits Limit must be set"],
        ),
    ]);
}

#[test]
fn probes_and_environment() {
    check(&[
        (
            "probe",
            with(json!({"livenessProbe": {"httpGet": {"port": 0}, "periodSeconds": -1}})),
            &[
                "spec.containers[0].livenessProbe.httpGet.port must be between",
                "spec.containers[0].livenessProbe.periodSeconds must be greater",
            ],
        ),
        (
            "no handler",
            with(json!({"readinessProbe": {}})),
            &["spec.containers[0].readinessProbe must specify a handler type"],
        ),
        (
            "two handlers",
            with(json!({"readinessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}})),
            &[
                "spec.containers[0].readinessProbe.tcpSocket may not specify more than 1 handler type",
            ],
        ),
        (
            "liveness must succeed once",
            with(json!({"livenessProbe": {"tcpSocket": {"port": "web"}, "successThreshold": 2}})),
            &["spec.containers[0].livenessProbe.successThreshold must be 1"],
        ),
        (
            "names",
            with(json!({"env": [{"name": "A"}, {"name": ""}, {"name": "A=B"}]})),
            &[
                "spec.containers[0].env[1].name ",
                "spec.containers[0].env[2].name a valid environment variable name must",
            ],
        ),
        (
            "sources",
            with(
                json!({"env": [{"name": "A", "valueFrom": {}}, {"name": "B", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            &[
                "spec.containers[0].env[0].valueFrom must specify one of",
                "spec.containers[0].env[1].valueFrom may not be specified when `value` is not empty",
            ],
        ),
        (
            "fields",
            with(json!({"env": [
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.unknown"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.speed"}}}]})),
            &[
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath error converting fieldPath: field label not supported: spec.unknown",
                "spec.containers[0].env[2].valueFrom.resourceFieldRef.resource supported values",
            ],
        ),
        (
            "from nowhere",
            with(json!({"envFrom": [{}, {"configMapRef": {}}]})),
            &[
                "spec.containers[0].envFrom[0] must specify one of",
                "spec.containers[0].envFrom[1].configMapRef.name ",
            ],
        ),
    ]);
}

#[test]
fn volumes() {
    let of = |volume: Value| spec_with(json!({"volumes": [volume]}));
    check(&[
        (
            "mount of nothing",
            with(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            &["spec.containers[0].volumeMounts[0].name "],
        ),
        (
            "a path twice",
            merged(
                with(
                    json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v", "subPath": "../x"}]}),
                ),
                json!({"volumes": [{"name": "v"}]}),
            ),
            &[
                "spec.containers[0].volumeMounts[1].mountPath must be unique",
                "spec.containers[0].volumeMounts[1].subPath must not contain '..'",
            ],
        ),
        (
            "two sources",
            of(json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}})),
            &["spec.volumes[0].hostPath may not specify more than 1 volume type"],
        ),
        (
            "no name",
            of(json!({"emptyDir": {}})),
            &["spec.volumes[0].name "],
        ),
        (
            "host path upwards",
            of(json!({"name": "v", "hostPath": {"path": "/a/../b"}})),
            &["spec.volumes[0].hostPath.path must not contain '..'"],
        ),
        (
            "host path's type",
            of(json!({"name": "v", "hostPath": {"path": "/", "type": "Moon"}})),
            &["spec.volumes[0].hostPath.type supported"],
        ),
        (
            "no config map",
            of(json!({"name": "v", "configMap": {"items": [{"key": "a", "path": "..b"}]}})),
            &[
                "spec.volumes[0].configMap.name ",
                "spec.volumes[0].configMap.items[0].path must not start with '..'",
            ],
        ),
        (
            "mode",
            of(json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 512}})),
            &["spec.volumes[0].secret.defaultMode must be a number"],
        ),
        (
            "token",
            of(
                json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 60}}, {}]}}),
            ),
            &[
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds may not specify a duration less",
                "spec.volumes[0].projected.sources[0].serviceAccountToken.path ",
                "spec.volumes[0].projected.sources[1] must specify a volume type",
            ],
        ),
    ]);
}

#[test]
fn placement() {
    check(&[
        (
            "restart policy",
            spec_with(json!({"restartPolicy": "Sometimes"})),
            &["spec.restartPolicy supported values: \"Always\", \"OnFailure\", \"Never\""],
        ),
        (
            "deadline",
            spec_with(json!({"activeDeadlineSeconds": 0})),
            &["spec.activeDeadlineSeconds must be between 1 and 2147483647"],
        ),
        (
            "toleration of nothing",
            spec_with(json!({"tolerations": [{"operator": "Equal"}]})),
            &["spec.tolerations[0].operator operator must be Exists when `key` is empty"],
        ),
        (
            "toleration for a time",
            spec_with(
                json!({"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 1}]}),
            ),
            &["spec.tolerations[0].effect effect must be 'NoExecute'"],
        ),
        (
            "toleration",
            spec_with(
                json!({"tolerations": [{"key": "a", "operator": "Near", "effect": "Never"}]}),
            ),
            &[
                "spec.tolerations[0].operator supported values: \"Equal\", \"Exists\"",
                "spec.tolerations[0].effect supported values",
            ],
        ),
        (
            "no terms",
            spec_with(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}}),
            ),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms must have at least one",
            ],
        ),
        (
            "weights",
            spec_with(
                json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {}}]}}}),
            ),
            &[
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight must be in the range 1-100",
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey can not be empty",
            ],
        ),
        (
            "spread",
            spec_with(
                json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "Panic"}]}),
            ),
            &[
                "spec.topologySpreadConstraints[0].maxSkew must be greater than zero",
                "spec.topologySpreadConstraints[0].whenUnsatisfiable supported values",
            ],
        ),
    ]);
}

#[test]
fn identity_and_security() {
    check(&[
        (
            "names",
            spec_with(json!({"serviceAccountName": "A", "hostname": "a.b"})),
            &[
                "spec.serviceAccountName a lowercase RFC 1123 subdomain",
                "spec.hostname a lowercase RFC 1123 label",
            ],
        ),
        (
            "user",
            spec_with(json!({"securityContext": {"runAsUser": -1}})),
            &["spec.securityContext.runAsUser must be between 0 and 2147483647"],
        ),
        (
            "privileged and not",
            with(
                json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
            ),
            &["spec.containers[0].securityContext cannot set `allowPrivilegeEscalation`"],
        ),
        (
            "profile",
            with(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}})),
            &["spec.containers[0].securityContext.seccompProfile.localhostProfile must be set"],
        ),
        (
            "no resolver",
            spec_with(json!({"dnsPolicy": "None"})),
            &["spec.dnsConfig must provide `dnsConfig`"],
        ),
        (
            "host's network",
            merged(
                with(json!({"ports": [{"containerPort": 80, "hostPort": 81}]})),
                json!({"hostNetwork": true}),
            ),
            &["spec.containers[0].ports[0].containerPort must match `hostPort`"],
        ),
    ]);
    let mirror =
        json!({"metadata": {"name": "p", "annotations": {MIRROR: "x"}}, "spec": with(json!({}))});
    messages(
        "mirror",
        pod(&decoded(&KIND, mirror)),
        &["metadata.annotations[kubernetes.io/config.mirror] must set spec.nodeName"],
    );
}

#[test]
fn templates_are_checked_under_their_own_path() {
    let mut given = json!({"metadata": {"labels": {"a": "b c"}}, "spec": {}});
    defaults::template(given.as_object_mut().unwrap());
    messages(
        "template",
        template(&given, "spec.template"),
        &[
            "spec.template.labels a valid label must",
            "spec.template.spec.containers ",
        ],
    );
}
