//! A Service's endpoints: one for each of its pods that has an address, grouped by the ports they listen on.

use crate::World;
use crate::world::{Kind, Pod, Service, TargetPort, Thing, resource};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Endpoints that listen on the same ports.
pub struct Group {
    pub ports: Value,
    /// By `name`.
    pub endpoints: BTreeMap<String, Value>,
}

const ZONE: &str = "topology.kubernetes.io/zone";

pub fn groups(world: &World, service: &Thing, view: &Service) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for thing in world.list(resource::PODS, Some(&service.object.key.namespace)) {
        let Kind::Pod(pod) = &thing.kind else {
            continue;
        };
        if !view.selects(&thing.meta.labels) || pod.finished() {
            continue;
        }
        // Only IPv4 is laid out: a cluster of this issue has no other.
        let Some(address) = pod.ips.iter().find(|ip| ip.contains('.')) else {
            continue;
        };
        let ports = ports(view, pod);
        let endpoint = endpoint(world, service, view, thing, pod, address);
        let group = groups.entry(ports.to_string()).or_insert_with(|| Group {
            ports,
            endpoints: BTreeMap::new(),
        });
        group.endpoints.insert(name(&endpoint), endpoint);
    }
    groups.into_values().collect()
}

/// What tells an endpoint apart from others: the pod's uid.
pub fn name(endpoint: &Value) -> String {
    endpoint["targetRef"]["uid"]
        .as_str()
        .unwrap_or("")
        .to_owned()
}

fn endpoint(
    world: &World,
    service: &Thing,
    view: &Service,
    thing: &Thing,
    pod: &Pod,
    address: &str,
) -> Value {
    let terminating = !thing.object.living();
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": { "ready": view.publish_not_ready || (pod.ready && !terminating), "serving": pod.ready, "terminating": terminating },
    });
    if let Some(hostname) = pod
        .hostname
        .as_ref()
        .filter(|_| pod.subdomain.as_deref() == Some(&*service.object.key.name))
    {
        endpoint["hostname"] = json!(&**hostname);
    }
    let key = &thing.object.key;
    endpoint["targetRef"] = json!({ "kind": "Pod", "namespace": &*key.namespace, "name": &*key.name, "uid": thing.object.uid().to_string() });
    if let Some(node) = &pod.node {
        endpoint["nodeName"] = json!(&**node);
        if let Some(zone) = world
            .node(node)
            .and_then(|(node, _)| node.meta.labels.get(ZONE))
        {
            endpoint["zone"] = json!(&**zone);
        }
    }
    endpoint
}

/// The Service's ports on this pod; one that names a port the pod does not have is left out.
fn ports(view: &Service, pod: &Pod) -> Value {
    let ports = view.ports.iter().filter_map(|port| {
        let number = match &port.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => *pod
                .named_ports
                .get(&(name.clone(), port.protocol.clone()))?,
        };
        let mut written = Map::new();
        written.insert("name".into(), json!(&*port.name));
        written.insert("protocol".into(), json!(&*port.protocol));
        written.insert("port".into(), json!(number));
        if let Some(protocol) = &port.app_protocol {
            written.insert("appProtocol".into(), json!(&**protocol));
        }
        Some(Value::Object(written))
    });
    Value::Array(ports.collect())
}
