//! What decisions read of a Pod.

use super::json::{ConditionJson, or_default};
use super::thing::Read;
use super::{Requirement, Resources, Thing};
use eventstore::{Text, Time};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub node: Option<Text>,
    pub phase: PodPhase,
    /// Its condition Ready is True, since when.
    pub ready: bool,
    pub ready_since: Option<Time>,
    /// Its condition PodScheduled: status, reason, message.
    pub scheduled: Option<(String, String, String)>,
    pub scheduled_since: Option<Time>,
    pub ips: Vec<Text>,
    /// The most that its containers were restarted.
    pub restarts: i64,
    pub grace_s: i64,
    /// What it asks of a node, `pods` (1) among it.
    pub requests: Resources,
    pub host_ports: Vec<HostPort>,
    /// Named container ports: name, protocol -> number, the first of a name.
    pub named_ports: BTreeMap<(Text, Text), i64>,
    pub priority: i64,
    pub scheduler: Text,
    pub gates: Vec<Text>,
    pub node_selector: BTreeMap<Text, Text>,
    /// Required node affinity: one of the terms must hold. None: it asks nothing; an empty list: no node will do.
    pub required_terms: Option<Vec<NodeTerm>>,
    pub preferred_terms: Vec<PreferredTerm>,
    pub tolerations: Vec<Toleration>,
    pub hostname: Option<Text>,
    pub subdomain: Option<Text>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PodPhase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `0.0.0.0` for every address.
    pub ip: Text,
    pub protocol: Text,
    pub port: i64,
}

/// One term of a node selector: all of its requirements must hold. One without any holds of no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeTerm {
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Vec<Requirement>,
    /// Of the node's fields there is one: metadata.name.
    #[serde(deserialize_with = "or_default")]
    pub match_fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PreferredTerm {
    pub weight: i64,
    pub preference: NodeTerm,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Toleration {
    #[serde(deserialize_with = "or_default")]
    pub key: Text,
    #[serde(deserialize_with = "or_default")]
    pub operator: Text,
    #[serde(deserialize_with = "or_default")]
    pub value: Text,
    #[serde(deserialize_with = "or_default")]
    pub effect: Text,
    pub toleration_seconds: Option<i64>,
}

impl Pod {
    /// Its containers have ended for good.
    pub fn finished(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// Counts as a replica: neither finished nor being deleted.
    pub fn active(&self, thing: &Thing) -> bool {
        !self.finished() && thing.object.living()
    }

    /// Ready for at least `min_ready_s`; when it will be, if it is not yet.
    pub fn available(&self, min_ready_s: i64, now: Time) -> Result<(), Option<Time>> {
        match (self.ready, self.ready_since) {
            (false, _) => Err(None),
            (true, _) if min_ready_s == 0 => Ok(()),
            (true, None) => Err(None),
            (true, Some(since)) => {
                let at = since.plus_ms(min_ready_s.saturating_mul(1000));
                if at <= now { Ok(()) } else { Err(Some(at)) }
            }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct PodJson {
    spec: SpecJson,
    #[serde(default, deserialize_with = "or_default")]
    status: StatusJson,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpecJson {
    node_name: Option<Text>,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<ContainerJson>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<ContainerJson>,
    overhead: Resources,
    #[serde(deserialize_with = "or_default")]
    resources: RequestsJson,
    host_network: Option<bool>,
    priority: Option<i64>,
    scheduler_name: Option<Text>,
    #[serde(deserialize_with = "or_default")]
    scheduling_gates: Vec<GateJson>,
    #[serde(deserialize_with = "or_default")]
    node_selector: BTreeMap<Text, Text>,
    #[serde(deserialize_with = "or_default")]
    affinity: AffinityJson,
    #[serde(deserialize_with = "or_default")]
    tolerations: Vec<Toleration>,
    termination_grace_period_seconds: Option<i64>,
    hostname: Option<Text>,
    subdomain: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerJson {
    #[serde(deserialize_with = "or_default")]
    resources: RequestsJson,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<PortJson>,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestsJson {
    requests: Resources,
    limits: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PortJson {
    name: Option<Text>,
    protocol: Option<Text>,
    container_port: i64,
    #[serde(rename = "hostPort")]
    host_port: Option<i64>,
    #[serde(rename = "hostIP")]
    host_ip: Option<Text>,
}

#[derive(Deserialize)]
struct GateJson {
    name: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AffinityJson {
    #[serde(deserialize_with = "or_default")]
    node_affinity: NodeAffinityJson,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeAffinityJson {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<TermsJson>,
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "or_default"
    )]
    preferred: Vec<PreferredTerm>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TermsJson {
    #[serde(deserialize_with = "or_default")]
    node_selector_terms: Vec<NodeTerm>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StatusJson {
    #[serde(deserialize_with = "or_default")]
    phase: PodPhase,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<ConditionJson>,
    #[serde(rename = "podIP")]
    pod_ip: Option<Text>,
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pod_ips: Vec<IpJson>,
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<ContainerStatusJson>,
}

#[derive(Deserialize)]
struct IpJson {
    ip: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatusJson {
    restart_count: i64,
}

impl Read for Pod {
    type Json = PodJson;

    fn of(json: PodJson) -> Self {
        let PodJson { spec, status } = json;
        let requests = requests(&spec);
        let host_ports = host_ports(&spec);
        let mut named_ports = BTreeMap::new();
        for port in spec
            .containers
            .iter()
            .chain(&spec.init_containers)
            .flat_map(|container| &container.ports)
        {
            if let Some(name) = &port.name {
                named_ports
                    .entry((name.clone(), port.protocol()))
                    .or_insert(port.container_port);
            }
        }
        let condition = |name: &str| {
            status
                .conditions
                .iter()
                .find(|condition| condition.name == name)
        };
        let ready = condition("Ready").filter(|ready| ready.status == "True");
        let scheduled = condition("PodScheduled");
        let ips: Vec<Text> = status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
        Self {
            phase: status.phase,
            ready: ready.is_some(),
            ready_since: ready.and_then(|ready| ready.last_transition_time),
            scheduled: scheduled.map(|condition| {
                (
                    condition.status.clone(),
                    condition.reason.clone(),
                    condition.message.clone(),
                )
            }),
            scheduled_since: scheduled.and_then(|condition| condition.last_transition_time),
            ips: if ips.is_empty() {
                status.pod_ip.into_iter().collect()
            } else {
                ips
            },
            restarts: status
                .container_statuses
                .iter()
                .map(|container| container.restart_count)
                .max()
                .unwrap_or(0),
            grace_s: spec.termination_grace_period_seconds.unwrap_or(30),
            requests,
            host_ports,
            named_ports,
            priority: spec.priority.unwrap_or(0),
            scheduler: spec
                .scheduler_name
                .unwrap_or_else(|| "default-scheduler".into()),
            gates: spec
                .scheduling_gates
                .into_iter()
                .map(|gate| gate.name)
                .collect(),
            node_selector: spec.node_selector,
            required_terms: spec
                .affinity
                .node_affinity
                .required
                .map(|required| required.node_selector_terms),
            preferred_terms: spec.affinity.node_affinity.preferred,
            tolerations: spec.tolerations,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            node: spec.node_name.filter(|node| !node.is_empty()),
        }
    }
}

impl PortJson {
    fn protocol(&self) -> Text {
        self.protocol.clone().unwrap_or_else(|| "TCP".into())
    }
}

impl ContainerJson {
    /// Runs beside the others from its start on, though it is listed as an init container.
    fn sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

impl RequestsJson {
    /// A limit without a request is also the request.
    fn asked(&self) -> Resources {
        let mut asked = self.limits.clone();
        asked.0.extend(
            self.requests
                .0
                .iter()
                .map(|(name, amount)| (name.clone(), *amount)),
        );
        asked
    }
}

/// All containers at once, or any one init container with the sidecars started before it, whichever is more of each; and the overhead.
/// Source: KEP-753 (sidecar containers), KEP-2837 (pod level resources).
fn requests(spec: &SpecJson) -> Resources {
    let mut together = Resources::default();
    for container in &spec.containers {
        together.add(&container.resources.asked());
    }
    let mut sidecars = Resources::default();
    let mut most = Resources::default();
    for init in &spec.init_containers {
        let mut here = init.resources.asked();
        here.add(&sidecars);
        if init.sidecar() {
            sidecars = here.clone();
        }
        most.max(&here);
    }
    together.add(&sidecars);
    together.max(&most);
    together.0.extend(spec.resources.asked().0);
    together.add(&spec.overhead);
    together.0.insert("pods".into(), 1);
    together.without_zeros()
}

fn host_ports(spec: &SpecJson) -> Vec<HostPort> {
    let host_network = spec.host_network.unwrap_or(false);
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().filter(|init| init.sidecar()));
    let ports = containers
        .flat_map(|container| &container.ports)
        .filter_map(|port| {
            let number = port
                .host_port
                .filter(|number| *number > 0)
                .or(host_network.then_some(port.container_port))
                .filter(|number| *number > 0)?;
            let ip = port
                .host_ip
                .clone()
                .filter(|ip| !ip.is_empty())
                .unwrap_or_else(|| "0.0.0.0".into());
            Some(HostPort {
                ip,
                protocol: port.protocol(),
                port: number,
            })
        });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn adds_up_requests() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        for (spec, cpu) in [
            (
                json!({"containers": [container("1"), container("500m")]}),
                1500,
            ),
            (
                json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]}),
                3000,
            ),
            (
                json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("3")]}),
                4000,
            ),
            (
                json!({"containers": [container("4")], "initContainers": [sidecar("1"), container("3")]}),
                5000,
            ),
            (
                json!({"containers": [container("1")], "overhead": {"cpu": "100m"}}),
                1100,
            ),
            (
                json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}),
                2000,
            ),
            (
                json!({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}}),
                3000,
            ),
            (
                json!({"containers": [{"resources": {}}, {"resources": null}, {}]}),
                0,
            ),
        ] {
            check(spec, cpu);
        }
    }

    fn check(spec: Value, cpu: i64) {
        let pod = Pod::of(serde_json::from_value(json!({ "spec": spec })).unwrap());
        assert_eq!(
            (pod.requests.get("cpu"), pod.requests.get("pods")),
            (cpu, 1),
            "{spec}"
        );
    }
}
