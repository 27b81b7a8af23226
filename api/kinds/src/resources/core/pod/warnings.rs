//! What is accepted but hardly meant (Kubernetes: `GetWarningsForPod`).

use crate::quantity::Quantity;
use crate::resources::checks::{entries, items, text};
use serde_json::Value;

/// Labels of nodes that have a newer name.
const RENAMED_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "v1.17",
        "topology.kubernetes.io/region",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "v1.17",
        "topology.kubernetes.io/zone",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "v1.17",
        "node.kubernetes.io/instance-type",
    ),
];

pub fn of_pod(old: Option<&Value>, new: &Value) -> Vec<String> {
    // What was warned of when it was made is not news at each label that is changed.
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        Vec::new()
    } else {
        of_spec(&new["spec"], "spec")
    }
}

pub fn of_template(old: Option<&Value>, new: &Value, path: &str) -> Vec<String> {
    if old == Some(new) {
        Vec::new()
    } else {
        of_spec(&new["spec"], &format!("{path}.spec"))
    }
}

fn of_spec(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (label, since, instead) in RENAMED_LABELS {
        if spec["nodeSelector"].get(*label).is_some() {
            warnings.push(format!(
                "{path}.nodeSelector[{label}]: deprecated since {since}; use {instead:?} instead"
            ));
        }
    }
    if spec["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds < 0)
    {
        warnings.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    let mut secrets: Vec<&str> = Vec::new();
    for (index, secret) in items(&spec["imagePullSecrets"]).iter().enumerate() {
        let name = text(&secret["name"]);
        if name.is_empty() {
            warnings.push(format!(
                "{path}.imagePullSecrets[{index}].name: invalid empty name \"\""
            ));
        } else if secrets.contains(&name) {
            warnings.push(format!(
                "{path}.imagePullSecrets[{index}].name: duplicate name {name:?}"
            ));
        }
        secrets.push(name);
    }
    for (index, volume) in items(&spec["volumes"]).iter().enumerate() {
        if !volume["gitRepo"].is_null() {
            warnings.push(format!("{path}.volumes[{index}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"));
        }
    }
    for key in ["initContainers", "containers"] {
        for (index, container) in items(&spec[key]).iter().enumerate() {
            of_container(container, &format!("{path}.{key}[{index}]"), &mut warnings);
        }
    }
    warnings
}

fn of_container(container: &Value, path: &str, warnings: &mut Vec<String>) {
    for kind in ["limits", "requests"] {
        for (name, amount) in entries(&container["resources"][kind]) {
            let fractional =
                Quantity::parse(text(amount)).is_ok_and(|amount| amount.milli_value() % 1000 != 0);
            if name == "memory" && fractional {
                warnings.push(format!("{path}.resources.{kind}[memory]: fractional byte value {:?} is invalid, must be an integer", text(amount)));
            }
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, variable) in items(&container["env"]).iter().enumerate() {
        let name = text(&variable["name"]);
        if seen.contains(&name) {
            warnings.push(format!("{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
        seen.push(name);
    }
    let ports = items(&container["ports"]);
    let same = |a: &Value, b: &Value| {
        ["containerPort", "protocol", "hostIP", "hostPort"]
            .iter()
            .all(|key| a[*key] == b[*key])
    };
    for (index, port) in ports.iter().enumerate() {
        if let Some(first) = ports[..index].iter().position(|before| same(before, port)) {
            warnings.push(format!(
                "{path}.ports[{index}]: duplicate port definition with {path}.ports[{first}]"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn warnings() {
        let rows: &[(Value, &[&str])] = &[
            (
                json!({"containers": [{"env": [{"name": "A"}, {"name": "B"}]}]}),
                &[],
            ),
            (
                json!({"containers": [{"env": [{"name": "A"}, {"name": "A"}]}]}),
                &[
                    "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                ],
            ),
            (
                json!({"containers": [{"ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "name": "x"}]}]}),
                &[
                    "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                ],
            ),
            (
                json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}]}),
                &[
                    "spec.imagePullSecrets[1].name: duplicate name \"a\"",
                    "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                ],
            ),
            (
                json!({"containers": [{"resources": {"requests": {"memory": "100m", "cpu": "100m"}}}]}),
                &[
                    "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                ],
            ),
            (
                json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
                &[
                    "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                ],
            ),
        ];
        for (spec, expected) in rows {
            let pod = json!({"spec": spec});
            assert_eq!(of_pod(None, &pod), *expected, "{spec}");
            assert!(of_pod(Some(&pod), &pod).is_empty());
        }
    }
}
