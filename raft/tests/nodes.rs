//! Three nodes in one process do what a cluster must: elect, append, lose and regain members, catch up, hand over, read.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use cluster::{Cluster, Keeper, POINTER, counted, eventually, peer};
use raft::{AppendError, ENTRY_BYTES_MAX, Machine, NodeConfig, Position, Role, TransferError};
use seams::{ByteStream, Handler, Network, NetworkError, Peer, RefusalCode};
use tokio::time::sleep;

fn payload(number: usize) -> Bytes {
    Bytes::from(format!("payload {number}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_append_at_once_and_all_apply_the_same() {
    let cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.node(cluster.leader().await).clone();
    let before = leader.log_statistics().wal_syncs;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..500 {
        let leader = leader.clone();
        writers.spawn(async move { leader.append(payload(number), None).await.unwrap() });
    }
    let mut positions = writers.join_all().await;
    positions.sort();
    positions.dedup();
    assert_eq!(positions.len(), 500, "each has a position of its own");
    let syncs = leader.log_statistics().wal_syncs - before;
    assert!(
        syncs < 250,
        "{syncs} syncs for 500 appends at once: they must be shared"
    );

    cluster.applied(positions[499].index).await;
    let all: Vec<_> = cluster.seen.values().map(|seen| seen.payloads()).collect();
    assert_eq!(all[0].len(), 500);
    assert!(all.iter().all(|payloads| payloads == &all[0]));
}

/// A process that is killed loses nothing even without syncs, so they are counted: each acknowledgement, taken alone, must
/// have one on a majority that lies between the append and it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledgement_follows_a_sync_on_a_majority() {
    let cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.node(cluster.leader().await).clone();
    let syncs = || {
        cluster
            .nodes
            .values()
            .map(|node| node.log_statistics().wal_syncs)
            .collect::<Vec<_>>()
    };
    for number in 0..50 {
        let before = syncs();
        leader.append(payload(number), None).await.unwrap();
        let after = syncs();
        let synced = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| after > before)
            .count();
        assert!(synced >= 2, "append {number}: {before:?} then {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        cluster.append(payload(number)).await;
        acknowledged.push(payload(number));
    }
    let first = cluster.leader().await;
    let term = cluster.node(first).status().term;
    cluster.kill(first);
    let died = Instant::now();
    let position = cluster.append(payload(20)).await;
    let gap = died.elapsed();
    acknowledged.push(payload(20));
    assert!(position.term > term);
    println!("write gap after the leader's death: {} ms", gap.as_millis());
    assert!(gap < Duration::from_secs(5), "{gap:?}");

    cluster.run(first, None).await.unwrap();
    let last = cluster.append(payload(21)).await;
    acknowledged.push(payload(21));
    cluster.applied(last.index).await;
    for (id, seen) in &cluster.seen {
        let mut payloads = seen.payloads();
        // One that was tried again may be there twice: what makes that harmless is the layer above.
        payloads.dedup();
        assert_eq!(payloads, acknowledged, "server {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_come_back_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    for number in 0..30 {
        cluster.append(payload(number)).await;
    }
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster
            .run(id, Some((1..=3).map(peer).collect()))
            .await
            .unwrap();
    }
    for node in cluster.nodes.values() {
        tokio::time::timeout(Duration::from_secs(30), node.recovered())
            .await
            .unwrap();
    }
    let want: Vec<_> = (0..30).map(payload).collect();
    for (id, seen) in &cluster.seen {
        assert_eq!(seen.payloads(), want, "server {id}");
    }
}

/// A start reads all of its log; what a kill leaves is as long as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_leaves_a_short_log() {
    let mut cluster = Cluster::start(3, |config| config.keep_bytes = 160_000).await;
    for number in 0..100 {
        cluster.append(vec![number; 2_000]).await;
    }
    let [stopped, killed] = [1, 2];
    cluster.node(stopped).stop().await.unwrap();
    for id in [stopped, killed] {
        cluster.kill(id);
        cluster.run(id, None).await.unwrap();
    }
    let last = cluster.append(payload(100)).await;
    cluster.applied(last.index).await;
    let purged = |id: u64| cluster.node(id).status().purged.map(|purged| purged.index);
    let left = last.index - purged(stopped).unwrap();
    assert!((5..15).contains(&left), "{left} entries of 2,000 bytes");
    assert_eq!(purged(killed), None);
    for id in [stopped, killed] {
        assert_eq!(
            cluster.seen[&id].payloads(),
            cluster.seen[&3].payloads(),
            "server {id}"
        );
    }
}

/// Three servers, of which one is dead and has missed more than the log still holds: the leader, that one, and where the log ends.
async fn one_behind_the_log() -> (Cluster, u64, u64, Position) {
    let mut cluster = Cluster::start(3, |config| {
        config.snapshot_log_bytes = 64 << 10;
        config.keep_entries = 10;
    })
    .await;
    let leader = cluster.leader().await;
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    cluster.append(payload(0)).await;
    cluster.kill(lagging);
    let mut last = None;
    for number in 1..=300 {
        last = Some(cluster.append(vec![number as u8; 2_000]).await);
    }
    let last = last.unwrap();
    eventually(async || {
        let purged = cluster.node(leader).status().purged?;
        (purged.index > 100).then_some(())
    })
    .await;
    (cluster, leader, lagging, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lags_behind_the_log_is_rebuilt_from_a_snapshot() {
    let (mut cluster, leader, lagging, last) = one_behind_the_log().await;
    cluster.run(lagging, None).await.unwrap();
    cluster.applied(last.index).await;
    assert_eq!(
        cluster.seen[&lagging].payloads(),
        cluster.seen[&leader].payloads()
    );

    // It goes on from there, also after another start.
    cluster.kill(lagging);
    let next = cluster.append(payload(301)).await;
    cluster.run(lagging, None).await.unwrap();
    cluster.applied(next.index).await;
    assert_eq!(
        cluster.seen[&lagging].payloads(),
        cluster.seen[&leader].payloads()
    );
}

/// By then the machine lives in what was received, and the next start looks for it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_that_fails_at_its_end_takes_nothing_away() {
    let (mut cluster, leader, lagging, _) = one_behind_the_log().await;
    cluster.fail_installed = true;
    cluster.run(lagging, None).await.unwrap();
    eventually(async || cluster.node(lagging).status().failed).await;
    cluster.kill(lagging);
    let directory =
        eventually(async || seams::FileDirectory::open(cluster.folders[&lagging].path()).ok())
            .await;
    let name = seams::Directory::read_file(&directory, POINTER).unwrap();
    let name = String::from_utf8(name.unwrap()).unwrap();
    assert!(name.starts_with("received-"), "{name}");
    assert!(
        seams::Directory::exists(&directory, &name).unwrap(),
        "{name}"
    );
    drop(directory);

    cluster.fail_installed = false;
    cluster.run(lagging, None).await.unwrap();
    let last = cluster.append(payload(301)).await;
    cluster.applied(last.index).await;
    assert_eq!(
        cluster.seen[&lagging].payloads(),
        cluster.seen[&leader].payloads()
    );
}

/// However large it is, and however slowly it is taken: what the leader has read of it and nobody has taken is one chunk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_never_in_its_senders_memory() {
    const CHUNK: u64 = 1 << 20;
    let configure = |config: &mut NodeConfig| {
        config.snapshot_log_bytes = 4 << 20;
        config.keep_entries = 10;
    };
    let mut cluster = Cluster::start_on(3, configure, counted::network, counted::disk).await;
    let leader = cluster.leader().await;
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    cluster.append(payload(0)).await;
    cluster.kill(lagging);
    // What nothing makes smaller.
    let mut random = 7_u64;
    let mut noise = || -> Vec<u8> {
        std::iter::repeat_with(|| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 56) as u8
        })
        .take(200_000)
        .collect()
    };
    let mut last = cluster.append(noise()).await;
    for _ in 0..80 {
        last = cluster.append(noise()).await;
    }
    eventually(async || {
        let purged = cluster.node(leader).status().purged?;
        (purged.index > 20).then_some(())
    })
    .await;

    // Nobody takes the first large chunk: no more is read.
    cluster.run(lagging, None).await.unwrap();
    eventually(async || (counted::held() > CHUNK / 10).then_some(())).await;
    let read = counted::read();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(counted::read(), read);
    // Then all are taken, one after another.
    counted::MAY_TAKE.add_permits(1_000);
    cluster.applied(last.index).await;
    let (read, most) = (counted::read(), counted::most_held());
    assert!(read > 8 * CHUNK, "{read} bytes are no large snapshot");
    assert!(most <= CHUNK, "{most} of {read} bytes were held at once");
    assert_eq!(
        cluster.seen[&lagging].payloads(),
        cluster.seen[&leader].payloads()
    );
}

/// The leader's checkpoint lost something since it was taken, and its state has not: another is taken, and what is received is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_not_sent_and_another_is() {
    let configure = |config: &mut NodeConfig| {
        config.snapshot_log_bytes = 256 << 10;
        config.keep_entries = 10;
    };
    for kind in [".sst", ".blob"] {
        let mut cluster = Cluster::start(3, configure).await;
        let leader = cluster.leader().await;
        let lagging = (1..=3).find(|id| *id != leader).unwrap();
        cluster.append(payload(0)).await;
        cluster.kill(lagging);
        let mut last = None;
        for number in 1..=300_u32 {
            // Beside their keys, and in files of their own.
            let len = if number % 2 == 0 { 300 } else { 4_000 };
            last = Some(cluster.append(vec![number as u8; len]).await);
        }
        eventually(async || {
            let purged = cluster.node(leader).status().purged?;
            (purged.index > 20).then_some(())
        })
        .await;
        // Of both that have one: either may lead by then. One that is being taken has another name until it is whole.
        let snapshots = || {
            let others = cluster.folders.iter().filter(|(id, _)| **id != lagging);
            let entries = others.flat_map(|(_, folder)| std::fs::read_dir(folder.path()).unwrap());
            let paths = entries.map(|entry| entry.unwrap().path());
            let is_snapshot = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("snapshot-") && path.is_dir()
            };
            paths.filter(is_snapshot).collect::<BTreeSet<_>>()
        };
        let taken = eventually(async || {
            let before = snapshots();
            sleep(Duration::from_millis(100)).await;
            let whole = before.iter().all(|path| path.extension().is_none());
            (whole && snapshots() == before).then_some(before)
        })
        .await;
        let damaged: Vec<_> = taken
            .iter()
            .flat_map(|snapshot| std::fs::read_dir(snapshot).unwrap())
            .map(|file| file.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(kind))
            .collect();
        assert!(!damaged.is_empty());
        for path in &damaged {
            let mut content = std::fs::read(path).unwrap();
            // The first record, or block.
            content[50] ^= 1;
            // In the place of the state's own, which it is a link to.
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, content).unwrap();
        }
        cluster.run(lagging, None).await.unwrap();
        cluster.applied(last.unwrap().index).await;
        assert_eq!(
            cluster.seen[&lagging].payloads(),
            cluster.seen[&leader].payloads()
        );
        let firsts: Vec<_> = cluster
            .nodes
            .values()
            .filter_map(|node| node.damages().1.first())
            .collect();
        let first = firsts.first().expect("it was sent as it was");
        let named = damaged
            .iter()
            .any(|path| first.contains(path.to_str().unwrap()));
        assert!(named, "{first}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_on_a_clean_stop() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let first = cluster.leader().await;
    cluster.append(payload(0)).await;
    let second = (1..=3).find(|id| *id != first).unwrap();
    assert_eq!(
        cluster.node(second).transfer_leadership(None).await,
        Err(TransferError::NotLeader)
    );
    assert_eq!(
        cluster.node(first).transfer_leadership(Some(9)).await,
        Err(TransferError::NobodyElse)
    );
    let changes = || cluster.node(first).status().leader_changes;
    let before = changes();
    assert!(before >= 1, "it came to lead itself");
    let began = Instant::now();
    assert_eq!(
        cluster.node(first).transfer_leadership(Some(second)).await,
        Ok(second)
    );
    println!("hand-over: {} ms", began.elapsed().as_millis());
    assert_eq!(cluster.leader().await, second);
    assert_eq!(changes(), before + 1);

    let stopping = cluster.node(second).clone();
    stopping.stop().await.unwrap();
    drop(stopping);
    cluster.kill(second);
    let third = cluster.leader().await;
    assert_ne!(third, second);
    cluster.append(payload(1)).await;
}

/// All are stopped at once, and it is the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_waited_for_to_lead_where_no_majority_is_left() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let leads = cluster.leader().await;
    cluster.append(payload(0)).await;
    let others: Vec<_> = (1..=3).filter(|id| *id != leads).collect();
    others.iter().for_each(|id| cluster.kill(*id));
    let node = cluster.node(leads);
    assert_eq!(
        node.transfer_leadership(None).await,
        Err(TransferError::NoMajority)
    );
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_aside_is_handed_no_leadership_and_takes_none() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let first = cluster.leader().await;
    let aside = (1..=3).find(|id| *id != first).unwrap();
    cluster.node(aside).stand_aside();
    let moved = cluster.node(first).transfer_leadership(Some(aside)).await;
    // The third may have stepped in meanwhile.
    assert_ne!(moved, Ok(aside));
    let leads = cluster.leader().await;
    assert_ne!(leads, aside);
    // With the leader gone there is no majority but with its vote, and no other leader than the third.
    let third = (1..=3).find(|id| ![leads, aside].contains(id)).unwrap();
    cluster.kill(leads);
    assert_eq!(cluster.leader().await, third);
    let position = cluster.append(payload(0)).await;
    cluster.applied(position.index).await;
    let measured = cluster.node(third).measured();
    assert!(measured.log_syncs.count > 0 && measured.applies.count > 0);
    let off_ms = measured.clock_off_ms.unwrap();
    assert!(off_ms.abs() < 1_000, "{off_ms}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_on_any_server_sees_what_was_acknowledged() {
    let cluster = Cluster::start(3, |_| {}).await;
    for number in 0..20 {
        let position = cluster.append(payload(number)).await;
        for (id, node) in &cluster.nodes {
            let index = eventually(async || node.read_index().await.ok()).await;
            assert!(index >= position.index, "server {id}");
            assert!(
                cluster.seen[id].payloads().contains(&payload(number)),
                "server {id}"
            );
        }
    }
}

/// A network whose questions are counted, by whom they go to and what they are.
struct Counting {
    inner: Arc<dyn Network>,
    asked: Asked,
}

type Asked = Arc<Mutex<BTreeMap<(String, &'static str), u64>>>;

#[async_trait]
impl Network for Counting {
    async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        let of = (to.name.clone(), method);
        *self.asked.lock().unwrap().entry(of).or_default() += 1;
        self.inner.call(to, method, body, deadline).await
    }

    async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError> {
        self.inner.stream(to, method, body, deadline).await
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        self.inner.serve(handler);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_share_a_round() {
    const READS: usize = 1_000;
    /// On any machine: a round is two messages at least, and a thousand reads are begun in the time of a few.
    const ROUNDS_MAX: u64 = 100;
    let asked = Asked::default();
    let counted = asked.clone();
    let between = move |inner| {
        let asked = counted.clone();
        Arc::new(Counting { inner, asked }) as Arc<dyn Network>
    };
    let cluster = Cluster::start_between(3, |_| {}, between).await;
    let leader = cluster.leader().await;
    cluster.append(payload(0)).await;
    // A follower asks the leader, the leader asks its followers, of whom one may do; an idle cluster's own messages are among these.
    for id in 1..=3 {
        let node = cluster.node(id);
        eventually(async || node.read_index().await.ok()).await;
        asked.lock().unwrap().clear();
        let reads = futures::future::join_all((0..READS).map(|_| node.read_index())).await;
        assert!(reads.iter().all(Result::is_ok));
        let asked = asked.lock().unwrap().clone();
        println!("server {id} of leader {leader}: {asked:?}");
        let method = if id == leader {
            "raft.append"
        } else {
            "raft.read-by"
        };
        let rounds = asked.iter().filter(|((to, of), _)| {
            *of == method && *to != peer(id).name && (id == leader || *to == peer(leader).name)
        });
        let rounds: u64 = rounds.map(|(_, count)| count).sum();
        assert!(
            (1..=ROUNDS_MAX).contains(&rounds),
            "{READS} reads by server {id} were {rounds} rounds: {asked:?}"
        );
    }
}

/// A network of the release before, in which nobody said how he voted when he asked for a read index.
struct Earlier(Arc<dyn Network>);

#[async_trait]
impl Network for Earlier {
    async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        if method == "raft.read-by" {
            return Err(NetworkError::Refused {
                peer: to.to_string(),
                code: RefusalCode::UnknownMethod,
                message: method.to_owned(),
            });
        }
        self.0.call(to, method, body, deadline).await
    }

    async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError> {
        self.0.stream(to, method, body, deadline).await
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        self.0.serve(handler);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_askers_vote_does_not_do_the_leader_asks_the_others() {
    type Between = fn(Arc<dyn Network>) -> Arc<dyn Network>;
    let earlier: Between = |network| Arc::new(Earlier(network));
    let rows: [(u64, Between); 2] = [(3, earlier), (5, |network| network)];
    for (size, between) in rows {
        let cluster = Cluster::start_between(size, |_| {}, between).await;
        let position = cluster.append(payload(0)).await;
        for (id, node) in &cluster.nodes {
            let index = eventually(async || node.read_index().await.ok()).await;
            assert!(index >= position.index, "server {id} of {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cut_off_neither_reads_nor_disturbs_when_it_returns() {
    let cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    let alone = (1..=3).find(|id| *id != leader).unwrap();
    cluster.hub.cut(&peer(alone).name, true);
    cluster.append(payload(0)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(cluster.node(alone).read_index().await.is_err());
    cluster.hub.cut(&peer(alone).name, false);
    let position = cluster.append(payload(1)).await;
    cluster.applied(position.index).await;
    // With pre-vote its term has not grown, so the leader stayed.
    assert_eq!(cluster.node(leader).status().term, term);
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_can_not_be_are_refused() {
    let cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    let follower = cluster.node((1..=3).find(|id| *id != leader).unwrap());
    let node = cluster.node(leader);
    let term = node.status().term;
    match follower.append(payload(0), None).await {
        Err(AppendError::NotLeader {
            leader: Some(named),
        }) => assert_eq!(named, peer(leader)),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        node.append(payload(0), Some(term + 1)).await,
        Err(AppendError::TermMoved {
            asked: term + 1,
            term
        })
    );
    let bytes = ENTRY_BYTES_MAX + 1;
    assert_eq!(
        node.append(Bytes::from(vec![0; bytes]), None).await,
        Err(AppendError::TooLarge { bytes })
    );
    let position = node
        .append(Bytes::from(vec![7; ENTRY_BYTES_MAX]), Some(term))
        .await
        .unwrap();
    cluster.applied(position.index).await;
    assert_eq!(
        cluster.seen[&follower.id()].payloads(),
        [vec![7; ENTRY_BYTES_MAX]]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_and_one_leaves() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.append(payload(0)).await;
    cluster.run(4, None).await.unwrap();
    let leader = cluster.leader().await;
    cluster.node(leader).add_learner(&peer(4)).await.unwrap();
    eventually(async || cluster.node(leader).promote_member(4).await.ok()).await;
    let gone = (1..=3).find(|id| *id != leader).unwrap();
    cluster.node(leader).remove_member(gone).await.unwrap();
    cluster.kill(gone);
    let position = cluster.append(payload(1)).await;
    cluster.applied(position.index).await;
    let members = cluster.node(4).status().members;
    assert!(
        members
            .iter()
            .all(|member| member.voter && member.peer.id != gone)
    );
    assert_eq!(members.len(), 3);

    // It was not there to hear of it, and is told when it asks to be elected.
    cluster.run(gone, None).await.unwrap();
    let failed = eventually(async || cluster.node(gone).status().failed).await;
    assert!(failed.contains("was removed from the cluster"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_stop_the_cluster_is_refused() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.append(payload(0)).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.kill(others[0]);
    let refused = eventually(async || {
        let node = cluster.node(leader);
        if node.standing()?.member(others[0])?.answers {
            return None;
        }
        Some(node.remove_member(others[1]).await.unwrap_err())
    })
    .await;
    assert!(refused.to_string().contains("no majority"), "{refused}");
    // Its id was used, and another disk may not have it.
    let node = cluster.node(leader);
    node.remove_member(others[0]).await.unwrap();
    let again = node.add_learner(&peer(others[0])).await.unwrap_err();
    assert!(again.to_string().contains("used before"), "{again}");
    // Two are left. The last but one may go, the last may not.
    node.remove_member(others[1]).await.unwrap();
    let last = node.remove_member(leader).await.unwrap_err();
    assert!(last.to_string().contains("the only server"), "{last}");
    cluster.append(payload(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_disk_alone_goes_on_as_another_cluster() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    for number in 0..20 {
        let position = cluster.append(payload(number)).await;
        cluster.applied(position.index).await;
    }
    let (kept, other) = (1, 2);
    for id in 1..=3 {
        cluster.kill(id);
    }
    let directory =
        eventually(async || seams::FileDirectory::open(cluster.folders[&kept].path()).ok()).await;
    let directory: Arc<dyn seams::Directory> = Arc::new(directory);
    let applied = Keeper::open(directory.clone(), Default::default())
        .applied()
        .unwrap();
    let offline = raft::Offline::open(directory.clone()).unwrap();
    assert_eq!(offline.members(&applied).unwrap().len(), 3);
    let whose = offline.recover(&applied, &seams::SystemEntropy).unwrap();
    assert!(whose.cluster.starts_with("test/recovered-"), "{whose:?}");
    drop((offline, directory));

    // Alone it leads, with all that was acknowledged.
    cluster
        .run(kept, Some((1..=3).map(peer).collect()))
        .await
        .unwrap();
    cluster.append(payload(20)).await;
    let all: Vec<Bytes> = (0..=20).map(payload).collect();
    assert_eq!(cluster.seen[&kept].payloads(), all);
    assert_eq!(cluster.node(kept).status().members.len(), 1);

    // One of before is refused, and says why.
    cluster
        .run(other, Some((1..=3).map(peer).collect()))
        .await
        .unwrap();
    let failed = eventually(async || cluster.node(other).status().failed).await;
    assert!(
        failed.contains("it was recovered from one server's disk"),
        "{failed}"
    );

    // One that is added under a new id takes part.
    cluster.kill(other);
    let name = cluster.node(kept).cluster().to_owned();
    cluster.run_in(4, &name, None).await.unwrap();
    cluster.node(kept).add_learner(&peer(4)).await.unwrap();
    eventually(async || cluster.node(kept).promote_member(4).await.ok()).await;
    let position = cluster.append(payload(21)).await;
    cluster.applied(position.index).await;
    assert_eq!(cluster.seen[&4].payloads().len(), 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_id_on_an_empty_disk_takes_no_part() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.append(payload(0)).await;
    let leader = cluster.leader().await;
    let wiped = (1..=3).find(|id| *id != leader).unwrap();
    eventually(async || {
        cluster.seen[&wiped]
            .payloads()
            .contains(&payload(0))
            .then_some(())
    })
    .await;
    cluster.kill(wiped);
    cluster.folders.remove(&wiped);
    cluster
        .run(wiped, Some((1..=3).map(peer).collect()))
        .await
        .unwrap();
    cluster.append(payload(1)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = cluster.node(wiped).status();
    assert!(status.applied.is_none_or(|at| at.index == 0), "{status:?}");
    assert_ne!(status.role, Role::Leader);
    // What to do is said to whoever started it. If it stood for election before the leader called it, who refused is said too.
    let what_to_do = format!(
        "server {wiped} came back with another disk, without what it had promised: send it away with 'reckon member remove {wiped}', \
         add it under a new id with 'reckon member add NAME HOST:PORT', and start it with an empty directory as that says"
    );
    let failed = status.failed.unwrap();
    let refusal = failed.strip_suffix(&what_to_do).expect(&failed);
    let others = (1..=3).filter(|id| *id != wiped);
    let refusals: Vec<_> = others
        .map(|id| format!("{} refuses this server: ", peer(id)))
        .collect();
    assert!(
        refusal.is_empty() || refusals.iter().any(|of| of == refusal),
        "{failed}"
    );
    assert!(cluster.seen[&wiped].payloads().is_empty());
    // It is no reason for the others to end.
    for other in (1..=3).filter(|id| *id != wiped) {
        assert_eq!(cluster.node(other).status().failed, None, "server {other}");
    }
    cluster.append(payload(2)).await;

    // With its log alone taken away it does not even start.
    cluster.kill(wiped);
    let directory =
        eventually(async || seams::FileDirectory::open(cluster.folders[&wiped].path()).ok()).await;
    seams::Directory::remove(&directory, "log").unwrap();
    drop(directory);
    let refused = cluster.run(wiped, None).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "the Raft log: this server has been here before, but its log is gone: send it away with 'reckon member remove {wiped}', \
             add it under a new id with 'reckon member add NAME HOST:PORT', and start it with an empty directory as that says"
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_can_not_apply_stops_its_node() {
    let cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    let failing = (1..=3).find(|id| *id != leader).unwrap();
    *cluster.seen[&failing].fail.lock().unwrap() = true;
    cluster.append(payload(0)).await;
    let mut watch = cluster.node(failing).watch();
    let failed = watch.wait_for(|status| status.failed.is_some());
    let status = tokio::time::timeout(Duration::from_secs(10), failed)
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert!(status.failed.unwrap().contains("as the test wants"));
    cluster.append(payload(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_goes_on_under_the_next_leader() {
    let cluster = Cluster::start(3, |_| {}).await;
    let mut before = 0;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let now = eventually(async || cluster.node(leader).clock_ms()).await;
        assert!(now >= before, "{now} after {before}");
        before = now;
        for node in cluster.nodes.values() {
            assert!(node.id() == leader || node.clock_ms().is_none());
            assert!(node.clock_estimate_ms().abs_diff(now) < 5_000);
        }
        cluster
            .node(leader)
            .transfer_leadership(None)
            .await
            .unwrap();
    }
}
