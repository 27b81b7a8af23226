//! What is restored is what was: a database made from a backup.

use super::Violation;
use crate::sides::{Chance, SimDisks};
use eventstore_disk::backup::{LoadError, Loader, Segment};
use eventstore_disk::{Store, StoreConfig};

const NAME: &str = "restored is past";
/// Of a segment, before compression: many a run has several.
const SEGMENT_BYTES: usize = 1 << 20;

fn violated(what: impl ToString) -> Violation {
    Violation::new(NAME, what.to_string())
}

/// All of a store's history goes through a backup's files and comes out the same.
pub fn through_a_backup(store: &Store, chance: Chance) -> Result<(), Violation> {
    let view = store.view();
    if store.horizon() > 0 {
        return Err(violated(
            "nothing was pruned, and yet history has a horizon",
        ));
    }
    let disks = SimDisks::new(chance);
    let directory = disks.directory();
    let config = StoreConfig::default();
    let mut loader = Loader::new(&*directory, "state", &config, []).map_err(violated)?;
    let mut after = 0;
    while after < view.revision {
        let segment = store
            .segment_after(after, SEGMENT_BYTES)
            .map_err(violated)?;
        let Some((head, file)) = segment else { break };
        after = head.last;
        let loaded = Segment::read(&file)
            .map_err(|error| LoadError::Wrong(error.to_string()))
            .and_then(|segment| loader.segment(segment));
        loaded.map_err(violated)?;
    }
    let loaded = loader.finish().map_err(violated)?;
    let same = loaded.digest == store.view().digest && loaded.objects().eq(store.view().objects());
    if !same {
        return Err(violated(format!(
            "a backup up to revision {} has the digest {}, the store {}",
            loaded.revision, loaded.digest, view.digest
        )));
    }
    Ok(())
}
