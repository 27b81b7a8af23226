//! `reckon backup verify`: every stretch is loaded as a restore would load it, and what belongs to none is read.

use super::load::{read_page, read_segment};
use super::{Archive, ArchiveError, BaseFiles, Chain, Chains, Gap, Stored, load};
use eventstore::Digest;
use eventstore_disk::{Store, StoreConfig};
use seams::{Directory, FileDirectory};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Of one that is sound.
#[derive(Clone, Debug)]
pub struct Verified {
    pub chain: Chain,
    pub events: u64,
    pub versions: u64,
    pub digest: Digest,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub sound: Vec<Verified>,
    pub gaps: Vec<Gap>,
    /// Pages of bases that were never ended: how many.
    pub broken_off: usize,
    /// What is damaged or missing; empty: all is sound.
    pub wrong: Vec<String>,
}

/// Reads every file. Takes room for the longest stretch under a directory, and leaves nothing there. `told` is called with the revision reached.
/// An error says that the store, or that directory, can't be used.
pub async fn verify(
    archive: &Archive,
    chains: &Chains,
    place: &Path,
    told: impl Fn(u64),
) -> Result<Report, ArchiveError> {
    let mut report = Report {
        gaps: chains.gaps(),
        broken_off: chains.broken_off.len(),
        wrong: chains.wrong.iter().map(ToString::to_string).collect(),
        ..Report::default()
    };
    for (chain, number) in chains.all.iter().zip(1..) {
        let folder = place.join(format!("stretch-{number}"));
        let verified = whole(archive, chain, &chains.spare, &folder, &told).await;
        std::fs::remove_dir_all(&folder).map_err(|error| source(&error))?;
        match verified {
            Ok(verified) => report.sound.push(verified),
            Err(error @ (ArchiveError::File { .. } | ArchiveError::Load { .. })) => {
                // One is named already; others may be damaged too.
                let error = error.to_string();
                let found = all_read(archive, chain.files()).await?;
                if !found.contains(&error) {
                    report.wrong.push(error);
                }
                report.wrong.extend(found);
            }
            Err(ArchiveError::Asked(wrong)) => report.wrong.push(wrong),
            Err(other) => return Err(other),
        }
    }
    let spare = chains.spare.iter().flat_map(|base| &base.pages);
    let severed = chains.wrong.iter().filter(|wrong| !wrong.damaged);
    let severed = severed.flat_map(|wrong| &wrong.files);
    let rest = spare.chain(&chains.broken_off).chain(severed);
    report.wrong.extend(all_read(archive, rest).await?);
    Ok(report)
}

async fn whole(
    archive: &Archive,
    chain: &Chain,
    spare: &[BaseFiles],
    folder: &Path,
    told: impl Fn(u64),
) -> Result<Verified, ArchiveError> {
    let directory = FileDirectory::open(folder).map_err(|error| source(&error))?;
    let directory: Arc<dyn Directory> = Arc::new(directory);
    let loaded = load(archive, chain, &*directory, "state", told).await?;
    let store = Store::open(directory, "state", StoreConfig::default());
    let store = store.map_err(|error| source(&error))?;
    let verified = store.verify(store.horizon().max(1)..=u64::MAX, |_| {});
    let verified = verified.map_err(|error| ArchiveError::Asked(format!("{chain}: {error}")))?;
    for base in spare {
        let beginning = &base.head.beginning;
        let event = match store.recorded_at(beginning.revision) {
            Ok(Some(event)) => event,
            // It is inside of another.
            Ok(None) | Err(_) => continue,
        };
        if (event.revision(), event.digest) != (beginning.revision, beginning.digest) {
            let name = base.pages.first().map(|page| page.name.to_string());
            return Err(ArchiveError::Asked(format!(
                "{}: it is of another history than the events around it",
                name.unwrap_or_default()
            )));
        }
    }
    Ok(Verified {
        chain: chain.clone(),
        events: loaded.events,
        versions: verified.versions,
        digest: loaded.view.digest,
    })
}

fn source(error: &dyn fmt::Display) -> ArchiveError {
    ArchiveError::Source(error.to_string())
}

/// Which of them are damaged.
async fn all_read(
    archive: &Archive,
    files: impl Iterator<Item = &Stored>,
) -> Result<Vec<String>, ArchiveError> {
    let mut wrong = Vec::new();
    for file in files {
        let read = if file.name.as_ref().contains("/base/") {
            read_page(archive, file).await.map(drop)
        } else {
            read_segment(archive, file).await.map(drop)
        };
        match read {
            Ok(()) => {}
            Err(error @ ArchiveError::File { .. }) => wrong.push(error.to_string()),
            Err(other) => return Err(other),
        }
    }
    Ok(wrong)
}
