//! `reckon agent`: one node with real containers, or any number of simulated ones.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent::{AgentConfig, Credentials, SimulatedConfig, StopMode, TonicDialer, run_simulated};
use anyhow::{Context, Result, bail};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use super::parent;

/// With SIGUSR1: the most that a pod's processes get between SIGTERM and SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sudo reckon agent --name worker-1 --server https://10.0.0.1:6443,https://10.0.0.2:6443 \\
      --ca ca.crt --cert worker-1.crt --key worker-1.key --data-dir /var/lib/reckon-agent
  reckon agent --simulated 100 --server https://127.0.0.1:6443 --ca ca.crt --cert simulated.crt --key simulated.key

The certificate's CN is system:node:NAME and its O system:nodes; for simulated nodes its O is system:simulated-nodes.
SIGTERM or Ctrl-C stops the agent and leaves its pods running: the next one takes them up. SIGUSR1 stops it and removes its
containers, bridge, rules and containerd, as 'reckon agent --remove' does for one that is gone.")]
pub struct Args {
    /// The node's name [default: the machine's]; simulated nodes are called this and a number [default: simulated]
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
    /// What tells this cluster from others on this machine [default: a digest of its authority's key]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The node's address [default: the machine's own towards others]
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
    /// The most pods that the node takes
    #[arg(long, value_name = "N", default_value_t = 110)]
    max_pods: u32,
    /// A label of the node; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// This many nodes that report pods running without containers, instead of one real
    #[arg(long, value_name = "N", conflicts_with = "remove")]
    simulated: Option<u32>,
    /// Remove what an agent left running in this data directory, and end
    #[arg(long)]
    remove: bool,
    /// End when this process, which started us, does
    #[arg(long, value_name = "PID", hide = true)]
    follow_parent: Option<i32>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if args.follow_parent.is_some_and(|pid| !parent::follow(pid)) {
        bail!("the process that started this agent is gone");
    }
    super::log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .context("cannot start the async runtime")?
        .block_on(async {
            match args.simulated {
                Some(count) => simulated(args, count).await,
                None => real(args).await,
            }
        })
}

async fn simulated(args: Args, count: u32) -> Result<ExitCode> {
    let stop = super::asked_to_stop()?;
    let dialer = Arc::new(args.dialer()?);
    let defaults = SimulatedConfig::default();
    let prefix = args.name.unwrap_or(defaults.prefix.clone());
    let config = SimulatedConfig {
        count,
        prefix,
        servers: args.server,
        ..defaults
    };
    tokio::select! {
        () = run_simulated(config, dialer, wall_clock()) => bail!("the simulated nodes ended"),
        () = stop => Ok(ExitCode::SUCCESS),
    }
}

async fn real(args: Args) -> Result<ExitCode> {
    let stop = super::asked_to_stop()?;
    let mut removal = signal(SignalKind::user_defined1()).context("cannot listen for signals")?;
    let dialer = Arc::new(args.dialer()?);
    let node_name = match args.name {
        Some(name) => name,
        None => hostname()?,
    };
    let cluster = match args.cluster {
        Some(cluster) => cluster,
        None => authority_digest(&args.ca)?,
    };
    let config = AgentConfig {
        node_name,
        cluster,
        images_dir: args.images.unwrap_or_else(|| args.data_dir.join("images")),
        data_dir: args.data_dir,
        servers: args.server,
        node_ip: args.node_ip,
        pods: args.max_pods,
        labels: args.label,
        // Agents of one cluster must not move in step.
        seed: u64::from(std::process::id()),
        wall_clock: wall_clock(),
        stop_grace: STOP_GRACE,
    };
    let shutdown = async move {
        if args.remove {
            return StopMode::RemoveAll;
        }
        tokio::select! {
            () = stop => StopMode::LeavePods,
            _ = removal.recv() => StopMode::RemoveAll,
        }
    };
    agent::run(config, dialer, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn dialer(&self) -> Result<TonicDialer> {
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let credentials = Credentials {
            ca_pem: read(&self.ca)?,
            certificate_pem: read(&self.cert)?,
            key_pem: read(&self.key)?,
        };
        Ok(TonicDialer::new(&credentials))
    }
}

fn wall_clock() -> agent::WallClock {
    Arc::new(|| std::time::SystemTime::now().into())
}

fn hostname() -> Result<String> {
    let name =
        nix::unistd::gethostname().context("this machine has no name: give one with --name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// Of the authority's public key, which stays when its certificate is renewed.
fn authority_digest(ca: &Path) -> Result<String> {
    let unusable = || format!("{} holds no certificate", ca.display());
    let der = CertificateDer::from_pem_file(ca).with_context(unusable)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).with_context(unusable)?;
    let digest = Sha256::digest(certificate.public_key().raw);
    Ok(digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_string(), value.to_string()))
        .ok_or_else(|| format!("'{text}' is not KEY=VALUE"))
}
