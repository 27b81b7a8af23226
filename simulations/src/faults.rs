//! What goes wrong, drawn from the seed, and how often each kind did.

use crate::cluster::SimCluster;
use crate::sides::{Chance, DiskFaults, EMPTY, Weather};
use seams::Room;
use std::time::Duration;
use tokio::time::Instant;

/// Kinds of faults that occurred. One that never did over a set of seeds fails the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    pub messages_lost: u64,
    pub messages_delayed: u64,
    pub messages_repeated: u64,
    pub messages_cut: u64,
    pub partitions: u64,
    pub crashes: u64,
    pub restarts: u64,
    pub connections_broken: u64,
    pub batches_lost: u64,
    pub syncs_failed: u64,
    pub writes_failed: u64,
    pub reads_corrupt: u64,
    pub files_failed: u64,
    pub pieces_wrong: u64,
    pub disks_filled: u64,
    /// Writes that found no room at all.
    pub writes_without_room: u64,
    pub clock_jumps: u64,
    /// Crashes of the leader, and partitions that cut it off.
    pub leader_losses: u64,
    pub members_added: u64,
    pub members_removed: u64,
    pub leader_transfers: u64,
    /// A server came back with the next release.
    pub upgrades: u64,
    /// Not a fault, but what one leads to: a server was away for longer than the log reaches back.
    pub snapshots_installed: u64,
    /// No fault either, but what they strike: a server removed what an event had replaced.
    pub pruned: u64,
}

impl FaultCounts {
    pub fn rows(&self) -> [(&'static str, u64); 24] {
        [
            ("messages lost", self.messages_lost),
            ("messages delayed", self.messages_delayed),
            ("messages repeated", self.messages_repeated),
            ("messages cut", self.messages_cut),
            ("partitions", self.partitions),
            ("crashes", self.crashes),
            ("restarts", self.restarts),
            ("agents' connections broken", self.connections_broken),
            ("unsynced batches lost", self.batches_lost),
            ("syncs failed", self.syncs_failed),
            ("writes failed", self.writes_failed),
            ("reads corrupt", self.reads_corrupt),
            ("files' writes failed", self.files_failed),
            ("files' pieces read wrong", self.pieces_wrong),
            ("disks filled", self.disks_filled),
            ("writes without room", self.writes_without_room),
            ("clock jumps", self.clock_jumps),
            ("leader losses", self.leader_losses),
            ("members added", self.members_added),
            ("members removed", self.members_removed),
            ("leader transfers", self.leader_transfers),
            ("servers upgraded", self.upgrades),
            ("rebuilt from a snapshot", self.snapshots_installed),
            ("events pruned", self.pruned),
        ]
    }

    pub fn add(&mut self, other: &Self) {
        self.messages_lost += other.messages_lost;
        self.messages_delayed += other.messages_delayed;
        self.messages_repeated += other.messages_repeated;
        self.messages_cut += other.messages_cut;
        self.partitions += other.partitions;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.connections_broken += other.connections_broken;
        self.batches_lost += other.batches_lost;
        self.syncs_failed += other.syncs_failed;
        self.writes_failed += other.writes_failed;
        self.reads_corrupt += other.reads_corrupt;
        self.files_failed += other.files_failed;
        self.pieces_wrong += other.pieces_wrong;
        self.disks_filled += other.disks_filled;
        self.writes_without_room += other.writes_without_room;
        self.clock_jumps += other.clock_jumps;
        self.leader_losses += other.leader_losses;
        self.members_added += other.members_added;
        self.members_removed += other.members_removed;
        self.leader_transfers += other.leader_transfers;
        self.upgrades += other.upgrades;
        self.snapshots_installed += other.snapshots_installed;
        self.pruned += other.pruned;
    }
}

/// A leader is lost in each such span at least. Counted from the start, so that a shorter run of the same seed is the beginning of the
/// longer one.
const LEADER_LOST_EVERY: Duration = Duration::from_secs(150);
/// Between two faults.
const QUIET_MS: (u64, u64) = (4_000, 25_000);
/// Steps in which an agent's connection breaks, in a million.
const BREAKS: u64 = 50_000;

/// Restarts of a server of the release before that bring it the next, in a million.
const UPGRADES: u64 = 400_000;
/// A hundredth is left: less than the reserve.
const FILLED: Room = Room {
    total: EMPTY.total,
    free: EMPTY.total / 100,
};

/// Draws faults and carries them out, one step of a run at a time.
pub struct Faults {
    chance: Chance,
    /// How many agents there are.
    nodes: u32,
    pub counts: FaultCounts,
    started: Instant,
    next: Instant,
    heal_at: Option<Instant>,
    /// Others make room again on this server's disk, which they may have filled to the last byte.
    room_at: Option<(usize, Instant)>,
    restart_at: Vec<(usize, Instant)>,
}

impl Faults {
    pub fn new(chance: Chance, nodes: u32) -> Self {
        let started = Instant::now();
        Self {
            chance,
            nodes,
            counts: FaultCounts::default(),
            started,
            next: started + Duration::from_secs(15),
            heal_at: None,
            room_at: None,
            restart_at: Vec::new(),
        }
    }

    /// What is due now.
    pub async fn step(&mut self, cluster: &mut SimCluster) {
        let now = Instant::now();
        if self.heal_at.is_some_and(|at| at <= now) {
            tracing::info!("the partition is healed");
            cluster.net.heal();
            self.heal_at = None;
        }
        if let Some((index, _)) = self.room_at.take_if(|(_, at)| *at <= now) {
            make_room(cluster, index);
        }
        for index in self.due_restarts(now) {
            self.restart(cluster, index).await;
        }
        self.bury(cluster);
        if self.chance.happens(BREAKS) {
            self.break_connection(cluster);
        }
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(self.chance.between(QUIET_MS.0, QUIET_MS.1));
        let owed = (now - self.started).as_secs() / LEADER_LOST_EVERY.as_secs();
        if self.counts.leader_losses < owed || self.chance.happens(300_000) {
            self.lose_leader(cluster);
            return;
        }
        match self.chance.below(5) {
            0 => self.crash(cluster, self.any(cluster)),
            1 => self.partition(cluster, self.any(cluster)),
            2 => self.weather(cluster),
            3 => self.clock(cluster),
            _ if self.chance.happens(500_000) => self.fill(cluster),
            _ => self.disk(cluster),
        }
    }

    /// Everything is whole again: no cuts, fair weather, clocks right, all servers up.
    pub async fn heal(&mut self, cluster: &mut SimCluster) {
        cluster.net.heal();
        cluster.net.set_weather(Weather::default());
        self.heal_at = None;
        for index in 0..cluster.servers.len() {
            cluster.servers[index].clock.set_off(0);
            let faults = cluster.planted_disk();
            cluster.servers[index].disks.set_faults(faults);
            cluster.servers[index].disks.set_room(EMPTY);
        }
        self.room_at = None;
        for index in cluster.old() {
            self.crash(cluster, index);
            cluster.upgrade(index);
            self.counts.upgrades += 1;
        }
        self.bury(cluster);
        self.restart_at.clear();
        let dead = cluster.members();
        let dead = dead.filter(|(_, server)| server.parts.is_none());
        let dead: Vec<_> = dead.map(|(index, _)| index).collect();
        for index in dead {
            self.restart(cluster, index).await;
        }
    }

    /// One of the servers that have not been removed.
    fn any(&self, cluster: &SimCluster) -> usize {
        let members: Vec<_> = cluster.members().map(|(index, _)| index).collect();
        members[self.chance.below(members.len() as u64) as usize]
    }

    /// Takes the network's and the disks' counts in.
    pub fn totals(&self, cluster: &SimCluster) -> FaultCounts {
        let net = cluster.net.counts();
        let disks: Vec<_> = cluster
            .servers
            .iter()
            .map(|server| server.disks.counts())
            .collect();
        FaultCounts {
            messages_lost: net.lost,
            messages_delayed: net.delayed,
            messages_repeated: net.repeated,
            messages_cut: net.cut,
            syncs_failed: disks.iter().map(|disk| disk.failed_syncs).sum(),
            writes_failed: disks.iter().map(|disk| disk.failed_writes).sum(),
            reads_corrupt: disks.iter().map(|disk| disk.corrupt_reads).sum(),
            files_failed: disks.iter().map(|disk| disk.failed_files).sum(),
            pieces_wrong: disks.iter().map(|disk| disk.wrong_pieces).sum(),
            writes_without_room: disks.iter().map(|disk| disk.full_writes).sum(),
            batches_lost: disks.iter().map(|disk| disk.lost_batches).sum(),
            snapshots_installed: cluster.snapshots_installed(),
            pruned: cluster.pruned(),
            ..self.counts
        }
    }

    fn lose_leader(&mut self, cluster: &mut SimCluster) {
        let Some(leader) = cluster.leader() else {
            return;
        };
        if self.chance.happens(600_000) {
            self.crash(cluster, leader);
        } else {
            self.partition(cluster, leader);
        }
    }

    fn crash(&mut self, cluster: &mut SimCluster, index: usize) {
        if cluster.servers[index].parts.is_none() {
            return;
        }
        if cluster.leader() == Some(index) {
            self.counts.leader_losses += 1;
        }
        tracing::info!(server = cluster.servers[index].name, "crash");
        cluster.crash(index);
        self.counts.crashes += 1;
        let after = Duration::from_millis(self.chance.between(500, 15_000));
        self.restart_at.push((index, Instant::now() + after));
    }

    /// A server that stopped by itself (its disk failed) is dead: whoever watches over it starts it again.
    fn bury(&mut self, cluster: &mut SimCluster) {
        let dead: Vec<_> = cluster
            .alive()
            .filter(|(_, _, parts)| parts.core.node().status().failed.is_some())
            .map(|(index, _, _)| index)
            .collect();
        for index in dead {
            self.crash(cluster, index);
        }
    }

    fn due_restarts(&mut self, now: Instant) -> Vec<usize> {
        let due = self
            .restart_at
            .iter()
            .filter(|(_, at)| *at <= now)
            .map(|(index, _)| *index)
            .collect();
        self.restart_at.retain(|(_, at)| *at > now);
        due
    }

    async fn restart(&mut self, cluster: &mut SimCluster, index: usize) {
        if cluster.members().any(|(member, _)| member == index) {
            if cluster.old().contains(&index) && self.chance.happens(UPGRADES) {
                tracing::info!(server = cluster.servers[index].name, "upgraded");
                cluster.upgrade(index);
                self.counts.upgrades += 1;
            }
            // On a full disk it can't even start: whoever starts it has made room.
            if let Some((index, _)) = self.room_at.take_if(|(full, _)| *full == index) {
                make_room(cluster, index);
            }
            cluster.start_at_last(index).await;
            tracing::info!(server = cluster.servers[index].name, "restarted");
            self.counts.restarts += 1;
        }
    }

    fn partition(&mut self, cluster: &mut SimCluster, index: usize) {
        if cluster.leader() == Some(index) {
            self.counts.leader_losses += 1;
        }
        let alone = [cluster.servers[index].name.clone()];
        let mut others: Vec<_> = cluster
            .names()
            .into_iter()
            .filter(|name| *name != alone[0])
            .collect();
        // Half of the time its agents are on its side.
        if self.chance.happens(500_000) {
            others.extend((1..=3).map(crate::agents::name));
        }
        tracing::info!(?alone, ?others, "partition");
        cluster.net.cut(&alone, &others);
        self.counts.partitions += 1;
        self.heal_at =
            Some(Instant::now() + Duration::from_millis(self.chance.between(1_000, 20_000)));
    }

    /// An agent's connection goes, and nothing else: it dials again.
    fn break_connection(&mut self, cluster: &mut SimCluster) {
        let agent = crate::agents::name(1 + self.chance.below(u64::from(self.nodes)) as u32);
        tracing::debug!(agent, "its connection breaks");
        cluster.net.break_connections(&agent);
        self.counts.connections_broken += 1;
    }

    fn weather(&mut self, cluster: &mut SimCluster) {
        let weather = match self.chance.below(4) {
            0 => Weather::default(),
            // What a sender that tries again too early makes of any network.
            1 => Weather {
                repeat: 200_000,
                ..Weather::default()
            },
            2 => Weather {
                loss: 5_000,
                slow: 50_000,
                slow_ms: 50,
                repeat: 10_000,
            },
            _ => Weather {
                loss: 50_000,
                slow: 200_000,
                slow_ms: 300,
                repeat: 20_000,
            },
        };
        tracing::info!(?weather);
        cluster.net.set_weather(weather);
    }

    fn clock(&mut self, cluster: &mut SimCluster) {
        let server = self.any(cluster);
        let off_ms = self.chance.between(0, 7_200_000) as i64 - 3_600_000;
        tracing::info!(server = cluster.servers[server].name, off_ms, "clock jump");
        cluster.servers[server].clock.set_off(off_ms);
        self.counts.clock_jumps += 1;
    }

    /// What others write on a disk leaves less than the reserve for a while; what was full before has room again.
    fn fill(&mut self, cluster: &mut SimCluster) {
        if let Some((index, _)) = self.room_at.take() {
            make_room(cluster, index);
        }
        let server = self.any(cluster);
        let disks = &cluster.servers[server].disks;
        let to_the_last_byte = self.chance.happens(500_000);
        tracing::info!(
            server = cluster.servers[server].name,
            to_the_last_byte,
            "disk filled"
        );
        if to_the_last_byte {
            disks.set_room(Room { free: 0, ..FILLED });
            disks.set_faults(DiskFaults {
                full: true,
                ..disks.faults()
            });
        } else {
            disks.set_room(FILLED);
        }
        self.counts.disks_filled += 1;
        let after = Duration::from_millis(self.chance.between(2_000, 15_000));
        self.room_at = Some((server, Instant::now() + after));
    }

    fn disk(&mut self, cluster: &mut SimCluster) {
        let server = self.any(cluster);
        let right = cluster.planted_disk();
        let faults = match self.chance.below(5) {
            0 => DiskFaults {
                sync_fails: 5_000,
                ..right
            },
            1 => DiskFaults {
                write_fails: 2_000,
                ..right
            },
            2 => DiskFaults {
                reads_corrupt: 1_000,
                ..right
            },
            3 => DiskFaults {
                files_fail: 200_000,
                ..right
            },
            _ => DiskFaults {
                pieces_wrong: 200_000,
                ..right
            },
        };
        // One that is full stays so for its time.
        let faults = DiskFaults {
            full: cluster.servers[server].disks.faults().full,
            ..faults
        };
        tracing::info!(server = cluster.servers[server].name, ?faults, "a bad disk");
        cluster.servers[server].disks.set_faults(faults);
    }
}

/// What was full has room again.
fn make_room(cluster: &SimCluster, index: usize) {
    let disks = &cluster.servers[index].disks;
    disks.set_room(EMPTY);
    disks.set_faults(DiskFaults {
        full: false,
        ..disks.faults()
    });
}
