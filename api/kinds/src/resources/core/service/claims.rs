//! What a service needs to be given: cluster addresses, node ports, a health check port. Which one it gets is the server's
//! choice; that nobody else gets it is the log's, by a claim in the same proposal.

use super::{HEADLESS, needs_health_check_port, needs_node_port};
use crate::error::FieldError;
use crate::kind::{Claim, Want};
use crate::resources::checks::{items, object_at, set_default, text};
use serde_json::{Value, json};
use std::net::IpAddr;

/// All that the service holds.
pub fn claims(object: &Value) -> Vec<Claim> {
    let spec = &object["spec"];
    let addresses = items(&spec["clusterIPs"])
        .iter()
        .filter_map(|ip| text(ip).parse().ok())
        .map(Claim::ServiceAddress);
    let ports = items(&spec["ports"])
        .iter()
        .map(|port| &port["nodePort"])
        .chain([&spec["healthCheckNodePort"]]);
    let ports = ports
        .filter_map(|port| u16::try_from(port.as_i64()?).ok())
        .filter(|port| *port > 0)
        .map(Claim::NodePort);
    let mut claims: Vec<Claim> = addresses.chain(ports).collect();
    claims.sort();
    claims.dedup();
    claims
}

/// Families first, for they say how many addresses there are to be; then addresses, then ports.
pub fn wants(object: &mut Value, cluster_families: &[bool]) -> Vec<Want> {
    if object["spec"]["type"] == "ExternalName" {
        return Vec::new();
    }
    settle_families(object, cluster_families);
    let spec = &object["spec"];
    let mut wants = Vec::new();
    if spec["clusterIP"] != HEADLESS {
        let held = items(&spec["clusterIPs"]);
        for (index, family) in items(&spec["ipFamilies"]).iter().enumerate() {
            let fixed: Option<IpAddr> = held.get(index).and_then(|ip| text(ip).parse().ok());
            wants.push(Want::ServiceAddress {
                path: "spec.clusterIPs".to_owned(),
                ipv6: family == "IPv6",
                fixed,
            });
        }
    }
    if needs_node_port(spec) {
        for (path, fixed, _) in node_ports(spec) {
            wants.push(Want::NodePort { path, fixed });
        }
    }
    if needs_health_check_port(spec) {
        wants.push(Want::NodePort {
            path: "spec.healthCheckNodePort".to_owned(),
            fixed: port_number(&spec["healthCheckNodePort"]),
        });
    }
    wants
}

/// Writes the grants, one for each want of the same object.
pub fn grant(object: &mut Value, grants: &[Claim]) {
    let addresses: Vec<String> = grants
        .iter()
        .filter_map(|grant| match grant {
            Claim::ServiceAddress(ip) => Some(ip.to_string()),
            Claim::NodePort(_) => None,
        })
        .collect();
    let mut ports = grants.iter().filter_map(|grant| match grant {
        Claim::NodePort(port) => Some(*port),
        Claim::ServiceAddress(_) => None,
    });
    let (node_ports, health_check) = (
        if needs_node_port(&object["spec"]) {
            node_ports(&object["spec"])
        } else {
            Vec::new()
        },
        needs_health_check_port(&object["spec"]),
    );
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    if let Some(first) = addresses.first() {
        spec.insert("clusterIP".to_owned(), json!(first));
        spec.insert("clusterIPs".to_owned(), json!(addresses));
    }
    for ((_, _, indexes), port) in node_ports.into_iter().zip(&mut ports) {
        for index in indexes {
            if let Some(entry) = spec.get_mut("ports").and_then(|ports| ports.get_mut(index)) {
                entry["nodePort"] = json!(port);
            }
        }
    }
    if health_check && let Some(port) = ports.next() {
        spec.insert("healthCheckNodePort".to_owned(), json!(port));
    }
}

/// (path of the first, the number if one is named, indexes of the ports that share it). Ports that differ in protocol alone
/// share a node port: DNS over TCP and UDP is one thing to those outside.
fn node_ports(spec: &Value) -> Vec<(String, Option<u16>, Vec<usize>)> {
    let mut shared: Vec<(i64, String, Option<u16>, Vec<usize>)> = Vec::new();
    for (index, port) in items(&spec["ports"]).iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or_default();
        let fixed = port_number(&port["nodePort"]);
        match shared.iter_mut().find(|(other, _, other_fixed, _)| {
            *other == number && (fixed.is_none() || *other_fixed == fixed)
        }) {
            Some((.., indexes)) => indexes.push(index),
            None => shared.push((
                number,
                format!("spec.ports[{index}].nodePort"),
                fixed,
                vec![index],
            )),
        }
    }
    shared
        .into_iter()
        .map(|(_, path, fixed, indexes)| (path, fixed, indexes))
        .collect()
}

fn port_number(port: &Value) -> Option<u16> {
    u16::try_from(port.as_i64()?).ok().filter(|port| *port > 0)
}

/// `ipFamilyPolicy` and `ipFamilies`, from what the client said, the addresses it named, and what the cluster has.
fn settle_families(object: &mut Value, cluster: &[bool]) {
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    let headless = spec.get("clusterIP").is_some_and(|ip| ip == HEADLESS);
    let without_selector = spec
        .get("selector")
        .is_none_or(|selector| selector.as_object().is_none_or(|map| map.is_empty()));
    let named: Vec<bool> = spec
        .get("clusterIPs")
        .map(items)
        .unwrap_or_default()
        .iter()
        .filter_map(|ip| text(ip).parse::<IpAddr>().ok())
        .map(|ip| ip.is_ipv6())
        .collect();
    let asked: Vec<bool> = spec
        .get("ipFamilies")
        .map(items)
        .unwrap_or_default()
        .iter()
        .map(|family| family == "IPv6")
        .collect();
    // Somebody else writes such a service's endpoints, and may write them in any family.
    let policy = if headless && without_selector || named.len() > 1 || asked.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    set_default(spec, "ipFamilyPolicy", policy);
    let mut families = if asked.is_empty() { named } else { asked };
    if families.is_empty() {
        families.push(cluster.first().copied().unwrap_or(false));
    }
    let other = !families[0];
    let wants_both = match spec["ipFamilyPolicy"].as_str() {
        Some("RequireDualStack") => true,
        Some("PreferDualStack") => cluster.contains(&other),
        _ => false,
    };
    if wants_both
        && families.len() == 1
        && (cluster.contains(&other) || (headless && without_selector))
    {
        families.push(other);
    }
    let families: Vec<&str> = families
        .into_iter()
        .map(|ipv6| if ipv6 { "IPv6" } else { "IPv4" })
        .collect();
    spec.insert("ipFamilies".to_owned(), json!(families));
}

/// The address named is not one of the cluster's.
pub fn address_refused(object: &Value, path: &str, address: IpAddr, range: &str) -> FieldError {
    FieldError::invalid(
        path,
        object["spec"]["clusterIPs"].clone(),
        format!(
            "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
        ),
    )
}

/// The address named is another service's.
pub fn address_taken(object: &Value, path: &str, address: IpAddr) -> FieldError {
    FieldError::invalid(
        path,
        object["spec"]["clusterIPs"].clone(),
        format!("failed to allocate IP {address}: provided IP is already allocated"),
    )
}

/// `range` as `30000-32767`.
pub fn port_out_of_range(path: &str, port: u16, range: &str) -> FieldError {
    FieldError::invalid(
        path,
        port,
        format!("provided port is not in the valid range. The range of valid ports is {range}"),
    )
}

pub fn port_taken(path: &str, port: u16) -> FieldError {
    FieldError::invalid(path, port, "provided port is already allocated")
}
