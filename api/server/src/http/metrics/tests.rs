//! The page as a scraper reads it.

use crate::http::tests::{Server, Setup, cluster_of, server, server_with};
use seams::{Clock, SystemClock};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a page says: each family's type and help, and the samples by their whole name, labels included.
struct Page {
    kinds: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Page {
    async fn of(server: &Server) -> Self {
        let (code, text) = server.get("/metrics").await;
        assert_eq!(code, 200);
        let text = text.as_str().unwrap().to_owned();
        let mut page = Self {
            kinds: BTreeMap::new(),
            helps: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        let (body, end) = text.split_at(text.len() - "# EOF\n".len());
        assert_eq!(end, "# EOF\n");
        for line in body.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let twice = match words.as_slice() {
                ["#", "TYPE", name, kind] => {
                    page.kinds.insert((*name).into(), (*kind).into()).is_some()
                }
                ["#", "HELP", name, help] => {
                    page.helps.insert((*name).into(), (*help).into()).is_some()
                }
                _ => {
                    let (name, value) = line.rsplit_once(' ').unwrap();
                    let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
                    page.samples.insert(name.into(), value).is_some()
                }
            };
            assert!(!twice, "twice: {line}");
        }
        page
    }

    fn value(&self, sample: &str) -> f64 {
        *self
            .samples
            .get(sample)
            .unwrap_or_else(|| panic!("no {sample} among {:?}", self.samples.keys()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_help_and_a_name_by_convention() {
    // With all that only some servers have.
    let backups = tempfile::tempdir().unwrap();
    let url = format!("file://{}", backups.path().display());
    let server = server_with(Setup {
        archive: Some(url),
        ..Setup::default()
    })
    .await;
    let page = Page::of(&server).await;
    // What an operator has to see, whatever else there is.
    for (name, kind) in [
        ("reckon_raft_term", "gauge"),
        ("reckon_raft_leader_changes", "counter"),
        ("reckon_commit_duration_seconds", "histogram"),
        ("reckon_raft_apply_duration_seconds", "histogram"),
        ("reckon_raft_log_sync_duration_seconds", "histogram"),
        ("reckon_queue_proposals", "gauge"),
        ("reckon_queue_bytes", "gauge"),
        ("reckon_proposals", "counter"),
        ("reckon_raft_replication_lag_entries", "gauge"),
        ("reckon_digest_checks", "counter"),
        ("reckon_history_size_bytes", "gauge"),
        ("reckon_history_events", "gauge"),
        ("reckon_history_horizon_revision", "gauge"),
        ("reckon_history_resource_horizon_revision", "gauge"),
        ("reckon_history_pruned_events", "counter"),
        ("reckon_history_prune_failures", "counter"),
        ("reckon_clock_offset_seconds", "gauge"),
        ("reckon_archive_revision", "gauge"),
        ("reckon_archive_lag_seconds", "gauge"),
        ("reckon_archive_files", "counter"),
        ("reckon_archive_written_bytes", "counter"),
        ("reckon_archive_failures", "counter"),
    ] {
        let found = page.kinds.get(name).map(String::as_str);
        assert_eq!(found, Some(kind), "{name} among {:?}", page.kinds.keys());
    }
    for (name, kind) in &page.kinds {
        let help = page.helps.get(name).map_or("", String::as_str);
        assert!(help.len() > 10 && help.ends_with('.'), "{name}: {help:?}");
        let letters = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(letters && name.starts_with("reckon_"), "{name}");
        // promtool's rules: base units only, and `_total` is a counter's, which the library adds to its samples.
        for unit in [
            "_ms",
            "_milliseconds",
            "_minutes",
            "_kilobytes",
            "_mib",
            "_percent",
            "_count",
            "_total",
        ] {
            assert!(!name.ends_with(unit), "{name} ends with {unit}");
        }
        match kind.as_str() {
            "histogram" => assert!(name.ends_with("_duration_seconds"), "{name}"),
            "counter" | "gauge" => {}
            other => panic!("{name} is a {other}"),
        }
    }
    for sample in page.samples.keys() {
        let name = sample.split('{').next().unwrap();
        let family = page.kinds.iter().find(|(family, kind)| {
            let endings: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            endings
                .iter()
                .any(|ending| name == format!("{family}{ending}"))
        });
        assert!(family.is_some(), "{sample} is of no family");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_move_what_they_should() {
    const WRITES: f64 = 20.0;
    let server = server().await;
    let before = Page::of(&server).await;
    let path = "/api/v1/namespaces/default/configmaps";
    for number in 0..WRITES as u32 {
        let (code, answer) = server
            .json(
                "POST",
                path,
                json!({"metadata": {"name": format!("map-{number}")}, "data": {"a": "b"}}),
            )
            .await;
        assert_eq!(code, 201, "{answer}");
    }
    let after = Page::of(&server).await;
    let moved = |sample: &str| after.value(sample) - before.value(sample);
    // At least, for reconcilers may write too. An answer comes as soon as the write is folded, which may be before the last is counted.
    for sample in [
        "reckon_revision",
        "reckon_applied_index",
        "reckon_history_events",
        "reckon_raft_log_bytes",
        "reckon_raft_log_syncs_total",
        "reckon_raft_log_sync_duration_seconds_count",
        "reckon_raft_apply_duration_seconds_count",
        "reckon_commit_duration_seconds_count",
        "reckon_commit_duration_seconds_bucket{le=\"+Inf\"}",
        "reckon_proposals_total{outcome=\"accepted\"}",
        "reckon_store_proposals_total{outcome=\"accepted\"}",
        "reckon_objects{resource=\"configmaps\"}",
    ] {
        assert!(moved(sample) >= WRITES - 1.0, "{sample}: {}", moved(sample));
    }
    for sample in [
        "reckon_raft_log_sync_duration_seconds_sum",
        "reckon_raft_apply_duration_seconds_sum",
        "reckon_commit_duration_seconds_sum",
        "reckon_database_written_bytes_total{by=\"log\"}",
    ] {
        assert!(moved(sample) > 0.0, "{sample}");
    }
    // A commit is a sync and an apply at least.
    assert!(
        moved("reckon_commit_duration_seconds_sum")
            > moved("reckon_raft_apply_duration_seconds_sum") / 2.0
    );
    for (sample, value) in [
        ("reckon_raft_leads", 1.0),
        ("reckon_raft_leader_changes_total", 1.0),
        ("reckon_history_horizon_revision", 0.0),
        ("reckon_raft_snapshots_installed_total", 0.0),
        ("reckon_proposals_total{outcome=\"no_room\"}", 0.0),
        ("reckon_proposals_total{outcome=\"too_busy\"}", 0.0),
        ("reckon_proposals_total{outcome=\"unavailable\"}", 0.0),
        ("reckon_proposals_total{outcome=\"unknown\"}", 0.0),
        ("reckon_digest_checks_total{result=\"differing\"}", 0.0),
        ("reckon_fenced", 0.0),
        ("reckon_damaged_reads_total{of=\"log\"}", 0.0),
        ("reckon_damaged_reads_total{of=\"state\"}", 0.0),
        ("reckon_damaged_reads_total{of=\"snapshot\"}", 0.0),
        ("reckon_disk_reserve_bytes", 0.0),
    ] {
        assert_eq!(after.value(sample), value, "{sample}");
    }
    assert!(after.value("reckon_raft_term") >= 1.0);
    assert!(after.value("reckon_disk_free_bytes") > 0.0);
    // RocksDB counts whole blocks of memory.
    assert!(after.value("reckon_history_size_bytes") > 0.0);
    assert!(after.value("reckon_clock_offset_seconds").abs() < 1.0);

    // The queue fills while many write at once, and empties.
    let write = |number: usize| {
        let server = &server;
        let map =
            json!({"metadata": {"generateName": "many-"}, "data": {"a": "x".repeat(8 << 10)}});
        async move { assert_eq!(server.json("POST", path, map).await.0, 201, "{number}") }
    };
    let mut most = (0.0_f64, 0.0_f64);
    // Each look is at one moment, and by then a fast disk may have emptied it: so there are many.
    for _ in 0..40 {
        let writes = futures::future::join_all((0..256).map(write));
        tokio::pin!(writes);
        while futures::poll!(&mut writes).is_pending() {
            let page = Page::of(&server).await;
            most.0 = most.0.max(page.value("reckon_queue_proposals"));
            most.1 = most.1.max(page.value("reckon_queue_bytes"));
            // A task that never waits is polled on an empty budget, and nothing in it gets on.
            tokio::task::yield_now().await;
        }
        if most.0 > 1.0 && most.1 > 8192.0 {
            break;
        }
    }
    assert!(most.0 > 1.0 && most.1 > 8192.0, "{most:?}");
    wait_for(&server, |page| page.value("reckon_queue_bytes") == 0.0).await;

    // A snapshot takes the log's place.
    server.core().node().snapshot().await.unwrap();
    wait_for(&server, |page| {
        page.value("reckon_raft_snapshots_taken_total") > 0.0
            && page.value("reckon_raft_log_bytes") < after.value("reckon_raft_log_bytes")
    })
    .await;
}

/// A wall clock that is an hour ahead.
struct Ahead;

const AHEAD_S: f64 = 3_600.0;

impl Clock for Ahead {
    fn wall_ms(&self) -> u64 {
        SystemClock.wall_ms() + (AHEAD_S * 1_000.0) as u64
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_each_says_how_it_stands_beside_the_others() {
    let ahead = Setup {
        clock: Arc::new(Ahead),
        ..Setup::default()
    };
    let servers = cluster_of(vec![Setup::default(), Setup::default(), ahead]).await;
    for (server, off_s) in servers.iter().zip([0.0, 0.0, AHEAD_S]) {
        wait_for(server, |page| {
            let off = page.samples.get("reckon_clock_offset_seconds");
            off.is_some_and(|off| (off - off_s).abs() < 60.0)
        })
        .await;
        // Two others, each asked at least once.
        wait_for(server, |page| {
            page.value("reckon_digest_checks_total{result=\"equal\"}") >= 2.0
        })
        .await;
        let page = Page::of(server).await;
        let differing = page.value("reckon_digest_checks_total{result=\"differing\"}");
        assert_eq!(differing, 0.0);
    }
    let pages = futures::future::join_all(servers.iter().map(Page::of)).await;
    let leads: Vec<_> = pages
        .iter()
        .filter(|page| page.value("reckon_raft_leads") == 1.0)
        .collect();
    assert_eq!(leads.len(), 1);
    let lag = "reckon_raft_replication_lag_entries{peer=";
    let lags = leads[0].samples.keys();
    assert_eq!(lags.filter(|sample| sample.starts_with(lag)).count(), 2);
}

async fn wait_for(server: &Server, there: impl Fn(&Page) -> bool) {
    for _ in 0..100 {
        if there(&Page::of(server).await) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not there in time: {:?}", Page::of(server).await.samples);
}
