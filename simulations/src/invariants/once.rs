//! Nothing is done twice: an id is accepted once, whatever is asked again.

use super::{OfHistory, Violation};
use crate::planted::Planted;
use eventstore::{Event, ProposalId};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Once {
    accepted: BTreeMap<ProposalId, u64>,
}

impl OfHistory for Once {
    fn event(&mut self, event: &Event) -> Result<(), Violation> {
        let id = event.envelope.id;
        let id = ProposalId {
            attempt: id.attempt % Planted::REPEATED,
            ..id
        };
        match self.accepted.insert(id, event.revision()) {
            None => Ok(()),
            Some(first) => Err(Violation::new(
                "done once",
                format!(
                    "{id} was accepted at revision {first} and again at {}",
                    event.revision()
                ),
            )),
        }
    }
}
