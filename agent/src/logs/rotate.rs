//! Rotates the log of a running container once it is too large: renamed, and the runtime asked for a new file. The kubelet's defaults.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Timestamp;

/// A log file is rotated when it is larger.
pub const MAX_FILE_BYTES: u64 = 10 << 20;
/// Files of one log that are kept, the one being written included.
pub const MAX_FILES: usize = 5;

/// Renames the file if it is too large. True: the runtime must reopen it.
pub fn rotate(path: &Path, now: Timestamp, max_bytes: u64) -> io::Result<bool> {
    if fs::metadata(path).map_or(0, |metadata| metadata.len()) <= max_bytes {
        return Ok(false);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", now.format("%Y%m%d-%H%M%S%.6f")));
    fs::rename(path, PathBuf::from(name))?;
    let old = rotated(path);
    for excess in &old[..old.len().saturating_sub(MAX_FILES - 1)] {
        fs::remove_file(excess)?;
    }
    Ok(true)
}

/// The rotated files of a log, the oldest first.
pub fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(&prefix))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}
