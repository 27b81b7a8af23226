//! Logs in temporary directories.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const LINES: &str = "2026-01-01T00:00:01.5Z stdout F one\n\
                     2026-01-01T00:00:02Z stderr P tw\n\
                     2026-01-01T00:00:02Z stderr F o\n\
                     2026-01-01T00:00:03Z stdout F three  spaced\n\
                     2026-01-01T00:00:04Z stdout F \n";

fn log(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "c", 0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    (dir, path)
}

async fn all(path: &Path, wanted: Wanted) -> String {
    let (sink, mut chunks) = mpsc::channel(1024);
    read(path, &wanted, || false, sink).await.unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn what_is_wanted() {
    let (_dir, path) = log(LINES);
    let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
    for (wanted, expected) in [
        (Wanted::default(), "one\ntwo\nthree  spaced\n\n"),
        (
            Wanted {
                tail_lines: Some(2),
                ..Default::default()
            },
            "three  spaced\n\n",
        ),
        (
            Wanted {
                tail_lines: Some(0),
                ..Default::default()
            },
            "",
        ),
        (
            Wanted {
                tail_lines: Some(99),
                ..Default::default()
            },
            "one\ntwo\nthree  spaced\n\n",
        ),
        (
            Wanted {
                since,
                ..Default::default()
            },
            "three  spaced\n\n",
        ),
        (
            Wanted {
                limit_bytes: Some(5),
                ..Default::default()
            },
            "one\nt",
        ),
        (
            Wanted {
                tail_lines: Some(1),
                timestamps: true,
                ..Default::default()
            },
            "2026-01-01T00:00:04Z \n",
        ),
    ] {
        assert_eq!(all(&path, wanted.clone()).await, expected, "{wanted:?}");
    }
}

#[tokio::test]
async fn rotated_files_are_one_log() {
    let (_dir, path) = log("");
    for round in 0..7 {
        fs::write(
            &path,
            format!("2026-01-01T00:00:0{round}Z stdout F round {round}\n"),
        )
        .unwrap();
        let now = Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(round);
        assert!(rotate::rotate(&path, now, 10).unwrap());
    }
    fs::write(&path, "2026-01-01T00:00:09Z stdout F last\n").unwrap();
    assert!(!rotate::rotate(&path, Timestamp::UNIX_EPOCH, 1000).unwrap());
    assert_eq!(rotate::rotated(&path).len(), rotate::MAX_FILES - 1);
    assert_eq!(
        all(&path, Wanted::default()).await,
        "round 3\nround 4\nround 5\nround 6\nlast\n"
    );
    assert_eq!(
        all(
            &path,
            Wanted {
                tail_lines: Some(3),
                ..Default::default()
            }
        )
        .await,
        "round 5\nround 6\nlast\n"
    );
}

#[tokio::test]
async fn a_long_tail_crosses_blocks() {
    let text: String = (0..10_000)
        .map(|line| format!("2026-01-01T00:00:00Z stdout F line {line}\n"))
        .collect();
    let (_dir, path) = log(&text);
    let found = all(
        &path,
        Wanted {
            tail_lines: Some(5_000),
            ..Default::default()
        },
    )
    .await;
    assert_eq!(
        (found.lines().count(), found.lines().next()),
        (5_000, Some("line 5000"))
    );
}

#[tokio::test]
async fn a_follower_sees_rotation_and_the_end() {
    let (_dir, path) = log("2026-01-01T00:00:00Z stdout F one\n");
    let alive = Arc::new(AtomicBool::new(true));
    let (sink, mut chunks) = mpsc::channel(16);
    let reading = {
        let (path, alive) = (path.clone(), alive.clone());
        tokio::spawn(async move {
            let wanted = Wanted {
                follow: true,
                ..Default::default()
            };
            read(&path, &wanted, || alive.load(Ordering::SeqCst), sink).await
        })
    };
    assert_eq!(chunks.recv().await.unwrap(), "one\n");
    let append = |text: &str| {
        // In place: a follower holds the file open.
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    append("2026-01-01T00:00:00Z stdout F tw");
    append("o\n");
    assert_eq!(chunks.recv().await.unwrap(), "two\n");
    assert!(rotate::rotate(&path, Timestamp::UNIX_EPOCH, 1).unwrap());
    append("2026-01-01T00:00:00Z stdout F three\n");
    assert_eq!(chunks.recv().await.unwrap(), "three\n");
    append("2026-01-01T00:00:00Z stdout F end\n");
    alive.store(false, Ordering::SeqCst);
    assert_eq!(chunks.recv().await.unwrap(), "end\n");
    assert_eq!(chunks.recv().await, None);
    reading.await.unwrap().unwrap();
    assert_eq!(tail(&path).await, "one\ntwo\nthree\nend\n");
}
