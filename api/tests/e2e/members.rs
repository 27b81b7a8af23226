//! Servers come and go while clients write: from one to three by token, a dead one replaced, leadership moved, none of it losing a write.

use std::fs;

use serde_json::Value;

use crate::cluster::{Cluster, Options, said_by};
use crate::process::Process;
use crate::wait;
use crate::writes::Writes;

#[test]
fn one_server_grows_to_three_under_load_and_a_dead_one_is_replaced() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--servers", "1"],
    });
    let port = cluster.port;
    let address = |number: u16| format!("127.0.0.1:{}", port + number - 1);
    let writes = Writes::start(&cluster, "grown");

    // From one to three.
    let mut others = Vec::new();
    for number in 2..=3 {
        let (name, address) = (format!("server-{number}"), address(number));
        let added = cluster.reckon_json(&["member", "add", &name, &address, "--promote"]);
        assert_eq!(added["id"], number);
        others.push(Process::join(&cluster, &name, &address, &added));
        wait_for(&cluster, &name, "voter");
        writes.check_go_on(&format!("with {number} servers"));
    }
    // Its certificate, its id and its place are in the directory: the token is needed no more.
    others[0].kill_9();
    others[0] = Process::start(
        &cluster.path("server-2"),
        &["--listen", &address(2), "--join", "https://127.0.0.1:1"],
    );
    wait_for(&cluster, "server-2", "voter");
    writes.check_go_on("with one restarted");

    // Leadership moves where it is told to.
    for to in ["server-2", "server-3"] {
        check(&cluster, &["transfer-leader", to], "Leadership has moved.");
        assert_eq!(member(&cluster, to)["role"], "leader");
        writes.check_go_on(&format!("led by {to}"));
    }
    check(&cluster, &["transfer-leader"], "Leadership has moved.");

    // One dies for good. Without a second there would be no majority; the dead one may go, and come again with a new id.
    others[1].kill_9();
    wait::until("server-3 to be missed", 20, || {
        let seen = member(&cluster, "server-3");
        (seen["answers"] == false).then_some(()).ok_or(seen)
    });
    writes.check_go_on("with one dead");
    check(
        &cluster,
        &["remove", "server-2"],
        "without server-2 1 of 2 voting servers would answer",
    );
    check(
        &cluster,
        &["remove", "server-3"],
        "server-3 is no member any more",
    );
    writes.check_go_on("with one removed");
    let added = cluster.reckon_json(&["member", "add", "server-3", &address(3)]);
    assert_eq!(added["id"], 4);
    // Its old directory is the old server's, who was removed and is told so when it asks.
    let (well, said) = Process::start(
        &cluster.path("server-3"),
        &["--listen", &address(3), "--join", "https://127.0.0.1:1"],
    )
    .end(30);
    assert!(
        !well && said.contains("was removed from the cluster"),
        "{said}"
    );
    others[1] = Process::join(&cluster, "server-3-anew", &address(3), &added);
    wait_for(&cluster, "server-3", "learner");
    wait::until("server-3 to be promoted", 30, || {
        let output = cluster.reckon(&["member", "promote", "server-3"]);
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| said_by(&output))
    });
    assert_eq!(member(&cluster, "server-3")["role"], "voter");
    writes.check_go_on("with the dead one replaced");

    // The leader goes: another leads first.
    check(
        &cluster,
        &["transfer-leader", "server-1"],
        "Leadership has moved.",
    );
    check(&cluster, &["remove", "1"], "1 is no member any more");
    // Another server is asked from now on: this one is gone.
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).unwrap();
    let of_the_second = cluster.path("second.kubeconfig");
    let kubeconfig = kubeconfig.replace(&format!(":{port}"), &format!(":{}", port + 1));
    fs::write(&of_the_second, kubeconfig).unwrap();
    let again = cluster.reckon_json(&[
        "member",
        "add",
        "server-1",
        &address(1),
        "--promote",
        "--kubeconfig",
        &of_the_second.to_string_lossy(),
    ]);
    assert_eq!(again["id"], 5);
    wait::until("the first server to end", 60, || {
        let log = fs::read_to_string(cluster.path("server-1.log")).unwrap_or_default();
        log.contains("was removed from the cluster")
            .then_some(())
            .ok_or(log)
    });
    cluster.stop();
    others.push(Process::join(
        &cluster,
        "server-1-anew",
        &address(1),
        &again,
    ));
    wait_for(&cluster, "server-1", "voter");
    writes.check_go_on("with the first one replaced");

    let acknowledged = writes.finish();
    acknowledged.check_present(&cluster);
    println!(
        "1 to 3 and all but one replaced: {} writes acknowledged, longest gap {:.2} s",
        acknowledged.count,
        acknowledged.longest_gap.as_secs_f32()
    );
    acknowledged.check_nothing_stopped();
    let history = cluster.reckon(&["member", "history", "4"]);
    let said = said_by(&history);
    assert!(
        said.contains("admin by reckon") && said.contains("Create"),
        "{said}"
    );
}

/// `reckon up --servers` with a greater number lets the directory's cluster grow, and the next one starts them all.
#[test]
fn a_cluster_of_one_machine_grows_when_it_is_started_with_more() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--servers", "1"],
    });
    cluster.kubectl(&["create", "configmap", "of-one"]);
    cluster.stop();
    cluster.set("--servers", "3");
    for _ in 0..2 {
        cluster.up();
        for number in 1..=3 {
            wait::until("all to vote", 30, || {
                let member = member(&cluster, &format!("server-{number}"));
                let votes = member["role"] == "voter" || member["role"] == "leader";
                votes.then_some(()).ok_or(member)
            });
        }
        cluster.wait_until_level();
        cluster.kubectl(&["get", "configmap", "of-one"]);
        cluster.stop();
    }
}

#[test]
fn what_can_not_be_is_refused_with_what_to_do() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--servers", "1"],
    });
    let free = format!("127.0.0.1:{}", cluster.port + 1);
    let rows: [(&[&str], &str); 10] = [
        (&["remove", "server-1"], "the only server that votes"),
        (&["remove", "server-9"], "'reckon member list' shows who is"),
        (&["promote", "server-1"], "votes already"),
        (&["transfer-leader"], "no other voting server"),
        (&["transfer-leader", "server-9"], "is no member"),
        (&["add", "server-1", &free], "is a member already (id 1)"),
        (&["add", "2", &free], "is no name for a server"),
        (&["add", "server-2", "nowhere"], "is no HOST:PORT"),
        (&["add", "server-2", &free], "--token 2."),
        (
            &["promote", "server-2"],
            "has not joined yet: start it first",
        ),
    ];
    for (arguments, expected) in rows {
        check(&cluster, arguments, expected);
    }
    // A token of another cluster, one that is wrong, one that was taken back.
    let join = format!("https://127.0.0.1:{}", cluster.port);
    let authority = "0".repeat(64);
    let added = cluster.reckon_json(&["member", "add", "server-3", "127.0.0.1:1"]);
    let token = added["token"].as_str().unwrap().to_string();
    let own = token.split('.').nth(2).unwrap();
    check(&cluster, &["remove", "server-3"], "is no member any more");
    for (token, expected) in [
        (
            format!("2.secret.{authority}"),
            "is not of the cluster that gave this token",
        ),
        (
            format!("2.secret.{own}"),
            "the token is not, or no longer, good",
        ),
        (token, "the token is not, or no longer, good"),
    ] {
        let flags = ["--listen", &free, "--join", &join, "--token", &token];
        let (well, said) = Process::start(&cluster.path("refused"), &flags).end(30);
        assert!(!well && said.contains(expected), "{said}");
    }
    cluster.stop();
}

/// What a known id on an empty disk is told brings it back, word for word.
#[test]
fn a_wiped_server_is_refused_and_comes_back_as_it_is_told() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--no-restart"],
    });
    let before = cluster.kubectl(&["create", "configmap", "before"]);
    assert!(before.contains("created"), "{before}");
    cluster.kill_9(&["server-2"]);
    wait::until("server-2 to end", 10, || {
        cluster.pid("server-2").map_or(Ok(()), Err)
    });

    // As a first member, and as one that joins with the certificate that it has.
    let folder = cluster.path("server-2");
    fs::remove_dir_all(&folder).unwrap();
    let (well, said) = Process::start_first(&cluster, 2, "server-2").end(60);
    let way_out = "server 2 came back with another disk, without what it had promised: send it away with 'reckon member remove 2', add \
                   it under a new id with 'reckon member add NAME HOST:PORT', and start it with an empty directory as that says";
    assert!(!well && said.contains(way_out), "{said}");
    fs::remove_dir_all(&folder).unwrap();
    let address = |number: u16| format!("127.0.0.1:{}", cluster.port + number - 1);
    let (at, first) = (address(2), format!("https://{}", address(1)));
    let pki = |file: &str| cluster.path(&format!("pki/{file}")).display().to_string();
    let (ca, cert, key) = (pki("ca.crt"), pki("server-2.crt"), pki("server-2.key"));
    let join = [
        "--listen", &at, "--join", &first, "--ca", &ca, "--cert", &cert, "--key", &key,
    ];
    let (well, said) = Process::start(&folder, &join).end(60);
    assert!(!well, "{said}");
    let refusal = said
        .lines()
        .find(|line| line.contains("server-2 is member 2 already, with another disk"))
        .unwrap_or_else(|| panic!("{said}"));
    let commands: Vec<Vec<&str>> = refusal
        .split('\'')
        .filter_map(|quoted| quoted.strip_prefix("reckon "))
        .map(|command| command.split(' ').collect())
        .collect();
    assert_eq!(
        commands,
        [
            vec!["member", "remove", "server-2"],
            vec!["member", "add", "server-2", at.as_str()]
        ]
    );

    let removed = cluster.reckon(&commands[0]);
    assert!(removed.status.success(), "{}", said_by(&removed));
    let added = cluster.reckon_json(&commands[1]);
    assert_eq!(added["id"], 4);
    let _again = Process::join(&cluster, "server-2", &at, &added);
    wait_for(&cluster, "server-2", "learner");
    wait::until("server-2 to be promoted", 30, || {
        let output = cluster.reckon(&["member", "promote", "server-2"]);
        let done = output.status.success();
        done.then_some(()).ok_or_else(|| said_by(&output))
    });
    assert_eq!(member(&cluster, "server-2")["role"], "voter");
    cluster.wait_until_level();
    let map = cluster
        .api(2)
        .get("/api/v1/namespaces/default/configmaps/before");
    assert_eq!(map.code, 200, "{map:?}");
    cluster.stop();
}

/// `reckon member …` says this, whether it does it or not.
fn check(cluster: &Cluster, arguments: &[&str], expected: &str) {
    let said = said_by(&cluster.reckon(&[&["member"], arguments].concat()));
    assert!(said.contains(expected), "{arguments:?}: {said}");
}

/// As the list has it; nothing while nobody answers.
fn member(cluster: &Cluster, name: &str) -> Value {
    let output = cluster.reckon(&["member", "list", "-o", "json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let members = list["members"].as_array().cloned().unwrap_or_default();
    let found = members.into_iter().find(|member| member["name"] == name);
    found.unwrap_or_default()
}

pub fn wait_for(cluster: &Cluster, name: &str, role: &str) {
    wait::until(&format!("{name} to be a {role}"), 60, || {
        let member = member(cluster, name);
        let there = member["role"] == role && member["answers"] == true;
        there.then_some(()).ok_or(member)
    });
}
