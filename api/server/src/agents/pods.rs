//! What the hub reads of a pod: which node it is on, and which objects it refers to. Read with a shape that skips the rest.

use eventstore::{Key, Object};
use serde::Deserialize;
use std::collections::BTreeSet;

pub(super) const PODS: &str = "pods";
const CONFIG_MAPS: &str = "configmaps";
const SECRETS: &str = "secrets";

/// The resources whose objects pods refer to.
pub(super) fn referable(resource: &str) -> bool {
    matches!(resource, CONFIG_MAPS | SECRETS)
}

/// A pod as the hub knows it.
pub(super) struct Placed {
    /// Empty: not bound.
    pub node: String,
    /// ConfigMaps and Secrets of its volumes and environment.
    pub refers: BTreeSet<Key>,
}

impl Placed {
    /// A pod that does not parse is on no node: the API never stores one.
    pub fn of(object: &Object) -> Self {
        let Ok(pod) = serde_json::from_slice::<Pod>(&object.bytes) else {
            return Self {
                node: String::new(),
                refers: BTreeSet::new(),
            };
        };
        let mut refers = BTreeSet::new();
        let mut refer = |resource: &str, name: Option<&String>| {
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                refers.insert(Key::new(
                    resource,
                    object.key.namespace.clone(),
                    name.as_str(),
                ));
            }
        };
        for volume in &pod.spec.volumes {
            refer(
                CONFIG_MAPS,
                volume
                    .config_map
                    .as_ref()
                    .and_then(|source| source.name.as_ref()),
            );
            refer(
                SECRETS,
                volume
                    .secret
                    .as_ref()
                    .and_then(|source| source.secret_name.as_ref()),
            );
            for source in volume
                .projected
                .iter()
                .flat_map(|projected| &projected.sources)
            {
                refer(
                    CONFIG_MAPS,
                    source
                        .config_map
                        .as_ref()
                        .and_then(|source| source.name.as_ref()),
                );
                refer(
                    SECRETS,
                    source
                        .secret
                        .as_ref()
                        .and_then(|source| source.name.as_ref()),
                );
            }
        }
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            for from in &container.env_from {
                refer(
                    CONFIG_MAPS,
                    from.config_map_ref
                        .as_ref()
                        .and_then(|source| source.name.as_ref()),
                );
                refer(
                    SECRETS,
                    from.secret_ref
                        .as_ref()
                        .and_then(|source| source.name.as_ref()),
                );
            }
            for from in container
                .env
                .iter()
                .filter_map(|variable| variable.value_from.as_ref())
            {
                refer(
                    CONFIG_MAPS,
                    from.config_map_key_ref
                        .as_ref()
                        .and_then(|source| source.name.as_ref()),
                );
                refer(
                    SECRETS,
                    from.secret_key_ref
                        .as_ref()
                        .and_then(|source| source.name.as_ref()),
                );
            }
        }
        for secret in &pod.spec.image_pull_secrets {
            refer(SECRETS, secret.name.as_ref());
        }
        Self {
            node: pod.spec.node_name,
            refers,
        }
    }
}

#[derive(Deserialize)]
struct Pod {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Spec {
    node_name: String,
    volumes: Vec<Volume>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
    image_pull_secrets: Vec<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    config_map: Option<Named>,
    secret: Option<SecretVolume>,
    projected: Option<Projected>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Projected {
    sources: Vec<Source>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    config_map: Option<Named>,
    secret: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SecretVolume {
    secret_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    env: Vec<Variable>,
    env_from: Vec<EnvFrom>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Variable {
    value_from: Option<ValueFrom>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ValueFrom {
    config_map_key_ref: Option<Named>,
    secret_key_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EnvFrom {
    config_map_ref: Option<Named>,
    secret_ref: Option<Named>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventstore::{Body, Salt, Stamps, Time};
    use serde_json::json;

    #[test]
    fn finds_what_a_pod_refers_to() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "nodeName": "n1",
            "volumes": [
                {"name": "a", "configMap": {"name": "cm-volume"}},
                {"name": "b", "secret": {"secretName": "secret-volume"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "cm-projected"}}, {"serviceAccountToken": {"path": "token"}}]}},
                {"name": "d", "emptyDir": {}},
            ],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "secret-from"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "value": "x"},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm-key", "key": "k"}}},
            ]}],
            "imagePullSecrets": [{"name": "secret-pull"}],
        }});
        let stamps = Stamps {
            uid: Default::default(),
            revision: 1,
            created: Time::default(),
            deletion: None,
        };
        let object = Object::stamp(
            Key::new("pods", "n", "p"),
            &Body::cut(&pod).unwrap(),
            stamps,
            Salt::default(),
        );
        let placed = Placed::of(&object);
        let refers: Vec<_> = placed.refers.iter().map(ToString::to_string).collect();
        assert_eq!(placed.node, "n1");
        assert_eq!(
            refers,
            [
                "configmaps/n/cm-key",
                "configmaps/n/cm-projected",
                "configmaps/n/cm-volume",
                "secrets/n/secret-from",
                "secrets/n/secret-pull",
                "secrets/n/secret-volume",
            ]
        );
    }
}
