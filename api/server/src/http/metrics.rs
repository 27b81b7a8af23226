//! `/metrics`: what the front door has answered, and where this server stands.

use super::request_info::RequestInfo;
use crate::core::Core;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Upper bounds in seconds: a commit on a local disk is a few milliseconds, a rollout's patience a minute.
const BUCKETS_S: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: String,
    resource: String,
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerb {
    verb: String,
}

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<ByVerb, Histogram>,
    watches: Gauge,
    revision: Gauge,
    applied: Gauge,
    term: Gauge,
    leads: Gauge,
    log_syncs: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS_S)),
            watches: Gauge::default(),
            revision: Gauge::default(),
            applied: Gauge::default(),
            term: Gauge::default(),
            leads: Gauge::default(),
            log_syncs: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            "reckon_api_requests",
            "Requests answered",
            metrics.requests.clone(),
        );
        registry.register(
            "reckon_api_request_duration_seconds",
            "Time until the answer's first byte",
            metrics.seconds.clone(),
        );
        registry.register(
            "reckon_api_watches",
            "Watches open",
            metrics.watches.clone(),
        );
        registry.register(
            "reckon_revision",
            "Revision of this server's fold",
            metrics.revision.clone(),
        );
        registry.register(
            "reckon_applied_index",
            "Last log index folded",
            metrics.applied.clone(),
        );
        registry.register("reckon_raft_term", "Raft's term", metrics.term.clone());
        registry.register(
            "reckon_raft_leads",
            "1 while this server leads",
            metrics.leads.clone(),
        );
        registry.register(
            "reckon_raft_log_syncs",
            "Times that the Raft log was synced to disk, by RocksDB's count",
            metrics.log_syncs.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    pub fn answered(&self, info: &RequestInfo, code: u16, took: Duration) {
        // Only what the table of kinds knows is a label: anybody can ask for any path.
        let resource = info.resource.as_ref().and_then(|path| {
            kinds::resources::by_plural(&path.group, &path.version, &path.resource)
        });
        let resource = resource.map(|kind| kind.resource()).unwrap_or_default();
        self.requests
            .get_or_create(&Answered {
                verb: info.verb.to_owned(),
                resource,
                code: code.into(),
            })
            .inc();
        if !info.long_running() {
            self.seconds
                .get_or_create(&ByVerb {
                    verb: info.verb.to_owned(),
                })
                .observe(took.as_secs_f64());
        }
    }

    /// Counts a watch for as long as the guard is held.
    pub fn watch_opened(&self) -> OpenWatch {
        self.watches.inc();
        OpenWatch(self.watches.clone())
    }

    pub fn print(&self, core: &Core) -> String {
        let status = core.status();
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.revision.set(whole(status.revision));
        self.applied.set(whole(status.applied));
        self.term.set(whole(status.term));
        self.leads
            .set(i64::from(status.leader.as_deref() == Some(core.name())));
        // RocksDB keeps the count; here it is only told.
        self.log_syncs
            .inner()
            .store(core.log_syncs(), Ordering::Relaxed);
        let mut text = String::new();
        // Writing into a String fails only if a metric's own printing does.
        let written = encode(&mut text, &self.registry);
        debug_assert!(written.is_ok());
        text
    }
}

/// One watch is open.
pub(crate) struct OpenWatch(Gauge);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}
