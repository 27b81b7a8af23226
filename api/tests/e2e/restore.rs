//! `reckon restore` on a living cluster, as an operator types it: shown, done, seen by those who watch, and undone.

use crate::cluster::{Cluster, said_by};

#[test]
fn one_object_back_and_forth() {
    let mut cluster = Cluster::servers();
    cluster.kubectl(&["create", "configmap", "a", "--from-literal=colour=red"]);
    let version = |cluster: &Cluster| {
        let path = "jsonpath={.metadata.resourceVersion}";
        cluster.kubectl(&["get", "configmap", "a", "-o", path])
    };
    let colour = |cluster: &Cluster| {
        cluster.kubectl(&["get", "configmap", "a", "-o", "jsonpath={.data.colour}"])
    };
    let red = version(&cluster);
    let patch = r#"{"data":{"colour":"blue"}}"#;
    cluster.kubectl(&["patch", "configmap", "a", "--type=merge", "-p", patch]);
    let blue = version(&cluster);

    let says = |arguments: &[&str], part: &str| {
        let output = cluster.reckon(arguments);
        let said = said_by(&output);
        assert!(output.status.success() && said.contains(part), "{said}");
    };
    says(
        &["restore", "configmap/a", "--at", &red, "--dry-run"],
        "configmaps/default/a would be put back: data.colour: blue → red",
    );
    assert_eq!(colour(&cluster), "blue");
    says(
        &["restore", "cm/a", "--at", &red],
        &format!("Restored as of revision {red}"),
    );
    assert_eq!(colour(&cluster), "red");
    says(&["restore", "cm/a", "--at", &red], "Nothing to restore");
    // A watch from before sees it go there and back, and no revision goes back.
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion={red}&fieldSelector=metadata.name%3Da"
    );
    says(&["restore", "cm/a", "--at", &blue], "Restored");
    let seen = cluster.api(2).get(&path).body;
    let colours: Vec<&str> = seen
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["object"]["data"]["colour"].as_str().unwrap())
        .collect();
    assert_eq!(colours, ["blue", "red", "blue"], "{seen}");
    says(
        &["history", "configmap/a"],
        &format!("Restore as of revision {red}"),
    );

    let refused = cluster.reckon(&["restore", "configmap/a", "--at", "soon"]);
    let said = said_by(&refused);
    assert!(
        !refused.status.success() && said.contains("no moment"),
        "{said}"
    );
    cluster.stop();
}
