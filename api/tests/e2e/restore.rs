//! `reckon restore` on a living cluster, as an operator types it: shown, done, seen by those who watch, and undone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use crate::cluster::{Cluster, said_by};
use crate::wait;

/// `kubectl get --watch`, and each version of the object that it has shown: its colour and its resourceVersion.
struct Watching {
    kubectl: Child,
    seen: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Watching {
    fn start(cluster: &Cluster) -> Self {
        let shows = r#"jsonpath={.data.colour} {.metadata.resourceVersion}{"\n"}"#;
        let mut kubectl = cluster
            .kubectl_command(&["get", "configmap", "a", "--watch", "-o", shows])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let lines = BufReader::new(kubectl.stdout.take().unwrap()).lines();
        let shown = seen.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let (colour, version) = line.split_once(' ').unwrap();
                let version = version.parse().unwrap();
                shown.lock().unwrap().push((colour.to_owned(), version));
            }
        });
        Self { kubectl, seen }
    }

    fn has_seen(&self, count: usize) -> Vec<(String, u64)> {
        wait::until("the watch to see that", 30, || {
            let seen = self.seen.lock().unwrap().clone();
            match seen.len() >= count {
                true => Ok(seen),
                false => Err(seen),
            }
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.kubectl.kill());
        drop(self.kubectl.wait());
    }
}

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
    let watch = Watching::start(&cluster);
    watch.has_seen(1);
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
    // One that was open all the while, too.
    let seen = watch.has_seen(3);
    let colours: Vec<&str> = seen.iter().map(|(colour, _)| colour.as_str()).collect();
    assert_eq!(colours, ["blue", "red", "blue"], "{seen:?}");
    let versions: Vec<u64> = seen.iter().map(|(_, version)| *version).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{seen:?}");
    assert_eq!(versions[0].to_string(), blue);
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
