//! Get and list: now, at a named revision, or at a moment of the past; in pages that all show the same revision.
//!
//! A read without `resourceVersion` sees everything that was acknowledged before it, on whichever server. `resourceVersion=0` takes
//! this server's fold as it stands. A continue token names the revision of its first page, and every later page reads at it.

use super::call::{Call, Target};
use super::errors;
use super::negotiate::{Accept, Form};
use super::query::options_invalid;
use super::respond::{Reply, Shown, through};
use super::selection::Selection;
use crate::timetravel::{Moment, Place};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventstore::{Object, Time, View};
use kinds::error::{FieldError, StatusError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Objects looked at between two looks at the store.
const CHUNK: usize = 1_024;
/// Objects of the past counted at most for `remainingItemCount`, which is left out beyond: each costs a read of the disk.
const COUNT_PAST_MAX: usize = 50;

pub(crate) async fn get(
    call: &Call,
    target: &Target,
    moment: Option<Moment>,
) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let now_ms = now_ms(call, &accept, moment.as_ref())?;
    let object = find(call, target, moment).await?;
    Ok(Reply::object(
        accept,
        target.kind,
        200,
        &Shown::Stored(object),
        include,
        now_ms,
    ))
}

/// What ages in a table are counted to: a moment of the past that the path names shows them as they were then.
fn now_ms(call: &Call, accept: &Accept, named: Option<&Moment>) -> Result<i64, StatusError> {
    let time = match named {
        Some(moment) if accept.form == Form::Table => moment.time()?,
        _ => None,
    };
    Ok(time.map_or_else(|| call.now_ms(), Time::ms))
}

/// The one object that the path names.
pub(crate) async fn find(
    call: &Call,
    target: &Target,
    moment: Option<Moment>,
) -> Result<Arc<Object>, StatusError> {
    let moment = match moment {
        Some(moment) => moment,
        None => Moment::now(view(call, revision(call)?).await?),
    };
    moment.get(&target.key())?.ok_or_else(|| target.not_found())
}

pub(crate) async fn list(
    call: &Call,
    target: &Target,
    moment: Option<Moment>,
) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let selection = Selection::read(&call.query, target)?;
    if call.query.flag("sendInitialEvents") || call.query.get("sendInitialEvents").is_some() {
        return Err(list_options(&[FieldError::forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        )]));
    }
    let limit = call.query.integer("limit")?.unwrap_or_default();
    if limit < 0 {
        return Err(list_options(&[FieldError::invalid(
            "limit",
            limit,
            "must be greater than or equal to 0",
        )]));
    }
    let now_ms = now_ms(call, &accept, moment.as_ref())?;
    let (moment, after) = starting_point(call, moment, limit).await?;
    let page = page(
        &moment,
        target,
        &selection,
        after,
        usize::try_from(limit).unwrap_or(usize::MAX),
    )?;
    let mut metadata = json!({"resourceVersion": moment.revision().to_string()});
    if let Some(last) = page.more_after {
        metadata["continue"] = json!(
            ContinueToken {
                v: ContinueToken::VERSION.into(),
                rv: moment.revision(),
                start: last
            }
            .print()
        );
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    let reply = Reply::list(accept, target.kind, metadata, page.objects, include, now_ms);
    Ok(reply)
}

/// Every object that a selection names, as of a moment.
pub(crate) fn select(
    moment: &Moment,
    target: &Target,
    selection: &Selection,
) -> Result<Vec<Arc<Object>>, StatusError> {
    Ok(page(moment, target, selection, None, 0)?.objects)
}

struct Page {
    objects: Vec<Arc<Object>>,
    /// (namespace, name) of the last object, when there are more.
    more_after: Option<(String, String)>,
    /// How many more; unknown under a selector, as in Kubernetes.
    remaining: Option<usize>,
}

/// `limit` 0 means all.
fn page(
    moment: &Moment,
    target: &Target,
    selection: &Selection,
    after: Option<Place>,
    limit: usize,
) -> Result<Page, StatusError> {
    let resource = target.kind.resource();
    let work = || page_of(moment, target, &resource, selection, after, limit);
    through(moment.count_at_most(&resource), work)
}

fn page_of(
    moment: &Moment,
    target: &Target,
    resource: &str,
    selection: &Selection,
    after: Option<Place>,
    limit: usize,
) -> Result<Page, StatusError> {
    let namespace = match target.namespace.as_str() {
        "" if target.kind.namespaced => selection.namespace(),
        "" => None,
        namespace => Some(namespace),
    };
    // A list of one name in one namespace is a get.
    if let (Some(name), Some(namespace), None) = (
        selection.name(),
        namespace.or((!target.kind.namespaced).then_some("")),
        &after,
    ) {
        let found = moment.get(&eventstore::Key::new(resource, namespace, name))?;
        let objects = found
            .into_iter()
            .filter(|object| selection.matches(object))
            .collect();
        return Ok(Page {
            objects,
            more_after: None,
            remaining: None,
        });
    }
    let mut page = Page {
        objects: Vec::new(),
        more_after: None,
        remaining: None,
    };
    let at_once = match limit {
        1.. if moment.is_past() => limit.saturating_add(COUNT_PAST_MAX + 1).min(CHUNK),
        _ => CHUNK,
    };
    let (mut after, mut more) = (after, 0);
    loop {
        let chunk = moment.chunk(resource, namespace, after.as_ref(), at_once)?;
        after = chunk
            .objects
            .last()
            .map(|object| (object.key.namespace.clone(), object.key.name.clone()));
        for object in chunk
            .objects
            .into_iter()
            .filter(|object| selection.matches(object))
        {
            if limit == 0 || page.objects.len() < limit {
                page.objects.push(object);
            } else {
                more += 1;
            }
        }
        // Under a selector it is enough to know that there are more.
        let enough =
            more > 0 && (!selection.is_empty() || (moment.is_past() && more > COUNT_PAST_MAX));
        if !chunk.more || enough {
            if more > 0 {
                page.more_after = page.objects.last().map(|object| {
                    (
                        object.key.namespace.to_string(),
                        object.key.name.to_string(),
                    )
                });
                page.remaining = (selection.is_empty() && !enough).then_some(more);
            }
            return Ok(page);
        }
    }
}

/// The moment that a list reads, and what was the last object of the page before.
async fn starting_point(
    call: &Call,
    moment: Option<Moment>,
    limit: i64,
) -> Result<(Moment, Option<Place>), StatusError> {
    let token = call.query.text("continue");
    let version = call.query.text("resourceVersion");
    let matching = call.query.text("resourceVersionMatch");
    check_match(version, matching, token)?;
    if !token.is_empty() {
        let token = ContinueToken::read(token)?;
        let after = Some((token.start.0.as_str().into(), token.start.1.as_str().into()));
        let moment = match moment {
            Some(named) if named.revision() != token.rv => {
                return Err(StatusError::bad_request(
                    "the continue token belongs to another moment than /at/ names",
                ));
            }
            Some(named) => named,
            None => exactly(call, token.rv).await.map_err(expired_token)?,
        };
        return Ok((moment, after));
    }
    let moment = match (moment, revision(call)?) {
        (Some(moment), _) => moment,
        (None, Some(revision))
            if revision > 0 && (matching == "Exact" || (matching.is_empty() && limit > 0)) =>
        {
            exactly(call, revision).await?
        }
        (None, revision) => Moment::now(view(call, revision).await?),
    };
    Ok((moment, None))
}

/// The query's `resourceVersion`; None when it names none.
pub(crate) fn revision(call: &Call) -> Result<Option<u64>, StatusError> {
    match call.query.text("resourceVersion") {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let field = FieldError::invalid(
                "resourceVersion",
                text,
                format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
            );
            StatusError::bad_request(format!("Invalid value: {text:?}: {}", field.detail))
        }),
    }
}

/// None: everything acknowledged so far; 0: what is here; else at least that revision.
pub(crate) async fn view(call: &Call, revision: Option<u64>) -> Result<View, StatusError> {
    let core = call.core();
    match revision {
        None => core
            .linearizable(call.deadline)
            .await
            .map_err(|error| errors::unavailable(&error)),
        Some(0) => Ok(core.view()),
        Some(revision) => core
            .not_older_than(revision, call.deadline)
            .await
            .map_err(|error| errors::too_large(&error)),
    }
}

async fn exactly(call: &Call, revision: u64) -> Result<Moment, StatusError> {
    call.core()
        .not_older_than(revision, call.deadline)
        .await
        .map_err(|error| errors::too_large(&error))?;
    Moment::at(call.core(), revision)
}

fn expired_token(error: StatusError) -> StatusError {
    if error.code != 410 {
        return error;
    }
    StatusError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
    )
}

fn check_match(version: &str, matching: &str, token: &str) -> Result<(), StatusError> {
    let path = "resourceVersionMatch";
    if !token.is_empty() && !matches!(version, "" | "0") {
        return Err(StatusError::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let error = match matching {
        "" => return Ok(()),
        _ if version.is_empty() => FieldError::forbidden(
            path,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        _ if !token.is_empty() => FieldError::forbidden(
            path,
            "resourceVersionMatch is forbidden when continue is provided",
        ),
        "Exact" if version == "0" => FieldError::forbidden(
            path,
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        "Exact" | "NotOlderThan" => return Ok(()),
        other => FieldError::not_supported(path, other, &["Exact", "NotOlderThan", ""]),
    };
    Err(list_options(&[error]))
}

pub(crate) fn list_options(errors: &[FieldError]) -> StatusError {
    options_invalid("ListOptions", errors)
}

/// Where the next page goes on: opaque to clients.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ContinueToken {
    v: String,
    /// The revision of all pages.
    rv: u64,
    /// (namespace, name) of the last object shown.
    start: (String, String),
}

impl ContinueToken {
    const VERSION: &str = "reckon/1";

    fn print(&self) -> String {
        let json = json!(self).to_string();
        URL_SAFE_NO_PAD.encode(json)
    }

    fn read(text: &str) -> Result<Self, StatusError> {
        let invalid = |why: String| {
            StatusError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|error| invalid(error.to_string()))?;
        let token: Self =
            serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if token.v == Self::VERSION {
            Ok(token)
        } else {
            Err(invalid(format!(
                "server does not recognize this encoded version {:?}",
                token.v
            )))
        }
    }
}

/// The metadata of a list that is no page.
pub(crate) fn list_metadata(revision: u64) -> Value {
    json!({"resourceVersion": revision.to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back_or_are_refused() {
        let token = ContinueToken {
            v: ContinueToken::VERSION.into(),
            rv: 42,
            start: ("a".into(), "b\"/c".into()),
        };
        assert_eq!(ContinueToken::read(&token.print()), Ok(token));
        let other = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":["a","b"]}"#);
        for bad in ["garbage", "%%", "e30", other.as_str()] {
            let error = ContinueToken::read(bad).unwrap_err();
            assert_eq!(
                (
                    error.code,
                    error.message.starts_with("invalid continue token: ")
                ),
                (400, true),
                "{bad}"
            );
        }
    }

    #[test]
    fn version_matches_are_checked_as_kubernetes_checks_them() {
        // resourceVersion, resourceVersionMatch, continue, code
        let rows = [
            ("", "", "", 0),
            ("5", "Exact", "", 0),
            ("0", "NotOlderThan", "", 0),
            ("0", "", "t", 0),
            ("5", "", "t", 400),
            ("", "Exact", "", 422),
            ("0", "Exact", "", 422),
            ("5", "Newer", "", 422),
            ("0", "NotOlderThan", "t", 422),
        ];
        for (version, matching, token, code) in rows {
            let found =
                check_match(version, matching, token).map_or_else(|error| error.code, |()| 0);
            assert_eq!(found, code, "{version} {matching} {token}");
        }
    }
}
