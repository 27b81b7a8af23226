//! What seeds once found, each as a scene of its own: a seed draws other faults as soon as one more kind of them is drawn, and so no longer
//! replays what it found.
//!
//! Bugs whose cause can be shown closer to it have their tests there:
//!
//! | seed | what was wrong | test |
//! |---|---|---|
//! | 1 | a session just opened was taken for one that nobody vouches for, and stayed lost | `server::agents::vouch` |
//! | 77 | a message that begins the transfer of a snapshot came again, and took away the database that the snapshot had become | `raft::snapshot::a_transfer_begins_once_however_often_it_is_said` |
//! | 78 | a message of proposals that came twice was read twice | `server::core::forward::a_message_that_comes_again_is_not_read` |
//! | 96 | that raft had ended was not told where it was found in asking for something | `raft::publisher::that_raft_has_ended_is_told_where_it_is_found_in_asking_for_something` |
//! | 96 | a failed write of the log that nobody waited for was not told | `raft::log_store::a_write_that_nobody_waits_for_is_told_when_it_fails` |
//! | – | a server that had ended was held by its own handler | `simulations::cluster::a_server_that_has_ended_is_let_go` |

use super::{Stage, done, play, refused};
use crate::workload::prepare;
use http::{Method, StatusCode};
use serde_json::json;
use server::config::Joined;
use std::time::Duration;
use tokio::time::sleep;

const MEMBERS: &str = "/reckon/v1/members";
const RESTORE: &str = "/reckon/v1/restore";
const ROLLOUT: &str = "deployment.kubernetes.io/revision";

/// Invites a server, which comes: its place.
async fn joined(stage: &Stage, server: usize, name: &str) -> Joined {
    let body = json!({"name": name, "address": format!("{name}:6443"), "promote": true});
    done(stage.ask(server, Method::POST, MEMBERS, Some(&body)).await);
    let (path, nothing) = ("/reckon/v1/join", json!({}));
    let join = stage.ask_as(name, server, Method::POST, path, Some(&nothing));
    let place = done(join.await);
    Joined {
        id: place["id"].as_u64().unwrap(),
        cluster: place["cluster"].as_str().unwrap().to_owned(),
    }
}

/// Seed 46: a server that had missed a joining said of the one that had joined, and was to be removed, that it was no member.
#[test]
fn seed_46_one_that_missed_a_joining_does_not_deny_it() {
    play(async {
        let stage = Stage::set(0, None).await;
        let (leader, missed) = (stage.leader().unwrap(), stage.followers()[0]);
        stage.cut_off(missed);
        let body = json!({"name": "server-4", "address": "server-4:6443"});
        done(stage.ask(leader, Method::POST, MEMBERS, Some(&body)).await);
        let (path, nothing) = (format!("{MEMBERS}/server-4/remove"), json!({}));
        let remove = async || stage.ask(missed, Method::POST, &path, Some(&nothing)).await;
        let (code, message) = refused(remove().await);
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{message}");
        stage.cluster.net.heal();
        done(remove().await);
    });
}

/// Seed 7: a restore on a living cluster did not end, for what it put back a controller counted on.
#[test]
fn seed_7_a_restore_ends_though_a_controller_counts_on() {
    play(async {
        let stage = Stage::set(2, None).await;
        let cluster = &stage.cluster;
        prepare(&cluster.fronts, &cluster.net, &cluster.names()).await;
        let path = "/apis/apps/v1/namespaces/default/deployments/web-0";
        let deployment = async || done(stage.ask(0, Method::GET, path, None).await);
        let rolled_out = async |count: &str, image: &str| {
            let waited = stage.until("the rollout", 60, async || {
                let now = deployment().await;
                let right = now["metadata"]["annotations"][ROLLOUT] == count
                    && now["spec"]["template"]["spec"]["containers"][0]["image"] == image
                    && now["status"]["availableReplicas"] == 2
                    && now["status"]["updatedReplicas"] == 2;
                right.then_some(())
            });
            waited.await;
        };
        rolled_out("1", "web:1").await;
        let at = stage.core(0).view().revision;
        let mut new = deployment().await;
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "web:2".into();
        done(stage.ask(0, Method::PUT, path, Some(&new)).await);
        rolled_out("2", "web:2").await;
        let asked = json!({"at": at.to_string()});
        let told = done(stage.ask(0, Method::POST, RESTORE, Some(&asked)).await);
        let revisions = told["revisions"].as_array().map_or(0, Vec::len);
        assert_eq!(revisions, 1, "{told}");
        // A rollout to what was is one more.
        rolled_out("3", "web:1").await;
    });
}

/// Seed 43: a learner that a leader had taken in was forgotten by the next, which knew its disk but not that it had joined: the leader was
/// lost before that was committed.
#[test]
fn seed_43_one_taken_in_by_a_lost_leader_is_taken_in_again() {
    play(async {
        let mut stage = Stage::set(0, None).await;
        let (leader, followers) = (stage.leader().unwrap(), stage.followers());
        let name = "server-4";
        let place = joined(&stage, leader, name).await;
        let id = place.id;
        // Before the leader looks whom to take in, and for longer than the others wait for it. The one taken in hears all of them, and they
        // it, long before another leads.
        stage.cut_off(leader);
        let index = stage.cluster.engage(name.to_owned(), place);
        stage.cluster.start(index).await.unwrap();
        sleep(Duration::from_secs(15)).await;
        let taken_in = |server: usize| {
            let members = stage.status(server).members;
            members.iter().any(|member| member.id == id)
        };
        assert!(taken_in(leader), "the lost leader has not taken it in");
        assert!(stage.leader().is_some_and(|now| now != leader));
        stage.cluster.net.heal();
        stage
            .until("it to vote", 60, async || {
                let members = stage.status(followers[0]).members;
                let votes = members.iter().any(|member| member.id == id && member.voter);
                votes.then_some(())
            })
            .await;
    });
}
