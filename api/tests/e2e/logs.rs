//! `kubectl logs` of real containers: all of it, its end, since when, followed until it ends, and of the run before. Each server is asked,
//! whichever the agent's session is with.

use std::process::Stdio;
use std::time::Duration;

use crate::cluster::{Cluster, Options, said_by};
use crate::{image, wait};

/// `talks` counts, four times a second; `restarted` ended once; `waits` never begins.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talks, labels: {kind: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: counts
    image: "reckon.test/web:v1"
    command: ["/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.25; done"]
  - name: greets
    image: "reckon.test/web:v1"
    command: ["/bin/sh", "-c", "echo hello; echo oops >&2; exec sleep 1000"]
---
apiVersion: v1
kind: Pod
metadata: {name: restarted, labels: {kind: other}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: memory, emptyDir: {}}]
  containers:
  - name: c
    image: "reckon.test/web:v1"
    volumeMounts: [{name: memory, mountPath: /memory}]
    command: ["/bin/sh", "-c", "echo x >> /memory/runs; echo run $(wc -l < /memory/runs); [ $(wc -l < /memory/runs) != 1 ] || exit 3; exec sleep 1000"]
---
apiVersion: v1
kind: Pod
metadata: {name: waits, labels: {kind: other}}
spec:
  containers: [{name: c, image: "reckon.test/nowhere:v1", imagePullPolicy: Never}]
"#;

#[test]
fn all_tail_since_follow_previous() {
    let mut cluster = Cluster::prepare(Options {
        agents: 1,
        simulated_nodes: 0,
        flags: &[],
    });
    image::provide(&cluster, "v1");
    cluster.up();
    cluster.apply(PODS);
    cluster.kubectl(&[
        "wait",
        "pod/talks",
        "--for=condition=Ready",
        "--timeout=60s",
    ]);
    wait::until("a second run", 60, || {
        let runs = "jsonpath={.status.containerStatuses[0].restartCount} {.status.phase}";
        let runs = cluster.kubectl(&["get", "pod", "restarted", "-o", runs]);
        if runs == "1 Running" {
            Ok(())
        } else {
            Err(runs)
        }
    });
    // Enough that the last two seconds are not all of it.
    std::thread::sleep(Duration::from_secs(5));
    for server in ["server-1", "server-2", "server-3"] {
        check_what_was_said(&cluster, server);
        check_errors(&cluster, server);
    }
    check_follow(&cluster);
    cluster.stop();
}

fn check_what_was_said(cluster: &Cluster, server: &str) {
    let logs = |arguments: &[&str]| {
        cluster.kubectl(&[&["--context", server, "logs"][..], arguments].concat())
    };
    let counted = numbers(&logs(&["talks", "-c", "counts"]));
    assert!(
        counted.len() > 15 && counted.iter().copied().eq(1..=counted.len()),
        "{counted:?}"
    );
    assert_eq!(
        numbers(&logs(&["talks"])).first(),
        Some(&1),
        "the first is the default"
    );
    let last = numbers(&logs(&["talks", "--tail=2"]));
    assert!(
        last.len() == 2 && last[0] + 1 == last[1] && last[1] >= counted.len(),
        "{last:?}"
    );
    let recent = numbers(&logs(&["talks", "--since=2s"]));
    assert!(
        !recent.is_empty() && recent.len() <= 12 && recent[0] > 1,
        "{recent:?} of {}",
        counted.len()
    );
    let stamped = logs(&["talks", "--timestamps"]);
    let (time, text) = stamped.lines().nth(2).unwrap().split_once(' ').unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    assert_eq!(text, "line 3");
    let from_then = logs(&["talks", &format!("--since-time={time}")]);
    assert!(numbers(&from_then)[0] <= 3, "{from_then}");
    assert_eq!(logs(&["talks", "--limit-bytes=6"]), "line 1");
    assert_eq!(
        of_both(&logs(&["talks", "-c", "greets"])),
        ["hello", "oops"]
    );
    let all = logs(&["talks", "--all-containers", "--prefix"]);
    for line in ["[pod/talks/counts] line 1", "[pod/talks/greets] hello"] {
        assert!(all.lines().any(|found| found == line), "{line:?} of {all}");
    }
    let selected = logs(&["-l", "kind=talker", "-c", "greets"]);
    assert_eq!(of_both(&selected), ["hello", "oops"]);
    assert_eq!(logs(&["restarted"]), "run 2\n");
    assert_eq!(logs(&["restarted", "--previous"]), "run 1\n");
}

fn check_errors(cluster: &Cluster, server: &str) {
    for (arguments, part) in [
        (
            &["talks", "-c", "greets", "--previous"][..],
            "previous terminated container \"greets\" in pod \"talks\" not found",
        ),
        (
            &["waits"],
            "container \"c\" in pod \"waits\" is waiting to start",
        ),
        (
            &["talks", "-c", "none"],
            "container none is not valid for pod talks",
        ),
        (&["none"], "pods \"none\" not found"),
    ] {
        let arguments = [&["--context", server, "logs"][..], arguments].concat();
        let output = cluster.kubectl_with(&arguments, "");
        assert!(
            !output.status.success() && said_by(&output).contains(part),
            "kubectl {arguments:?}: {part:?} is not in {}",
            said_by(&output)
        );
    }
}

/// It tells what is there, then what comes, and ends with the container.
fn check_follow(cluster: &Cluster) {
    let file = cluster.path("followed.txt");
    let output = std::fs::File::create(&file).unwrap();
    let mut command = cluster.kubectl_command(&["logs", "--follow", "--tail=1", "talks"]);
    let mut following = command
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = || numbers(&std::fs::read_to_string(&file).unwrap());
    wait::until("ten lines more than there were", 20, || {
        let told = told();
        if told.len() > 10 { Ok(()) } else { Err(told) }
    });
    cluster.kubectl(&["delete", "pod", "talks"]);
    let status = wait::until("the end of what is followed", 20, || {
        following.try_wait().unwrap().ok_or("it goes on")
    });
    assert!(status.success(), "{status}");
    let told = told();
    assert!(
        told[0] > 1 && told.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{told:?}"
    );
}

/// In the alphabet's order: the runtime reads the two streams of a container from two pipes, and writes first what it reads first.
fn of_both(logs: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = logs.lines().collect();
    lines.sort_unstable();
    lines
}

/// Of the lines `line N`.
fn numbers(text: &str) -> Vec<usize> {
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse();
    text.lines()
        .map(|line| number(line).unwrap_or_else(|_| panic!("{line:?} of {text}")))
        .collect()
}
