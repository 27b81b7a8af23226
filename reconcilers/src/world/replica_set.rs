//! What decisions read of a ReplicaSet.

use super::Selector;
use super::json::or_default;
use super::thing::Read;
use crate::template::Fingerprint;
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSet {
    pub replicas: i64,
    pub min_ready_s: i64,
    pub selector: Selector,
    /// Of the pod template without its hash label: equal templates have equal fingerprints.
    pub template: Fingerprint,
    /// What its status says.
    pub observed_generation: i64,
    pub status_replicas: i64,
    pub status_ready: i64,
    pub status_available: i64,
    pub status_terminating: Option<i64>,
    /// Its condition `ReplicaFailure`: why it can't make or remove pods.
    pub failure: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct ReplicaSetJson {
    spec: SpecJson,
    #[serde(default, deserialize_with = "or_default")]
    status: StatusJson,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecJson {
    replicas: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    min_ready_seconds: i64,
    #[serde(default, deserialize_with = "or_default")]
    selector: Selector,
    #[serde(default)]
    template: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StatusJson {
    #[serde(deserialize_with = "or_default")]
    observed_generation: i64,
    #[serde(deserialize_with = "or_default")]
    replicas: i64,
    #[serde(deserialize_with = "or_default")]
    ready_replicas: i64,
    #[serde(deserialize_with = "or_default")]
    available_replicas: i64,
    terminating_replicas: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Value>,
}

impl Read for ReplicaSet {
    type Json = ReplicaSetJson;

    fn of(json: ReplicaSetJson) -> Self {
        let mut conditions = json.status.conditions.into_iter();
        Self {
            failure: conditions.find(|condition| condition["type"] == "ReplicaFailure"),
            replicas: json.spec.replicas.unwrap_or(1),
            min_ready_s: json.spec.min_ready_seconds,
            selector: json.spec.selector,
            template: Fingerprint::of(&json.spec.template),
            observed_generation: json.status.observed_generation,
            status_replicas: json.status.replicas,
            status_ready: json.status.ready_replicas,
            status_available: json.status.available_replicas,
            status_terminating: json.status.terminating_replicas,
        }
    }
}
