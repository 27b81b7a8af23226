//! `/metrics`: what the front door has answered, and how the server behind it stands.
//!
//! What is counted here is the front door's own. Everything else is counted where it happens, as plain numbers, and read when the page is
//! asked for (`standing`), so that nothing below depends on how it is shown. Names follow Prometheus' conventions: base units at
//! the end, `_total` on counters, which the library adds.

mod standing;
#[cfg(test)]
mod tests;

use super::request_info::RequestInfo;
use crate::archive;
use crate::core::Core;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use standing::Standing;
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
}

impl Metrics {
    pub fn new(core: Core, archiving: archive::Shown) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        registry.register("reckon_api_requests", "Requests answered", requests.clone());
        let constructor: fn() -> Histogram = || Histogram::new(BUCKETS_S);
        let seconds = Family::new_with_constructor(constructor);
        registry.register(
            "reckon_api_request_duration_seconds",
            "Time until the answer's first byte",
            seconds.clone(),
        );
        let watches = Gauge::default();
        registry.register("reckon_api_watches", "Watches open", watches.clone());
        registry.register_collector(Box::new(Standing::of(core, archiving)));
        Self {
            registry,
            requests,
            seconds,
            watches,
        }
    }

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

    pub fn print(&self) -> String {
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
