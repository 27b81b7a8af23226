//! How the server behind the front door stands, read when the page is asked for: raft, the log, the leader's queue, the history, the
//! comparison with the other servers, the disk, the clock.

use crate::archive;
use crate::core::Core;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use raft::Counted;
use std::fmt;

pub(super) struct Standing {
    core: Core,
    archiving: archive::Shown,
}

impl Standing {
    pub fn of(core: Core, archiving: archive::Shown) -> Self {
        Self { core, archiving }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standing")
    }
}

impl Collector for Standing {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let core = &self.core;
        raft(&mut page, core)?;
        log(&mut page, core)?;
        queue(&mut page, core)?;
        history(&mut page, core)?;
        comparison(&mut page, core)?;
        disk(&mut page, core)?;
        archive(&mut page, core, &self.archiving)?;
        clock(&mut page, core)
    }
}

fn raft(page: &mut Page, core: &Core) -> fmt::Result {
    let status = core.node().status();
    page.gauge("reckon_raft_term", "Raft's term", status.term)?;
    page.gauge(
        "reckon_raft_leads",
        "1 while this server leads",
        u64::from(status.leads()),
    )?;
    page.counter(
        "reckon_raft_leader_changes",
        "Times that a server came to lead, as seen by this one since its start",
        status.leader_changes,
    )?;
    page.gauge(
        "reckon_applied_index",
        "Last log index folded",
        core.view().position.index,
    )?;
    let standing = core.node().standing();
    let others: Vec<_> = standing
        .iter()
        .flat_map(|standing| {
            let others = standing
                .members
                .iter()
                .filter(|member| member.id != standing.leader);
            others.map(|member| (member.name.as_str(), member.lag(standing.last_log)))
        })
        .collect();
    page.gauges(
        "reckon_raft_replication_lag_entries",
        "On the leader: entries of its log that another server has not acknowledged yet",
        "peer",
        &others,
    )
}

fn log(page: &mut Page, core: &Core) -> fmt::Result {
    let measured = core.node().measured();
    page.counter(
        "reckon_raft_log_syncs",
        "Times that the Raft log was synced to disk, by RocksDB's count",
        core.log_syncs(),
    )?;
    page.histogram(
        "reckon_raft_log_sync_duration_seconds",
        "How long a synced write of the Raft log took",
        measured.log_syncs,
    )?;
    page.histogram(
        "reckon_raft_apply_duration_seconds",
        "How long a group of committed entries took to be folded and written",
        measured.applies,
    )?;
    page.gauge(
        "reckon_raft_log_bytes",
        "Bytes of log since the last snapshot",
        measured.log_bytes,
    )?;
    let purged = core.node().status().purged;
    page.gauge(
        "reckon_raft_log_purged_index",
        "Last log index that is no longer kept here, for a snapshot covers it",
        purged.map_or(0, |position| position.index),
    )?;
    page.counter(
        "reckon_raft_snapshots_taken",
        "Snapshots taken of this server's state since its start",
        measured.snapshots_taken,
    )?;
    page.counter(
        "reckon_raft_snapshots_installed",
        "Times that this server's state was replaced by a snapshot that it received",
        core.snapshots_installed(),
    )
}

fn queue(page: &mut Page, core: &Core) -> fmt::Result {
    let depth = core.queue().depth();
    page.gauge(
        "reckon_queue_proposals",
        "Proposals that wait in this server's queue as leader, or are under way",
        depth.proposals,
    )?;
    page.gauge(
        "reckon_queue_bytes",
        "Bytes of the callers' proposals that wait in this server's queue as leader, or are under way",
        depth.bytes,
    )?;
    page.histogram(
        "reckon_commit_duration_seconds",
        "How long a proposal took from this server's queue as leader until it was committed and applied",
        depth.commits,
    )?;
    page.counters(
        "reckon_proposals",
        "Proposals that this server made for its callers, by what came of them; a request whose proposal is rejected may make another",
        "outcome",
        &core.outcomes().read(),
    )
}

fn history(page: &mut Page, core: &Core) -> fmt::Result {
    let (status, view) = (core.store().status(), core.view());
    page.gauge(
        "reckon_revision",
        "Revision of this server's fold",
        status.revision,
    )?;
    // A disk that can't say how much it holds is better off without a number.
    if let Ok(bytes) = core.store().disk_usage() {
        page.gauge(
            "reckon_history_size_bytes",
            "About how many bytes state and history take on disk",
            bytes,
        )?;
    }
    page.gauge(
        "reckon_history_events",
        "Events since the cluster's beginning",
        status.events,
    )?;
    page.gauge(
        "reckon_history_horizon_revision",
        "First revision that can still be read; 0 where all can",
        status.horizon,
    )?;
    let horizons = status.horizons.iter();
    let horizons: Vec<_> = horizons.map(|(resource, at)| (&**resource, *at)).collect();
    page.gauges(
        "reckon_history_resource_horizon_revision",
        "The same of resources that are kept for a shorter time than the rest",
        "resource",
        &horizons,
    )?;
    let pruning = core.pruning().read();
    page.counter(
        "reckon_history_pruned_events",
        "Events that this server has gone through since its start to remove what they replaced before the horizons",
        pruning.events,
    )?;
    page.counter(
        "reckon_history_prune_failures",
        "Times since this server's start that it could not remove what lies before the horizons; it tries again",
        pruning.failures,
    )?;
    let objects: Vec<_> = view
        .resources()
        .map(|resource| (&**resource, view.count(resource) as u64))
        .collect();
    page.gauges("reckon_objects", "Objects that live", "resource", &objects)?;
    page.gauge(
        "reckon_store_watches",
        "Followers of the history: watches of clients, and of agents",
        status.watches,
    )?;
    page.gauge(
        "reckon_store_ring_bytes",
        "Bytes of recent events kept in memory for watches",
        status.ring_bytes,
    )?;
    page.counter(
        "reckon_store_history_reads",
        "Times that a watch read history from disk, for it had fallen behind the events in memory",
        status.history_reads,
    )?;
    page.counters(
        "reckon_store_proposals",
        "Proposals applied here since the start, whoever made them, by outcome",
        "outcome",
        &[("accepted", status.accepted), ("rejected", status.rejected)],
    )
}

fn comparison(page: &mut Page, core: &Core) -> fmt::Result {
    let compared = core.comparisons().read();
    page.counters(
        "reckon_digest_checks",
        "Answers of other servers about the digest of their history: equal to this server's, differing, or none to compare",
        "result",
        &[
            ("equal", compared.equal),
            ("differing", compared.differing),
            ("unknown", compared.unknown),
        ],
    )?;
    page.gauge(
        "reckon_digest_unclear",
        "1 while another server's history differs and no majority says whose is right",
        u64::from(compared.unclear.is_some()),
    )?;
    page.gauge(
        "reckon_fenced",
        "1 once this server serves nobody, for a majority has another history",
        u64::from(core.fenced().is_some()),
    )
}

fn disk(page: &mut Page, core: &Core) -> fmt::Result {
    let damages = core.damages().map(|found| (found.of, found.times));
    page.counters(
        "reckon_damaged_reads",
        "Times since this server's start that what was read from its disk was not what had been written there",
        "of",
        &damages,
    )?;
    let (log, store) = (core.node().log_statistics(), core.store().disk_statistics());
    page.counters(
        "reckon_database_written_bytes",
        "Bytes written to the data directory since this server's start: records of the Raft log, and what RocksDB's flushes and compactions write of state and history",
        "by",
        &[
            ("log", log.wal_bytes),
            ("history_flush", store.flush_bytes),
            ("history_compaction", store.compaction_bytes),
        ],
    )?;
    let Some(own) = core.rooms().own() else {
        return Ok(());
    };
    page.gauge(
        "reckon_disk_size_bytes",
        "Size of the disk that the data directory lies on",
        own.total,
    )?;
    page.gauge("reckon_disk_free_bytes", "What is free of it", own.free)?;
    page.gauge(
        "reckon_disk_reserve_bytes",
        "Below so much free, users' writes are refused where this server leads",
        own.reserve,
    )
}

/// Only where one is kept.
fn archive(page: &mut Page, core: &Core, shown: &archive::Shown) -> fmt::Result {
    let Some(shown) = archive::shown(core, shown) else {
        return Ok(());
    };
    page.gauge(
        "reckon_archive_revision",
        "On the leader: all up to this revision is archived",
        shown.revision,
    )?;
    page.gauge(
        "reckon_archive_lag_seconds",
        "On the leader: age of the oldest event that is not archived",
        shown.lag_s,
    )?;
    page.counter(
        "reckon_archive_files",
        "Files that this server has written to the archive since its start",
        shown.files,
    )?;
    page.counter(
        "reckon_archive_written_bytes",
        "Bytes of these files",
        shown.bytes,
    )?;
    page.counter(
        "reckon_archive_failures",
        "Times that history could not be archived since this server's start",
        shown.failures,
    )
}

fn clock(page: &mut Page, core: &Core) -> fmt::Result {
    match core.node().measured().clock_off_ms {
        Some(ms) => page.gauge(
            "reckon_clock_offset_seconds",
            "By how much this server's wall clock is ahead of the log's clock",
            ms as f64 / 1_000.0,
        ),
        None => Ok(()),
    }
}

/// The page as it is written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// The help is a sentence, as the library makes those of what is registered.
    fn of<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0
            .encode_descriptor(name, &format!("{help}."), None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.of(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, of: &[(&str, u64)]) -> fmt::Result {
        let mut family = self.of(name, help, MetricType::Gauge)?;
        of.iter().try_for_each(|(which, value)| {
            family
                .encode_family(&[(label, *which)])?
                .encode_gauge(value)
        })
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.of(name, help, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, of: &[(&str, u64)]) -> fmt::Result {
        let mut family = self.of(name, help, MetricType::Counter)?;
        of.iter().try_for_each(|(which, value)| {
            family
                .encode_family(&[(label, *which)])?
                .encode_counter::<NoLabelSet, _, u64>(value, None)
        })
    }

    fn histogram(&mut self, name: &str, help: &str, counted: Counted) -> fmt::Result {
        self.of(name, help, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(counted.sum_s, counted.count, &counted.buckets, None)
    }
}
