//! What decisions read of a Namespace.

use super::json::or_default;
use super::thing::Read;
use eventstore::Text;
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `spec.finalizers`: what keeps it from going.
    pub finalizers: Vec<Text>,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Phase {
    #[default]
    Active,
    Terminating,
}

#[derive(Deserialize)]
pub(super) struct NamespaceJson {
    #[serde(default, deserialize_with = "or_default")]
    spec: SpecJson,
    #[serde(default, deserialize_with = "or_default")]
    status: StatusJson,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecJson {
    #[serde(deserialize_with = "or_default")]
    finalizers: Vec<Text>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusJson {
    #[serde(deserialize_with = "or_default")]
    phase: Phase,
}

impl Read for Namespace {
    type Json = NamespaceJson;

    fn of(json: NamespaceJson) -> Self {
        Self {
            finalizers: json.spec.finalizers,
            phase: json.status.phase,
        }
    }
}
