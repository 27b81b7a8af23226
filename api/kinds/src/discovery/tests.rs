//! The documents against those of a recorded kube-apiserver, restricted to what the table has.

use super::*;
use crate::resources::recorded;

/// Subresources that the reference has and we don't serve yet.
fn is_served_line(name: &str, ours: &[String]) -> bool {
    ours.iter().any(|our| our == name)
}

fn names(document: &Value) -> Vec<String> {
    document["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn resource_lists_are_like_the_recorded() {
    let Some(core) = recorded::exchanges("discovery/core-v1.json") else {
        return;
    };
    let Some(others) = recorded::exchanges("discovery/group-versions.json") else {
        return;
    };
    let mut compared = 0;
    for step in core["steps"]
        .as_array()
        .unwrap()
        .iter()
        .chain(others["steps"].as_array().unwrap())
    {
        let theirs = &step["expect"]["body"];
        let Some(group_version) = theirs["groupVersion"].as_str() else {
            continue;
        };
        let (group, version) = group_version
            .rsplit_once('/')
            .unwrap_or(("", group_version));
        let Some(ours) = resources(group, version) else {
            continue;
        };
        assert_eq!(ours["apiVersion"], theirs["apiVersion"], "{group_version}");
        let served = names(&ours);
        for line in theirs["resources"].as_array().unwrap() {
            let name = line["name"].as_str().unwrap();
            if is_served_line(name, &served) {
                let our = ours["resources"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|our| our["name"] == name)
                    .unwrap();
                assert_eq!(our, line, "{group_version} {name}");
                compared += 1;
            }
        }
        for name in &served {
            assert!(
                names(theirs).contains(name),
                "{group_version}: {name} is not in the reference"
            );
        }
    }
    assert!(compared >= 25, "only {compared} lines were compared");
}

#[test]
fn aggregated_documents_are_like_the_reference() {
    let Some(core) = recorded::reference("discovery/aggregated-api.json") else {
        return;
    };
    let Some(others) = recorded::reference("discovery/aggregated-apis.json") else {
        return;
    };
    let mut compared = 0;
    for (ours, theirs) in [
        (aggregated_core(Aggregated::V2), core),
        (aggregated_groups(Aggregated::V2), others),
    ] {
        assert_eq!(ours["apiVersion"], theirs["apiVersion"]);
        for group in ours["items"].as_array().unwrap() {
            let reference = theirs["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|item| item["metadata"]["name"] == group["metadata"]["name"]);
            let reference = reference
                .unwrap_or_else(|| panic!("{} is not in the reference", group["metadata"]));
            for version in group["versions"].as_array().unwrap() {
                let their = reference["versions"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|v| v["version"] == version["version"])
                    .unwrap();
                for resource in version["resources"].as_array().unwrap() {
                    let mut expected = their["resources"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .find(|r| r["resource"] == resource["resource"])
                        .unwrap()
                        .clone();
                    if let Some(subresources) = expected
                        .get_mut("subresources")
                        .and_then(Value::as_array_mut)
                    {
                        subresources.retain(|theirs| {
                            resource["subresources"].as_array().is_some_and(|ours| {
                                ours.iter()
                                    .any(|our| our["subresource"] == theirs["subresource"])
                            })
                        });
                        if subresources.is_empty() {
                            expected
                                .as_object_mut()
                                .unwrap()
                                .shift_remove("subresources");
                        }
                    }
                    assert_eq!(*resource, expected);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 15, "only {compared} resources were compared");
}

#[test]
fn groups_are_like_the_recorded() {
    let Some(recorded) = recorded::exchanges("discovery/legacy-roots.json") else {
        return;
    };
    for step in recorded["steps"].as_array().unwrap() {
        let theirs = &step["expect"]["body"];
        match step["id"].as_str().unwrap() {
            "api" => assert_eq!(core_versions("<address>"), *theirs),
            "group-apps" => assert_eq!(group("apps").as_ref(), Some(theirs)),
            "group-unknown" => assert!(group("nothing.example.com").is_none()),
            "version-unknown" => assert!(resources("apps", "v9").is_none()),
            "apis" => {
                let ours = groups();
                let all = theirs["groups"].as_array().unwrap();
                let mut last = 0;
                for entry in ours["groups"].as_array().unwrap() {
                    let at = all
                        .iter()
                        .position(|their| their["name"] == entry["name"])
                        .unwrap();
                    assert_eq!(*entry, all[at]);
                    assert!(at >= last, "{} is out of order", entry["name"]);
                    last = at;
                }
            }
            _ => {}
        }
    }
}
