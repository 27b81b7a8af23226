//! What there is: the discovery documents, made from the table of kinds. Two shapes of the same: one document a group version
//! (`APIResourceList`), and all at once (`APIGroupDiscoveryList`), which kubectl asks for first.
//! Nothing is listed here that the table does not have; a kind that is served but not listed can't be named by kubectl.

pub mod version;

use crate::kind::{Kind, VirtualKind};
use crate::resources::{KINDS, VIRTUAL_KINDS, is_served};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Groups beside the core one, in the order in which Kubernetes lists them: it says whose kinds win an ambiguous word.
const GROUPS: &[&str] = &[
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Versions of a group, most preferred first.
const VERSIONS: &[&str] = &["v2", "v1"];

/// Which revision of the aggregated document a client can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    pub const fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// What the answer's `Content-Type` must be, to the letter: client-go compares it.
    pub fn content_type(self) -> String {
        format!(
            "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList",
            self.version()
        )
    }
}

/// `/api`. `server_address` is `host:port`.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`
pub fn groups() -> Value {
    let groups: Vec<Value> = served_groups().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`
pub fn group(name: &str) -> Option<Value> {
    let served = served_groups().find(|group| *group == name)?;
    let mut document = Map::new();
    document.insert("kind".to_owned(), json!("APIGroup"));
    document.insert("apiVersion".to_owned(), json!("v1"));
    if let Value::Object(entry) = group_entry(served) {
        document.extend(entry);
    }
    Some(Value::Object(document))
}

/// `/api/v1` and `/apis/<group>/<version>`
pub fn resources(group: &str, version: &str) -> Option<Value> {
    if !is_served(group, version) {
        return None;
    }
    let stored = kinds_of(group, version).flat_map(stored_resources);
    let resources: Vec<Value> = stored
        .chain(virtual_kinds_of(group, version).map(virtual_resource))
        .collect();
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(if group.is_empty() {
        json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources})
    } else {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
    })
}

/// `/api` for a client that takes the aggregated form.
pub fn aggregated_core(form: Aggregated) -> Value {
    aggregated(form, vec![aggregated_group("")])
}

/// `/apis` likewise.
pub fn aggregated_groups(form: Aggregated) -> Value {
    aggregated(form, served_groups().map(aggregated_group).collect())
}

fn aggregated(form: Aggregated, items: Vec<Value>) -> Value {
    let version = format!("apidiscovery.k8s.io/{}", form.version());
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": version, "metadata": {}, "items": items})
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions_of(group)
        .map(|version| {
            let mut resources: Vec<Value> = kinds_of(group, version)
                .map(aggregated_resource)
                .chain(virtual_kinds_of(group, version).map(aggregated_virtual))
                .collect();
            resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({})
    } else {
        json!({"name": group})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response_kind("", "", kind.kind),
        "scope": scope(kind.namespaced),
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    insert_names(&mut resource, kind);
    let mut subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, name) = subresource.other_kind().unwrap_or(("", "", kind.kind));
            // An own group's version is not repeated: Kubernetes leaves it empty, and so do the core group's kinds.
            let version = if group.is_empty() { "" } else { version };
            json!({
                "subresource": subresource.name(),
                "responseKind": response_kind(group, version, name),
                "verbs": subresource.verbs(),
            })
        })
        .collect();
    if !subresources.is_empty() {
        subresources.sort_by(|a, b| a["subresource"].as_str().cmp(&b["subresource"].as_str()));
        resource["subresources"] = Value::Array(subresources);
    }
    resource
}

fn aggregated_virtual(kind: &'static VirtualKind) -> Value {
    json!({
        "resource": kind.plural,
        "responseKind": response_kind("", "", kind.kind),
        "scope": scope(kind.namespaced),
        "singularResource": kind.singular,
        "verbs": ["create"],
    })
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn scope(namespaced: bool) -> &'static str {
    if namespaced { "Namespaced" } else { "Cluster" }
}

/// The kind's own line, then one for each subresource.
fn stored_resources(kind: &'static Kind) -> impl Iterator<Item = Value> {
    let mut own = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    insert_names(&mut own, kind);
    own["storageVersionHash"] = json!(storage_version_hash(kind));
    let subresources = kind.subresources.iter().map(move |subresource| {
        let mut line = Map::new();
        line.insert(
            "name".to_owned(),
            json!(format!("{}/{}", kind.plural, subresource.name())),
        );
        line.insert("singularName".to_owned(), json!(""));
        line.insert("namespaced".to_owned(), json!(kind.namespaced));
        let (group, version, name) = subresource.other_kind().unwrap_or(("", "", kind.kind));
        if !group.is_empty() {
            line.insert("group".to_owned(), json!(group));
            line.insert("version".to_owned(), json!(version));
        }
        line.insert("kind".to_owned(), json!(name));
        line.insert("verbs".to_owned(), json!(subresource.verbs()));
        Value::Object(line)
    });
    std::iter::once(own).chain(subresources)
}

fn virtual_resource(kind: &'static VirtualKind) -> Value {
    json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": ["create"],
    })
}

fn insert_names(resource: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
}

/// The first 8 bytes of SHA-256 over `group/version/Kind` as stored: clients see by it whether the stored form moved.
fn storage_version_hash(kind: &Kind) -> String {
    let digest = Sha256::digest(format!("{}/{}/{}", kind.group, kind.version, kind.kind));
    STANDARD.encode(&digest[..8])
}

fn served_groups() -> impl Iterator<Item = &'static str> {
    GROUPS
        .iter()
        .copied()
        .filter(|group| versions_of(group).next().is_some())
}

fn versions_of(group: &str) -> impl Iterator<Item = &'static str> {
    VERSIONS
        .iter()
        .copied()
        .filter(move |version| is_served(group, version))
}

fn kinds_of(group: &str, version: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS
        .iter()
        .copied()
        .filter(move |kind| kind.group == group && kind.version == version)
}

fn virtual_kinds_of(group: &str, version: &str) -> impl Iterator<Item = &'static VirtualKind> {
    VIRTUAL_KINDS
        .iter()
        .filter(move |kind| kind.group == group && kind.version == version)
}

fn group_entry(group: &str) -> Value {
    let versions: Vec<Value> = versions_of(group)
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

#[cfg(test)]
mod tests;
