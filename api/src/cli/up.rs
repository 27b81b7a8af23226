//! `reckon up`: its flags. What it does is in `crate::up`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::up::{Request, Tunables};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sudo reckon up
  reckon up --agents 0 --simulated-nodes 100
  reckon up --data-dir /srv/reckon --listen 0.0.0.0 --api-port 7443
  export KUBECONFIG=$PWD/reckon-data/admin.kubeconfig; kubectl get nodes

Ctrl-C stops everything, its containers included. What was written stays in the directory: 'reckon up' carries on with it.")]
pub struct Args {
    /// Where everything is kept: certificates, kubeconfig, each member's state and log
    #[arg(long, value_name = "DIR", default_value = "reckon-data")]
    data_dir: PathBuf,
    /// How many servers; more than the directory has are added to its cluster [default: 3, or what the directory has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    servers: Option<u32>,
    /// How many node agents, each a node with real containers; they need root and containerd
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=16))]
    agents: u32,
    /// How many nodes that report pods running without containers
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    simulated_nodes: u32,
    /// Server 1's port; server n listens on this + n - 1 [default: 6443, or what the directory has]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    api_port: Option<u16>,
    /// The address that servers listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Leave a member that dies dead
    #[arg(long)]
    no_restart: bool,
    #[command(flatten)]
    tunables: super::server::TunableArgs,
}

pub fn run(args: Args) -> Result<ExitCode> {
    crate::up::run(Request {
        data_dir: args.data_dir,
        servers: args.servers,
        agents: args.agents,
        simulated_nodes: args.simulated_nodes,
        api_port: args.api_port,
        listen: args.listen,
        no_restart: args.no_restart,
        tunables: Tunables(args.tunables.flags()),
    })
}
