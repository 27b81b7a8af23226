//! Containers: image, ports, environment, mounts, resources.

use super::{handler, security};
use crate::quantity::Quantity;
use crate::resources::checks::{Findings, NOT_NEGATIVE, entries, items, range, text};
use crate::resources::names;
use serde_json::{Map, Value};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// A container, and where it stands.
struct Place<'a> {
    container: &'a Value,
    path: String,
    is_init: bool,
    /// The pod's volumes, for mounts to name.
    volumes: &'a Map<String, Value>,
}

/// All containers of a pod spec. `volumes`: by name.
pub fn containers(
    spec: &Value,
    path: &str,
    is_pod: bool,
    volumes: &Map<String, Value>,
    found: &mut Findings,
) {
    if items(&spec["containers"]).is_empty() {
        found.required(format!("{path}.containers"), "");
    }
    let mut names_seen: Vec<&str> = Vec::new();
    let mut host_ports: Vec<String> = Vec::new();
    for key in ["containers", "initContainers"] {
        for (index, container) in items(&spec[key]).iter().enumerate() {
            let place = Place {
                container,
                path: format!("{path}.{key}[{index}]"),
                is_init: key == "initContainers",
                volumes,
            };
            place.check(found);
            let name = text(&container["name"]);
            if names_seen.contains(&name) && !name.is_empty() {
                found.duplicate(format!("{}.name", place.path), name);
            }
            names_seen.push(name);
            if !place.is_init {
                place.check_host_ports(spec["hostNetwork"] == true, is_pod, &mut host_ports, found);
            }
        }
    }
    if is_pod && !items(&spec["ephemeralContainers"]).is_empty() {
        for (index, container) in items(&spec["ephemeralContainers"]).iter().enumerate() {
            let place = Place {
                container,
                path: format!("{path}.ephemeralContainers[{index}]"),
                is_init: false,
                volumes,
            };
            place.check(found);
        }
    }
}

impl Place<'_> {
    fn check(&self, found: &mut Findings) {
        let (container, path) = (self.container, &self.path);
        match text(&container["name"]) {
            "" => found.required(format!("{path}.name"), ""),
            name => found.all(&format!("{path}.name"), name, names::label(name)),
        }
        match text(&container["image"]) {
            "" => found.required(format!("{path}.image"), ""),
            image if image.trim() != image => found.invalid(
                format!("{path}.image"),
                image,
                "must not have leading or trailing whitespace",
            ),
            _ => {}
        }
        found.one_of(
            format!("{path}.imagePullPolicy"),
            &container["imagePullPolicy"],
            PULL_POLICIES,
        );
        found.one_of(
            format!("{path}.terminationMessagePolicy"),
            &container["terminationMessagePolicy"],
            MESSAGE_POLICIES,
        );
        self.check_ports(found);
        self.check_environment(found);
        self.check_mounts(found);
        self.check_probes(found);
        resources(&container["resources"], &format!("{path}.resources"), found);
        security::of_container(
            &container["securityContext"],
            &format!("{path}.securityContext"),
            found,
        );
        if let Some(policy) = container["restartPolicy"].as_str()
            && !RESTART_POLICIES.contains(&policy)
        {
            found.not_supported(format!("{path}.restartPolicy"), policy, RESTART_POLICIES);
        }
    }

    /// An init container ends; only one that runs on beside the others can be probed.
    fn check_probes(&self, found: &mut Findings) {
        let (container, path) = (self.container, &self.path);
        let may_be_probed = !self.is_init || container["restartPolicy"] == "Always";
        for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let (probe, at) = (&container[key], format!("{path}.{key}"));
            if probe.is_null() {
                continue;
            }
            if !may_be_probed {
                found.forbidden(
                    at,
                    "may not be set for init containers without restartPolicy=Always",
                );
                continue;
            }
            handler::probe(probe, &at, found);
            let threshold = &probe["successThreshold"];
            if key != "readinessProbe" && threshold != 1 && !threshold.is_null() {
                found.invalid(
                    format!("{at}.successThreshold"),
                    threshold.clone(),
                    "must be 1",
                );
            }
            if key == "readinessProbe" && !probe["terminationGracePeriodSeconds"].is_null() {
                found.invalid(
                    format!("{at}.terminationGracePeriodSeconds"),
                    probe["terminationGracePeriodSeconds"].clone(),
                    "must not be set for readinessProbes",
                );
            }
        }
        let lifecycle = &container["lifecycle"];
        if !lifecycle.is_null() && !may_be_probed {
            return found.forbidden(
                format!("{path}.lifecycle"),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
        for key in ["postStart", "preStop"] {
            if !lifecycle[key].is_null() {
                handler::lifecycle(&lifecycle[key], &format!("{path}.lifecycle.{key}"), found);
            }
        }
    }

    fn check_ports(&self, found: &mut Findings) {
        let mut seen: Vec<&str> = Vec::new();
        for (index, port) in items(&self.container["ports"]).iter().enumerate() {
            let path = format!("{}.ports[{index}]", self.path);
            let name = text(&port["name"]);
            if !name.is_empty() {
                let messages = names::port_name(name);
                if !messages.is_empty() {
                    found.all(&format!("{path}.name"), name, messages);
                } else if seen.contains(&name) {
                    found.duplicate(format!("{path}.name"), name);
                }
                seen.push(name);
            }
            match port["containerPort"].as_i64().unwrap_or_default() {
                0 => found.required(format!("{path}.containerPort"), ""),
                1..=65535 => {}
                number => found.invalid(format!("{path}.containerPort"), number, range(1, 65535)),
            }
            let host = port["hostPort"].as_i64().unwrap_or_default();
            if !(0..=65535).contains(&host) {
                found.invalid(format!("{path}.hostPort"), host, range(1, 65535));
            }
            found.one_of(format!("{path}.protocol"), &port["protocol"], PROTOCOLS);
        }
    }

    /// On the node's own network a port is the node's; and a port of the node is had once.
    fn check_host_ports(
        &self,
        host_network: bool,
        is_pod: bool,
        seen: &mut Vec<String>,
        found: &mut Findings,
    ) {
        for (index, port) in items(&self.container["ports"]).iter().enumerate() {
            let path = format!("{}.ports[{index}]", self.path);
            let host = port["hostPort"].as_i64().unwrap_or_default();
            if host_network && (is_pod || host != 0) && port["containerPort"] != host {
                found.invalid(
                    format!("{path}.containerPort"),
                    port["containerPort"].clone(),
                    "must match `hostPort` when `hostNetwork` is true",
                );
            }
            if host == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{host}",
                text(&port["protocol"]),
                text(&port["hostIP"])
            );
            if seen.contains(&key) {
                found.duplicate(format!("{path}.hostPort"), key.as_str());
            }
            seen.push(key);
        }
    }

    fn check_environment(&self, found: &mut Findings) {
        for (index, variable) in items(&self.container["env"]).iter().enumerate() {
            let path = format!("{}.env[{index}]", self.path);
            match text(&variable["name"]) {
                "" => found.required(format!("{path}.name"), ""),
                name => found.all(&format!("{path}.name"), name, names::environment_name(name)),
            }
            if !variable["valueFrom"].is_null() {
                value_from(variable, &format!("{path}.valueFrom"), found);
            }
        }
        for (index, source) in items(&self.container["envFrom"]).iter().enumerate() {
            let path = format!("{}.envFrom[{index}]", self.path);
            let prefix = text(&source["prefix"]);
            if !prefix.is_empty() {
                found.all(
                    &format!("{path}.prefix"),
                    prefix,
                    names::environment_name(prefix),
                );
            }
            let sources: Vec<&str> = ["configMapRef", "secretRef"]
                .into_iter()
                .filter(|key| !source[*key].is_null())
                .collect();
            match sources[..] {
                [] => found.invalid(
                    &*path,
                    "",
                    "must specify one of: `configMapRef` or `secretRef`",
                ),
                [_] => {}
                _ => found.invalid(
                    &*path,
                    "",
                    "may not have more than one field specified at a time",
                ),
            }
            for key in sources {
                if text(&source[key]["name"]).is_empty() {
                    found.required(format!("{path}.{key}.name"), "");
                }
            }
        }
    }

    fn check_mounts(&self, found: &mut Findings) {
        let mut seen: Vec<&str> = Vec::new();
        for (index, mount) in items(&self.container["volumeMounts"]).iter().enumerate() {
            let path = format!("{}.volumeMounts[{index}]", self.path);
            match text(&mount["name"]) {
                "" => found.required(format!("{path}.name"), ""),
                name if !self.volumes.contains_key(name) => {
                    found.not_found(format!("{path}.name"), name)
                }
                _ => {}
            }
            let at = text(&mount["mountPath"]);
            if at.is_empty() {
                found.required(format!("{path}.mountPath"), "");
            } else if seen.contains(&at) {
                found.invalid(format!("{path}.mountPath"), at, "must be unique");
            }
            seen.push(at);
            for key in ["subPath", "subPathExpr"] {
                super::volume::descending(text(&mount[key]), &format!("{path}.{key}"), found);
            }
            if !text(&mount["subPath"]).is_empty() && !text(&mount["subPathExpr"]).is_empty() {
                found.invalid(
                    format!("{path}.subPathExpr"),
                    mount["subPathExpr"].clone(),
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            self.check_propagation(
                &mount["mountPropagation"],
                format!("{path}.mountPropagation"),
                found,
            );
        }
    }

    fn check_propagation(&self, propagation: &Value, path: String, found: &mut Findings) {
        match propagation.as_str() {
            None | Some("HostToContainer" | "None") => {}
            Some("Bidirectional") if self.container["securityContext"]["privileged"] == true => {}
            Some("Bidirectional") => found.forbidden(
                path,
                "Bidirectional mount propagation is available only to privileged containers",
            ),
            Some(other) => found.not_supported(path, other, PROPAGATIONS),
        }
    }
}

fn value_from(variable: &Value, path: &str, found: &mut Findings) {
    let from = &variable["valueFrom"];
    let sources: Vec<&str> = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ]
    .into_iter()
    .filter(|key| !from[*key].is_null())
    .collect();
    for source in &sources {
        let (reference, at) = (&from[*source], format!("{path}.{source}"));
        match *source {
            "fieldRef" => field(reference, &at, FIELDS, found),
            "resourceFieldRef" => resource_field(reference, &at, found),
            _ => {
                if text(&reference["name"]).is_empty() && *source != "fileKeyRef" {
                    found.required(format!("{at}.name"), "");
                }
                match text(&reference["key"]) {
                    "" => found.required(format!("{at}.key"), ""),
                    key if *source != "fileKeyRef" => {
                        found.all(&format!("{at}.key"), key, names::config_key(key))
                    }
                    _ => {}
                }
            }
        }
    }
    if !text(&variable["value"]).is_empty() && !sources.is_empty() {
        found.invalid(path, "", "may not be specified when `value` is not empty");
    }
    match sources.len() {
        0 => found.invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"),
        1 => {}
        _ => found.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// A reference to a field of the pod itself. Labels and annotations may be named one by one.
pub fn field(reference: &Value, path: &str, supported: &[&str], found: &mut Findings) {
    if text(&reference["apiVersion"]).is_empty() {
        return found.required(format!("{path}.apiVersion"), "");
    }
    let at = format!("{path}.fieldPath");
    let field = text(&reference["fieldPath"]);
    match field.split_once('[') {
        None if field.is_empty() => found.required(at, ""),
        Some(("metadata.annotations" | "metadata.labels", key))
            if key.ends_with("']") && key.starts_with('\'') =>
        {
            let key = &key[1..key.len() - 2];
            found.all(path, key, names::qualified_name(&key.to_lowercase()));
        }
        _ if supported.contains(&field) => {}
        _ if FIELDS.contains(&field)
            || matches!(field, "metadata.labels" | "metadata.annotations") =>
        {
            found.not_supported(at, field, supported);
        }
        _ => found.invalid(
            at,
            field,
            format!("error converting fieldPath: field label not supported: {field}"),
        ),
    }
}

pub fn resource_field(reference: &Value, path: &str, found: &mut Findings) {
    match text(&reference["resource"]) {
        "" => found.required(format!("{path}.resource"), ""),
        resource if RESOURCE_FIELDS.contains(&resource) => {}
        resource if resource.contains(".hugepages-") => {}
        resource => found.not_supported(format!("{path}.resource"), resource, RESOURCE_FIELDS),
    }
}

/// Limits and requests: of standard resources, or of extended ones that can't be shared.
pub fn resources(resources: &Value, path: &str, found: &mut Findings) {
    let (limits, requests) = (&resources["limits"], &resources["requests"]);
    for (kind, amounts) in [("limits", limits), ("requests", requests)] {
        for (name, amount) in entries(amounts) {
            let at = format!("{path}.{kind}[{name}]");
            resource_name(name, &at, found);
            let Some(quantity) = quantity(amount) else {
                continue;
            };
            if quantity.sign() < 0 {
                found.invalid(&*at, quantity.to_string(), NOT_NEGATIVE);
            }
            if is_whole(name) && quantity.milli_value() % 1000 != 0 {
                found.invalid(at, quantity.to_string(), "must be an integer");
            }
        }
    }
    for (name, amount) in entries(requests) {
        let (Some(request), limit) = (quantity(amount), limits.get(name).and_then(quantity)) else {
            continue;
        };
        let at = format!("{path}.requests");
        match limit {
            Some(limit) if is_whole(name) && request != limit => {
                found.invalid(
                    at,
                    request.to_string(),
                    format!("must be equal to {name} limit of {limit}"),
                );
            }
            Some(limit) if request > limit => {
                found.invalid(
                    at,
                    request.to_string(),
                    format!("must be less than or equal to {name} limit of {limit}"),
                );
            }
            None if is_whole(name) => found.required(
                format!("{path}.limits"),
                "Limit must be set for non overcommitable resources",
            ),
            _ => {}
        }
    }
}

fn quantity(amount: &Value) -> Option<Quantity> {
    match amount {
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        other => Quantity::parse(text(other)).ok(),
    }
}

fn resource_name(name: &str, path: &str, found: &mut Findings) {
    found.all(path, name, names::qualified_name(name));
    let standard =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        found.invalid(path, name, "must be a standard resource for containers");
    }
}

/// Devices and huge pages are had whole and are not lent.
fn is_whole(name: &str) -> bool {
    name.starts_with("hugepages-") || (name.contains('/') && !name.starts_with("kubernetes.io/"))
}
