//! Service: a stable address for pods that come and go.

mod claims;
mod validation;

use crate::kind::{Column, Context, Hooks, Kind, NameRule, Subresource};
use crate::resources::checks::{items, map_at, object_at, set_default, set_default_zero, text};
use crate::resources::strategy::{keep_all_but_status, keep_status};
use crate::table::{AGE, NAME, age, column, labels, name, or_none};
use serde_json::{Map, Value, json};

pub use claims::{address_refused, address_taken, port_out_of_range, port_taken};

pub static KIND: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[Subresource::Status],
    schema: "io.k8s.api.core.v1.Service",
    name_rule: NameRule::Label,
    columns: COLUMNS,
    selectable: &["spec.clusterIP", "spec.type"],
    put_creates: true,
    returns_deleted: true,
    hooks: Hooks {
        default,
        prepare_create,
        prepare_update,
        prepare_status,
        validate: validation::validate,
        validate_update: validation::validate_update,
        validate_status: validation::validate_status,
        claims: claims::claims,
        wants: claims::wants,
        grant: claims::grant,
        cells,
        field,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

/// The `clusterIP` of a service that has none: its name stands for its pods' own addresses.
const HEADLESS: &str = "None";
const CLIENT_IP_TIMEOUT_S: i64 = 10800;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Type",
        "string",
        0,
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
    ),
    column(
        "Cluster-IP",
        "string",
        0,
        "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    column(
        "External-IP",
        "string",
        0,
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system.",
    ),
    column(
        "Port(s)",
        "string",
        0,
        "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    AGE,
    column(
        "Selector",
        "string",
        1,
        "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
    ),
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let ports: Vec<String> = items(&spec["ports"])
        .iter()
        .map(|port| {
            let (number, protocol) = (
                port["port"].as_i64().unwrap_or_default(),
                text(&port["protocol"]),
            );
            match port["nodePort"].as_i64() {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    let address = items(&spec["clusterIPs"])
        .first()
        .unwrap_or(&spec["clusterIP"]);
    vec![
        name(object),
        json!(text(&spec["type"])),
        or_none(text(address)),
        json!(external_address(object)),
        or_none(&ports.join(",")),
        age(object, now_ms),
        labels(&spec["selector"]),
    ]
}

fn external_address(object: &Value) -> String {
    let spec = &object["spec"];
    let given: Vec<&str> = items(&spec["externalIPs"]).iter().map(text).collect();
    let none_if_empty = |text: String| {
        if text.is_empty() {
            "<none>".to_owned()
        } else {
            text
        }
    };
    match text(&spec["type"]) {
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        "ClusterIP" | "NodePort" => none_if_empty(given.join(",")),
        "LoadBalancer" => {
            let mut balanced: Vec<&str> = items(&object["status"]["loadBalancer"]["ingress"])
                .iter()
                .map(|ingress| {
                    Some(text(&ingress["ip"]))
                        .filter(|ip| !ip.is_empty())
                        .unwrap_or_else(|| text(&ingress["hostname"]))
                })
                .filter(|address| !address.is_empty())
                .collect();
            balanced.sort_unstable();
            balanced.dedup();
            balanced.extend(given);
            if balanced.is_empty() {
                "<pending>".to_owned()
            } else {
                balanced.join(",")
            }
        }
        _ => "<unknown>".to_owned(),
    }
}

fn field(object: &Value, path: &str) -> Option<String> {
    match path {
        "spec.clusterIP" | "spec.type" => {
            Some(text(&object["spec"][path.strip_prefix("spec.")?]).to_owned())
        }
        _ => None,
    }
}

fn default(object: &mut Value) {
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    set_default_zero(spec, "sessionAffinity", "None");
    set_default_zero(spec, "type", "ClusterIP");
    match spec["sessionAffinity"].as_str() {
        Some("ClientIP") => {
            if let Some(config) = map_at(spec, "sessionAffinityConfig")
                && let Some(client) = map_at(config, "clientIP")
            {
                set_default(client, "timeoutSeconds", CLIENT_IP_TIMEOUT_S);
            }
        }
        Some("None") => {
            spec.shift_remove("sessionAffinityConfig");
        }
        _ => {}
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        set_default_zero(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(json!(0));
        set_default_zero(port, "targetPort", number);
    }
    let type_ = text(&spec["type"]).to_owned();
    if is_external(spec) {
        set_default_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if type_ != "ExternalName" {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if type_ == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    let Some(status) = object_at(object, "status") else {
        return;
    };
    let Some(balancer) = map_at(status, "loadBalancer") else {
        return;
    };
    for ingress in balancer
        .get_mut("ingress")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        if ingress.get("ip").is_some_and(|ip| !text(ip).is_empty()) && type_ == "LoadBalancer" {
            set_default(ingress, "ipMode", "VIP");
        }
    }
}

/// Reached from outside of the cluster: only then it matters on which node.
fn is_external(spec: &Map<String, Value>) -> bool {
    match spec.get("type").map(text) {
        Some("NodePort" | "LoadBalancer") => true,
        Some("ClusterIP") => spec
            .get("externalIPs")
            .is_some_and(|ips| !items(ips).is_empty()),
        _ => false,
    }
}

fn needs_node_port(spec: &Value) -> bool {
    match text(&spec["type"]) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Only a balancer that must not go through other nodes has to ask which nodes have a pod.
fn needs_health_check_port(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn prepare_create(object: &mut Value, _: &Context) {
    object["status"] = json!({"loadBalancer": {}});
    pair_addresses(None, object);
}

fn prepare_update(old: &Value, new: &mut Value, _: &Context) {
    keep_status(old, new);
    pair_addresses(Some(old), new);
    keep_allotted(&old["spec"], new);
    drop_what_the_type_has_not(&old["spec"], new);
}

fn prepare_status(old: &Value, new: &mut Value, _: &Context) {
    keep_all_but_status(old, new);
}

/// `clusterIP` is the first of `clusterIPs`; a client that knows one of the two fields need not write the other.
fn pair_addresses(old: Option<&Value>, object: &mut Value) {
    let nothing = Value::Null;
    let before = old.map_or(&nothing, |old| &old["spec"]);
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    let one = spec
        .get("clusterIP")
        .map(text)
        .unwrap_or_default()
        .to_owned();
    let many = spec.get("clusterIPs").cloned().unwrap_or_default();
    let many_same = old.is_some() && many == before["clusterIPs"];
    if one.is_empty() {
        // The one was wiped, and with it the many, unless these were written anew.
        if many_same && !text(&before["clusterIP"]).is_empty() {
            spec.shift_remove("clusterIPs");
        } else if let Some(first) = many.get(0).cloned() {
            spec.insert("clusterIP".to_owned(), first);
        }
    } else if items(&many).is_empty() {
        spec.insert("clusterIPs".to_owned(), json!([one]));
    } else if many_same && before["clusterIP"] != *one {
        let mut many = many;
        many[0] = json!(one);
        spec.insert("clusterIPs".to_owned(), many);
    }
}

/// What was allotted and is needed still is kept by an update that doesn't name it.
fn keep_allotted(old: &Value, new: &mut Value) {
    let keep_addresses = old["type"] != "ExternalName" && new["spec"]["type"] != "ExternalName";
    let keep_ports = needs_node_port(old) && needs_node_port(&new["spec"]);
    let keep_check = needs_health_check_port(old) && needs_health_check_port(&new["spec"]);
    let Some(spec) = object_at(new, "spec") else {
        return;
    };
    if keep_addresses {
        set_default_zero(spec, "clusterIP", old["clusterIP"].clone());
        if spec.get("clusterIP") == old.get("clusterIP") {
            set_default(spec, "clusterIPs", old["clusterIPs"].clone());
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            set_default(spec, key, old[key].clone());
        }
    }
    if keep_ports {
        let mut taken: Vec<i64> = spec
            .get("ports")
            .map(items)
            .unwrap_or_default()
            .iter()
            .filter_map(|port| port["nodePort"].as_i64())
            .collect();
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            let before = items(&old["ports"])
                .iter()
                .find(|before| {
                    Some(&before["port"]) == port.get("port")
                        && Some(&before["protocol"]) == port.get("protocol")
                })
                .and_then(|before| before["nodePort"].as_i64());
            if let Some(before) = before
                && !taken.contains(&before)
                && port.get("nodePort").is_none()
            {
                taken.push(before);
                port.insert("nodePort".to_owned(), json!(before));
            }
        }
    }
    if keep_check {
        set_default_zero(
            spec,
            "healthCheckNodePort",
            old["healthCheckNodePort"].clone(),
        );
    }
    spec.retain(|_, value| !value.is_null());
}

/// A change of type wipes what the new type has not, unless the client has just written it.
fn drop_what_the_type_has_not(old: &Value, new: &mut Value) {
    let (ports_gone, check_gone) = (
        needs_node_port(old) && !needs_node_port(&new["spec"]),
        needs_health_check_port(old) && !needs_health_check_port(&new["spec"]),
    );
    let Some(spec) = object_at(new, "spec") else {
        return;
    };
    let mut gone: Vec<&str> = Vec::new();
    let was_external = old.as_object().is_some_and(is_external);
    if old["type"] != "ExternalName" && spec["type"] == "ExternalName" {
        gone.extend([
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ]);
    }
    if check_gone {
        gone.push("healthCheckNodePort");
    }
    if old["type"] == "LoadBalancer" && spec["type"] != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if was_external && !is_external(spec) {
        gone.push("externalTrafficPolicy");
    }
    for key in gone {
        if spec.get(key) == old.get(key) {
            spec.shift_remove(key);
        }
    }
    if ports_gone {
        let node_ports = |ports: &[Value]| {
            ports
                .iter()
                .map(|port| port["nodePort"].as_i64())
                .collect::<Vec<_>>()
        };
        let same = node_ports(items(&old["ports"]))
            == node_ports(spec.get("ports").map(items).unwrap_or_default());
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            if same {
                port.shift_remove("nodePort");
            }
        }
    }
}

#[cfg(test)]
mod tests;
