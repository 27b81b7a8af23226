//! The ConfigMaps and Secrets that a server has sent down, as `env` and `volumes` read them. "Not there" and "not said yet" differ: a pod
//! waits for the second, and fails (or goes on, where it is optional) for the first.
//!
//! The node's loop bounds how many are held.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use base64::Engine;
use serde_json::Value;
use thiserror::Error;

use crate::pod::{Pod, ProjectedSource};
use crate::session::ObjectKey;

/// Keys and bytes of one ConfigMap or Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    ConfigMap,
    Secret,
}

impl Source {
    fn resource(self) -> &'static str {
        match self {
            Source::ConfigMap => "configmaps",
            Source::Secret => "secrets",
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Source::ConfigMap => "configmap",
            Source::Secret => "secret",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Missing {
    /// The server has not said yet whether it exists.
    #[error("{0} \"{1}\" has not arrived yet")]
    NotYet(&'static str, String),
    #[error("{0} \"{1}\" not found")]
    NotFound(&'static str, String),
    #[error("couldn't find key {2} in {0} {1}")]
    NoKey(&'static str, String, String),
}

#[derive(Clone, Default)]
pub struct Objects(Arc<RwLock<BTreeMap<ObjectKey, Option<Arc<Data>>>>>);

impl Objects {
    /// Gives the number of objects held.
    pub fn set(&self, key: ObjectKey, object: Option<&Value>) -> usize {
        let data = object.map(|object| Arc::new(read(&key.resource, object)));
        let mut held = self
            .0
            .write()
            .expect("no holder of this lock can panic: it only moves values");
        held.insert(key, data);
        held.len()
    }

    pub fn get(&self, source: Source, namespace: &str, name: &str) -> Result<Arc<Data>, Missing> {
        let key = ObjectKey {
            resource: source.resource().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let held = self
            .0
            .read()
            .expect("no holder of this lock can panic: it only moves values");
        match held.get(&key) {
            None => Err(Missing::NotYet(source.word(), name.to_owned())),
            Some(None) => Err(Missing::NotFound(source.word(), name.to_owned())),
            Some(Some(data)) => Ok(data.clone()),
        }
    }

    /// As `get`, but `None` where it does not exist and need not.
    pub fn get_optional(
        &self,
        source: Source,
        namespace: &str,
        name: &str,
        optional: bool,
    ) -> Result<Option<Arc<Data>>, Missing> {
        match self.get(source, namespace, name) {
            Ok(data) => Ok(Some(data)),
            Err(Missing::NotFound(..)) if optional => Ok(None),
            Err(missing) => Err(missing),
        }
    }

    /// Keeps only what some pod refers to.
    pub fn retain(&self, wanted: impl Fn(&ObjectKey) -> bool) {
        self.0
            .write()
            .expect("no holder of this lock can panic: it only moves values")
            .retain(|key, _| wanted(key));
    }
}

/// The ConfigMaps and Secrets that a pod refers to, by (resource, name) in its namespace. The server's side uses it too: it has to send
/// each of them.
pub fn references(pod: &Pod) -> Vec<ObjectKey> {
    let mut keys = std::collections::BTreeSet::new();
    let mut add = |source: Source, name: &str| {
        if !name.is_empty() {
            keys.insert(ObjectKey {
                resource: source.resource().to_owned(),
                namespace: pod.metadata.namespace.clone(),
                name: name.to_owned(),
            });
        }
    };
    for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        for from in &container.env_from {
            from.config_map_ref
                .iter()
                .for_each(|reference| add(Source::ConfigMap, &reference.name));
            from.secret_ref
                .iter()
                .for_each(|reference| add(Source::Secret, &reference.name));
        }
        for source in container
            .env
            .iter()
            .filter_map(|variable| variable.value_from.as_ref())
        {
            source
                .config_map_key_ref
                .iter()
                .for_each(|reference| add(Source::ConfigMap, &reference.name));
            source
                .secret_key_ref
                .iter()
                .for_each(|reference| add(Source::Secret, &reference.name));
        }
    }
    for volume in &pod.spec.volumes {
        volume
            .config_map
            .iter()
            .for_each(|source| add(Source::ConfigMap, &source.name));
        volume
            .secret
            .iter()
            .for_each(|source| add(Source::Secret, &source.secret_name));
        for ProjectedSource {
            config_map, secret, ..
        } in volume.projected.iter().flat_map(|all| &all.sources)
        {
            config_map
                .iter()
                .for_each(|source| add(Source::ConfigMap, &source.name));
            secret
                .iter()
                .for_each(|source| add(Source::Secret, &source.secret_name));
        }
    }
    keys.into_iter().collect()
}

/// `data` of both and `binaryData` of a ConfigMap. Only a Secret's `data` and `binaryData` are base64.
fn read(resource: &str, object: &Value) -> Data {
    let decode = |text: &str| {
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap_or_default()
    };
    let mut data = Data::new();
    for (field, encoded) in [("data", resource == "secrets"), ("binaryData", true)] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            data.insert(
                key.clone(),
                if encoded {
                    decode(text)
                } else {
                    text.as_bytes().to_vec()
                },
            );
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_of_a_pod() {
        let pod = Pod::parse(&json!({
            "metadata": {"namespace": "d"},
            "spec": {
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s1"}}]}],
                "containers": [{"name": "c", "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}},
                    {"name": "B", "value": "plain"},
                ]}],
                "volumes": [
                    {"name": "v", "configMap": {"name": "m2"}},
                    {"name": "w", "secret": {"secretName": "s2"}},
                    {"name": "x", "projected": {"sources": [
                        {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}},
                        {"secret": {"name": "s3"}},
                    ]}},
                ],
            },
        }))
        .unwrap();
        let found: Vec<String> = references(&pod)
            .iter()
            .map(|key| format!("{}/{}/{}", key.resource, key.namespace, key.name))
            .collect();
        assert_eq!(
            found,
            [
                "configmaps/d/kube-root-ca.crt",
                "configmaps/d/m1",
                "configmaps/d/m2",
                "secrets/d/s1",
                "secrets/d/s2",
                "secrets/d/s3"
            ]
        );
    }

    #[test]
    fn absent_and_unknown_differ() {
        let objects = Objects::default();
        let key = |name: &str| ObjectKey {
            resource: "secrets".into(),
            namespace: "d".into(),
            name: name.into(),
        };
        objects.set(key("there"), Some(&json!({"data": {"k": "dmFsdWU="}})));
        objects.set(key("absent"), None);
        let get = |name: &str, optional: bool| {
            objects
                .get_optional(Source::Secret, "d", name, optional)
                .map(|data| data.map(|data| data["k"].clone()))
        };
        assert_eq!(get("there", false), Ok(Some(b"value".to_vec())));
        assert_eq!(get("absent", true), Ok(None));
        assert_eq!(
            get("absent", false),
            Err(Missing::NotFound("secret", "absent".into()))
        );
        assert_eq!(
            get("unknown", true),
            Err(Missing::NotYet("secret", "unknown".into()))
        );
    }
}
