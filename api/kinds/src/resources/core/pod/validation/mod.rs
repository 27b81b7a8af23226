//! What a pod may say (Kubernetes: `ValidatePodSpec` and what it calls), a file for each part of it.

mod container;
mod handler;
mod scheduling;
mod security;
mod volume;

use crate::error::FieldError;
use crate::resources::checks::{Findings, items, range, text};
use crate::resources::{metadata, names};
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// A pod itself.
pub fn pod(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    spec(&object["spec"], "spec", true, &mut found);
    if let Some(mirror) = object["metadata"]["annotations"].get(MIRROR)
        && text(&object["spec"]["nodeName"]).is_empty()
    {
        found.invalid(
            format!("metadata.annotations[{MIRROR}]"),
            mirror.clone(),
            "must set spec.nodeName if mirror pod annotation is set",
        );
    }
    found.0
}

/// The template of a workload; `path` is its own, `spec.template`.
pub fn template(template: &Value, path: &str) -> Vec<FieldError> {
    let mut found = Findings::new();
    metadata::validate_labels(
        &template["metadata"]["labels"],
        &format!("{path}.labels"),
        &mut found,
    );
    metadata::validate_annotations(
        &template["metadata"]["annotations"],
        &format!("{path}.annotations"),
        &mut found,
    );
    spec(
        &template["spec"],
        &format!("{path}.spec"),
        false,
        &mut found,
    );
    if !items(&template["spec"]["ephemeralContainers"]).is_empty() {
        found.forbidden(
            format!("{path}.spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
    found.0
}

fn spec(spec: &Value, path: &str, is_pod: bool, found: &mut Findings) {
    let volumes = volume::volumes(&spec["volumes"], &format!("{path}.volumes"), found);
    container::containers(spec, path, is_pod, &volumes, found);
    found.one_of(
        format!("{path}.restartPolicy"),
        &spec["restartPolicy"],
        &["Always", "OnFailure", "Never"],
    );
    if !spec["resources"].is_null() {
        container::resources(&spec["resources"], &format!("{path}.resources"), found);
    }
    dns(spec, path, found);
    metadata::validate_labels(
        &spec["nodeSelector"],
        &format!("{path}.nodeSelector"),
        found,
    );
    security::of_pod(spec, path, found);
    scheduling::of_pod(spec, path, found);
    identity(spec, path, found);
    times(spec, path, found);
    host_aliases(&spec["hostAliases"], path, found);
}

fn identity(spec: &Value, path: &str, found: &mut Findings) {
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, Rule); 6] = [
        ("serviceAccountName", names::subdomain),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ];
    for (key, rule) in rules {
        let value = text(&spec[key]);
        if !value.is_empty() {
            found.all(&format!("{path}.{key}"), value, rule(value));
        }
    }
    if !spec["preemptionPolicy"].is_null() {
        found.one_of(
            format!("{path}.preemptionPolicy"),
            &spec["preemptionPolicy"],
            &["Never", "PreemptLowerPriority"],
        );
    }
    if text(&spec["schedulerName"]).is_empty() {
        found.required(format!("{path}.schedulerName"), "");
    }
    for (key, field) in [
        ("readinessGates", "conditionType"),
        ("schedulingGates", "name"),
    ] {
        let mut seen: Vec<&str> = Vec::new();
        for (index, gate) in items(&spec[key]).iter().enumerate() {
            let (at, name) = (format!("{path}.{key}[{index}].{field}"), text(&gate[field]));
            found.all(&at, name, names::qualified_name(name));
            if key == "schedulingGates" && seen.contains(&name) {
                found.duplicate(format!("{path}.{key}[{index}]"), name);
            }
            seen.push(name);
        }
    }
}

fn times(spec: &Value, path: &str, found: &mut Findings) {
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline
        .as_i64()
        .is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds))
    {
        found.invalid(
            format!("{path}.activeDeadlineSeconds"),
            deadline.clone(),
            range(1, i64::from(i32::MAX)),
        );
    }
}

fn dns(spec: &Value, path: &str, found: &mut Findings) {
    let policy = text(&spec["dnsPolicy"]);
    match policy {
        "ClusterFirstWithHostNet" | "ClusterFirst" | "Default" | "None" => {}
        "" => found.required(format!("{path}.dnsPolicy"), ""),
        _ => found.not_supported(
            format!("{path}.dnsPolicy"),
            policy,
            &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        ),
    }
    let (config, at) = (&spec["dnsConfig"], format!("{path}.dnsConfig"));
    let servers = items(&config["nameservers"]);
    if policy == "None" {
        if config.is_null() {
            found.required(&*at, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            found.required(
                format!("{at}.nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        found.invalid(
            format!("{at}.nameservers"),
            config["nameservers"].clone(),
            format!("must not have more than {NAMESERVERS_MAX} nameservers"),
        );
    }
    for (index, server) in servers.iter().enumerate() {
        found.all(
            &format!("{at}.nameservers[{index}]"),
            text(server),
            names::ip(text(server)),
        );
    }
    let searches = items(&config["searches"]);
    if searches.len() > SEARCHES_MAX {
        found.invalid(
            format!("{at}.searches"),
            config["searches"].clone(),
            format!("must not have more than {SEARCHES_MAX} search paths"),
        );
    }
    for (index, search) in searches.iter().enumerate() {
        let name = text(search).trim_end_matches('.');
        if !name.is_empty() {
            // A host's own name may hold underscores; those of services do not.
            found.all(
                &format!("{at}.searches[{index}]"),
                name,
                names::subdomain(&name.replace('_', "-")),
            );
        }
    }
    for (index, option) in items(&config["options"]).iter().enumerate() {
        if text(&option["name"]).is_empty() {
            found.required(format!("{at}.options[{index}]"), "must not be empty");
        }
    }
}

fn host_aliases(aliases: &Value, path: &str, found: &mut Findings) {
    for (index, alias) in items(aliases).iter().enumerate() {
        let at = format!("{path}.hostAliases[{index}]");
        found.all(
            &format!("{at}.ip"),
            text(&alias["ip"]),
            names::ip(text(&alias["ip"])),
        );
        for (index, name) in items(&alias["hostnames"]).iter().enumerate() {
            found.all(
                &format!("{at}.hostnames[{index}]"),
                text(name),
                names::subdomain(text(name)),
            );
        }
    }
}

#[cfg(test)]
mod tests;
