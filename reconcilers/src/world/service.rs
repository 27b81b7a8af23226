//! What decisions read of a Service.

use super::json::or_default;
use super::thing::Read;
use eventstore::Text;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Empty: its endpoints are somebody else's.
    pub selector: BTreeMap<Text, Text>,
    pub ports: Vec<ServicePort>,
    pub external_name: bool,
    /// clusterIP None.
    pub headless: bool,
    pub publish_not_ready: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Text,
    pub protocol: Text,
    pub app_protocol: Option<Text>,
    pub target: TargetPort,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    Number(i64),
    Name(Text),
}

impl Service {
    pub fn selects(&self, labels: &BTreeMap<Text, Text>) -> bool {
        !self.selector.is_empty()
            && self
                .selector
                .iter()
                .all(|(name, value)| labels.get(name) == Some(value))
    }
}

#[derive(Deserialize)]
pub(super) struct ServiceJson {
    #[serde(default, deserialize_with = "or_default")]
    spec: SpecJson,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpecJson {
    #[serde(deserialize_with = "or_default")]
    selector: BTreeMap<Text, Text>,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<PortJson>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(deserialize_with = "or_default")]
    publish_not_ready_addresses: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortJson {
    #[serde(default, deserialize_with = "or_default")]
    name: Text,
    protocol: Option<Text>,
    app_protocol: Option<Text>,
    #[serde(default)]
    port: i64,
    target_port: Option<TargetPort>,
}

impl Read for Service {
    type Json = ServiceJson;

    fn of(json: ServiceJson) -> Self {
        let spec = json.spec;
        let ports = spec.ports.into_iter().map(|port| ServicePort {
            name: port.name,
            protocol: port.protocol.unwrap_or_else(|| "TCP".into()),
            app_protocol: port.app_protocol,
            target: match port.target_port {
                Some(TargetPort::Number(number)) if number > 0 => TargetPort::Number(number),
                Some(TargetPort::Name(name)) if !name.is_empty() => TargetPort::Name(name),
                _ => TargetPort::Number(port.port),
            },
        });
        Self {
            ports: ports.collect(),
            selector: spec.selector,
            external_name: spec.kind.as_deref() == Some("ExternalName"),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            publish_not_ready: spec.publish_not_ready_addresses,
        }
    }
}
