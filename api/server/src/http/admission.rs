//! What a create is let in with: a namespace that lives, and for pods what Kubernetes' admission adds to them.
//!
//! Pods get the tolerations that decide how long they outlive their node, their service account with its pull secrets and its mounted
//! token, and the priority of those who name none. Reconcilers' pods do not come this way: whoever makes a pod for a workload completes
//! it alike (`reconcilers`, replica_set/pod).

use super::call::{Call, Target};
use eventstore::{Key, View};
use kinds::error::StatusError;
use kinds::resources::core::pod;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const DEFAULT_ACCOUNT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Refreshed by the agent well before.
const TOKEN_S: i64 = 3607;
/// A namespace that was just made has no service account yet: its pods are waited for so long (Kubernetes: about as long).
const ACCOUNT_WAIT: Duration = Duration::from_secs(5);
const ACCOUNT_PAUSE: Duration = Duration::from_millis(50);

/// Checks and completes an object that is to be made. Gives the key of the namespace that must still live when it is.
pub(crate) fn admit(
    call: &Call,
    view: &View,
    target: &Target,
    object: &mut Value,
) -> Result<Option<Key>, StatusError> {
    let living = match target.namespace.as_str() {
        "" => None,
        namespace => Some(living_namespace(view, target, namespace, object)?),
    };
    if target.kind.resource() == "pods" {
        let suffix = call.core().draw().suffix();
        admit_pod(
            view,
            &target.namespace,
            object,
            call.api.settings().default_not_ready_toleration_s,
            &suffix,
        )?;
    }
    Ok(living)
}

fn living_namespace(
    view: &View,
    target: &Target,
    namespace: &str,
    object: &Value,
) -> Result<Key, StatusError> {
    let key = Key::namespace_object(namespace);
    match view.get(&key) {
        None => Err(StatusError::not_found("", "namespaces", namespace)),
        Some(found) if found.living() => Ok(key),
        Some(_) => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let text = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut error =
                StatusError::forbidden(target.kind.group, target.kind.plural, name, &text);
            error.details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            }]);
            Err(error)
        }
    }
}

/// Completes a pod as Kubernetes' admission plugins do (DefaultTolerationSeconds, ServiceAccount, Priority). `suffix`: five letters for
/// the name of a volume.
fn admit_pod(
    view: &View,
    namespace: &str,
    object: &mut Value,
    toleration_s: i64,
    suffix: &str,
) -> Result<(), StatusError> {
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        pod::tolerate_a_lost_node(spec, toleration_s);
        admit_priority(&name, spec)?;
    }
    if object["metadata"]["annotations"].get(MIRROR).is_some() {
        return Ok(());
    }
    admit_account(view, namespace, &name, object, suffix)
}

/// There are no priority classes yet: everybody has 0.
fn admit_priority(
    name: &str,
    spec: &mut serde_json::Map<String, Value>,
) -> Result<(), StatusError> {
    let computed = match spec
        .get("priorityClassName")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "" => 0,
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        class => {
            return Err(StatusError::forbidden(
                "",
                "pods",
                name,
                &format!("no PriorityClass with name {class} was found"),
            ));
        }
    };
    match spec.get("priority").and_then(Value::as_i64) {
        Some(priority) if priority != computed => {
            let text = format!(
                "the integer value of priority ({priority}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
            );
            return Err(StatusError::forbidden("", "pods", name, &text));
        }
        _ => spec.insert("priority".into(), json!(computed)),
    };
    if spec.get("preemptionPolicy").is_none_or(Value::is_null) {
        spec.insert("preemptionPolicy".into(), json!("PreemptLowerPriority"));
    }
    Ok(())
}

fn admit_account(
    view: &View,
    namespace: &str,
    name: &str,
    object: &mut Value,
    suffix: &str,
) -> Result<(), StatusError> {
    let spec = &mut object["spec"];
    let account_name = match spec["serviceAccountName"].as_str().unwrap_or_default() {
        "" => DEFAULT_ACCOUNT.to_owned(),
        named => named.to_owned(),
    };
    spec["serviceAccountName"] = json!(account_name);
    spec["serviceAccount"] = json!(account_name);
    let account = view.get(&Key::new("serviceaccounts", namespace, account_name.as_str())).ok_or_else(|| {
        let text = format!("error looking up service account {namespace}/{account_name}: serviceaccount {account_name:?} not found");
        StatusError::forbidden("", "pods", name, &text)
    })?;
    let account = account.to_value();
    let secrets = &account["imagePullSecrets"];
    if secrets
        .as_array()
        .is_some_and(|secrets| !secrets.is_empty())
        && spec["imagePullSecrets"]
            .as_array()
            .is_none_or(Vec::is_empty)
    {
        spec["imagePullSecrets"] = secrets.clone();
    }
    let mounts = |value: &Value| value["automountServiceAccountToken"].as_bool();
    if mounts(spec).or(mounts(&account)).unwrap_or(true) {
        mount_token(spec, suffix);
    }
    Ok(())
}

/// The token, the cluster's authority and the namespace, where programs look for them; not where the container mounts something itself.
fn mount_token(spec: &mut Value, suffix: &str) {
    let there = |source: &Value| source.get("serviceAccountToken").is_some();
    let own = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|volume| {
            volume["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("kube-api-access-"))
                && volume["projected"]["sources"]
                    .as_array()
                    .is_some_and(|sources| sources.iter().any(there))
        });
    let volume_name = own
        .and_then(|volume| volume["name"].as_str())
        .map_or_else(|| format!("kube-api-access-{suffix}"), str::to_owned);
    let is_new = own.is_none();
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let has = container["volumeMounts"]
                .as_array()
                .is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == TOKEN_PATH));
            if has {
                continue;
            }
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts
                    .push(json!({"name": volume_name, "readOnly": true, "mountPath": TOKEN_PATH}));
                mounted = true;
            }
        }
    }
    if let Some(map) = spec.as_object_mut() {
        // Indexing to read has left nulls where there are no init containers.
        map.retain(|_, value| !value.is_null());
    }
    if !mounted || !is_new {
        return;
    }
    if !spec["volumes"].is_array() {
        spec["volumes"] = json!([]);
    }
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({"name": volume_name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_S, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

/// The default service account follows its namespace within moments: a pod that comes between waits for it.
pub(crate) async fn wait_for_service_account(call: &Call, target: &Target, object: &Value) {
    let named = object["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or_default();
    if target.kind.resource() != "pods" || !matches!(named, "" | DEFAULT_ACCOUNT) {
        return;
    }
    let until = call.deadline.min(Instant::now() + ACCOUNT_WAIT);
    let account = Key::new(
        "serviceaccounts",
        target.namespace.as_str(),
        DEFAULT_ACCOUNT,
    );
    let namespace = Key::namespace_object(target.namespace.as_str());
    loop {
        let view = call.core().view();
        let awaited = view
            .get(&namespace)
            .is_some_and(|namespace| namespace.living())
            && view.get(&account).is_none();
        if !awaited || Instant::now() >= until {
            return;
        }
        sleep(ACCOUNT_PAUSE).await;
    }
}
