//! Volumes in temporary directories.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::session::ObjectKey;

fn objects(data: Value) -> Objects {
    let objects = Objects::default();
    let key = |resource: &str, name: &str| ObjectKey {
        resource: resource.into(),
        namespace: "d".into(),
        name: name.into(),
    };
    objects.set(key("configmaps", "m"), Some(&json!({"data": data})));
    objects.set(
        key("secrets", "s"),
        Some(&json!({"data": {"password": "aHVudGVyMg=="}})),
    );
    objects.set(key("configmaps", "none"), None);
    objects
}

fn pod(spec: Value) -> Pod {
    Pod::parse(&json!({"metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"a": "b"}}, "spec": spec})).unwrap()
}

fn made(pod: &Pod, objects: &Objects, root: &Path) -> Result<PodDirs, VolumeError> {
    let dirs = PodDirs::new(root, "u");
    let downward = Downward {
        pod,
        pod_ips: &[],
        host_ip: "",
        allocatable_cpu_milli: 2000,
        allocatable_memory: 0,
    };
    prepare(&dirs, objects, &downward).map(|()| dirs)
}

/// Visible files with content and mode.
fn shown(dir: &Path) -> BTreeMap<String, String> {
    fn walk(dir: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("..") {
                continue;
            }
            let path = dir.join(&name);
            if path.is_dir() {
                walk(&path, &format!("{prefix}{name}/"), found);
            } else {
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                found.insert(
                    format!("{prefix}{name}"),
                    format!("{} {mode:o}", fs::read_to_string(&path).unwrap()),
                );
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}

fn check(volume: Value, expected: &[(&str, &str)]) {
    let root = tempfile::tempdir().unwrap();
    let pod = pod(json!({"containers": [], "volumes": [volume]}));
    let dirs = made(&pod, &objects(json!({"k1": "v1", "k2": "v2"})), root.path()).unwrap();
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|(name, shown)| ((*name).to_owned(), (*shown).to_owned()))
        .collect();
    assert_eq!(shown(&dirs.volume("v")), expected, "{pod:?}");
}

#[test]
fn files_of_each_source() {
    check(
        json!({"name": "v", "configMap": {"name": "m"}}),
        &[("k1", "v1 644"), ("k2", "v2 644")],
    );
    check(
        json!({"name": "v", "configMap": {"name": "none", "optional": true}}),
        &[],
    );
    check(
        json!({"name": "v", "configMap": {"name": "m", "defaultMode": 0o600, "items": [
            {"key": "k1", "path": "deep/er/one"}, {"key": "k2", "path": "two", "mode": 0o755},
        ]}}),
        &[("deep/er/one", "v1 600"), ("two", "v2 755")],
    );
    check(
        json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}),
        &[("password", "hunter2 400")],
    );
    check(
        json!({"name": "v", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        ]}}),
        &[("labels", "a=\"b\" 644"), ("name", "p 644")],
    );
    check(
        json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"configMap": {"name": "m", "items": [{"key": "k1", "path": "k1"}]}},
            {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}}),
        &[
            ("k1", "v1 644"),
            ("ns", "d 644"),
            ("password", "hunter2 644"),
        ],
    );
}

#[test]
fn what_cannot_be_made_says_why() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    for (volume, expected) in [
        (
            json!({"name": "v", "configMap": {"name": "none"}}),
            "configmap \"none\" not found".to_owned(),
        ),
        (
            json!({"name": "v", "configMap": {"name": "later"}}),
            "configmap \"later\" has not arrived yet".to_owned(),
        ),
        (
            json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "no", "path": "x"}]}}),
            "couldn't find key no in configmap d/m".to_owned(),
        ),
        (
            json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "../x"}]}}),
            "path \"../x\" leads out of its volume".to_owned(),
        ),
        (
            json!({"name": "v", "hostPath": {"path": file, "type": "Directory"}}),
            format!(
                "hostPath type check failed: {} is not a directory",
                file.display()
            ),
        ),
        (
            json!({"name": "v", "nfs": {}}),
            "volume \"v\": this kind of volume is not supported".to_owned(),
        ),
    ] {
        let pod = pod(json!({"containers": [], "volumes": [volume]}));
        let error = made(&pod, &objects(json!({"k": "v"})), root.path()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_change_swaps_all_files_at_once() {
    let root = tempfile::tempdir().unwrap();
    let pod =
        pod(json!({"containers": [], "volumes": [{"name": "v", "configMap": {"name": "m"}}]}));
    let dirs = made(&pod, &objects(json!({"a": "1", "b": "1"})), root.path()).unwrap();
    let dir = dirs.volume("v");
    let version = |dir: &Path| fs::read_link(dir.join("..data")).unwrap();
    let first = version(&dir);
    made(&pod, &objects(json!({"a": "1", "b": "1"})), root.path()).unwrap();
    assert_eq!(version(&dir), first, "nothing changed, nothing was written");
    made(&pod, &objects(json!({"a": "2", "c": "2"})), root.path()).unwrap();
    assert_ne!(version(&dir), first);
    assert!(!dir.join(first).exists());
    let expected =
        [("a", "2 644"), ("c", "2 644")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(shown(&dir), BTreeMap::from(expected));
}

#[test]
fn sub_paths_stay_inside() {
    let root = tempfile::tempdir().unwrap();
    let pod = pod(json!({
        "containers": [{"name": "c", "volumeMounts": [
            {"name": "e", "mountPath": "/data", "subPathExpr": "$(N)/logs"},
            {"name": "m", "mountPath": "/etc/k", "subPath": "k"},
        ]}],
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "m", "configMap": {"name": "m"}}],
    }));
    let dirs = made(&pod, &objects(json!({"k": "v"})), root.path()).unwrap();
    let expand = |text: &str| text.replace("$(N)", "p");
    let found = mounts(&pod, &pod.spec.containers[0], 0, &dirs, &expand).unwrap();
    assert!(
        found[0].host_path.ends_with("volumes/e/p/logs") && Path::new(&found[0].host_path).is_dir()
    );
    assert_eq!(fs::read_to_string(&found[1].host_path).unwrap(), "v");
    assert!(found[1].readonly && !found[0].readonly);
    assert_eq!(found[2].container_path, "/etc/hosts");
    assert_eq!(found[3].container_path, "/dev/termination-log");
    std::os::unix::fs::symlink("/etc", dirs.volume("e").join("link")).unwrap();
    for sub in ["../x", "/etc", "link/passwd"] {
        assert!(
            matches!(inside(&dirs.volume("e"), sub), Err(VolumeError::Escapes(_))),
            "{sub}"
        );
    }
}

#[test]
fn hosts_and_hostname() {
    let pod = pod(json!({
        "containers": [], "hostname": "web-0", "subdomain": "web",
        "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["x", "y.z"]}],
    }));
    let text = etc_hosts(&pod, &["10.1.2.3".to_owned()]);
    assert!(
        text.contains("10.1.2.3\tweb-0.web.d.svc.cluster.local\tweb-0\n"),
        "{text}"
    );
    assert!(text.ends_with("192.0.2.9\tx\ty.z\n"), "{text}");
    let mut long = pod;
    long.spec.hostname = format!("{}-{}", "a".repeat(62), "b");
    assert_eq!(hostname(&long), "a".repeat(62));
}

#[test]
fn cleaning_up_unmounts() {
    let root = tempfile::tempdir().unwrap();
    let medium = if nix::unistd::geteuid().is_root() {
        "Memory"
    } else {
        ""
    };
    let pod = pod(
        json!({"containers": [], "volumes": [{"name": "e", "emptyDir": {"medium": medium, "sizeLimit": "1Mi"}}]}),
    );
    let dirs = made(&pod, &Objects::default(), root.path()).unwrap();
    fs::write(dirs.volume("e").join("file"), "x").unwrap();
    made(&pod, &Objects::default(), root.path()).unwrap();
    assert_eq!(
        mounts_below(root.path()).unwrap().len(),
        usize::from(medium == "Memory")
    );
    clean_up(&dirs).unwrap();
    assert!(!dirs.root().exists());
    assert_eq!(mounts_below(root.path()).unwrap().len(), 0);
    clean_up(&dirs).unwrap();
}
