//! A majority is lost for good: the last disk is looked at, made a cluster of its own, and grown back to three.

use std::fs;
use std::process::Command;

use serde_json::Value;

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
    // Looking changes nothing.
    assert_eq!(inspect(), seen);

    let output = offline("--recover-from-disk");
    assert!(output.status.success(), "{}", said_by(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["before"], seen);
    let after = inspect();
    assert_eq!(after["whole"]["revision"], seen["whole"]["revision"]);
    assert_eq!(after["whole"]["digest"], seen["whole"]["digest"]);
    assert_eq!(after["members"].as_array().unwrap().len(), 1);

    let first_members: Vec<String> = (1..=3)
        .map(|number| format!("server-{number}={}", address(&cluster, number)))
        .collect();
    let pki = |file: String| {
        cluster
            .path(&format!("pki/{file}"))
            .to_string_lossy()
            .into_owned()
    };
    let start = |number: u16, folder: &str| {
        let name = format!("server-{number}");
        Process::start(
            &cluster.path(folder),
            &[
                "--name",
                &name,
                "--listen",
                &address(&cluster, number),
                "--initial-cluster",
                &first_members.join(","),
                "--ca",
                &pki("ca.crt".into()),
                "--cert",
                &pki(format!("{name}.crt")),
                "--key",
                &pki(format!("{name}.key")),
                "--ca-key",
                &pki("ca.key".into()),
            ],
        )
    };
    let _alone = start(number, &last);
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
    let (well, said) = start(lost[0], "late").end(60);
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
