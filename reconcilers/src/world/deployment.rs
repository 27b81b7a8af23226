//! What decisions read of a Deployment.

use super::Selector;
use super::json::or_default;
use super::thing::Read;
use crate::template::Fingerprint;
use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    pub replicas: i64,
    pub min_ready_s: i64,
    pub paused: bool,
    pub strategy: Strategy,
    /// None: no deadline.
    pub progress_deadline_s: Option<i64>,
    pub revision_history_limit: i64,
    pub selector: Selector,
    pub template: Fingerprint,
    /// How often its template's hash named a foreign ReplicaSet.
    pub collisions: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    Recreate,
    RollingUpdate {
        max_surge: IntOrPercent,
        max_unavailable: IntOrPercent,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    Int(i64),
    Percent(i64),
}

impl IntOrPercent {
    pub fn of_rounded_up(self, total: i64) -> i64 {
        match self {
            Self::Int(int) => int,
            Self::Percent(percent) => (percent.saturating_mul(total))
                .saturating_add(99)
                .div_euclid(100),
        }
    }

    pub fn of_rounded_down(self, total: i64) -> i64 {
        match self {
            Self::Int(int) => int,
            Self::Percent(percent) => (percent.saturating_mul(total)).div_euclid(100),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct DeploymentJson {
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
    paused: bool,
    #[serde(default, deserialize_with = "or_default")]
    strategy: StrategyJson,
    progress_deadline_seconds: Option<i64>,
    revision_history_limit: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    selector: Selector,
    #[serde(default)]
    template: serde_json::Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StrategyJson {
    #[serde(rename = "type")]
    name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    rolling_update: RollingUpdateJson,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RollingUpdateJson {
    max_surge: Option<IntOrStringJson>,
    max_unavailable: Option<IntOrStringJson>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IntOrStringJson {
    Int(i64),
    String(String),
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StatusJson {
    collision_count: Option<i64>,
}

impl IntOrStringJson {
    /// `25%`; the API lets nothing else through, and a text that is none counts as 0.
    fn read(&self) -> IntOrPercent {
        match self {
            Self::Int(int) => IntOrPercent::Int(*int),
            Self::String(text) => IntOrPercent::Percent(
                text.strip_suffix('%')
                    .and_then(|percent| percent.parse().ok())
                    .unwrap_or(0),
            ),
        }
    }
}

impl Read for Deployment {
    type Json = DeploymentJson;

    fn of(json: DeploymentJson) -> Self {
        let DeploymentJson { spec, status } = json;
        let rolling = &spec.strategy.rolling_update;
        let quarter = |written: &Option<IntOrStringJson>| {
            written
                .as_ref()
                .map_or(IntOrPercent::Percent(25), IntOrStringJson::read)
        };
        Self {
            replicas: spec.replicas.unwrap_or(1),
            min_ready_s: spec.min_ready_seconds,
            paused: spec.paused,
            strategy: match spec.strategy.name.as_deref() {
                Some("Recreate") => Strategy::Recreate,
                _ => Strategy::RollingUpdate {
                    max_surge: quarter(&rolling.max_surge),
                    max_unavailable: quarter(&rolling.max_unavailable),
                },
            },
            // The API fills 600; the largest number means "none" (as in Kubernetes).
            progress_deadline_s: spec
                .progress_deadline_seconds
                .filter(|seconds| *seconds != i64::from(i32::MAX)),
            revision_history_limit: spec.revision_history_limit.unwrap_or(10),
            selector: spec.selector,
            template: Fingerprint::of(&spec.template),
            collisions: status.collision_count,
        }
    }
}
