//! `GET …/pods/<name>/log`: a container's log, streamed from the agent of its node, wherever its session is held.

use super::call::{Call, Target};
use super::read;
use super::respond::Reply;
use crate::agents::{Hub, LogsRequest};
use crate::timetravel::Moment;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinds::error::{FieldError, StatusError};
use serde_json::Value;

/// Where pods' logs come from: the agents' hub; a test's own.
#[async_trait]
pub trait PodLogs: Send + Sync {
    async fn open(&self, request: LogRequest) -> Result<LogBytes, StatusError>;
}

/// Pieces of a log as they come. An error ends it.
pub type LogBytes = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// `pods/log` for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    pub node: String,
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub tail_lines: Option<i64>,
    pub since_seconds: Option<i64>,
    /// RFC 3339.
    pub since_time: Option<String>,
    pub timestamps: bool,
    pub limit_bytes: Option<i64>,
}

#[async_trait]
impl PodLogs for Hub {
    async fn open(&self, request: LogRequest) -> Result<LogBytes, StatusError> {
        let request = LogsRequest {
            node: request.node,
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            container: request.container,
            follow: request.follow,
            previous: request.previous,
            tail_lines: request.tail_lines,
            since_seconds: request.since_seconds,
            since_time: request.since_time,
            timestamps: request.timestamps,
            limit_bytes: request.limit_bytes,
        };
        match self.logs(request).await {
            Ok(stream) => Ok(stream
                .map(|piece| piece.map_err(|error| std::io::Error::other(error.message)))
                .boxed()),
            Err(error) => Err(refusal(error.code, error.message)),
        }
    }
}

fn refusal(code: u16, message: String) -> StatusError {
    let reason = match code {
        400 => "BadRequest",
        404 => "NotFound",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    StatusError::new(code, reason, message, Value::Null)
}

pub(super) async fn serve(
    call: &Call,
    target: &Target,
    moment: Option<Moment>,
) -> Result<Reply, StatusError> {
    if moment.is_some() {
        return Err(StatusError::bad_request(
            "logs are kept by the node and not by the log of changes: their past can't be read by /at/…",
        ));
    }
    let request = options(call)?;
    let pod = read::find(call, target, None).await?;
    let value = pod.to_value();
    let node = value["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let container = container(&value, &target.name, call.query.text("container"))?;
    if node.is_empty() {
        // Kubernetes answers a pod that runs nowhere yet with nothing.
        return Ok(Reply::new(200, "text/plain", Bytes::new()));
    }
    let logs = call
        .api
        .logs()
        .ok_or_else(|| StatusError::service_unavailable("this server has no agents"))?;
    let request = LogRequest {
        node,
        namespace: target.namespace.clone(),
        pod: target.name.clone(),
        uid: pod.uid().to_string(),
        container,
        ..request
    };
    let pieces = logs.open(request).await?;
    Ok(Reply::stream(
        "text/plain",
        StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync(),
    ))
}

/// The query's part of it.
fn options(call: &Call) -> Result<LogRequest, StatusError> {
    let (query, positive) = (
        &call.query,
        |name: &str, low: i64| -> Result<Option<i64>, StatusError> {
            let value = call.query.integer(name)?;
            match value.filter(|value| *value < low) {
                Some(wrong) => {
                    let detail = if low == 0 {
                        "must be greater than or equal to 0"
                    } else {
                        "must be greater than 0"
                    };
                    Err(StatusError::invalid(
                        "",
                        "PodLogOptions",
                        "",
                        &[FieldError::invalid(name, wrong, detail)],
                    ))
                }
                None => Ok(value),
            }
        },
    );
    let since_time = query
        .get("sinceTime")
        .filter(|time| !time.is_empty())
        .map(str::to_owned);
    let since_seconds = positive("sinceSeconds", 1)?;
    if since_time.is_some() && since_seconds.is_some() {
        let error = FieldError::forbidden(
            "",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        );
        return Err(StatusError::invalid("", "PodLogOptions", "", &[error]));
    }
    if let Some(time) = &since_time
        && eventstore::Time::parse(time).is_none()
    {
        return Err(StatusError::bad_request(format!(
            "parsing time {time:?} as RFC 3339 failed"
        )));
    }
    Ok(LogRequest {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: positive("tailLines", 0)?,
        since_seconds,
        since_time,
        timestamps: query.flag("timestamps"),
        limit_bytes: positive("limitBytes", 1)?,
        ..LogRequest::default()
    })
}

/// The container meant: the one named, or the only one.
fn container(pod: &Value, pod_name: &str, named: &str) -> Result<String, StatusError> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|container| container["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if !named.is_empty() {
        return if main.iter().chain(&init).any(|name| name == named) {
            Ok(named.to_owned())
        } else {
            Err(StatusError::bad_request(format!(
                "container {named} is not valid for pod {pod_name}"
            )))
        };
    }
    match main.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(StatusError::bad_request(format!(
            "a container name must be specified for pod {pod_name}"
        ))),
        several => {
            let mut text = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            Err(StatusError::bad_request(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let pod = |names: &[&str]| json!({"spec": {"initContainers": [{"name": "i"}], "containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}});
        let rows = [
            (vec!["a"], "", Ok("a")),
            (vec!["a", "b"], "b", Ok("b")),
            (vec!["a"], "i", Ok("i")),
            (
                vec!["a", "b"],
                "",
                Err(
                    "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
                ),
            ),
            (vec!["a"], "x", Err("container x is not valid for pod p")),
        ];
        for (names, named, expected) in rows {
            let found = container(&pod(&names), "p", named).map_err(|error| error.message);
            assert_eq!(
                found,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{names:?} {named}"
            );
        }
    }
}
