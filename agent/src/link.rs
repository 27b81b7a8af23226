//! Keeps one session open for as long as the agent runs: dials the servers in turn, with back-off and jitter, feeds what comes
//! down through `Session` and hands on the commands that pass, sends up what the outbox and the streams have.
//!
//! It knows nothing of containers, and never ends by itself: it returns only when the receiver of its commands has gone.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::dial::{Connection, Dialer};
use crate::jitter::Jitter;
use crate::outbox::Outbox;
use crate::proto::{self, AgentMessage, agent_message::Kind};
use crate::session::{Command, Refusal, Seen, Session, StreamCommand};

/// The first wait after all servers were tried; doubles up to the longest.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(5);
/// How long a dial may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take until its Welcome: it writes the session's opening and the Node first, and a thousand nodes may ask at once.
/// A server that has died is noticed sooner, by the connection.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(25);
/// Stream messages that wait to be sent. Past it the streams wait, reports do not.
pub const STREAM_QUEUE: usize = 32;

/// What a link needs to introduce its node.
pub struct LinkConfig {
    pub node_name: String,
    pub simulated: bool,
    /// URLs, tried in turn.
    pub servers: Vec<String>,
    pub seen: Seen,
    pub jitter: Jitter,
}

/// The node as it is when a session opens.
pub type DescribeNode = Arc<dyn Fn() -> Value + Send + Sync>;
/// Called with what must outlive the process, after each Welcome and SnapshotEnd.
pub type Remember = Arc<dyn Fn(&Seen) + Send + Sync>;

/// Runs until `commands` has no receiver.
pub async fn keep(
    config: LinkConfig,
    dialer: Arc<dyn Dialer>,
    outbox: Outbox,
    commands: mpsc::Sender<Command>,
    mut streams: mpsc::Receiver<proto::StreamData>,
    describe: DescribeNode,
    remember: Remember,
) {
    let LinkConfig {
        node_name,
        simulated,
        servers,
        seen,
        mut jitter,
    } = config;
    assert!(
        !servers.is_empty(),
        "an agent has at least one server to dial"
    );
    let mut session = Session::new(seen);
    let mut next = jitter.below(servers.len() as u64) as usize;
    let mut failures = 0u32;
    while !commands.is_closed() {
        let server = &servers[next % servers.len()];
        next += 1;
        session.reopen();
        let hello = session.hello(&node_name, &describe(), simulated);
        let ended = match timeout(DIAL_TIMEOUT, dialer.dial(server)).await {
            Err(_) => "no answer to the dial".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(connection)) => {
                let link = Link {
                    session: &mut session,
                    outbox: &outbox,
                    commands: &commands,
                    remember: &remember,
                };
                link.serve(connection, hello, &mut streams).await
            }
        };
        if session.is_open() {
            failures = 0;
            if commands
                .send(Command::Stream(StreamCommand::CloseAll))
                .await
                .is_err()
            {
                return;
            }
        }
        failures += 1;
        tracing::debug!(node = node_name, server, reason = ended, "session ended");
        tokio::select! {
            () = sleep(jitter.spread(backoff(failures, servers.len()))) => {}
            () = commands.closed() => return,
        }
    }
}

/// The wait before the next dial: short while there are servers not yet tried.
fn backoff(failures: u32, servers: usize) -> Duration {
    let rounds = failures.saturating_sub(1) / servers as u32;
    BACKOFF_FIRST
        .saturating_mul(1 << rounds.min(10))
        .min(BACKOFF_LONGEST)
}

struct Link<'a> {
    session: &'a mut Session,
    outbox: &'a Outbox,
    commands: &'a mpsc::Sender<Command>,
    remember: &'a Remember,
}

impl Link<'_> {
    /// One session from Hello to its end. Says why it ended.
    async fn serve(
        mut self,
        connection: Connection,
        hello: proto::Hello,
        streams: &mut mpsc::Receiver<proto::StreamData>,
    ) -> String {
        let Connection { up, mut down } = connection;
        if send(&up, Kind::Hello(hello), DIAL_TIMEOUT).await.is_err() {
            return "closed before Hello".to_owned();
        }
        match timeout(WELCOME_TIMEOUT, down.next()).await {
            Err(_) => return "no Welcome".to_owned(),
            Ok(message) => {
                if let Err(reason) = self.receive(message).await {
                    return reason;
                }
            }
        }
        if !self.session.is_open() {
            return "no Welcome".to_owned();
        }
        self.outbox.resend_all();
        // What is left of streams that the session before carried: their ids mean nothing here.
        while streams.try_recv().is_ok() {}
        let silence = Duration::from_millis(u64::from(self.session.session_timeout_ms()));
        let beat = Duration::from_millis(u64::from(self.session.heartbeat_ms()));
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0;
        let mut heard = Instant::now();
        loop {
            let outgoing = tokio::select! {
                biased;
                () = self.commands.closed() => return "the agent stops".to_owned(),
                message = down.next() => {
                    heard = Instant::now();
                    if let Err(reason) = self.receive(message).await {
                        return reason;
                    }
                    continue;
                }
                _ = beats.tick() => {
                    if heard.elapsed() > silence {
                        return format!("nothing heard for {silence:?}");
                    }
                    sequence += 1;
                    Kind::Heartbeat(proto::Heartbeat { sequence })
                }
                () = self.outbox.ready() => {
                    while let Some(message) = self.outbox.take() {
                        let Some(kind) = message.kind else { continue };
                        if send(&up, kind, silence).await.is_err() {
                            return "the server takes nothing".to_owned();
                        }
                    }
                    continue;
                }
                Some(data) = streams.recv() => Kind::StreamData(data),
            };
            if send(&up, outgoing, silence).await.is_err() {
                return "the server takes nothing".to_owned();
            }
        }
    }

    async fn receive(
        &mut self,
        message: Option<Result<proto::ServerMessage, crate::dial::DialError>>,
    ) -> Result<(), String> {
        let message = match message {
            None => return Err("closed by the server".to_owned()),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(message)) => message,
        };
        let command = match self.session.receive(message) {
            Ok(Some(command)) => command,
            Ok(None) => return Ok(()),
            Err(
                refusal
                @ (Refusal::OtherCluster { .. } | Refusal::Fenced(_) | Refusal::Protocol(_)),
            ) => {
                tracing::warn!(%refusal, "session refused");
                return Err(refusal.to_string());
            }
            Err(refusal) => return Err(refusal.to_string()),
        };
        if matches!(command, Command::Welcomed { .. } | Command::Complete { .. }) {
            (self.remember)(self.session.seen());
        }
        self.commands
            .send(command)
            .await
            .map_err(|_| "the agent stops".to_owned())
    }
}

async fn send(up: &mpsc::Sender<AgentMessage>, kind: Kind, patience: Duration) -> Result<(), ()> {
    match timeout(patience, up.send(AgentMessage { kind: Some(kind) })).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(()),
    }
}
