//! The gRPC shell of the log: who calls, what for, until when; then one proposal, or one confirmed read.

use super::proto::log_server::{Log as Methods, LogServer};
use super::proto::{
    DeleteRequest, DeleteResponse, GetRequest, GetResponse, PutRequest, PutResponse,
};
use super::{KEY_BYTES_MAX, VALUE_BYTES_MAX, body, errors, key, value};
use crate::core::{Core, Draft};
use crate::http::{Caller, REQUEST_TIMEOUT, master};
use eventstore::{Actor, Cause, Change, Expectation, Expected, Intent, What};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// Every path of the service begins like this.
pub const PATH_PREFIX: &str = "/reckon.log.v1.Log/";
/// A value, its key, and room for a message that is a little too large to be told so.
const MESSAGE_BYTES_MAX: usize = VALUE_BYTES_MAX + (1 << 20);

/// The log of one server. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    core: Core,
}

impl Log {
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    /// To be mounted at `PATH_PREFIX`, with the `Caller` in each request's extensions.
    pub fn service(&self) -> LogServer<Self> {
        LogServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// One change as one proposal; its event's revision.
    async fn propose(
        &self,
        call: Called,
        intent: Intent,
        expectations: Vec<Expectation>,
        change: Change,
    ) -> Result<u64, Status> {
        let name = change.key.name.clone();
        let draft = Draft::objects(intent, expectations, vec![change]);
        let mut request = self.core.request(call.actor, Cause::default());
        let proposed = self.core.propose(&mut request, draft, call.deadline).await;
        proposed
            .map(|event| event.revision())
            .map_err(|error| errors::propose(error, request.audit_id, &name))
    }
}

#[tonic::async_trait]
impl Methods for Log {
    /// Names no version, so nothing can have moved: it is proposed once.
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (call, PutRequest { key: name, value }) = called(request)?;
        check_key(&name)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "a value of {} bytes, the most is {VALUE_BYTES_MAX}",
                value.len()
            )));
        }
        let key = key(&name);
        // As this server sees it: what a reader of history is told of the caller's act, and nothing that apply looks at.
        let intent = match self.core.view().get(&key) {
            Some(_) => Intent::Update,
            None => Intent::Create,
        };
        let what = What::Put {
            body: body(value),
            delete_grace_s: None,
        };
        let change = Change { key, what };
        let revision = self.propose(call, intent, Vec::new(), change).await?;
        Ok(Response::new(PutResponse { revision }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (call, GetRequest { key: name }) = called(request)?;
        check_key(&name)?;
        let view = self.core.linearizable(call.deadline).await;
        let view = view.map_err(|error| errors::unavailable(&error))?;
        let object = view.get(&key(&name));
        let object = object.ok_or_else(|| errors::no_such_key(&name))?;
        Ok(Response::new(GetResponse {
            value: value(object),
            revision: object.revision(),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let (call, DeleteRequest { key: name }) = called(request)?;
        check_key(&name)?;
        let key = key(&name);
        let intent = Intent::Delete {
            grace_s: None,
            propagation: "".into(),
        };
        // The log says whether it is there: this server may lag.
        let there = Expectation {
            key: key.clone(),
            is: Expected::Living,
        };
        let change = Change {
            key,
            what: What::Remove,
        };
        let revision = self.propose(call, intent, vec![there], change).await?;
        Ok(Response::new(DeleteResponse { revision }))
    }
}

/// Who calls, and until when it waits.
struct Called {
    actor: Actor,
    deadline: Instant,
}

fn called<T>(request: Request<T>) -> Result<(Called, T), Status> {
    let (metadata, extensions, message) = request.into_parts();
    let headers = metadata.into_headers();
    let caller = extensions
        .get::<Caller>()
        .ok_or_else(|| Status::unauthenticated("the caller is not known"))?;
    let actor = master(caller, &headers).map_err(|error| errors::refused(&error))?;
    let asked = headers
        .get("grpc-timeout")
        .and_then(|text| timeout(text.to_str().ok()?));
    let wait = asked.map_or(REQUEST_TIMEOUT, |asked| asked.min(REQUEST_TIMEOUT));
    let deadline = Instant::now() + wait;
    Ok((Called { actor, deadline }, message))
}

fn check_key(key: &str) -> Result<(), Status> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0') {
        return Err(Status::invalid_argument(format!(
            "a key has 1 to {KEY_BYTES_MAX} bytes and no NUL; this one has {}",
            key.len()
        )));
    }
    Ok(())
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout"). None for what is none.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, millis) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("99999999m", Some(99_999_999)),
            ("5000u", Some(5)),
            ("6000000n", Some(6)),
            ("", None),
            ("S", None),
            ("3", None),
            ("3s", None),
            ("-3S", None),
            ("123456789S", None),
        ] {
            assert_eq!(timeout(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }
}
