//! The verbs of kubectl, one after the other, as a user types them. A row is a command, its input, and what it must say.
//!
//! Nodes are simulated: what is tested here is the API that kubectl talks to. `logs` is with the real containers in `rollout`.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Options, run, said_by};

/// A command, what goes into it, whether it succeeds, and parts of what it says (`!` before what it must not say).
type Row = (&'static str, &'static str, bool, &'static [&'static str]);

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {tier: one}}
spec: {containers: [{name: c, image: "reckon.test/web:v1"}]}
"#;
const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: site, labels: {tier: two}}
spec:
  replicas: 2
  selector: {matchLabels: {app: site}}
  template:
    metadata: {labels: {app: site}}
    spec: {containers: [{name: web, image: "reckon.test/web:v1", ports: [{containerPort: 8080}]}]}
"#;
const CONFIG: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red}\n";
const CONFIG_CHANGED: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n";

const ROWS: &[Row] = &[
    ("version", "", true, &["Client Version", "Server Version"]),
    (
        "cluster-info",
        "",
        true,
        &["control plane", "is running at"],
    ),
    (
        "api-versions",
        "",
        true,
        &[
            "apps/v1\n",
            "v1\n",
            "coordination.k8s.io/v1\n",
            "discovery.k8s.io/v1\n",
        ],
    ),
    (
        "api-resources",
        "",
        true,
        &[
            "deployments",
            "deploy",
            "configmaps",
            "namespaces",
            "leases",
            "endpointslices",
            "serviceaccounts",
            "events",
        ],
    ),
    ("auth can-i create deployments", "", true, &["yes"]),
    ("auth can-i '*' '*' --all-namespaces", "", true, &["yes"]),
    ("get nodes", "", true, &["simulated-1", "Ready"]),
    (
        "get namespaces",
        "",
        true,
        &["default", "kube-system", "Active"],
    ),
    ("get ns default -o name", "", true, &["namespace/default"]),
    // create, apply, replace
    (
        "create namespace shop",
        "",
        true,
        &["namespace/shop created"],
    ),
    ("create namespace shop", "", false, &["AlreadyExists"]),
    ("create -f -", CONFIG, true, &["configmap/settings created"]),
    (
        "apply -f -",
        CONFIG_CHANGED,
        true,
        &["configmap/settings configured"],
    ),
    (
        "apply -f -",
        CONFIG_CHANGED,
        true,
        &["configmap/settings unchanged"],
    ),
    (
        "apply --server-side --force-conflicts -f -",
        CONFIG,
        true,
        &["configmap/settings serverside-applied"],
    ),
    (
        "get cm settings -o jsonpath={.data.colour}",
        "",
        true,
        &["red"],
    ),
    (
        "diff -f -",
        CONFIG_CHANGED,
        false,
        &["-  colour: red", "+  colour: blue"],
    ),
    (
        "replace -f -",
        CONFIG_CHANGED,
        true,
        &["configmap/settings replaced"],
    ),
    (
        "get cm settings -o go-template={{.data.colour}}",
        "",
        true,
        &["blue"],
    ),
    ("create -f -", POD, true, &["pod/bare created"]),
    (
        "apply -f -",
        DEPLOYMENT,
        true,
        &["deployment.apps/site created"],
    ),
    (
        "create secret generic word --from-literal=a=b -n shop",
        "",
        true,
        &["secret/word created"],
    ),
    (
        "create serviceaccount robot",
        "",
        true,
        &["serviceaccount/robot created"],
    ),
    (
        "create deployment made --image=reckon.test/web:v1 --replicas=2 --port=8080",
        "",
        true,
        &["deployment.apps/made created"],
    ),
    (
        "run single --image=reckon.test/web:v1 --labels=tier=three",
        "",
        true,
        &["pod/single created"],
    ),
    (
        "expose deployment site --port=80 --target-port=8080",
        "",
        true,
        &["service/site exposed"],
    ),
    (
        "create deployment dry --image=i --dry-run=server -o name",
        "",
        true,
        &["deployment.apps/dry"],
    ),
    (
        "get deployment dry",
        "",
        false,
        &["deployments.apps \"dry\" not found"],
    ),
    // rollout and wait
    (
        "rollout status deployment/site --timeout=60s",
        "",
        true,
        &["successfully rolled out"],
    ),
    (
        "rollout status deployment/made --timeout=60s",
        "",
        true,
        &["successfully rolled out"],
    ),
    (
        "wait pod/bare pod/single --for=condition=Ready --timeout=60s",
        "",
        true,
        &["pod/bare condition met", "pod/single condition met"],
    ),
    (
        "wait deployment/site --for=jsonpath={.status.availableReplicas}=2 --timeout=60s",
        "",
        true,
        &["condition met"],
    ),
    // get in all its forms
    (
        "get pods",
        "",
        true,
        &[
            "NAME", "READY", "STATUS", "RESTARTS", "AGE", "bare", "1/1", "Running",
        ],
    ),
    (
        "get pods -o wide",
        "",
        true,
        &["IP", "NODE", "simulated-", "NOMINATED NODE"],
    ),
    ("get pods -A", "", true, &["NAMESPACE", "default"]),
    ("get pods -l tier=one", "", true, &["bare", "!single"]),
    ("get pods -l tier", "", true, &["bare", "single", "!site-"]),
    (
        "get pods -l 'tier notin (one)'",
        "",
        true,
        &["!bare", "single"],
    ),
    (
        "get pods --field-selector metadata.name=bare",
        "",
        true,
        &["bare", "!single"],
    ),
    (
        "get pods --field-selector status.phase!=Running",
        "",
        true,
        &["No resources found"],
    ),
    ("get pods --show-labels", "", true, &["LABELS", "tier=one"]),
    ("get pods -L tier", "", true, &["TIER", "three"]),
    ("get pods --sort-by=.metadata.name", "", true, &["bare"]),
    (
        "get pod bare -o yaml",
        "",
        true,
        &["kind: Pod", "phase: Running", "uid:", "!managedFields"],
    ),
    (
        "get pod bare -o json --show-managed-fields",
        "",
        true,
        &["\"managedFields\"", "kubectl-create"],
    ),
    ("get pods -o name", "", true, &["pod/bare\n"]),
    (
        "get pods -o custom-columns=N:.metadata.name,P:.status.phase",
        "",
        true,
        &["N ", "bare", "Running"],
    ),
    (
        "get deploy,rs,svc,endpointslices",
        "",
        true,
        &[
            "deployment.apps/site",
            "replicaset.apps/site-",
            "service/site",
            "endpointslice.discovery.k8s.io/site-",
        ],
    ),
    (
        "get deployment site",
        "",
        true,
        &["UP-TO-DATE", "AVAILABLE", "2/2"],
    ),
    (
        "get all",
        "",
        true,
        &["pod/bare", "deployment.apps/site", "service/site"],
    ),
    (
        "get configmap kube-root-ca.crt -n shop -o name",
        "",
        true,
        &["configmap/kube-root-ca.crt"],
    ),
    ("get serviceaccount default -n shop", "", true, &["default"]),
    ("get --raw /readyz", "", true, &["ok"]),
    (
        "get widgets",
        "",
        false,
        &["the server doesn't have a resource type \"widgets\""],
    ),
    (
        "get pod none",
        "",
        false,
        &["Error from server (NotFound): pods \"none\" not found"],
    ),
    // describe
    (
        "describe pod bare",
        "",
        true,
        &[
            "Name:",
            "bare",
            "Node:",
            "simulated-",
            "Status:",
            "Running",
            "Conditions:",
        ],
    ),
    (
        "describe deployment site",
        "",
        true,
        &[
            "Replicas:",
            "2 desired",
            "RollingUpdateStrategy",
            "NewReplicaSet:",
        ],
    ),
    (
        "describe node simulated-1",
        "",
        true,
        &["Capacity:", "Allocated resources:", "Conditions:"],
    ),
    (
        "describe service site",
        "",
        true,
        &["Selector:", "app=site", "Endpoints:"],
    ),
    (
        "describe configmap settings",
        "",
        true,
        &["colour:", "blue"],
    ),
    (
        "describe secret word -n shop",
        "",
        true,
        &["Opaque", "a:  1 bytes"],
    ),
    // label, annotate, patch, edit
    (
        "label pod bare colour=green",
        "",
        true,
        &["pod/bare labeled"],
    ),
    (
        "label pod bare colour=black",
        "",
        false,
        &["--overwrite is false"],
    ),
    ("label pod bare colour-", "", true, &["pod/bare unlabeled"]),
    (
        "annotate deployment site note=kept",
        "",
        true,
        &["deployment.apps/site annotated"],
    ),
    (
        "patch configmap settings --type=merge -p {\"data\":{\"size\":\"9\"}}",
        "",
        true,
        &["configmap/settings patched"],
    ),
    (
        "patch configmap settings --type=json -p [{\"op\":\"remove\",\"path\":\"/data/size\"}]",
        "",
        true,
        &["patched"],
    ),
    (
        "patch configmap settings --type=json -p [{\"op\":\"remove\",\"path\":\"/data/none\"}]",
        "",
        false,
        &["the server rejected our request"],
    ),
    (
        "patch deployment site -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"web\",\"env\":[{\"name\":\"A\",\"value\":\"1\"}]}]}}}}",
        "",
        true,
        &["deployment.apps/site patched"],
    ),
    (
        "get deployment site -o jsonpath={.spec.template.spec.containers[0].image}",
        "",
        true,
        &["reckon.test/web:v1"],
    ),
    (
        "edit configmap settings",
        "",
        true,
        &["configmap/settings edited"],
    ),
    (
        "get cm settings -o jsonpath={.data.colour}",
        "",
        true,
        &["violet"],
    ),
    // scale, set image, rollout
    (
        "scale deployment site --replicas=3",
        "",
        true,
        &["deployment.apps/site scaled"],
    ),
    (
        "scale deployment site --replicas=1 --current-replicas=7",
        "",
        false,
        &["Expected replicas to be 7, was 3"],
    ),
    (
        "rollout status deployment/site --timeout=60s",
        "",
        true,
        &["successfully rolled out"],
    ),
    (
        "set image deployment/site web=reckon.test/web:v2",
        "",
        true,
        &["deployment.apps/site image updated"],
    ),
    (
        "rollout status deployment/site --timeout=60s",
        "",
        true,
        &["successfully rolled out"],
    ),
    (
        "rollout history deployment/site",
        "",
        true,
        &["REVISION", "1 ", "2 ", "3 "],
    ),
    (
        "rollout history deployment/site --revision=3",
        "",
        true,
        &["reckon.test/web:v2"],
    ),
    (
        "rollout undo deployment/site",
        "",
        true,
        &["deployment.apps/site rolled back"],
    ),
    (
        "rollout status deployment/site --timeout=60s",
        "",
        true,
        &["successfully rolled out"],
    ),
    (
        "get deployment site -o jsonpath={.spec.template.spec.containers[0].image}",
        "",
        true,
        &["reckon.test/web:v1"],
    ),
    (
        "rollout undo deployment/site --to-revision=3",
        "",
        true,
        &["rolled back"],
    ),
    (
        "rollout restart deployment/site",
        "",
        true,
        &["deployment.apps/site restarted"],
    ),
    (
        "rollout pause deployment/site",
        "",
        true,
        &["deployment.apps/site paused"],
    ),
    (
        "rollout resume deployment/site",
        "",
        true,
        &["deployment.apps/site resumed"],
    ),
    (
        "rollout status deployment/site --timeout=60s",
        "",
        true,
        &["successfully rolled out"],
    ),
    // cordon
    (
        "cordon simulated-1",
        "",
        true,
        &["node/simulated-1 cordoned"],
    ),
    (
        "get node simulated-1",
        "",
        true,
        &["Ready,SchedulingDisabled"],
    ),
    (
        "run elsewhere --image=reckon.test/web:v1",
        "",
        true,
        &["pod/elsewhere created"],
    ),
    (
        "wait pod/elsewhere --for=condition=Ready --timeout=60s",
        "",
        true,
        &["condition met"],
    ),
    (
        "get pod elsewhere -o jsonpath={.spec.nodeName}",
        "",
        true,
        &["simulated-2"],
    ),
    (
        "uncordon simulated-1",
        "",
        true,
        &["node/simulated-1 uncordoned"],
    ),
    ("get events", "", true, &["LAST SEEN"]),
    // delete
    (
        "delete pod bare --grace-period=1",
        "",
        true,
        &["pod \"bare\" deleted"],
    ),
    ("get pod bare", "", false, &["not found"]),
    (
        "delete pod single --force --grace-period=0",
        "",
        true,
        &["deleted"],
    ),
    (
        "delete deployment made --cascade=orphan",
        "",
        true,
        &["deleted"],
    ),
    ("get rs -l app=made", "", true, &["made-"]),
    (
        "delete rs -l app=made --cascade=background",
        "",
        true,
        &["deleted"],
    ),
    (
        "wait pod -l app=made --for=delete --timeout=60s",
        "",
        true,
        &[],
    ),
    (
        "delete deployment site --cascade=foreground --timeout=60s",
        "",
        true,
        &["deleted"],
    ),
    ("get rs,pods -l app=site", "", true, &["No resources found"]),
    (
        "delete configmap settings",
        "",
        true,
        &["configmap \"settings\" deleted"],
    ),
    (
        "delete namespace shop --timeout=60s",
        "",
        true,
        &["namespace \"shop\" deleted"],
    ),
    ("get secrets -n shop", "", true, &["No resources found"]),
    (
        "create configmap late -n shop",
        "",
        false,
        &["namespaces \"shop\" not found"],
    ),
];

#[test]
fn each_verb() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 2,
        flags: &[],
    });
    let mut failed = Vec::new();
    for (index, row) in ROWS.iter().enumerate() {
        // Any of the three servers serves the same.
        let context = ["server-1", "server-2", "server-3"][index % 3];
        if let Err(why) = check(&cluster, context, row) {
            failed.push(why);
        }
    }
    failed.extend(check_watches(&cluster).err());
    assert!(
        failed.is_empty(),
        "{} of {} rows:\n{}",
        failed.len(),
        ROWS.len() + 1,
        failed.join("\n")
    );
    cluster.stop();
}

fn check(
    cluster: &Cluster,
    context: &str,
    (command, input, succeeds, parts): &Row,
) -> Result<(), String> {
    let words = words(command);
    let mut arguments = vec!["--context", context];
    arguments.extend(words.iter().map(String::as_str));
    let output = match words[0].as_str() {
        "edit" => edited(cluster, &arguments),
        _ => cluster.kubectl_with(&arguments, input),
    };
    let said = said_by(&output);
    if output.status.success() != *succeeds {
        return Err(format!("kubectl {command} ({context}): {said}"));
    }
    for part in *parts {
        let (wanted, text) = part
            .strip_prefix('!')
            .map_or((true, *part), |text| (false, text));
        if said.contains(text) != wanted {
            return Err(format!(
                "kubectl {command} ({context}): {part:?} does not hold of: {said}"
            ));
        }
    }
    Ok(())
}

/// kubectl starts an editor on a file; ours replaces a word in it.
fn edited(cluster: &Cluster, arguments: &[&str]) -> std::process::Output {
    let mut command = cluster.kubectl_command(arguments);
    run(command.env("KUBE_EDITOR", "sed -i s/blue/violet/"), "")
}

/// `get -w` shows what is there and then what happens; `--watch-only` only the latter.
fn check_watches(cluster: &Cluster) -> Result<(), String> {
    cluster.kubectl(&["create", "configmap", "seen", "--from-literal=n=1"]);
    for (flag, first) in [("-w", true), ("--watch-only", false)] {
        let file = cluster.path(&format!("watch{flag}.txt"));
        let output = std::fs::File::create(&file).unwrap();
        let arguments = [
            "get",
            "configmap",
            "seen",
            "--no-headers",
            "-o",
            "jsonpath={.metadata.name} {.data.n};",
            flag,
        ];
        let mut command = cluster.kubectl_command(&arguments);
        let mut watching = command.stdout(output).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let change = format!("{{\"data\":{{\"n\":\"changed{flag}\"}}}}");
        let before = cluster.kubectl(&["get", "cm", "seen", "-o", "jsonpath={.data.n}"]);
        cluster.kubectl(&["patch", "configmap", "seen", "--type=merge", "-p", &change]);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut text = String::new();
        while Instant::now() < deadline && !text.contains(&format!("seen changed{flag}")) {
            std::thread::sleep(Duration::from_millis(100));
            text = std::fs::read_to_string(&file).unwrap();
        }
        watching.kill().unwrap();
        watching.wait().unwrap();
        if !text.contains(&format!("seen changed{flag}"))
            || text.contains(&format!("seen {before};")) != first
        {
            return Err(format!("kubectl get {flag}: {text:?}"));
        }
    }
    Ok(())
}

/// As a shell cuts a line, with single quotes alone.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}
