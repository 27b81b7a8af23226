//! A container's environment: `env`, `envFrom`, the downward API's fields and resources, and `$(VAR)` expansion. Pure: what it needs of
//! the node and the pod's addresses is in `Downward`.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::objects::{Missing, Objects, Source};
use crate::pod::{Container, EnvSource, Pod, ResourceFieldRef};
use crate::quantity;

/// What the downward API can say about a pod on this node.
pub struct Downward<'a> {
    pub pod: &'a Pod,
    pub pod_ips: &'a [String],
    pub host_ip: &'a str,
    /// The node's allocatable processor time in thousandths, and memory in bytes: the limits of a container without.
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
}

/// The whole environment in order: what comes later replaces what came before under the same name.
pub fn environment(
    container: &Container,
    downward: &Downward<'_>,
    objects: &Objects,
) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = &downward.pod.metadata.namespace;
    let mut names: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |values: &mut BTreeMap<String, String>, name: String, value: String| {
        if values.insert(name.clone(), value).is_none() {
            names.push(name);
        }
    };
    for from in &container.env_from {
        let references = [
            (Source::ConfigMap, &from.config_map_ref),
            (Source::Secret, &from.secret_ref),
        ];
        for (source, reference) in references {
            let Some(reference) = reference else { continue };
            let Some(data) =
                objects.get_optional(source, namespace, &reference.name, reference.optional)?
            else {
                continue;
            };
            for (key, value) in data.iter() {
                let name = format!("{}{key}", from.prefix);
                if !name.contains('=') {
                    set(
                        &mut values,
                        name,
                        String::from_utf8_lossy(value).into_owned(),
                    );
                }
            }
        }
    }
    for variable in &container.env {
        let value = match &variable.value_from {
            None => Some(expand(&variable.value, &|name| values.get(name).cloned())),
            Some(source) => from_source(source, container, downward, objects)?,
        };
        if let Some(value) = value {
            set(&mut values, variable.name.clone(), value);
        }
    }
    Ok(names
        .into_iter()
        .map(|name| (name.clone(), values.remove(&name).unwrap_or_default()))
        .collect())
}

fn from_source(
    source: &EnvSource,
    container: &Container,
    downward: &Downward<'_>,
    objects: &Objects,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        return field_value(&field.field_path, downward).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(resource, Some(container), downward).map(Some);
    }
    let references = [
        (Source::ConfigMap, &source.config_map_key_ref),
        (Source::Secret, &source.secret_key_ref),
    ];
    for (kind, reference) in references {
        let Some(reference) = reference else { continue };
        let namespace = &downward.pod.metadata.namespace;
        let Some(data) =
            objects.get_optional(kind, namespace, &reference.name, reference.optional)?
        else {
            return Ok(None);
        };
        return match data.get(&reference.key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if reference.optional => Ok(None),
            None => Err(Missing::NoKey(
                kind.word(),
                format!("{namespace}/{}", reference.name),
                reference.key.clone(),
            )
            .into()),
        };
    }
    Ok(Some(String::new()))
}

/// `$(NAME)` becomes the name's value where it has one and stays as it is where it has none; `$$` is a `$`.
/// Kubernetes: "Dependent environment variables".
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix("$(")
            .and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    expanded
}

/// One field of the pod, as an environment variable or a downward file holds it.
pub fn field_value(path: &str, downward: &Downward<'_>) -> Result<String, EnvError> {
    let pod = downward.pod;
    let subscript = |map: &BTreeMap<String, String>, prefix: &str| {
        let key = path
            .strip_prefix(prefix)?
            .strip_prefix("['")?
            .strip_suffix("']")?;
        Some(map.get(key).cloned().unwrap_or_default())
    };
    let value = match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "metadata.labels" => lines(&pod.metadata.labels),
        "metadata.annotations" => lines(&pod.metadata.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.podIP" => downward.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => downward.pod_ips.join(","),
        "status.hostIP" | "status.hostIPs" => downward.host_ip.to_owned(),
        _ => subscript(&pod.metadata.labels, "metadata.labels")
            .or_else(|| subscript(&pod.metadata.annotations, "metadata.annotations"))
            .ok_or_else(|| EnvError::Field(path.to_owned()))?,
    };
    Ok(value)
}

/// `key="value"`, a line each, values quoted as Go quotes them.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A request or limit in units of its divisor, rounded up. A missing limit is the node's.
pub fn resource_value(
    reference: &ResourceFieldRef,
    container: Option<&Container>,
    downward: &Downward<'_>,
) -> Result<String, EnvError> {
    let unsupported = || EnvError::Resource(reference.resource.clone());
    let container = match reference.container_name.as_str() {
        "" => container,
        name => downward.pod.container(name),
    }
    .ok_or_else(unsupported)?;
    let (list, resource) = reference.resource.split_once('.').ok_or_else(unsupported)?;
    let held = match list {
        "limits" => container.resources.limits.get(resource),
        "requests" => container.resources.requests.get(resource),
        _ => return Err(unsupported()),
    };
    let divisor = quantity::milli(&reference.divisor)
        .filter(|divisor| *divisor > 0)
        .unwrap_or(1000);
    let milli = match (held.and_then(quantity::milli), list, resource) {
        (Some(milli), _, _) => milli,
        (None, "limits", "cpu") => downward.allocatable_cpu_milli,
        (None, "limits", "memory") => downward.allocatable_memory.saturating_mul(1000),
        (None, _, _) => 0,
    };
    Ok(((milli + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ObjectKey;
    use serde_json::json;

    fn pod() -> Pod {
        Pod::parse(&json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "web", "tier": "a\"b"},
                "annotations": {"x/y": "z"}},
            "spec": {"nodeName": "n1", "containers": [{
                "name": "c",
                "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}},
                "envFrom": [{"prefix": "M_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "nope", "optional": true}}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)-$(M_k)-$(NOPE)-$$(A)-$"},
                    {"name": "M_k", "value": "own"},
                    {"name": "C", "value": "$(M_k)"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "CPU_M", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}},
                    {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
                    {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "none", "optional": true}}},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
            }]},
        }))
        .unwrap()
    }

    fn objects() -> Objects {
        let objects = Objects::default();
        let key = |resource: &str, name: &str| ObjectKey {
            resource: resource.into(),
            namespace: "d".into(),
            name: name.into(),
        };
        objects.set(key("configmaps", "m"), Some(&json!({"data": {"k": "v"}})));
        objects.set(
            key("secrets", "s"),
            Some(&json!({"data": {"k": "c2VjcmV0"}})),
        );
        objects.set(key("secrets", "nope"), None);
        objects
    }

    #[test]
    fn the_environment_in_order() {
        let pod = pod();
        let ips = ["10.1.2.3".to_owned()];
        let downward = Downward {
            pod: &pod,
            pod_ips: &ips,
            host_ip: "192.0.2.1",
            allocatable_cpu_milli: 4000,
            allocatable_memory: 1024,
        };
        let found = environment(&pod.spec.containers[0], &downward, &objects()).unwrap();
        let found: Vec<String> = found
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            found,
            [
                "M_k=own",
                "A=1",
                "B=1-v-$(NOPE)-$(A)-$",
                "C=own",
                "IP=10.1.2.3",
                "APP=web",
                "CPU=2",
                "CPU_M=1500",
                "MEM=64",
                "LIMIT=1024",
                "S=secret",
            ]
        );
        assert_eq!(
            field_value("metadata.labels", &downward).unwrap(),
            "app=\"web\"\ntier=\"a\\\"b\""
        );
        assert_eq!(
            field_value("spec.hatch", &downward),
            Err(EnvError::Field("spec.hatch".into()))
        );
    }

    #[test]
    fn what_is_missing_has_kubernetes_words() {
        let pod = pod();
        let downward = Downward {
            pod: &pod,
            pod_ips: &[],
            host_ip: "",
            allocatable_cpu_milli: 0,
            allocatable_memory: 0,
        };
        let error = |source: serde_json::Value| {
            let container: Container = serde_json::from_value(
                json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]}),
            )
            .unwrap();
            environment(&container, &downward, &objects())
                .unwrap_err()
                .to_string()
        };
        for (source, expected) in [
            (
                json!({"secretKeyRef": {"name": "s", "key": "none"}}),
                "couldn't find key none in secret d/s",
            ),
            (
                json!({"secretKeyRef": {"name": "nope", "key": "k"}}),
                "secret \"nope\" not found",
            ),
            (
                json!({"configMapKeyRef": {"name": "later", "key": "k"}}),
                "configmap \"later\" has not arrived yet",
            ),
        ] {
            assert_eq!(error(source), expected);
        }
    }
}
