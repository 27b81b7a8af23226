//! What decisions read of a Node.

use super::Resources;
use super::json::{ConditionJson, or_default, time};
use super::thing::Read;
use eventstore::{Text, Time};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    /// What pods may ask of it in all.
    pub allocatable: Resources,
    /// Its condition Ready: "True", "False" or "Unknown"; None when it has none yet.
    pub ready: Option<String>,
    pub ready_reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    pub key: Text,
    #[serde(deserialize_with = "or_default")]
    pub value: Text,
    pub effect: Text,
    #[serde(deserialize_with = "time")]
    pub time_added: Option<Time>,
}

#[derive(Deserialize)]
pub(super) struct NodeJson {
    #[serde(default, deserialize_with = "or_default")]
    spec: SpecJson,
    #[serde(default, deserialize_with = "or_default")]
    status: StatusJson,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecJson {
    #[serde(deserialize_with = "or_default")]
    unschedulable: bool,
    #[serde(deserialize_with = "or_default")]
    taints: Vec<Taint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusJson {
    allocatable: Option<Resources>,
    capacity: Option<Resources>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<ConditionJson>,
}

impl Read for Node {
    type Json = NodeJson;

    fn of(json: NodeJson) -> Self {
        let ready = json
            .status
            .conditions
            .into_iter()
            .find(|condition| condition.name == "Ready");
        Self {
            unschedulable: json.spec.unschedulable,
            taints: json.spec.taints,
            // The API fills allocatable from capacity; a node written before that has only one of them.
            allocatable: json
                .status
                .allocatable
                .or(json.status.capacity)
                .unwrap_or_default(),
            ready_reason: ready
                .as_ref()
                .map(|ready| ready.reason.clone())
                .unwrap_or_default(),
            ready: ready.map(|ready| ready.status),
        }
    }
}
