//! `reckon agent`: one node with real containers, or any number of simulated ones.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::parent;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sudo reckon agent --name worker-1 --server https://10.0.0.1:6443,https://10.0.0.2:6443 \\
      --ca ca.crt --cert worker-1.crt --key worker-1.key --data-dir /var/lib/reckon-agent
  reckon agent --simulated 100 --server https://127.0.0.1:6443 --ca ca.crt --cert simulated.crt --key simulated.key

The certificate's CN is system:node:NAME and its O system:nodes; for simulated nodes its O is system:simulated-nodes.
An agent that is stopped leaves its pods running, and takes them up again when it starts.")]
pub struct Args {
    /// The node's name [default: the machine's]
    #[arg(long)]
    name: Option<String>,
    /// The servers, tried in turn
    #[arg(long, value_name = "URL,…", value_delimiter = ',', required = true)]
    server: Vec<String>,
    /// The cluster's certificate authority, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The agent's certificate, PEM
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where containerd, its images and the pods' volumes are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/reckon-agent")]
    data_dir: PathBuf,
    /// Image archives to import at start [default: images/ in the data directory]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// This many nodes that report pods running without containers, instead of one real
    #[arg(long, value_name = "N")]
    simulated: Option<u32>,
    /// End when this process, which started us, does
    #[arg(long, value_name = "PID", hide = true)]
    follow_parent: Option<i32>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if args.follow_parent.is_some_and(|pid| !parent::follow(pid)) {
        bail!("the process that started this agent is gone");
    }
    match args.simulated {
        Some(count) => simulated(args, count),
        None => real(args),
    }
}

fn simulated(_args: Args, _count: u32) -> Result<ExitCode> {
    bail!("this build has no simulated nodes")
}

fn real(_args: Args) -> Result<ExitCode> {
    bail!("this build has no agent")
}
