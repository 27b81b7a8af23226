//! The command line: what commands there are, and what those that talk to a cluster share. A command a file.
//!
//! Commands print to standard output what was asked for and nothing else; what is said on the way goes to standard error.

mod agent;
mod backup;
mod client;
mod completion;
mod demo_image;
mod diff;
mod duration;
mod history;
mod hold;
mod join;
mod kubeconfig;
mod member;
mod offline;
mod output;
mod parent;
mod resource;
mod restore;
mod server;
mod simulate;
mod status;
mod up;
mod verify;
mod version;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

pub use client::{Client, Failure};
pub use kubeconfig::{
    Cluster, Context as KubeContext, Kubeconfig, NamedCluster, NamedContext, NamedUser, User,
};
pub use output::yaml;

use output::Format;

/// What members log unless told otherwise. openraft tells each message that did not get through.
const DEFAULT_LOG: &str = "info,openraft=error";
const EXAMPLES: &str = "\
Examples:
  sudo reckon up                        three servers and one agent on this machine, in ./reckon-data
  reckon up --agents 0                  the servers alone: needs neither root nor containerd
  export KUBECONFIG=$PWD/reckon-data/admin.kubeconfig
  kubectl create deployment web --image=IMAGE --replicas=3
  reckon history deployment/web         who changed it, when, and what
  reckon why pod/NAME                   from a pod back to the command that made it";

/// A Kubernetes whose database is its history
///
/// Every change of desired state is an event in a replicated log. Unmodified kubectl works against it, and any read can name a
/// past revision or time.
#[derive(Parser)]
#[command(name = "reckon", version, after_help = EXAMPLES, arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole cluster on this machine: servers, agents, certificates, kubeconfig
    Up(up::Args),
    /// Run one server
    Server(server::Args),
    /// Run one node agent, or simulated nodes
    Agent(agent::Args),
    /// Show the members: who leads, how far each is, and its digest
    Status(status::Args),
    /// Show the servers, and let them come and go
    Member(member::Args),
    /// List every change of an object: revision, time, actor, intent, what changed
    History(history::Args),
    /// Print the chain of causes from an object back to a user's act
    Why(why::Args),
    /// Show how an object differs between two revisions or times
    Diff(diff::Args),
    /// Make objects, a namespace or everything what they were at a moment; or a new cluster, from a backup
    Restore(restore::Args),
    /// Write history to a directory or an object store, and look at what is there
    Backup(backup::Args),
    /// Keep history from being pruned, from a moment on, until it is released
    Hold(hold::Args),
    /// Check every digest of the history
    Verify(verify::Args),
    /// Run the production code on a simulated network, disk and clock
    Simulate(simulate::Args),
    /// Make an image of a small web server, for a first deployment without a registry
    DemoImage(demo_image::Args),
    /// Print a shell's completion script
    Completion(completion::Args),
    /// Print the version
    Version(version::Args),
}

pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::run(args),
        Command::Server(args) => server::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Status(args) => block_on(status::run(args)),
        Command::Member(args) => block_on(member::run(args)),
        Command::History(args) => block_on(history::run(args)),
        Command::Why(args) => block_on(why::run(args)),
        Command::Diff(args) => block_on(diff::run(args)),
        Command::Restore(args) => block_on(restore::run(args)),
        Command::Backup(args) => block_on(backup::run(args)),
        Command::Hold(args) => block_on(hold::run(args)),
        Command::Verify(args) => block_on(verify::run(args)),
        Command::Simulate(args) => simulate::run(args),
        Command::DemoImage(args) => demo_image::run(args),
        Command::Completion(args) => completion::run(args),
        Command::Version(args) => version::run(args),
    }
}

/// What every command that talks to a cluster takes.
#[derive(clap::Args)]
struct Connection {
    /// How to reach the cluster [default: $KUBECONFIG, else ./reckon-data/admin.kubeconfig]
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context to use [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Print for programs
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

impl Connection {
    fn client(&self) -> Result<Client> {
        let path = self.path();
        let config = Kubeconfig::read(&path).with_context(|| {
            format!("cannot use the kubeconfig {}: give another with --kubeconfig, or start a cluster with 'reckon up'", path.display())
        })?;
        Client::new(&config, self.context.as_deref())
    }

    fn path(&self) -> PathBuf {
        if let Some(path) = &self.kubeconfig {
            return path.clone();
        }
        // As kubectl reads it: a list, of which we take the first that is there.
        if let Some(list) = std::env::var_os("KUBECONFIG") {
            let paths: Vec<PathBuf> = std::env::split_paths(&list)
                .filter(|path| !path.as_os_str().is_empty())
                .collect();
            if let Some(path) = paths.iter().find(|path| path.exists()).or(paths.first()) {
                return path.clone();
            }
        }
        PathBuf::from("reckon-data/admin.kubeconfig")
    }
}

/// Clients need one thread.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(future)
}

/// What a member says goes to standard error, which `reckon up` keeps as its log. `RECKON_LOG` says how much (`info`, `raft=debug`).
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RECKON_LOG")
        .unwrap_or_else(|_| DEFAULT_LOG.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Resolves at SIGTERM or Ctrl-C. Must be called on the runtime.
fn asked_to_stop() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
