//! Container logs: reads the files that the runtime writes in CRI's format (`<time> <stream> <P|F> <text>`), for `pods/log`, and rotates
//! them by size.
//!
//! A log is a sequence of files: rotated ones, named by their time, and the one being written. A reader goes through them as one; a
//! reader that follows notices a rotation by the file's identity.

pub mod rotate;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, SeekFrom};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::Timestamp;

/// How often a follower looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Output is sent in pieces of about this size.
const CHUNK: usize = 32 << 10;
/// A longer line is cut: containerd itself splits at 16 KiB.
const LONGEST_LINE: u64 = 1 << 20;

/// What of a log is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub follow: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

/// Where a pod's logs are: `<logs>/<namespace>_<name>_<uid>`, as the kubelet names it.
pub fn pod_dir(logs: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    logs.join(format!("{namespace}_{name}_{uid}"))
}

/// The file that one attempt of a container writes.
pub fn file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join(container).join(format!("{attempt}.log"))
}

/// Attempts that have a log, the newest first.
pub fn attempts(pod_dir: &Path, container: &str) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_dir(pod_dir.join(container))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".log")?
                .parse()
                .ok()
        })
        .collect();
    found.sort_unstable_by_key(|attempt| std::cmp::Reverse(*attempt));
    found
}

/// Sends what is wanted of the log in `path`. A follower goes on until `alive` says that its container has ended and all was read,
/// or the receiver is gone.
pub async fn read(
    path: &Path,
    wanted: &Wanted,
    alive: impl Fn() -> bool,
    sink: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut files = rotate::rotated(path);
    files.push(path.to_owned());
    let (mut index, mut offset) = match wanted.tail_lines {
        Some(lines) => start_of_tail(&files, lines).await?,
        None => (0, 0),
    };
    let mut out = Output {
        wanted,
        sink,
        pending: Vec::new(),
        left: wanted.limit_bytes,
    };
    while index < files.len() {
        let last = index + 1 == files.len();
        let mut reader = match open(&files[index], offset).await {
            Ok(reader) => reader,
            // Rotated away, or not yet written.
            Err(error) if error.kind() == io::ErrorKind::NotFound && (!last || !wanted.follow) => {
                (index, offset) = (index + 1, 0);
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !alive() {
                    break;
                }
                sleep(FOLLOW_INTERVAL).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        match out
            .copy(&mut reader, path, wanted.follow && last, &alive)
            .await?
        {
            Copied::Enough => return out.flush().await.map(drop),
            Copied::Rotated => offset = 0,
            Copied::End => (index, offset) = (index + 1, 0),
        }
    }
    out.flush().await.map(drop)
}

async fn open(path: &Path, offset: u64) -> io::Result<BufReader<File>> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    Ok(BufReader::with_capacity(CHUNK, file))
}

/// File and offset from which `lines` lines are left, found from the end.
async fn start_of_tail(files: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let mut left = lines;
    for (index, path) in files.iter().enumerate().rev() {
        let mut file = match File::open(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let mut end = file.metadata().await?.len();
        if lines == 0 {
            return Ok((index, end));
        }
        // The newline that ends the last line begins no other.
        let mut last = true;
        while end > 0 {
            let start = end.saturating_sub(CHUNK as u64);
            let mut block = vec![0; (end - start) as usize];
            file.seek(SeekFrom::Start(start)).await?;
            file.read_exact(&mut block).await?;
            for (at, _) in block
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, byte)| **byte == b'\n')
            {
                if std::mem::take(&mut last) {
                    continue;
                }
                left -= 1;
                if left == 0 {
                    return Ok((index, start + at as u64 + 1));
                }
            }
            end = start;
        }
        // The file's first line has no newline before it.
        if !last {
            left -= 1;
            if left == 0 {
                return Ok((index, 0));
            }
        }
    }
    Ok((0, 0))
}

/// Why copying a file has ended.
enum Copied {
    End,
    /// The name stands for a new file, which comes next.
    Rotated,
    /// No more is wanted.
    Enough,
}

struct Output<'a> {
    wanted: &'a Wanted,
    sink: mpsc::Sender<Bytes>,
    pending: Vec<u8>,
    left: Option<u64>,
}

impl Output<'_> {
    /// Copies to the end of the file, or, following, until it is rotated or the container ends.
    async fn copy(
        &mut self,
        reader: &mut BufReader<File>,
        path: &Path,
        follow: bool,
        alive: &impl Fn() -> bool,
    ) -> io::Result<Copied> {
        let mut line = Vec::new();
        let mut rotated = false;
        loop {
            // Asked before the read: what was written before the container ended, or before the runtime took the new file, is read after.
            let last_round = !follow || rotated || !alive();
            loop {
                let read = (&mut *reader)
                    .take(LONGEST_LINE)
                    .read_until(b'\n', &mut line)
                    .await?;
                if read == 0 {
                    break;
                }
                if line.last() != Some(&b'\n') && (line.len() as u64) < LONGEST_LINE {
                    // Half a line: the runtime is writing the rest.
                    break;
                }
                if !self.line(&line).await? {
                    return Ok(Copied::Enough);
                }
                line.clear();
            }
            if !self.flush().await? {
                return Ok(Copied::Enough);
            }
            if last_round {
                if !line.is_empty() && !self.line(&line).await? {
                    return Ok(Copied::Enough);
                }
                return Ok(if rotated {
                    Copied::Rotated
                } else {
                    Copied::End
                });
            }
            rotated = rotated_away(reader, path).await?;
            tokio::select! {
                () = sleep(FOLLOW_INTERVAL) => {}
                () = self.sink.closed() => return Ok(Copied::Enough),
            }
        }
    }

    async fn line(&mut self, line: &[u8]) -> io::Result<bool> {
        let Some(parsed) = parse(line) else {
            return Ok(true);
        };
        if let Some(since) = self.wanted.since
            && parsed.time().is_some_and(|time| time < since)
        {
            return Ok(true);
        }
        if self.wanted.timestamps {
            self.pending.extend_from_slice(parsed.stamp);
            self.pending.push(b' ');
        }
        self.pending.extend_from_slice(parsed.text);
        if parsed.whole {
            self.pending.push(b'\n');
        }
        if let Some(left) = self.left
            && self.pending.len() as u64 >= left
        {
            self.pending.truncate(left as usize);
            self.flush().await?;
            return Ok(false);
        }
        if self.pending.len() >= CHUNK {
            self.flush().await
        } else {
            Ok(true)
        }
    }

    /// False: nobody listens any more.
    async fn flush(&mut self) -> io::Result<bool> {
        if self.pending.is_empty() {
            return Ok(!self.sink.is_closed());
        }
        if let Some(left) = &mut self.left {
            *left -= self.pending.len() as u64;
        }
        Ok(self
            .sink
            .send(Bytes::from(std::mem::take(&mut self.pending)))
            .await
            .is_ok())
    }
}

/// Whether the name stands for another file by now, or for none.
async fn rotated_away(reader: &BufReader<File>, path: &Path) -> io::Result<bool> {
    let held = reader.get_ref().metadata().await?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) != (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// One line of CRI's format.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    stamp: &'a [u8],
    whole: bool,
    text: &'a [u8],
}

impl Line<'_> {
    fn time(&self) -> Option<Timestamp> {
        let text = std::str::from_utf8(self.stamp).ok()?;
        chrono::DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|time| time.to_utc())
    }
}

/// `None` for what is no such line.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (stamp, _stream, tags) = (fields.next()?, fields.next()?, fields.next()?);
    let text = fields.next().unwrap_or_default();
    Some(Line {
        stamp,
        whole: tags.split(|byte| *byte == b':').next()? != b"P",
        text,
    })
}

/// The last part of a log's text, for termination messages (`FallbackToLogsOnError`: 2 KiB or 80 lines, whichever is less).
pub async fn tail(path: &Path) -> String {
    const MOST: usize = 2048;
    let wanted = Wanted {
        tail_lines: Some(80),
        ..Wanted::default()
    };
    let (sink, mut chunks) = mpsc::channel(4);
    let path = path.to_owned();
    let reading = tokio::spawn(async move { read(&path, &wanted, || false, sink).await });
    let mut text = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk);
        let excess = text.len().saturating_sub(MOST);
        text.drain(..excess);
    }
    reading.abort();
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
#[path = "logs/tests.rs"]
mod tests;
