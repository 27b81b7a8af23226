//! History that is read for a backup: no horizon passes it while it is read on.
//!
//! All pages of a base are of one moment, and the events behind it follow; a horizon that moves on meanwhile would make the backup begin anew,
//! over and over. So each look tells the leader from where on history is still wanted, and the leader, who alone moves horizons, waits
//! for it. That is in its memory and runs out by itself: a backup that broke off holds nothing for long, and one that leads anew is told with
//! the next look. It must never hold history for good: that is what holds are for.

use crate::core::Core;
use bytes::Bytes;
use eventstore_disk::ReadError;
use eventstore_disk::backup::{BaseHead, Continue, SegmentHead};
use seams::{Refusal, RefusalCode};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

/// The peers' method that says from which revision on history is read: eight bytes, little endian.
pub(crate) const METHOD_PIN: &str = "pin";

/// A page that was sent is written to an object store before the next is asked for.
const LASTS: Duration = Duration::from_secs(60);
/// Past it the newest are not held: they are the last that a horizon comes to.
const PINS_MAX: usize = 1_024;
/// The leader answers once the horizon that is under way stands.
const ASK_TIMEOUT: Duration = Duration::from_secs(12);

/// From which revisions on history is read, and until when.
pub(crate) type Until = BTreeMap<u64, Instant>;

#[derive(Default)]
pub(crate) struct Pins(Mutex<Until>);

impl Pins {
    /// Whoever moves a horizon keeps this until it stands, so that what is pinned afterwards is before it or held.
    pub async fn lock(&self) -> MutexGuard<'_, Until> {
        self.0.lock().await
    }

    async fn put(&self, revision: u64) {
        let (mut pins, now) = (self.lock().await, Instant::now());
        pins.retain(|_, until| *until > now);
        pins.insert(revision, now + LASTS);
        while pins.len() > PINS_MAX {
            pins.pop_last();
        }
    }
}

/// No horizon may go beyond this one.
pub(crate) fn floor(pins: &Until) -> Option<u64> {
    let now = Instant::now();
    let read = pins.iter().filter(|(_, until)| **until > now);
    read.map(|(revision, _)| *revision).next()
}

/// A page of the base off this server's store, or the first one.
pub(crate) async fn base_page(
    core: &Core,
    from: Option<Continue>,
) -> Result<Option<(BaseHead, Vec<u8>)>, ReadError> {
    of_base(core, from.as_ref()).await;
    core.store().base_page(from)
}

/// Before a page of the base is read.
pub(crate) async fn of_base(core: &Core, from: Option<&Continue>) {
    let begins = match from {
        Some(from) => from.revision,
        None => core.store().horizon(),
    };
    pin(core, begins).await;
}

/// The events behind a revision off this server's store.
pub(crate) async fn segment_after(
    core: &Core,
    after: u64,
    most_bytes: usize,
) -> Result<Option<(SegmentHead, Vec<u8>)>, ReadError> {
    pin(core, after).await;
    core.store().segment_after(after, most_bytes)
}

/// Tells the leader. Where none can be told none moves a horizon either, or it is too old to know: what is read is refused then once it
/// is pruned.
pub(crate) async fn pin(core: &Core, revision: u64) {
    let Some((_, leader)) = core.node().led() else {
        return;
    };
    if leader.id == core.node().id() {
        drop(timeout(ASK_TIMEOUT, core.pins().put(revision)).await);
        return;
    }
    let body = Bytes::copy_from_slice(&revision.to_le_bytes());
    let asked = core.node().call(&leader, METHOD_PIN, body, ASK_TIMEOUT);
    if let Err(error) = asked.await {
        tracing::debug!(%error, revision, "the leader was not told what a backup reads");
    }
}

/// The leader's side.
pub(crate) async fn told(core: &Core, body: &[u8]) -> Result<Bytes, Refusal> {
    let no_revision = |_| Refusal::new(RefusalCode::Invalid, "eight bytes name a revision");
    let revision = u64::from_le_bytes(body.try_into().map_err(no_revision)?);
    core.pins().put(revision).await;
    Ok(Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pin_runs_out_where_it_is_not_renewed() {
        let pins = Pins::default();
        let floor = async |pins: &Pins| floor(&*pins.lock().await);
        assert_eq!(floor(&pins).await, None);
        pins.put(10).await;
        tokio::time::advance(LASTS / 2).await;
        pins.put(7).await;
        pins.put(20).await;
        assert_eq!(floor(&pins).await, Some(7));
        pins.put(10).await;
        tokio::time::advance(LASTS / 2).await;
        pins.put(10).await;
        assert_eq!(floor(&pins).await, Some(7));
        tokio::time::advance(LASTS / 2).await;
        assert_eq!(floor(&pins).await, Some(10));
        tokio::time::advance(LASTS / 2).await;
        assert_eq!(floor(&pins).await, None);
        for revision in 0..2 * PINS_MAX as u64 {
            pins.put(revision).await;
        }
        assert_eq!(floor(&pins).await, Some(0));
        assert_eq!(pins.lock().await.len(), PINS_MAX);
    }
}
