//! From what a handler answers to bytes: encoding, form, headers.
//!
//! An object as it is stored is served as its own bytes, without a look inside; only tables, partial metadata and YAML parse it.
//! A long list is made piece by piece while it is sent.

use super::negotiate::{Accept, Encoding, Form};
use super::pretty::Indenter;
use bytes::{Bytes, BytesMut};
use eventstore::Object;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kinds::error::StatusError;
use kinds::kind::Kind;
use kinds::table::{self, IncludeObject};
use seams::blocking;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers beyond this are compressed for those who take gzip (Kubernetes: 128 KiB).
const GZIP_FROM_BYTES: usize = 128 << 10;
/// Objects that are gone through where a call runs; more of them out of other calls' way.
const FEW: usize = 500;
/// A list is sent in pieces of about this size.
const PIECE_BYTES: usize = 128 << 10;
const TEXT: &str = "text/plain; charset=utf-8";

/// What a handler answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub code: u16,
    pub content_type: String,
    pub content: Content,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

pub(crate) enum Content {
    Bytes(Bytes),
    /// A list that is made while it is sent.
    List(ListPieces),
    /// Has no length and ends when it ends.
    Stream(Body),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes(_) => "Bytes",
            Self::List(_) => "List",
            Self::Stream(_) => "Stream",
        })
    }
}

/// One version of an object as a handler has it.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Stored(Arc<Object>),
    /// A dry run's, or one that is gone.
    Made(Value),
}

impl Shown {
    pub fn to_value(&self) -> Value {
        match self {
            Self::Stored(object) => object.to_value(),
            Self::Made(value) => value.clone(),
        }
    }
}

impl Reply {
    pub fn new(code: u16, content_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            code,
            content_type: content_type.to_owned(),
            content: Content::Bytes(bytes.into()),
            warnings: Vec::new(),
        }
    }

    pub fn text(code: u16, text: impl Into<String>) -> Self {
        Self::new(code, TEXT, text.into())
    }

    /// A value in the encoding asked for, whatever the form: reviews, statuses, scales.
    pub fn value(accept: Accept, code: u16, value: &Value) -> Self {
        Self::new(
            code,
            accept.encoding.content_type(),
            encode(accept.encoding, value),
        )
    }

    pub fn json(code: u16, value: &Value) -> Self {
        Self::new(code, Encoding::Json.content_type(), value.to_string())
    }

    pub fn stream(content_type: &str, body: Body) -> Self {
        Self {
            code: 200,
            content_type: content_type.to_owned(),
            content: Content::Stream(body),
            warnings: Vec::new(),
        }
    }

    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// One object in the form asked for.
    pub fn object(
        accept: Accept,
        kind: &Kind,
        code: u16,
        shown: &Shown,
        include: IncludeObject,
        now_ms: i64,
    ) -> Self {
        match (accept, shown) {
            (
                Accept {
                    encoding: Encoding::Json,
                    form: Form::Whole,
                },
                Shown::Stored(object),
            ) => Self::new(code, Encoding::Json.content_type(), object.bytes.clone()),
            _ => Self::value(
                accept,
                code,
                &in_form(accept.form, kind, &shown.to_value(), include, now_ms),
            ),
        }
    }

    /// A list in the form asked for. `metadata` is the list's own.
    pub fn list(
        accept: Accept,
        kind: &Kind,
        metadata: Value,
        objects: Vec<Arc<Object>>,
        include: IncludeObject,
        now_ms: i64,
    ) -> Self {
        if accept == Accept::JSON {
            let content = Content::List(ListPieces::new(kind, &metadata, objects));
            return Self {
                code: 200,
                content_type: accept.encoding.content_type().to_owned(),
                content,
                warnings: Vec::new(),
            };
        }
        through(objects.len(), || {
            let values: Vec<Value> = objects.iter().map(|object| object.to_value()).collect();
            let list = match accept.form {
                Form::Table => table::table(kind, &values, metadata, include, true, now_ms),
                Form::Partial => table::partial_list(&values, metadata),
                Form::Whole => list_value(kind, metadata, values),
            };
            Self::value(accept, 200, &list)
        })
    }

    pub fn error(error: &StatusError) -> Self {
        Self::json(error.code, &error.to_value())
    }

    /// A field a line, where it is JSON and has an end.
    pub fn indented(mut self) -> Self {
        if self.content_type == Encoding::Json.content_type() {
            self.content = match self.content {
                Content::Bytes(bytes) => Content::Bytes(Indenter::default().push(&bytes).into()),
                Content::List(pieces) => Content::List(ListPieces {
                    indenter: Some(Indenter::default()),
                    ..pieces
                }),
                stream @ Content::Stream(_) => stream,
            };
        }
        self
    }

    /// The response, with the headers that every answer has.
    pub fn into_response(self, audit_id: &str, gzip: bool) -> Response<Body> {
        let mut headers = HeaderMap::new();
        insert(
            &mut headers,
            header::CONTENT_TYPE.as_str(),
            &self.content_type,
        );
        insert(
            &mut headers,
            header::CACHE_CONTROL.as_str(),
            "no-cache, private",
        );
        insert(&mut headers, "audit-id", audit_id);
        for warning in &self.warnings {
            let text = format!("299 - {}", kinds::error::go_quote(warning));
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.append(header::WARNING, value);
            }
        }
        let body = match self.content {
            Content::Bytes(bytes) if gzip && bytes.len() > GZIP_FROM_BYTES => {
                insert(&mut headers, header::CONTENT_ENCODING.as_str(), "gzip");
                full(compress([bytes]))
            }
            Content::Bytes(bytes) => full(bytes),
            Content::List(pieces) if gzip && pieces.len() > GZIP_FROM_BYTES => {
                insert(&mut headers, header::CONTENT_ENCODING.as_str(), "gzip");
                full(compress(pieces))
            }
            Content::List(pieces) => StreamBody::new(futures::stream::iter(
                pieces.map(|piece| Ok(Frame::data(piece))),
            ))
            .boxed_unsync(),
            Content::Stream(body) => body,
        };
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }
}

/// What is said of an error besides its body.
pub(crate) fn retry_after(error: &StatusError) -> Option<HeaderValue> {
    let seconds = error.details.get("retryAfterSeconds")?.as_u64()?;
    (seconds > 0).then(|| HeaderValue::from(seconds))
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(crate) fn in_form(
    form: Form,
    kind: &Kind,
    value: &Value,
    include: IncludeObject,
    now_ms: i64,
) -> Value {
    match form {
        Form::Whole => value.clone(),
        Form::Table => table::table(
            kind,
            [value],
            table::single_metadata(value),
            include,
            true,
            now_ms,
        ),
        Form::Partial => table::partial(value),
    }
}

/// A list of built-in objects names no kind in its items.
pub(crate) fn list_value(kind: &Kind, metadata: Value, mut values: Vec<Value>) -> Value {
    for map in values.iter_mut().filter_map(Value::as_object_mut) {
        map.shift_remove("kind");
        map.shift_remove("apiVersion");
    }
    json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": values})
}

pub(crate) fn encode(encoding: Encoding, value: &Value) -> Bytes {
    match encoding {
        Encoding::Json => value.to_string().into(),
        // JSON is YAML too: should the printer fail, the client can still read it.
        Encoding::Yaml => serde_saphyr::to_string(value)
            .unwrap_or_else(|_| value.to_string())
            .into(),
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Does what goes through so many objects.
pub(crate) fn through<T>(objects: usize, work: impl FnOnce() -> T) -> T {
    if objects > FEW {
        blocking(work)
    } else {
        work()
    }
}

fn compress(pieces: impl IntoIterator<Item = Bytes>) -> Bytes {
    blocking(|| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing into memory does not fail.
        let written = pieces
            .into_iter()
            .try_for_each(|piece| encoder.write_all(&piece));
        debug_assert!(written.is_ok());
        encoder.finish().unwrap_or_default().into()
    })
}

/// The bytes of a list, piece by piece: `{"kind":"PodList",…,"items":[` and each object without its kind, from the bytes that are stored.
pub(crate) struct ListPieces {
    head: Option<Bytes>,
    /// `{"kind":"Pod","apiVersion":"v1",`, with which each stored object begins and none in a list does.
    prefix: Vec<u8>,
    objects: std::vec::IntoIter<Arc<Object>>,
    bytes: usize,
    first: bool,
    ended: bool,
    indenter: Option<Indenter>,
}

impl ListPieces {
    fn new(kind: &Kind, metadata: &Value, objects: Vec<Arc<Object>>) -> Self {
        let head = format!(
            r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
            kind.kind,
            kind.api_version()
        );
        let prefix = format!(
            r#"{{"kind":"{}","apiVersion":"{}","#,
            kind.kind,
            kind.api_version()
        )
        .into_bytes();
        let bytes = head.len()
            + objects
                .iter()
                .map(|object| object.bytes.len())
                .sum::<usize>();
        Self {
            head: Some(head.into()),
            prefix,
            objects: objects.into_iter(),
            bytes,
            first: true,
            ended: false,
            indenter: None,
        }
    }

    /// How long it will be, or a little less.
    fn len(&self) -> usize {
        self.bytes
    }
}

impl Iterator for ListPieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = BytesMut::with_capacity(self.bytes.min(PIECE_BYTES + PIECE_BYTES / 4));
        if let Some(head) = self.head.take() {
            piece.extend_from_slice(&head);
        }
        while piece.len() < PIECE_BYTES {
            let Some(object) = self.objects.next() else {
                piece.extend_from_slice(b"]}\n");
                self.ended = true;
                break;
            };
            if !self.first {
                piece.extend_from_slice(b",");
            }
            self.first = false;
            match object.bytes.strip_prefix(self.prefix.as_slice()) {
                Some(rest) => {
                    piece.extend_from_slice(b"{");
                    piece.extend_from_slice(rest);
                }
                None => piece.extend_from_slice(&object.bytes),
            }
        }
        Some(match &mut self.indenter {
            Some(indenter) => indenter.push(&piece).into(),
            None => piece.freeze(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventstore::{Body as Cut, Key, Salt, Stamps, Time};

    fn object(name: &str, text: &str) -> Arc<Object> {
        let body = Cut::cut(&json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "a"}, "data": {"k": text}})).unwrap();
        let stamps = Stamps {
            uid: uuid::Uuid::nil(),
            revision: 7,
            created: Time::from_s(0),
            deletion: None,
        };
        Arc::new(Object::stamp(
            Key::new("configmaps", "a", name),
            &body,
            stamps,
            Salt([0; 16]),
        ))
    }

    #[test]
    fn a_list_is_its_objects_without_their_kind() {
        let kind = kinds::resources::by_resource("configmaps").unwrap();
        for (count, long) in [(0, 1), (1, 1), (3, 1), (5, 100_000)] {
            let objects: Vec<_> = (0..count)
                .map(|index| object(&format!("c{index}"), &"x".repeat(long)))
                .collect();
            let values: Vec<Value> = objects.iter().map(|object| object.to_value()).collect();
            let metadata = json!({"resourceVersion": "9"});
            let pieces: Vec<Bytes> = ListPieces::new(kind, &metadata, objects).collect();
            let read: Value = serde_json::from_slice(&pieces.concat()).unwrap();
            assert_eq!(read, list_value(kind, metadata, values), "{count}");
            assert_eq!(pieces.len() > 1, count * long > PIECE_BYTES, "{count}");
        }
    }
}
