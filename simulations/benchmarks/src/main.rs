//! What a cluster of this build does, measured on this machine beside etcd: `make bench-log`.
//!
//! It starts the real programs, three members each, on loopback and on one disk, and asks them what clients ask. It is no test: what it
//! prints is to be read by a person, who knows the machine. `writes` compares with etcd; `restart`, `past`, `watchers` and `snapshot` say how what only
//! Reckon has grows with its history.

mod api;
mod cluster;
mod fill;
mod load;
mod past;
mod pki;
mod report;
mod restart;
mod snapshot;
mod target;
mod usage;
mod watchers;
mod writes;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use cluster::Place;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde_json::{Map, Value, to_value};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures Reckon beside etcd, three local servers each, on one disk
#[derive(Parser)]
#[command(after_help = "\
Examples:
  reckon-benchmarks writes --clients 64,256 --duration 20
  reckon-benchmarks writes --only reckon --no-reads --clients 64
  reckon-benchmarks --json out.json all

Both systems run with TLS and clients' certificates, sync every write, and are driven by the same generator, which runs on the same
machine and takes its share of it: the second table says how much.")]
struct Cli {
    #[command(subcommand)]
    command: What,
    /// The disk to measure: a directory in which everything is made, and removed at the end [default: the system's own for what is
    /// temporary]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// etcd's program
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "RECKON_ETCD",
        default_value = "etcd"
    )]
    etcd: PathBuf,
    /// Reckon's program, of a release build [default: beside this one]
    #[arg(long, global = true, value_name = "FILE")]
    reckon: Option<PathBuf>,
    /// Write what was measured there too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Writes and linearizable reads, beside etcd
    Writes(writes::Args),
    /// How long a restart takes, and what memory it takes, as history grows over the same objects
    Restart(restart::Args),
    /// Objects and lists as of random past revisions
    Past(past::Args),
    /// Many watchers, and what they cost the writers
    Watchers(watchers::Args),
    /// A server that is sent the database, and the leader that sends it
    Snapshot(snapshot::Args),
    /// All of these, one after another
    All(Box<All>),
}

#[derive(clap::Args)]
struct All {
    #[command(flatten)]
    writes: writes::Args,
    #[command(flatten)]
    past: past::Args,
    #[command(flatten)]
    watchers: watchers::Args,
    #[command(flatten)]
    snapshot: snapshot::Args,
}

fn main() -> ExitCode {
    // One crypto provider for all of TLS; a second call would fail, and there is none.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
        .and_then(|runtime| runtime.block_on(until_interrupted(Cli::parse())));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Members end, and directories go, with what is dropped.
async fn until_interrupted(cli: Cli) -> Result<()> {
    tokio::select! {
        result = run(cli) => result,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; what was started is stopped"),
    }
}

async fn run(cli: Cli) -> Result<()> {
    let parent = cli.dir.unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new()
        .prefix("reckon-bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
    check_disk(directory.path())?;
    let place = Place {
        directory: directory.path().to_path_buf(),
        etcd: cli.etcd,
        reckon: cli.reckon.map_or_else(beside, Ok)?,
    };
    let mut measured = Map::new();
    let mut keep = |what: &str, rows: serde_json::Result<Value>| {
        measured.insert(what.to_owned(), rows?);
        anyhow::Ok(())
    };
    match &cli.command {
        What::Writes(args) => {
            check_etcd(args, &place.etcd).await?;
            keep("writes", to_value(writes::run(args, &place).await?))?;
        }
        What::Restart(args) => keep("restart", to_value(restart::run(args, &place).await?.0))?,
        What::Past(args) => keep("past", to_value(past::run(args, &place, None).await?))?,
        What::Watchers(args) => keep("watchers", to_value(watchers::run(args, &place).await?))?,
        What::Snapshot(args) => keep("snapshot", to_value(snapshot::run(args, &place).await?))?,
        What::All(args) => {
            check_etcd(&args.writes, &place.etcd).await?;
            keep("writes", to_value(writes::run(&args.writes, &place).await?))?;
            place.clear()?;
            keep(
                "watchers",
                to_value(watchers::run(&args.watchers, &place).await?),
            )?;
            place.clear()?;
            keep(
                "snapshot",
                to_value(snapshot::run(&args.snapshot, &place).await?),
            )?;
            place.clear()?;
            let (rows, cluster) = restart::run(&args.past.restart, &place).await?;
            keep("restart", to_value(rows))?;
            let rows = past::run(&args.past, &place, Some(cluster)).await?;
            keep("past", to_value(rows))?;
        }
    }
    if let Some(path) = cli.json {
        let text = serde_json::to_string_pretty(&Value::Object(measured))? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A sync to memory costs nothing and says nothing.
fn check_disk(directory: &Path) -> Result<()> {
    let system = statfs(directory).context("the directory's file system can't be told")?;
    if system.filesystem_type() == TMPFS_MAGIC {
        bail!(
            "{} lies in memory: name a directory on a disk with --dir",
            directory.display()
        );
    }
    Ok(())
}

/// Said before anything is measured, and not in the middle.
async fn check_etcd(args: &writes::Args, program: &Path) -> Result<()> {
    if args.only == Some(writes::Only::Reckon) {
        return Ok(());
    }
    let version = tokio::process::Command::new(program)
        .arg("--version")
        .output()
        .await
        .with_context(|| {
            format!(
                "etcd is missing ({} can't be started): 'make bench-log' fetches Debian's; or 'apt-get install etcd-server', or name one with \
                 --etcd",
                program.display()
            )
        })?;
    let text = String::from_utf8_lossy(&version.stdout);
    report::progress(&format!("beside {}", text.lines().next().unwrap_or("etcd")));
    Ok(())
}

/// The program of the same build.
fn beside() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program's place is not known")?;
    let reckon = own.with_file_name("reckon");
    if !reckon.exists() {
        bail!(
            "{} is missing: build it with 'cargo build --release', or name one with --reckon",
            reckon.display()
        );
    }
    Ok(reckon)
}
