//! The front door: from an HTTP request to an answer, without sockets.
//!
//! read what is asked for (`request_info`) ▸ authenticate ▸ authorize ▸ the verb's own file. Writes go through `write`: read the own
//! view, prepare by the kind's hooks, propose with the revisions that were read, repeat when the log says no. Nothing here
//! changes anything but by a proposal, and nothing here knows a kind but `admission`, `service_ips` and `subresources`, where
//! Kubernetes has code too.

mod admission;
mod authenticate;
mod authorize;
mod binds;
mod call;
mod create;
pub(crate) mod delete;
mod delete_collection;
mod discovery;
mod errors;
mod log;
mod managed;
mod metrics;
mod negotiate;
mod options;
mod patch;
mod pretty;
mod query;
mod read;
mod request_info;
mod respond;
mod selection;
pub(crate) mod service_ips;
mod subresources;
#[cfg(test)]
pub(crate) mod tests;
mod update;
mod virtual_kinds;
mod watch;
pub(crate) mod write;

pub use log::{LogBytes, LogRequest, PodLogs};
pub use respond::Body;

pub(crate) use call::{Call, Target};
pub(crate) use errors::{past as past_error, propose as propose_error, unavailable};
pub(crate) use query::Query;
pub(crate) use respond::Reply;

use crate::archive;
use crate::authority::Authority;
use crate::config::Config;
use crate::core::Core;
use authenticate::User;
use authorize::Attributes;
use bytes::{Bytes, BytesMut};
use eventstore::{Actor, Cause};
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::BodyExt;
use kinds::error::StatusError;
use request_info::RequestInfo;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// The most a request's body may have (Kubernetes: 3 MiB).
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// What is read past of a body that is too large.
const PASSED_BYTES_MAX: usize = 16 << 20;
/// How long a request may take that is no watch and no log (Kubernetes: 60 s), unless its `timeout` says less.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// What is kept of a User-Agent.
const CLIENT_CHARS_MAX: usize = 200;

/// The API of one server. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    core: Core,
    settings: Settings,
    logs: Option<Arc<dyn PodLogs>>,
    metrics: metrics::Metrics,
}

/// What the API needs of a server's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` that clients are told.
    pub advertise: String,
    /// What a pod tolerates by default of not-ready and unreachable nodes.
    pub default_not_ready_toleration_s: i64,
    /// Where services get their addresses: `10.96.0.0/16`.
    pub service_cidr: String,
    /// The cluster's authority (PEM), which servers that join are told.
    pub ca_pem: String,
    /// The same with its key, where this server has it: it signs the certificates of servers that join.
    pub authority: Option<Arc<Authority>>,
    /// How the archive stands, if there is one.
    pub archiving: archive::Shown,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            advertise: config.advertise.clone(),
            default_not_ready_toleration_s: config.default_not_ready_toleration_s,
            service_cidr: config.service_cidr.clone(),
            ca_pem: String::new(),
            authority: None,
            archiving: archive::Shown::default(),
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    pub address: SocketAddr,
    /// As TLS has verified it.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Who `master` found it to be: all of a connection's calls come from the same, as a rule with the same program.
    master: Arc<OnceLock<Actor>>,
}

impl Caller {
    pub fn new(address: SocketAddr, certificate: Option<Arc<ClientCertificate>>) -> Self {
        Self {
            address,
            certificate,
            master: Arc::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub common_name: String,
    pub organizations: Vec<String>,
}

impl Api {
    /// `logs`: where pods' logs come from; None answers 503 for them.
    pub fn new(core: Core, settings: Settings, logs: Option<Arc<dyn PodLogs>>) -> Self {
        let metrics = metrics::Metrics::new(core.clone(), settings.archiving.clone());
        Self(Arc::new(Inner {
            core,
            settings,
            logs,
            metrics,
        }))
    }

    /// Answers one request. Never fails: what goes wrong is a `Status`.
    pub async fn handle<B>(&self, request: Request<B>, caller: Caller) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Display,
    {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::read(&parts.method, parts.uri.path(), &query);
        let gzip = text(&parts.headers, header::ACCEPT_ENCODING)
            .split(',')
            .any(|one| one.trim().starts_with("gzip"));
        let accept = text(&parts.headers, header::ACCEPT);
        let user_agent = text(&parts.headers, header::USER_AGENT);
        let pretty = pretty::asked(&query, &accept, &user_agent);
        let user = authenticate::authenticate(&caller, &parts.headers);
        let actor = actor(user.as_ref().ok(), &parts.headers, &caller);
        let opened = self.0.core.request(actor, Cause::default());
        let audit_id = opened.audit_id.to_string();
        let answer = async {
            let user = user?;
            authorize::authorize(&user, &Attributes::of(&info))?;
            if let Some(why) = self.0.core.fenced()
                && !info.is_about_the_server()
            {
                return Err(errors::fenced(&why));
            }
            let deadline = deadline(&info, &query, started)?;
            let body = read_body(&parts.method, body, deadline).await?;
            let call = Call {
                api: self.clone(),
                info: info.clone(),
                query,
                headers: parts.headers.clone(),
                body,
                user,
                request: std::sync::Mutex::new(opened),
                deadline,
            };
            call.route().await
        };
        let answer = answer.await;
        let (reply, retry_after) = match answer {
            Ok(reply) => (reply, None),
            Err(error) => (Reply::error(&error), respond::retry_after(&error)),
        };
        self.0
            .metrics
            .answered(&info, reply.code, started.elapsed());
        let reply = if pretty { reply.indented() } else { reply };
        let mut response = reply.into_response(&audit_id, gzip);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }

    pub(crate) fn core(&self) -> &Core {
        &self.0.core
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn logs(&self) -> Option<&Arc<dyn PodLogs>> {
        self.0.logs.as_ref()
    }

    pub(crate) fn metrics(&self) -> &metrics::Metrics {
        &self.0.metrics
    }
}

/// When a request must be answered. `timeout` may only shorten it.
fn deadline(info: &RequestInfo, query: &Query, started: Instant) -> Result<Instant, StatusError> {
    let asked = match query.text("timeout") {
        "" => None,
        _ if info.long_running() => None,
        text => Some(options::duration(text).ok_or_else(|| {
            StatusError::bad_request(format!(
                "invalid timeout specified in the request URL: time: invalid duration {text:?}"
            ))
        })?),
    };
    Ok(started
        + asked
            .filter(|asked| !asked.is_zero())
            .map_or(REQUEST_TIMEOUT, |asked| asked.min(REQUEST_TIMEOUT)))
}

/// The whole body, bounded in bytes and time.
async fn read_body<B>(method: &Method, body: B, deadline: Instant) -> Result<Bytes, StatusError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Display,
{
    if method == Method::GET || method == Method::HEAD {
        return Ok(Bytes::new());
    }
    let reading = async {
        let mut body = std::pin::pin!(body);
        let mut read = BytesMut::new();
        let (mut over, mut passed) = (false, 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                StatusError::bad_request(format!("the body could not be read: {error}"))
            })?;
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            over |= read.len() + piece.len() > BODY_BYTES_MAX;
            if !over {
                read.extend_from_slice(&piece);
                continue;
            }
            // Many clients look for an answer only once they have sent all: what is too much is read past, within bounds.
            read.clear();
            passed += piece.len();
            if passed > PASSED_BYTES_MAX {
                break;
            }
        }
        if over {
            return Err(StatusError::request_entity_too_large(BODY_BYTES_MAX));
        }
        Ok(read.freeze())
    };
    match tokio::time::timeout_at(deadline, reading).await {
        Ok(read) => read,
        Err(_) => Err(StatusError::timeout(
            "the request's body did not arrive in time",
            0,
        )),
    }
}

/// Who every event of this request will name.
fn actor(user: Option<&User>, headers: &HeaderMap, caller: &Caller) -> Actor {
    let client: String = text(headers, header::USER_AGENT)
        .chars()
        .take(CLIENT_CHARS_MAX)
        .collect();
    Actor::User {
        user: user
            .map_or(authenticate::ANONYMOUS, |user| user.name.as_str())
            .into(),
        groups: user
            .map(|user| {
                user.groups
                    .iter()
                    .map(|group| group.as_str().into())
                    .collect()
            })
            .unwrap_or_default(),
        impersonator: user
            .and_then(|user| user.impersonator.as_deref())
            .map(Into::into),
        client: client.into(),
        address: caller.address.to_string().into(),
    }
}

/// Who calls, if that is somebody who may do everything: for what asks without Kubernetes' verbs and resources.
pub(crate) fn master(caller: &Caller, headers: &HeaderMap) -> Result<Actor, StatusError> {
    if caller.certificate.is_none() {
        return Err(StatusError::unauthorized());
    }
    let impersonates = authenticate::impersonates(headers);
    if let Some(known) = caller.master.get()
        && !impersonates
        && comes_from(known, headers)
    {
        return Ok(known.clone());
    }
    let user = authenticate::authenticate(caller, headers)?;
    if !authorize::is_master(&user) {
        let text = format!("User {} is not in the group system:masters", user.name);
        return Err(StatusError::forbidden("", "", "", &text));
    }
    let actor = actor(Some(&user), headers, caller);
    if !impersonates {
        caller.master.get_or_init(|| actor.clone());
    }
    Ok(actor)
}

/// Whether a request names the client program that the actor does.
fn comes_from(actor: &Actor, headers: &HeaderMap) -> bool {
    let named = headers
        .get(header::USER_AGENT)
        .map_or(&b""[..], |value| value.as_bytes());
    matches!(actor, Actor::User { client, .. } if client.as_bytes() == named)
}

/// A header's text; `""` for none.
pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}
