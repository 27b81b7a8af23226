//! A majority is lost for good: the last disk is looked at, made a cluster of its own, and grown back to three.

use std::fs;
use std::path::Path;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options, reckon, run, said_by};
use crate::members::wait_for;
use crate::process::Process;
use crate::wait;
use crate::writes::Writes;

#[test]
fn the_last_disk_goes_on_and_grows_back_to_three() {
    let cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--no-restart"],
    });
    let writes = Writes::start(&cluster, "kept");
    std::thread::sleep(std::time::Duration::from_secs(3));
    // The leader has all that was acknowledged. The others die first, under load.
    let last = cluster.leader();
    let term = cluster.status()["term"].as_u64().unwrap();
    let number: u16 = last.trim_start_matches("server-").parse().unwrap();
    let lost: Vec<u16> = (1..=3).filter(|other| *other != number).collect();
    let names: Vec<String> = lost.iter().map(|lost| format!("server-{lost}")).collect();
    cluster.kill_9(&[&names[0], &names[1]]);
    let acknowledged = writes.finish();

    // While it runs nobody looks at its disk.
    let directory = cluster.path(&last).to_string_lossy().into_owned();
    let offline = |flag: &str| {
        run(
            Command::new(reckon()).args(["server", flag, "--data-dir", &directory, "-o", "json"]),
            "",
        )
    };
    let refused = said_by(&offline("--inspect"));
    assert!(refused.contains("a server runs on"), "{refused}");
    cluster.kill_9(&[&last]);
    wait::until("the last server to end", 10, || {
        cluster.pid(&last).map_or(Ok(()), Err)
    });

    // One of the lost disks comes back later; the other never does.
    fs::rename(cluster.path(&names[0]), cluster.path("late")).unwrap();
    fs::remove_dir_all(cluster.path(&names[1])).unwrap();

    let inspect = || -> Value {
        let output = offline("--inspect");
        assert!(output.status.success(), "{}", said_by(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let seen = inspect();
    assert_eq!(
        (&seen["id"], &seen["name"]),
        (&Value::from(number), &Value::from(last.clone()))
    );
    assert_eq!(seen["members"].as_array().unwrap().len(), 3);
    assert!(
        seen["whole"]["revision"].as_u64() > Some(acknowledged.names.len() as u64),
        "{seen}"
    );
    assert_eq!(seen["whole"]["index"], seen["lastIndex"]);
    // Its last entries are of the term that it led in; alone it may have stood for election since.
    assert_eq!(seen["lastTerm"].as_u64(), Some(term));
    assert!(seen["term"].as_u64() >= Some(term), "{seen}");
    // Looking changes nothing.
    assert_eq!(inspect(), seen);

    let output = offline("--recover-from-disk");
    assert!(output.status.success(), "{}", said_by(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["before"], seen);
    check_missing(&made, &names);
    let after = inspect();
    // One entry more, of a term of its own, says who the members are.
    let next = |field: &str| seen[field].as_u64().map(|before| before + 1);
    assert_eq!(after["term"].as_u64(), next("term"));
    assert_eq!(after["lastTerm"], after["term"]);
    assert_eq!(after["lastIndex"].as_u64(), next("lastIndex"));
    assert_eq!(after["whole"]["revision"], seen["whole"]["revision"]);
    assert_eq!(after["whole"]["digest"], seen["whole"]["digest"]);
    assert_eq!(after["members"].as_array().unwrap().len(), 1);

    let _alone = Process::start_first(&cluster, number, &last);
    wait_for(&cluster, &last, "leader");
    let kept = present(&cluster, number);
    let missing: Vec<&String> = acknowledged
        .names
        .iter()
        .filter(|name| !kept.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} are lost: {missing:?}",
        missing.len(),
        acknowledged.names.len()
    );
    cluster.kubectl(&[
        "--server",
        &format!("https://{}", address(&cluster, number)),
        "create",
        "configmap",
        "after",
    ]);

    // A server of before is refused, and told what to do.
    let (well, said) = Process::start_first(&cluster, lost[0], "late").end(60);
    assert!(
        !well && said.contains("it was recovered from one server's disk"),
        "{said}"
    );

    let mut grown = Vec::new();
    for (lost, id) in lost.iter().zip(4..) {
        let (name, at) = (format!("server-{lost}"), address(&cluster, *lost));
        let added = cluster.reckon_json(&["member", "add", &name, &at, "--promote"]);
        assert_eq!(added["id"], id);
        grown.push(Process::join(
            &cluster,
            &format!("{name}-anew"),
            &at,
            &added,
        ));
        wait_for(&cluster, &name, "voter");
    }
    cluster.wait_until_level();
    acknowledged.check_present(&cluster);
    println!(
        "recovered at revision {} with {} acknowledged writes, {} entries not known to be committed",
        seen["whole"]["revision"],
        acknowledged.names.len(),
        seen["uncommittedEntries"]
    );
}

/// What a recovery says of where the cluster stands and what may be missing: what its disk held, and what these servers may have had.
fn check_missing(made: &Value, others: &[String]) {
    let whole = &made["before"]["whole"];
    assert_eq!(made["revision"], whole["revision"]);
    assert_eq!(
        made["mayBeMissing"],
        json!({"aboveRevision": whole["revision"], "after": whole["time"], "onServers": others})
    );
}

/// The only disk that is left is one that had missed writes: they are gone, and it says which.
#[test]
fn a_disk_that_lags_says_what_is_missing() {
    let cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--no-restart"],
    });
    let leader = cluster.leader();
    let names: Vec<String> = (1..=3).map(|number| format!("server-{number}")).collect();
    let lags = names.iter().find(|name| **name != leader).unwrap();
    let others: Vec<String> = names.iter().filter(|name| *name != lags).cloned().collect();
    let number: u16 = lags.trim_start_matches("server-").parse().unwrap();
    let asked = cluster.api(others[0].trim_start_matches("server-").parse().unwrap());
    let create = |name: &str| -> u64 {
        let map = json!({"metadata": {"name": name}});
        let path = "/api/v1/namespaces/default/configmaps";
        let body = map.to_string().into_bytes();
        let made = asked.send(Method::POST, path, "application/json", body, 30);
        let made = made.unwrap();
        assert_eq!(made.code, 201, "{made:?}");
        made.body["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    let had = create("had");
    wait::until("it to have that", 30, || {
        let kept = present(&cluster, number);
        let there = kept.contains(&"had".to_owned());
        there.then_some(()).ok_or(kept)
    });
    let end = |name: &str| {
        cluster.kill_9(&[name]);
        wait::until("the server to end", 10, || {
            cluster.pid(name).map_or(Ok(()), Err)
        });
    };
    end(lags);
    let missed: Vec<u64> = (0..20).map(|n| create(&format!("missed-{n}"))).collect();
    for other in &others {
        end(other);
        fs::remove_dir_all(cluster.path(other)).unwrap();
    }

    let directory = cluster.path(lags);
    let copy = cluster.path("copy");
    let copied = Command::new("cp")
        .arg("-r")
        .args([&directory, &copy])
        .status();
    assert!(copied.unwrap().success());
    let offline = |folder: &Path, arguments: &[&str]| {
        let output = run(
            Command::new(reckon())
                .args(["server", "--data-dir"])
                .arg(folder)
                .args(arguments),
            "",
        );
        assert!(output.status.success(), "{}", said_by(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let seen: Value = serde_json::from_str(&offline(&copy, &["--inspect", "-o", "json"])).unwrap();
    let stands = seen["whole"]["revision"].as_u64().unwrap();
    assert!(
        had <= stands && stands < missed[0],
        "{had}, {stands}, {missed:?}"
    );
    let shown = offline(&copy, &["--inspect"]);
    let head = format!(
        "server {number} ({lags}) of cluster {}\nlast term {}, last log entry {}.{}\n",
        seen["cluster"].as_str().unwrap(),
        seen["term"],
        seen["lastTerm"],
        seen["lastIndex"]
    );
    assert!(shown.starts_with(&head), "{shown}");

    // To a person and to a program.
    let told = offline(&copy, &["--recover-from-disk"]);
    for says in [
        format!("{lags} is the only member of cluster "),
        format!(
            "It stands at revision {stands}, of {} (log entry {}).",
            seen["whole"]["time"].as_str().unwrap(),
            seen["lastIndex"]
        ),
        format!(
            "What {} had beyond that, this server never had: it is missing, and revisions above {stands} will be given anew.",
            others.join(" and ")
        ),
    ] {
        assert!(told.contains(&says), "{says}: {told}");
    }
    let made = offline(&directory, &["--recover-from-disk", "-o", "json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["before"], seen);
    check_missing(&made, &others);

    // Just those are missing, and what is written now takes their revisions.
    let _alone = Process::start_first(&cluster, number, lags);
    wait_for(&cluster, lags, "leader");
    let kept = present(&cluster, number);
    assert!(kept.contains(&"had".to_owned()), "{kept:?}");
    assert!(
        !kept.iter().any(|name| name.starts_with("missed-")),
        "{kept:?}"
    );
    let after = cluster.kubectl(&[
        "--server",
        &format!("https://{}", address(&cluster, number)),
        "create",
        "configmap",
        "after",
        "-o",
        "jsonpath={.metadata.resourceVersion}",
    ]);
    let after: u64 = after.trim().parse().unwrap();
    assert!(after > stands, "{after}, {stands}");
}

fn address(cluster: &Cluster, number: u16) -> String {
    format!("127.0.0.1:{}", cluster.port + number - 1)
}

fn present(cluster: &Cluster, server: u16) -> Vec<String> {
    let answer = cluster
        .api(server)
        .get("/api/v1/namespaces/default/configmaps");
    assert_eq!(answer.code, 200, "{answer:?}");
    let items = answer.body["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_string())
        .collect()
}
