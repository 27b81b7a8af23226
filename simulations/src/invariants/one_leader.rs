//! At most one leader a term (Ongaro & Ousterhout 2014, "In Search of an Understandable Consensus Algorithm", section 5.2: election safety).

use super::Violation;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct OneLeader {
    of_term: BTreeMap<u64, String>,
}

impl OneLeader {
    /// A server says that it leads in a term.
    pub fn leads(&mut self, name: &str, term: u64) -> Result<(), Violation> {
        let leader = self.of_term.entry(term).or_insert_with(|| name.to_owned());
        if leader == name {
            return Ok(());
        }
        Err(Violation::new(
            "one leader a term",
            format!("{leader} and {name} both lead in term {term}"),
        ))
    }

    /// How many terms had a leader.
    pub fn terms(&self) -> usize {
        self.of_term.len()
    }
}
