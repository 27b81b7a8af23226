//! A pod from its template, as the API would have admitted it.
//!
//! A reconciler's pod comes to the log without passing the API's admission, so what that would add stands here: the service account and
//! its volume, the default tolerations, priority, quality of service. Whatever the template says already is left as it is, so that
//! another admission finds nothing to add.

use crate::World;
use crate::change::{controller_reference, map_at};
use crate::template::suffix;
use crate::world::{Resources, Thing};
use eventstore::Key;
use serde_json::{Map, Value, json};

/// What pods get that the template leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    pub not_ready_toleration_s: i64,
    pub unreachable_toleration_s: i64,
}

const ACCOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a bound service account token lives: an hour and seven seconds, by which the kubelet knows that it may be renewed early.
const TOKEN_S: i64 = 3607;

pub fn from_template(
    world: &World,
    controller: &Thing,
    template: &Value,
    name: &str,
    admission: &Admission,
) -> Value {
    let key = &controller.object.key;
    let mut metadata = Map::new();
    metadata.insert("name".into(), json!(name));
    metadata.insert("generateName".into(), json!(format!("{}-", key.name)));
    metadata.insert("namespace".into(), json!(&*key.namespace));
    metadata.insert("generation".into(), json!(1));
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    metadata.insert(
        "ownerReferences".into(),
        json!([controller_reference(controller)]),
    );
    let mut spec = template["spec"].clone();
    default(&mut spec);
    service_account(world, &key.namespace, name, &mut spec);
    tolerations(&mut spec, admission);
    priority(world, &mut spec);
    let quality = quality_of_service(&spec);
    json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec,
        "status": { "phase": "Pending", "qosClass": quality },
    })
}

/// What the API fills into a pod, though not into a template.
fn default(spec: &mut Value) {
    let host_network = spec["hostNetwork"] == true;
    let map = map_at_self(spec);
    map.entry("enableServiceLinks").or_insert(json!(true));
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            requests_from_limits(container);
            for port in container
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if host_network && port.get("hostPort").is_none_or(|port| *port == 0) {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container["resources"]
        .get("limits")
        .and_then(Value::as_object)
        .cloned()
    else {
        return;
    };
    let requests = map_at(&mut container["resources"], "requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// `spec` as a map; a template without one is unreadable anyway, and becomes an empty one here.
fn map_at_self(spec: &mut Value) -> &mut Map<String, Value> {
    if !spec.is_object() {
        *spec = json!({});
    }
    spec.as_object_mut().expect("it was made a map just now")
}

fn service_account(world: &World, namespace: &str, name: &str, spec: &mut Value) {
    let account = spec["serviceAccountName"]
        .as_str()
        .filter(|account| !account.is_empty())
        .unwrap_or("default")
        .to_owned();
    spec["serviceAccountName"] = json!(account);
    spec["serviceAccount"] = json!(account);
    let account_says = world
        .thing(&Key::new(
            crate::world::resource::SERVICE_ACCOUNTS,
            namespace,
            account,
        ))
        .and_then(|account| account.object.to_value()["automountServiceAccountToken"].as_bool());
    if !spec["automountServiceAccountToken"]
        .as_bool()
        .or(account_says)
        .unwrap_or(true)
    {
        return;
    }
    let volume = format!(
        "kube-api-access-{}",
        suffix(&[b"kube-api-access", namespace.as_bytes(), name.as_bytes()])
    );
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if container["volumeMounts"].as_array().is_some_and(|mounts| {
                mounts
                    .iter()
                    .any(|mount| mount["mountPath"] == ACCOUNT_PATH)
            }) {
                continue;
            }
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            let mounts = container["volumeMounts"]
                .as_array_mut()
                .expect("it was made a list just now");
            mounts.push(json!({ "name": volume, "readOnly": true, "mountPath": ACCOUNT_PATH }));
            mounted = true;
        }
    }
    if !mounted {
        return;
    }
    if !spec["volumes"].is_array() {
        spec["volumes"] = json!([]);
    }
    spec["volumes"].as_array_mut().expect("it was made a list just now").push(json!({
        "name": volume,
        "projected": {
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_S, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
            ],
            "defaultMode": 420,
        },
    }));
}

/// Source: Kubernetes' admission plugin DefaultTolerationSeconds.
fn tolerations(spec: &mut Value, admission: &Admission) {
    for (key, seconds) in [
        (
            "node.kubernetes.io/not-ready",
            admission.not_ready_toleration_s,
        ),
        (
            "node.kubernetes.io/unreachable",
            admission.unreachable_toleration_s,
        ),
    ] {
        let covers = |toleration: &Value| {
            let text = |field: &str| toleration[field].as_str().unwrap_or("").to_owned();
            (text("key") == key || text("key").is_empty())
                && (text("effect") == "NoExecute" || text("effect").is_empty())
        };
        if spec["tolerations"]
            .as_array()
            .is_some_and(|tolerations| tolerations.iter().any(covers))
        {
            continue;
        }
        if !spec["tolerations"].is_array() {
            spec["tolerations"] = json!([]);
        }
        let tolerations = spec["tolerations"]
            .as_array_mut()
            .expect("it was made a list just now");
        tolerations.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds }));
    }
}

fn priority(world: &World, spec: &mut Value) {
    let class = spec["priorityClassName"].as_str().unwrap_or("").to_owned();
    let found = world
        .thing(&Key::new(
            "scheduling.k8s.io/priorityclasses",
            "",
            class.as_str(),
        ))
        .map(|class| class.object.to_value());
    let value = match (&found, class.as_str()) {
        (Some(class), _) => class["value"].as_i64().unwrap_or(0),
        (None, "system-node-critical") => 2_000_001_000,
        (None, "system-cluster-critical") => 2_000_000_000,
        (None, _) => 0,
    };
    let policy = found
        .as_ref()
        .and_then(|class| class["preemptionPolicy"].as_str())
        .unwrap_or("PreemptLowerPriority")
        .to_owned();
    let map = map_at_self(spec);
    map.entry("priority").or_insert(json!(value));
    map.entry("preemptionPolicy").or_insert(json!(policy));
}

/// Guaranteed: every container's limits of cpu and memory are its requests. BestEffort: nobody asks for either. Else Burstable.
fn quality_of_service(spec: &Value) -> &'static str {
    let mut asked = false;
    let mut guaranteed = true;
    for container in ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
    {
        let amounts = |field: &str| {
            serde_json::from_value::<Resources>(container["resources"][field].clone())
                .unwrap_or_default()
        };
        let (requests, limits) = (amounts("requests"), amounts("limits"));
        for name in ["cpu", "memory"] {
            asked |= requests.get(name) > 0 || limits.get(name) > 0;
            guaranteed &= limits.get(name) > 0 && requests.get(name) == limits.get(name);
        }
    }
    match (asked, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_quality_of_service() {
        let container = |requests: Value, limits: Value| json!({ "resources": { "requests": requests, "limits": limits } });
        let both = json!({ "cpu": "1", "memory": "1Gi" });
        for (containers, quality) in [
            (json!([{}]), "BestEffort"),
            (
                json!([container(json!({ "cpu": "1" }), json!({}))]),
                "Burstable",
            ),
            (json!([container(both.clone(), both.clone())]), "Guaranteed"),
            (
                json!([container(
                    both.clone(),
                    json!({ "cpu": "1000m", "memory": "1024Mi" })
                )]),
                "Guaranteed",
            ),
            (json!([container(both.clone(), both), {}]), "Burstable"),
        ] {
            assert_eq!(
                quality_of_service(&json!({ "containers": containers })),
                quality,
                "{containers}"
            );
        }
    }
}
