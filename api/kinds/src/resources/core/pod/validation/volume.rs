//! Volumes: each has a name and one source.

use super::container::{field, resource_field};
use crate::resources::checks::{Findings, items, text};
use crate::resources::names;
use serde_json::{Map, Value};

const MODE_MAX: i64 = 0o777;
const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const TOKEN_MIN_S: i64 = 600;
const TOKEN_MAX_S: i64 = 1 << 32;
const DOWNWARD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Sources, in the order in which Kubernetes looks for them: the second one found is the one too many.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flexVolume",
    "configMap",
    "persistentVolumeClaim",
    "rbd",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "storageos",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "cinder",
    "projected",
    "csi",
    "ephemeral",
    "image",
];

/// Checks them all and gives them by name.
pub fn volumes(volumes: &Value, path: &str, found: &mut Findings) -> Map<String, Value> {
    let mut by_name = Map::new();
    for (index, volume) in items(volumes).iter().enumerate() {
        let at = format!("{path}[{index}]");
        match text(&volume["name"]) {
            "" => found.required(format!("{at}.name"), ""),
            name => {
                found.all(&format!("{at}.name"), name, names::label(name));
                if by_name.insert(name.to_owned(), volume.clone()).is_some() {
                    found.duplicate(format!("{at}.name"), name);
                }
            }
        }
        source(volume, &at, found);
    }
    by_name
}

fn source(volume: &Value, path: &str, found: &mut Findings) {
    let mut count = 0;
    for key in SOURCES.iter().filter(|key| !volume[**key].is_null()) {
        let (source, at) = (&volume[*key], format!("{path}.{key}"));
        count += 1;
        if count > 1 {
            found.forbidden(at, "may not specify more than 1 volume type");
            continue;
        }
        match *key {
            "hostPath" => host_path(source, &at, found),
            "secret" => {
                require(source, "secretName", &at, found);
                files(source, &at, found);
            }
            "configMap" => {
                require(source, "name", &at, found);
                files(source, &at, found);
            }
            "persistentVolumeClaim" => require(source, "claimName", &at, found),
            "downwardAPI" => {
                mode(&source["defaultMode"], format!("{at}.defaultMode"), found);
                downward(&source["items"], &at, found);
            }
            "projected" => projected(source, &at, found),
            "nfs" => {
                require(source, "server", &at, found);
                require(source, "path", &at, found);
                if !text(&source["path"]).is_empty() && !text(&source["path"]).starts_with('/') {
                    found.invalid(
                        format!("{at}.path"),
                        source["path"].clone(),
                        "must be an absolute path",
                    );
                }
            }
            "csi" => require(source, "driver", &at, found),
            "image" => require(source, "reference", &at, found),
            "ephemeral" if source["volumeClaimTemplate"].is_null() => {
                found.required(format!("{at}.volumeClaimTemplate"), "");
            }
            _ => {}
        }
    }
    if count == 0 {
        found.required(path, "must specify a volume type");
    }
}

fn require(source: &Value, key: &str, path: &str, found: &mut Findings) {
    if text(&source[key]).is_empty() {
        found.required(format!("{path}.{key}"), "");
    }
}

fn host_path(source: &Value, path: &str, found: &mut Findings) {
    let value = text(&source["path"]);
    if value.is_empty() {
        return found.required(format!("{path}.path"), "");
    }
    no_way_up(value, &format!("{path}.path"), found);
    let kind = text(&source["type"]);
    if !HOST_PATH_TYPES.contains(&kind) {
        found.not_supported(format!("{path}.type"), kind, HOST_PATH_TYPES);
    }
}

/// Keys that become files.
fn files(source: &Value, path: &str, found: &mut Findings) {
    mode(&source["defaultMode"], format!("{path}.defaultMode"), found);
    for (index, item) in items(&source["items"]).iter().enumerate() {
        let at = format!("{path}.items[{index}]");
        require(item, "key", &at, found);
        if text(&item["path"]).is_empty() {
            found.required(format!("{at}.path"), "");
        }
        not_reserved(text(&item["path"]), &format!("{at}.path"), found);
        mode(&item["mode"], format!("{at}.mode"), found);
    }
}

fn downward(list: &Value, path: &str, found: &mut Findings) {
    for (index, item) in items(list).iter().enumerate() {
        let at = format!("{path}.items[{index}]");
        if text(&item["path"]).is_empty() {
            found.required(format!("{at}.path"), "");
        }
        not_reserved(text(&item["path"]), &format!("{at}.path"), found);
        match (
            item["fieldRef"].is_null(),
            item["resourceFieldRef"].is_null(),
        ) {
            (false, true) => field(
                &item["fieldRef"],
                &format!("{at}.fieldRef"),
                DOWNWARD_FIELDS,
                found,
            ),
            (true, false) => {
                require(
                    &item["resourceFieldRef"],
                    "containerName",
                    &format!("{at}.resourceFieldRef"),
                    found,
                );
                resource_field(
                    &item["resourceFieldRef"],
                    &format!("{at}.resourceFieldRef"),
                    found,
                );
            }
            (false, false) => found.invalid(
                &*at,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (true, true) => {
                found.required(&*at, "one of fieldRef and resourceFieldRef is required")
            }
        }
        mode(&item["mode"], format!("{at}.mode"), found);
    }
}

fn projected(source: &Value, path: &str, found: &mut Findings) {
    mode(&source["defaultMode"], format!("{path}.defaultMode"), found);
    for (index, part) in items(&source["sources"]).iter().enumerate() {
        let at = format!("{path}.sources[{index}]");
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        let mut count = 0;
        for kind in kinds.into_iter().filter(|kind| !part[*kind].is_null()) {
            let (part, at) = (&part[kind], format!("{at}.{kind}"));
            count += 1;
            if count > 1 {
                found.forbidden(at, "may not specify more than 1 volume type");
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    require(part, "name", &at, found);
                    files(part, &at, found);
                }
                "downwardAPI" => downward(&part["items"], &at, found),
                "serviceAccountToken" => token(part, &at, found),
                _ => {}
            }
        }
        if count == 0 {
            found.required(&*at, "must specify a volume type");
        }
    }
}

fn token(part: &Value, path: &str, found: &mut Findings) {
    if let Some(seconds) = part["expirationSeconds"].as_i64() {
        if seconds < TOKEN_MIN_S {
            found.invalid(
                format!("{path}.expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            );
        }
        if seconds > TOKEN_MAX_S {
            found.invalid(
                format!("{path}.expirationSeconds"),
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
    if text(&part["path"]).is_empty() {
        found.required(format!("{path}.path"), "");
    } else {
        not_reserved(text(&part["path"]), &format!("{path}.path"), found);
    }
}

fn mode(mode: &Value, path: String, found: &mut Findings) {
    if mode
        .as_i64()
        .is_some_and(|mode| !(0..=MODE_MAX).contains(&mode))
    {
        found.invalid(
            path,
            mode.clone(),
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

/// A path that leads down from where it starts; empty is none.
pub fn descending(value: &str, path: &str, found: &mut Findings) {
    if value.starts_with('/') {
        found.invalid(path, value, "must be a relative path");
    }
    no_way_up(value, path, found);
}

fn no_way_up(value: &str, path: &str, found: &mut Findings) {
    if value.split('/').any(|part| part == "..") {
        found.invalid(path, value, "must not contain '..'");
    }
}

/// Names that begin with two dots are what such volumes are switched by.
fn not_reserved(value: &str, path: &str, found: &mut Findings) {
    descending(value, path, found);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        found.invalid(path, value, "must not start with '..'");
    }
}
