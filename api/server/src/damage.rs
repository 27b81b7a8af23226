//! A disk that has not kept what was written to it: what the server says of it, the same wherever it is found.
//!
//! What is damaged is an error to whoever reads it, and never an answer. Nothing is mended in place: with a disk that has lost one thing
//! nobody knows what else it has lost. A server that can't start or go on ends with this; one that came upon it in the past that
//! somebody asked for goes on, for the others of its records are as good as their checksums, and warns.

use crate::core::Core;
use raft::how_to_rebuild;

/// What to do, behind what is damaged; `name` is the server's.
pub(crate) fn way_out(name: &str) -> String {
    format!(
        "What is damaged is not served. To rebuild {name} from the other servers, {}. The only server of a cluster is rebuilt from a \
         backup, as another cluster: 'reckon restore --from URL --data-dir DIR'",
        how_to_rebuild(name)
    )
}

/// Damage of one kind that was found since the start.
pub(crate) struct Found {
    pub of: &'static str,
    pub times: u64,
    pub first: Option<String>,
}

impl Core {
    /// What was found damaged on this server's disk since its start.
    pub(crate) fn damages(&self) -> [Found; 3] {
        let found = |of, damages: &seams::Damages| Found {
            of,
            times: damages.found(),
            first: damages.first(),
        };
        let (log, snapshot) = self.node().damages();
        [
            found("log", log),
            found("state", &self.store().damages()),
            found("snapshot", snapshot),
        ]
    }

    /// One sentence for each kind that is damaged, and what to do.
    pub(crate) fn says_damaged(&self) -> Option<String> {
        let found = self.damages();
        let said: Vec<_> = found
            .iter()
            .filter_map(|found| {
                let first = found.first.as_ref()?;
                Some(format!("the disk of {} is damaged: {first}", self.name()))
            })
            .collect();
        (!said.is_empty()).then(|| format!("{}. {}", said.join(". "), way_out(self.name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_both_ways_out() {
        let said = way_out("server-2");
        for part in [
            "not served",
            "reckon member remove server-2",
            "reckon member add NAME HOST:PORT",
            "empty directory",
            "reckon restore --from URL --data-dir DIR",
        ] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
}
