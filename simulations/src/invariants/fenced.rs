//! A higher epoch fences a lower one: what an agent reports is accepted only while its session is the newest of its node, and not lost.

use super::{OfHistory, Violation};
use crate::planted::UNFENCED;
use eventstore::{Actor, Event, Happened};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Fenced {
    /// node -> the epoch that is open
    open: BTreeMap<String, u64>,
}

impl OfHistory for Fenced {
    fn event(&mut self, event: &Event) -> Result<(), Violation> {
        let reported = match &event.envelope.actor {
            Actor::Agent { node, epoch } => Some((node.to_string(), *epoch)),
            Actor::Server { name } => name.strip_prefix(UNFENCED).and_then(|agent| {
                let (node, epoch) = agent.rsplit_once('/')?;
                Some((node.to_owned(), epoch.parse().ok()?))
            }),
            Actor::User { .. } | Actor::Reconciler { .. } => None,
        };
        if let Some((node, epoch)) = reported
            && self.open.get(&node) != Some(&epoch)
        {
            let open = self.open.get(&node);
            let what = format!(
                "revision {}: {node} reported under epoch {epoch}, open is {open:?}",
                event.revision()
            );
            return Err(Violation::new("fenced sessions", what));
        }
        match &event.envelope.happened {
            Happened::SessionOpened { node, .. } => {
                self.open.insert(node.to_string(), event.revision());
            }
            Happened::SessionLost { node, epoch } => {
                if self.open.get(&**node) == Some(epoch) {
                    self.open.remove(&**node);
                }
            }
            Happened::Founded { .. }
            | Happened::Objects(_)
            | Happened::Round(_)
            | Happened::LevelRaised { .. }
            | Happened::Pruned(_)
            | Happened::Held { .. }
            | Happened::Released { .. } => {}
            Happened::Restored { .. } => self.open.clear(),
        }
        Ok(())
    }
}
