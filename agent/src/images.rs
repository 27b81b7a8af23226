//! Images without a registry: archives in a directory are imported at start and as they appear (as k3s does), the pause image is made
//! here, and so are small images from static binaries (`build_archive`).
//!
//! It imports into containerd by its own `ctr`, for CRI has no call to import. It never deletes an image or an archive.

mod archive;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

pub use archive::{File, ImageSpec, build_archive, busybox_image};

/// What sandboxes are made of. No registry has it: it is built on the node.
pub const PAUSE_IMAGE: &str = "reckon.local/pause:1";
/// An archive of some gigabytes on a slow disk.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Debug, Error)]
pub enum ImageError {
    #[error("a static busybox is needed to build the pause image: apt-get install busybox-static")]
    NoBusybox,
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("importing {path}: {reason}")]
    Import { path: PathBuf, reason: String },
}

/// Imports what a directory holds, each file once in each of its versions.
pub struct Importer {
    dir: PathBuf,
    ctr: PathBuf,
    socket: PathBuf,
    snapshotter: &'static str,
    /// Below containerd's root, so that it goes with the images.
    record: PathBuf,
    /// File name to size and time of change.
    done: BTreeMap<String, (u64, u64)>,
}

impl Importer {
    pub fn new(
        dir: PathBuf,
        ctr: PathBuf,
        socket: PathBuf,
        snapshotter: &'static str,
        record: PathBuf,
    ) -> Self {
        let done = fs::read(&record)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Importer {
            dir,
            ctr,
            socket,
            snapshotter,
            record,
            done,
        }
    }

    /// Imports what is new or has changed. What could not be imported is tried again when it changes.
    pub async fn scan(&mut self) {
        for (name, stamp) in self.new_files() {
            let path = self.dir.join(&name);
            match self.import(&path).await {
                Ok(()) => tracing::info!(archive = %path.display(), "images imported"),
                Err(error) => tracing::warn!(%error, "an archive could not be imported"),
            }
            self.done.insert(name, stamp);
            let text = serde_json::to_vec(&self.done).unwrap_or_default();
            if let Err(error) = fs::write(&self.record, text) {
                tracing::warn!(%error, "which archives were imported is not remembered");
            }
        }
    }

    fn new_files(&self) -> Vec<(String, (u64, u64))> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let archive = [".tar", ".tar.gz", ".tgz"]
                .iter()
                .any(|end| name.ends_with(end));
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if !archive || name.starts_with('.') || !metadata.is_file() {
                continue;
            }
            let changed = metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let stamp = (
                metadata.len(),
                changed.map_or(0, |since| since.as_nanos() as u64),
            );
            if self.done.get(&name) != Some(&stamp) {
                found.push((name, stamp));
            }
        }
        found.sort();
        found
    }

    /// One archive, docker's or OCI's form.
    pub async fn import(&self, path: &Path) -> Result<(), ImageError> {
        let failed = |reason: String| ImageError::Import {
            path: path.to_owned(),
            reason,
        };
        let import = Command::new(&self.ctr)
            .arg("--address")
            .arg(&self.socket)
            .args([
                "--namespace",
                "k8s.io",
                "images",
                "import",
                "--snapshotter",
                self.snapshotter,
            ])
            .arg(path)
            .kill_on_drop(true)
            .output();
        let output = timeout(IMPORT_TIMEOUT, import)
            .await
            .map_err(|_| failed(format!("not done in {IMPORT_TIMEOUT:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(failed(
            text.trim()
                .lines()
                .last()
                .unwrap_or("ctr failed")
                .to_owned(),
        ))
    }
}

/// Builds the pause image's archive at `path`: a static busybox whose shell sleeps, and reaps what a shared process namespace
/// leaves it.
pub fn build_pause(path: &Path) -> Result<(), ImageError> {
    let busybox = static_busybox().ok_or(ImageError::NoBusybox)?;
    let content = fs::read(&busybox).map_err(|error| ImageError::Io {
        path: busybox,
        error,
    })?;
    let script = "trap 'exit 0' TERM INT; while :; do sleep 2147483647 & wait; done";
    let spec = ImageSpec {
        reference: PAUSE_IMAGE.to_owned(),
        entrypoint: ["/bin/busybox", "sh", "-c", script]
            .map(str::to_owned)
            .to_vec(),
        files: vec![File {
            path: "bin/busybox".to_owned(),
            content,
            mode: 0o755,
        }],
        links: vec![("bin/sleep".to_owned(), "/bin/busybox".to_owned())],
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        ..ImageSpec::default()
    };
    build_archive(&spec, path).map_err(|error| ImageError::Io {
        path: path.to_owned(),
        error,
    })
}

/// Debian's busybox-static, if that is what is installed: `busybox` alone needs the C library, which no image of ours has.
pub fn static_busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| fs::read(path).is_ok_and(|content| is_static_elf(&content)))
}

/// No program header asks for an interpreter (PT_INTERP, type 3). ELF64 little endian.
fn is_static_elf(content: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        content.get(at..at + bytes).map(|field| {
            field
                .iter()
                .rev()
                .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
        })
    };
    if content.get(..6) != Some(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(start), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).all(|index| number(start + index * size, 4).is_some_and(|kind| kind != 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_new_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b.tar",
            "a.tar.gz",
            ".hidden.tar",
            "notes.txt",
            "half.tar.part",
        ] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut importer = Importer::new(
            dir.path().to_owned(),
            "/nonexistent/ctr".into(),
            "/nonexistent/sock".into(),
            "native",
            dir.path().join("record.json"),
        );
        let names = |importer: &Importer| {
            importer
                .new_files()
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&importer), ["a.tar.gz", "b.tar"]);
        importer.done = importer.new_files().into_iter().collect();
        assert_eq!(names(&importer), Vec::<String>::new());
        fs::write(dir.path().join("b.tar"), "xy").unwrap();
        assert_eq!(names(&importer), ["b.tar"]);
    }

    #[test]
    fn a_static_program_is_told() {
        assert!(!is_static_elf(b"#!/bin/sh"));
        assert!(
            !is_static_elf(&fs::read("/proc/self/exe").unwrap()),
            "tests are linked dynamically"
        );
    }
}
