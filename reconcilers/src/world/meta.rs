//! Metadata, as far as decisions need it, of any kind.

use super::json::or_default;
use eventstore::{Object, Text};
use serde::Deserialize;
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// For owner references: `apps/v1`, `Deployment`.
    pub api_version: Text,
    pub kind: Text,
    pub labels: BTreeMap<Text, Text>,
    pub annotations: BTreeMap<Text, Text>,
    pub owners: Vec<Owner>,
    pub finalizers: Vec<Text>,
    /// 0 for kinds that have none.
    pub generation: i64,
}

/// An owner reference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub api_version: Text,
    pub kind: Text,
    pub name: Text,
    pub uid: Uuid,
    #[serde(default, deserialize_with = "or_default")]
    pub controller: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub block_owner_deletion: bool,
}

#[derive(Deserialize)]
struct ObjectJson {
    #[serde(rename = "apiVersion", default)]
    api_version: Text,
    #[serde(default)]
    kind: Text,
    metadata: MetaJson,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetaJson {
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<Text, Text>,
    #[serde(deserialize_with = "or_default")]
    annotations: BTreeMap<Text, Text>,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<Owner>,
    #[serde(deserialize_with = "or_default")]
    finalizers: Vec<Text>,
    generation: i64,
}

impl Meta {
    pub(super) fn read(object: &Object) -> Result<Self, String> {
        let ObjectJson {
            api_version,
            kind,
            metadata,
        } = serde_json::from_slice(&object.bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            api_version,
            kind,
            labels: metadata.labels,
            annotations: metadata.annotations,
            owners: metadata.owner_references,
            finalizers: metadata.finalizers,
            generation: metadata.generation,
        })
    }

    /// The one owner that manages it.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(|value| &**value)
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| &**finalizer == name)
    }
}
