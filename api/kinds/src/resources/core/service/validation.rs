//! What a Service may say (Kubernetes: `ValidateService`, `ValidateServiceUpdate`).

use super::{HEADLESS, is_external, needs_health_check_port};
use crate::error::FieldError;
use crate::resources::checks::{Findings, items, range, text};
use crate::resources::{metadata, names};
use serde_json::{Value, json};
use std::net::IpAddr;

const KUBELET_PORT: i64 = 10250;
const AFFINITY_MAX_S: i64 = 86400;
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];

pub fn validate(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut found = Findings::new();
    let headless = items(&spec["clusterIPs"]).len() == 1 && spec["clusterIPs"][0] == HEADLESS;
    if items(&spec["ports"]).is_empty() && !headless && spec["type"] != "ExternalName" {
        found.required("spec.ports", "");
    }
    validate_type(spec, headless, &mut found);
    validate_ports(spec, &mut found);
    metadata::validate_labels(&spec["selector"], "spec.selector", &mut found);
    validate_affinity(spec, &mut found);
    validate_addresses(spec, &mut found);
    validate_policies(spec, &mut found);
    found.0
}

fn validate_type(spec: &Value, headless: bool, found: &mut Findings) {
    match text(&spec["type"]) {
        "LoadBalancer" => {
            for (index, port) in items(&spec["ports"]).iter().enumerate() {
                if port["port"] == KUBELET_PORT {
                    found.invalid(
                        format!("spec.ports[{index}]"),
                        KUBELET_PORT,
                        format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet"),
                    );
                }
            }
            if headless {
                found.invalid(
                    "spec.clusterIPs[0]",
                    HEADLESS,
                    "may not be set to 'None' for LoadBalancer services",
                );
            }
        }
        "NodePort" if headless => found.invalid(
            "spec.clusterIPs[0]",
            HEADLESS,
            "may not be set to 'None' for NodePort services",
        ),
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec[key].is_null() {
                    found.forbidden(
                        format!("spec.{key}"),
                        "may not be set for ExternalName services",
                    );
                }
            }
            match text(&spec["externalName"]).trim_end_matches('.') {
                "" => found.required("spec.externalName", ""),
                name => found.all("spec.externalName", name, names::subdomain(name)),
            }
        }
        _ => {}
    }
    found.one_of("spec.type", &spec["type"], TYPES);
}

fn validate_ports(spec: &Value, found: &mut Findings) {
    let ports = items(&spec["ports"]);
    let mut names_seen: Vec<&str> = Vec::new();
    let mut seen: Vec<(&str, &Value)> = Vec::new();
    let mut node_ports: Vec<(&str, &Value)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        validate_port(port, &path, ports.len() > 1, &mut names_seen, found);
        let protocol = text(&port["protocol"]);
        let key = (protocol, &port["port"]);
        if seen.contains(&key) {
            // Kubernetes prints its own struct here.
            let shown = json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": port["port"], "TargetPort": 0, "NodePort": 0});
            found.duplicate(&*path, shown);
        }
        seen.push(key);
        let node_port = &port["nodePort"];
        if node_port.as_i64().unwrap_or_default() == 0 {
            continue;
        }
        if spec["type"] == "ClusterIP" {
            found.forbidden(
                format!("{path}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            );
        }
        if node_ports.contains(&(protocol, node_port)) {
            found.duplicate(format!("{path}.nodePort"), node_port.clone());
        }
        node_ports.push((protocol, node_port));
    }
}

fn validate_port<'a>(
    port: &'a Value,
    path: &str,
    must_be_named: bool,
    names_seen: &mut Vec<&'a str>,
    found: &mut Findings,
) {
    match text(&port["name"]) {
        "" if must_be_named => found.required(format!("{path}.name"), ""),
        "" => {}
        name => {
            found.all(&format!("{path}.name"), name, names::label(name));
            if names_seen.contains(&name) {
                found.duplicate(format!("{path}.name"), name);
            }
            names_seen.push(name);
        }
    }
    validate_port_number(&port["port"], format!("{path}.port"), found);
    found.one_of(format!("{path}.protocol"), &port["protocol"], PROTOCOLS);
    match &port["targetPort"] {
        Value::String(name) => {
            found.all(&format!("{path}.targetPort"), name, names::port_name(name))
        }
        number => validate_port_number(number, format!("{path}.targetPort"), found),
    }
    if let Some(protocol) = port["appProtocol"].as_str() {
        found.all(
            &format!("{path}.appProtocol"),
            protocol,
            names::qualified_name(protocol),
        );
    }
}

fn validate_port_number(port: &Value, path: String, found: &mut Findings) {
    let number = port.as_i64().unwrap_or_default();
    if !(1..=65535).contains(&number) {
        found.invalid(path, number, range(1, 65535));
    }
}

fn validate_affinity(spec: &Value, found: &mut Findings) {
    found.one_of(
        "spec.sessionAffinity",
        &spec["sessionAffinity"],
        &["ClientIP", "None"],
    );
    let config = &spec["sessionAffinityConfig"];
    match text(&spec["sessionAffinity"]) {
        "ClientIP" => {
            let timeout = &config["clientIP"]["timeoutSeconds"];
            if !timeout
                .as_i64()
                .is_some_and(|seconds| (1..=AFFINITY_MAX_S).contains(&seconds))
            {
                found.invalid(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                    timeout.clone(),
                    format!("must be greater than 0 and less than or equal to {AFFINITY_MAX_S}"),
                );
            }
        }
        "None" if !config.is_null() => {
            found.forbidden(
                "spec.sessionAffinityConfig",
                "must not be set when session affinity is None",
            );
        }
        _ => {}
    }
}

fn validate_addresses(spec: &Value, found: &mut Findings) {
    let families = items(&spec["ipFamilies"]);
    for (index, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{index}]");
        if !FAMILIES.contains(&text(family)) {
            found.not_supported(&*path, family.clone(), FAMILIES);
        }
        if families[..index].contains(family) {
            found.duplicate(path, family.clone());
        }
    }
    if !spec["ipFamilyPolicy"].is_null() {
        found.one_of("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], POLICIES);
    }
    if spec["type"] != "ExternalName" {
        validate_cluster_addresses(spec, found);
    }
    for (index, address) in items(&spec["externalIPs"]).iter().enumerate() {
        let (path, value) = (format!("spec.externalIPs[{index}]"), text(address));
        match value.parse::<IpAddr>() {
            Err(_) => found.all(&path, value, names::ip(value)),
            Ok(ip) if ip.is_unspecified() => {
                found.invalid(path, value, "may not be unspecified (0.0.0.0 or ::)")
            }
            Ok(ip) if ip.is_loopback() => found.invalid(
                path,
                value,
                "may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            Ok(_) => {}
        }
    }
}

fn validate_cluster_addresses(spec: &Value, found: &mut Findings) {
    let (one, many) = (text(&spec["clusterIP"]), items(&spec["clusterIPs"]));
    match many.first() {
        None if !one.is_empty() => return found.required("spec.clusterIPs", ""),
        Some(first) if text(first) != one => {
            found.invalid(
                "spec.clusterIPs",
                spec["clusterIPs"].clone(),
                "first value must match `clusterIP`",
            );
        }
        _ => {}
    }
    for (index, address) in many.iter().enumerate() {
        let path = format!("spec.clusterIPs[{index}]");
        let value = text(address);
        if value == HEADLESS {
            if many.len() > 1 {
                found.invalid(path, value, "'None' must be the first and only value");
            }
            continue;
        }
        found.all(&path, value, names::ip(value));
        let (Ok(ip), Some(family)) = (value.parse::<IpAddr>(), spec["ipFamilies"].get(index))
        else {
            continue;
        };
        if ip.is_ipv6() != (family == "IPv6") {
            found.invalid(
                path,
                value,
                format!(
                    "expected an {} value as indicated by `ipFamilies[{index}]`",
                    text(family)
                ),
            );
        }
    }
    if many.len() > 2 {
        found.invalid(
            "spec.clusterIPs",
            spec["clusterIPs"].clone(),
            "may only hold up to 2 values",
        );
    }
}

fn validate_policies(spec: &Value, found: &mut Findings) {
    let outside = &spec["externalTrafficPolicy"];
    if spec.as_object().is_some_and(is_external) {
        found.one_of("spec.externalTrafficPolicy", outside, TRAFFIC_POLICIES);
    } else if !outside.is_null() {
        found.invalid(
            "spec.externalTrafficPolicy",
            outside.clone(),
            "may only be set for externally-accessible services",
        );
    }
    if !spec["internalTrafficPolicy"].is_null() {
        found.one_of(
            "spec.internalTrafficPolicy",
            &spec["internalTrafficPolicy"],
            TRAFFIC_POLICIES,
        );
    }
    let check = &spec["healthCheckNodePort"];
    if !check.is_null() && !needs_health_check_port(spec) {
        found.invalid(
            "spec.healthCheckNodePort",
            check.clone(),
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    if spec["type"] != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if !spec[key].is_null() {
                found.forbidden(
                    format!("spec.{key}"),
                    "may only be used when `type` is 'LoadBalancer'",
                );
            }
        }
    }
    for (index, source) in items(&spec["loadBalancerSourceRanges"]).iter().enumerate() {
        let value = text(source).trim();
        found.all(
            &format!("spec.loadBalancerSourceRanges[{index}]"),
            value,
            names::cidr(value),
        );
    }
    if spec["type"] != "LoadBalancer" && !items(&spec["loadBalancerSourceRanges"]).is_empty() {
        found.forbidden(
            "spec.LoadBalancerSourceRanges",
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
}

/// Addresses may come and go with the type `ExternalName`, and a second may be added or dropped; no other change.
pub fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    const SET: &str = "may not change once set";
    let (old, new) = (&old["spec"], &new["spec"]);
    let mut found = Findings::new();
    if old["type"] != "ExternalName" && new["type"] != "ExternalName" {
        for key in ["clusterIPs", "ipFamilies"] {
            let (before, after) = (items(&old[key]), items(&new[key]));
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                if before != after {
                    found.invalid(format!("spec.{key}[{index}]"), new[key].clone(), SET);
                    break;
                }
            }
            if !before.is_empty() && after.is_empty() && key == "clusterIPs" {
                found.invalid(
                    "spec.clusterIPs[0]",
                    new[key].clone(),
                    "primary clusterIP can not be unset",
                );
            }
        }
    }
    if old["type"] == "LoadBalancer"
        && new["type"] == "LoadBalancer"
        && old["loadBalancerClass"] != new["loadBalancerClass"]
    {
        found.invalid(
            "spec.loadBalancerClass",
            new["loadBalancerClass"].clone(),
            SET,
        );
    }
    found.0
}

pub fn validate_status(_: &Value, new: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    for (index, ingress) in items(&new["status"]["loadBalancer"]["ingress"])
        .iter()
        .enumerate()
    {
        let path = format!("status.loadBalancer.ingress[{index}]");
        let (ip, hostname) = (text(&ingress["ip"]), text(&ingress["hostname"]));
        if !ip.is_empty() {
            found.all(&format!("{path}.ip"), ip, names::ip(ip));
        }
        if !hostname.is_empty() {
            found.all(
                &format!("{path}.hostname"),
                hostname,
                names::subdomain(hostname),
            );
            if hostname.parse::<IpAddr>().is_ok() {
                found.invalid(
                    format!("{path}.hostname"),
                    hostname,
                    "must be a DNS name, not an IP address",
                );
            }
        }
        match (ip.is_empty(), ingress["ipMode"].as_str()) {
            (true, Some(_)) => found.forbidden(
                format!("{path}.ipMode"),
                "may not be specified when `ip` is not set",
            ),
            (false, None) => found.required(
                format!("{path}.ipMode"),
                "must be specified when `ip` is set",
            ),
            (false, Some("VIP" | "Proxy")) | (true, None) => {}
            (false, Some(mode)) => {
                found.not_supported(format!("{path}.ipMode"), mode, &["Proxy", "VIP"])
            }
        }
    }
    found.0
}
