//! What a pod means by what it leaves out (Kubernetes: `SetDefaults_PodSpec` and its kin). A pod template means the same,
//! but for what is settled only when a pod is made of it.

use crate::resources::checks::{
    entries, items, map_at, object_at, set_default, set_default_zero, text,
};
use serde_json::{Map, Value, json};

const FILE_MODE: i64 = 0o644;
const TOKEN_EXPIRATION_S: i64 = 3600;
const GRACE_S: i64 = 30;

/// A pod itself.
pub fn pod(object: &mut Value) {
    super::update::pair_addresses(object);
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    pod_spec(spec);
    set_default(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").is_some_and(|host| *host == true);
    for key in ["containers", "initContainers"] {
        for container in each(spec, key) {
            requests_from_limits(container);
            if host_network {
                for port in each(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        set_default_zero(port, "hostPort", number);
                    }
                }
            }
        }
    }
    if spec.get("resources").is_some_and(Value::is_object) {
        requests_from_limits(spec);
    }
}

/// The template in a workload's spec.
pub fn template(template: &mut Map<String, Value>) {
    if let Some(spec) = map_at(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    if let Some(account) = spec
        .get("serviceAccountName")
        .or(spec.get("serviceAccount"))
        .cloned()
    {
        // The old name of the field is kept in step with the new.
        spec.insert("serviceAccountName".to_owned(), account.clone());
        spec.insert("serviceAccount".to_owned(), account);
    }
    set_default_zero(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", GRACE_S);
    set_default_zero(spec, "dnsPolicy", "ClusterFirst");
    map_at(spec, "securityContext");
    set_default_zero(spec, "schedulerName", "default-scheduler");
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, key).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
}

fn container(container: &mut Map<String, Value>) {
    let policy = pull_policy(container.get("image").map(text).unwrap_or_default());
    set_default_zero(container, "imagePullPolicy", policy);
    set_default_zero(container, "terminationMessagePath", "/dev/termination-log");
    set_default_zero(container, "terminationMessagePolicy", "File");
    map_at(container, "resources");
    for port in each(container, "ports") {
        set_default_zero(port, "protocol", "TCP");
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = container
        .get_mut("lifecycle")
        .and_then(Value::as_object_mut)
    {
        for key in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(key).and_then(Value::as_object_mut) {
                http_get(handler);
            }
        }
    }
    for variable in each(container, "env") {
        let Some(from) = variable.get_mut("valueFrom").and_then(Value::as_object_mut) else {
            continue;
        };
        field_reference(from);
    }
}

fn field_reference(from: &mut Map<String, Value>) {
    if let Some(field) = from.get_mut("fieldRef").and_then(Value::as_object_mut) {
        set_default_zero(field, "apiVersion", "v1");
    }
    if let Some(resource) = from
        .get_mut("resourceFieldRef")
        .and_then(Value::as_object_mut)
    {
        set_default(resource, "divisor", "0");
    }
}

fn probe(probe: &mut Map<String, Value>) {
    set_default_zero(probe, "timeoutSeconds", 1);
    set_default_zero(probe, "periodSeconds", 10);
    set_default_zero(probe, "successThreshold", 1);
    set_default_zero(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        set_default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        set_default_zero(get, "path", "/");
        set_default_zero(get, "scheme", "HTTP");
    }
}

/// A name that may mean another image tomorrow is asked for each time. What can't be read as a name is refused elsewhere.
fn pull_policy(image: &str) -> &'static str {
    let readable =
        !image.is_empty() && !image.contains(char::is_whitespace) && !image.contains('@');
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = matches!(last.split_once(':'), None | Some((_, "latest")));
    if readable && latest {
        "Always"
    } else {
        "IfNotPresent"
    }
}

fn requests_from_limits(holder: &mut Map<String, Value>) {
    let Some(resources) = map_at(holder, "resources") else {
        return;
    };
    let limits: Vec<(String, Value)> = resources
        .get("limits")
        .map(entries)
        .into_iter()
        .flatten()
        .map(|(name, amount)| (name.clone(), amount.clone()))
        .collect();
    if limits.is_empty() {
        return;
    }
    let Some(requests) = map_at(resources, "requests") else {
        return;
    };
    for (name, amount) in limits {
        set_default(requests, &name, amount);
    }
}

fn volume(volume: &mut Map<String, Value>) {
    // A volume with a name and nothing else is scratch space.
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key).and_then(Value::as_object_mut) {
            set_default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        set_default(path, "type", "");
    }
    if let Some(source) = volume.get_mut("downwardAPI").and_then(Value::as_object_mut) {
        each(source, "items").for_each(field_reference);
    }
    if let Some(projected) = volume.get_mut("projected").and_then(Value::as_object_mut) {
        for source in each(projected, "sources") {
            if let Some(token) = source
                .get_mut("serviceAccountToken")
                .and_then(Value::as_object_mut)
            {
                set_default(token, "expirationSeconds", TOKEN_EXPIRATION_S);
            }
            if let Some(downward) = source.get_mut("downwardAPI").and_then(Value::as_object_mut) {
                each(downward, "items").for_each(field_reference);
            }
        }
    }
    if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
        let policy = pull_policy(image.get("reference").map(text).unwrap_or_default());
        set_default_zero(image, "pullPolicy", policy);
    }
    if let Some(iscsi) = volume.get_mut("iscsi").and_then(Value::as_object_mut) {
        set_default_zero(iscsi, "iscsiInterface", "default");
    }
    if let Some(claim) = volume
        .get_mut("ephemeral")
        .and_then(|source| source.get_mut("volumeClaimTemplate"))
        && let Some(spec) = object_at(claim, "spec")
    {
        set_default(spec, "volumeMode", "Filesystem");
    }
}

/// The maps in a list, to be changed.
fn each<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// The names of a list's items.
pub(super) fn names(list: &Value) -> Vec<&str> {
    items(list).iter().map(|item| text(&item["name"])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_pulled_by_their_tag() {
        let rows = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            (" ", "IfNotPresent"),
            ("", "IfNotPresent"),
        ];
        for (image, expected) in rows {
            assert_eq!(pull_policy(image), expected, "{image}");
        }
    }

    #[test]
    fn templates_are_left_for_their_pods_to_settle() {
        let mut given = json!({"spec": {"containers": [{"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1"}}}], "serviceAccount": "a"}});
        template(given.as_object_mut().unwrap());
        let spec = &given["spec"];
        assert_eq!(
            (
                &spec["enableServiceLinks"],
                &spec["containers"][0]["resources"]
            ),
            (&Value::Null, &json!({"limits": {"cpu": "1"}}))
        );
        assert_eq!(spec["serviceAccountName"], "a");
    }
}
