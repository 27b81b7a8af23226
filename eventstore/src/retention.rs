//! How far back history reaches, and what holds it there. Part of the fold, so that every server answers alike; when the records
//! themselves go is each server's own affair.

use crate::{Rejection, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first revisions that can still be read: of all history, and of resources that are kept for a shorter time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizons {
    pub all: u64,
    pub resources: Vec<(Text, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    horizon: u64,
    resources: BTreeMap<Text, u64>,
    holds: BTreeMap<Text, u64>,
}

impl Retention {
    pub const MOST_HOLDS: usize = 256;
    pub const MOST_RESOURCES: usize = 256;

    /// That of a history that reaches back so far and is held by nothing.
    pub fn reaching(horizons: &Horizons) -> Self {
        Self {
            horizon: horizons.all,
            resources: horizons.resources.iter().cloned().collect(),
            holds: BTreeMap::new(),
        }
    }

    /// The first revision whose past can be read; 0: all of it.
    pub fn horizon(&self) -> u64 {
        self.horizon
    }

    /// The same for one resource's objects.
    pub fn horizon_of(&self, resource: &str) -> u64 {
        let own = self.resources.get(resource).copied().unwrap_or_default();
        own.max(self.horizon)
    }

    /// From here on every object of every resource can be read.
    pub fn whole_from(&self) -> u64 {
        self.resources
            .values()
            .copied()
            .fold(self.horizon, u64::max)
    }

    /// Resources that are kept for a shorter time than the rest, with their horizons.
    pub fn resources(&self) -> impl Iterator<Item = (&Text, u64)> {
        self.resources
            .iter()
            .map(|(resource, horizon)| (resource, *horizon))
    }

    /// Who holds history, and from which revision on.
    pub fn holds(&self) -> impl Iterator<Item = (&Text, u64)> {
        self.holds.iter().map(|(name, revision)| (name, *revision))
    }

    /// No horizon goes beyond this one.
    pub fn floor(&self) -> Option<u64> {
        self.holds.values().min().copied()
    }

    /// Moves the horizons as far as was asked and holds allow; says where those stand now that moved. None moved: a rejection.
    pub(crate) fn prune(&mut self, asked: &Horizons, newest: u64) -> Result<Horizons, Rejection> {
        let most = self.floor().unwrap_or(newest).min(newest);
        let mut moved = Horizons::default();
        if asked.all.min(most) > self.horizon {
            self.horizon = asked.all.min(most);
            moved.all = self.horizon;
        }
        for (resource, horizon) in &asked.resources {
            let horizon = (*horizon).min(most);
            let room = self.resources.len() < Self::MOST_RESOURCES
                || self.resources.contains_key(resource);
            if horizon > self.horizon_of(resource) && room {
                self.resources.insert(resource.clone(), horizon);
                moved.resources.push((resource.clone(), horizon));
            }
        }
        // What lies behind all history's horizon says nothing more.
        self.resources.retain(|_, own| *own > self.horizon);
        if moved == Horizons::default() {
            return Err(not_now(
                "history reaches no further back already, or is held".to_owned(),
            ));
        }
        Ok(moved)
    }

    pub(crate) fn hold(
        &mut self,
        name: &Text,
        revision: u64,
        newest: u64,
    ) -> Result<(), Rejection> {
        let whole_from = self.horizon;
        if revision < whole_from || revision > newest {
            return Err(not_now(format!(
                "revision {revision} cannot be held: history goes from {whole_from} to {newest}"
            )));
        }
        if self.holds.len() >= Self::MOST_HOLDS && !self.holds.contains_key(name) {
            return Err(not_now(format!(
                "{} holds are there already: release one first",
                Self::MOST_HOLDS
            )));
        }
        self.holds.insert(name.clone(), revision);
        Ok(())
    }

    pub(crate) fn release(&mut self, name: &Text) -> Result<u64, Rejection> {
        self.holds
            .remove(name)
            .ok_or_else(|| not_now(format!("nothing is held under the name {name}")))
    }
}

fn not_now(why: String) -> Rejection {
    Rejection::NotNow(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn horizons_only_grow_and_stop_at_holds() {
        let mut retention = Retention::default();
        let asked = |all, events| Horizons {
            all,
            resources: vec![("events".into(), events)],
        };
        let stands = |retention: &Retention| {
            (
                retention.horizon(),
                retention.horizon_of("events"),
                retention.whole_from(),
            )
        };
        assert_eq!(retention.prune(&asked(10, 50), 100), Ok(asked(10, 50)));
        assert_eq!(stands(&retention), (10, 50, 50));
        assert!(retention.prune(&asked(5, 40), 100).is_err());
        assert_eq!(stands(&retention), (10, 50, 50));

        retention.hold(&"audit".into(), 60, 100).unwrap();
        assert_eq!(retention.prune(&asked(80, 90), 100).unwrap().all, 60);
        assert_eq!(stands(&retention), (60, 60, 60));
        assert!(retention.hold(&"late".into(), 59, 100).is_err());
        assert!(retention.hold(&"early".into(), 101, 100).is_err());
        assert!(retention.prune(&asked(80, 90), 100).is_err());

        assert_eq!(retention.release(&"audit".into()), Ok(60));
        assert!(retention.release(&"audit".into()).is_err());
        assert_eq!(retention.prune(&asked(200, 0), 100).unwrap().all, 100);
    }
}
