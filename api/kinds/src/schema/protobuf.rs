//! Bodies in protobuf, which kubectl and client-go send for built-in kinds: read into JSON, by the field numbers of the schema table.
//!
//! Only reading: answers go out as JSON, which every such client takes. A message has the zero values that JSON leaves out; the
//! canonical form drops them. Fields that the table does not know are passed over, as protobuf wants it.
//! Source: k8s.io/apimachinery `runtime/serializer/protobuf`; protobuf.dev, Encoding.

use super::{Field, Schema, Shape, Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

/// What Kubernetes puts before each message.
pub const MAGIC: &[u8] = b"k8s\0";
/// Deeper nesting is refused, for reading recurses.
const MAX_DEPTH: usize = 100;

/// The envelope: what kind the message is of, and the message.
#[derive(Debug, PartialEq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub message: &'a [u8],
}

/// Opens a body. The error is kube-apiserver's text, or says what is malformed.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, String> {
    let Some(rest) = body.strip_prefix(MAGIC) else {
        return Err("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".to_owned());
    };
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        message: &[],
    };
    for field in Reader(rest) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Reader(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => envelope.message = message,
            _ => {}
        }
    }
    Ok(envelope)
}

/// A message of the schema's type, as JSON.
pub fn read(schema: &'static Schema, message: &[u8]) -> Result<Value, String> {
    let mut object = Map::new();
    read_into(schema, &[], message, &mut object, 0)?;
    Ok(Value::Object(object))
}

/// `inlined`: the numbers of the messages that lie around this one and that JSON does not show.
fn read_into(
    schema: &'static Schema,
    inlined: &[u32],
    message: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("message is nested too deep".to_owned());
    }
    for found in Reader(message) {
        let (number, wire) = found?;
        let path = [inlined, &[number]].concat();
        if let Some(field) = schema.fields().iter().find(|field| field.number == path) {
            put(field, wire, object, depth)?;
        } else if let Wire::Bytes(inner) = wire
            && schema
                .fields()
                .iter()
                .any(|field| field.number.starts_with(&path))
        {
            read_into(schema, &path, inner, object, depth + 1)?;
        }
    }
    Ok(())
}

fn put(
    field: &'static Field,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    match &field.ty {
        Type::List(element) => {
            let list = object
                .entry(field.name.clone())
                .or_insert_with(|| json!([]));
            let Value::Array(list) = list else {
                return Ok(());
            };
            match (wire, &**element) {
                // Numbers may come packed.
                (Wire::Bytes(mut packed), Type::Int32 | Type::Int64) => {
                    while !packed.is_empty() {
                        list.push(json!(varint(&mut packed)? as i64));
                    }
                }
                (wire, element) => list.push(value(element, wire, depth)?),
            }
        }
        Type::Map(element) => {
            let (mut key, mut inner) = (String::new(), None);
            for found in Reader(wire.bytes()?) {
                match found? {
                    (1, Wire::Bytes(text)) => key = utf8(text)?,
                    (2, wire) => inner = Some(wire),
                    _ => {}
                }
            }
            let inner = match (inner, &**element) {
                // A map's list is a message of its own, with the items in its first field.
                (Some(wire), Type::List(item)) => {
                    let items = Reader(wire.bytes()?).map(|found| value(item, found?.1, depth));
                    items.collect::<Result<Value, String>>()?
                }
                (Some(wire), element) => value(element, wire, depth)?,
                (None, element) => value(element, Wire::Bytes(&[]), depth).unwrap_or_default(),
            };
            let map = object
                .entry(field.name.clone())
                .or_insert_with(|| json!({}));
            map[key] = inner;
        }
        ty => {
            object.insert(field.name.clone(), value(ty, wire, depth)?);
        }
    }
    Ok(())
}

fn value(ty: &'static Type, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match ty {
        Type::String => json!(utf8(wire.bytes()?)?),
        Type::Bytes => json!(STANDARD.encode(wire.bytes()?)),
        Type::Int32 => json!(wire.varint()? as i32),
        Type::Int64 => json!(wire.varint()? as i64),
        Type::Bool => json!(wire.varint()? != 0),
        Type::Double => match wire {
            Wire::Fixed64(bits) => json!(f64::from_bits(bits)),
            _ => return Err("unexpected wire type".to_owned()),
        },
        Type::Any => raw(wire.bytes()?)?,
        Type::List(_) | Type::Map(_) => return Err("a list within a list".to_owned()),
        Type::Named(_) => match ty.schema() {
            Some(schema) => named(schema, wire.bytes()?, depth)?,
            None => Value::Null,
        },
    })
}

fn named(schema: &'static Schema, message: &[u8], depth: usize) -> Result<Value, String> {
    match &schema.shape {
        Shape::Struct(_) => {
            let mut object = Map::new();
            read_into(schema, &[], message, &mut object, depth + 1)?;
            Ok(Value::Object(object))
        }
        Shape::Quantity => {
            let text = Reader(message)
                .next()
                .transpose()?
                .map(|(_, wire)| wire.bytes().and_then(utf8))
                .transpose()?;
            Ok(json!(
                text.filter(|text| !text.is_empty())
                    .unwrap_or_else(|| "0".to_owned())
            ))
        }
        Shape::IntOrString => {
            let (mut is_text, mut number, mut text) = (false, 0, String::new());
            for found in Reader(message) {
                match found? {
                    (1, wire) => is_text = wire.varint()? == 1,
                    (2, wire) => number = wire.varint()? as i32,
                    (3, wire) => text = utf8(wire.bytes()?)?,
                    _ => {}
                }
            }
            Ok(if is_text { json!(text) } else { json!(number) })
        }
        Shape::Time | Shape::MicroTime => time(message, matches!(schema.shape, Shape::MicroTime)),
        Shape::Any => raw(message),
    }
}

/// An empty message is a time that was never set.
fn time(message: &[u8], micro: bool) -> Result<Value, String> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for found in Reader(message) {
        match found? {
            (1, wire) => seconds = wire.varint()? as i64,
            (2, wire) => nanos = wire.varint()? as u32,
            _ => {}
        }
    }
    let time = DateTime::from_timestamp(seconds, nanos).ok_or("time out of range")?;
    Ok(json!(time.to_rfc3339_opts(
        if micro {
            SecondsFormat::Micros
        } else {
            SecondsFormat::Secs
        },
        true
    )))
}

/// A message whose first field is JSON.
fn raw(message: &[u8]) -> Result<Value, String> {
    for found in Reader(message) {
        if let (1, Wire::Bytes(text)) = found? {
            return super::json::parse(text).map(|parsed| parsed.value);
        }
    }
    Ok(Value::Null)
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "string field contains invalid UTF-8".to_owned())
}

#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Result<&'a [u8], String> {
        if let Self::Bytes(bytes) = self {
            Ok(bytes)
        } else {
            Err("unexpected wire type".to_owned())
        }
    }

    fn varint(self) -> Result<u64, String> {
        if let Self::Varint(number) = self {
            Ok(number)
        } else {
            Err("unexpected wire type".to_owned())
        }
    }
}

/// The fields of a message, in the order they came. Ends at the first that is malformed.
struct Reader<'a>(&'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| *number > 0)
            .ok_or("illegal tag")?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => Wire::Fixed64(u64::from_le_bytes(
                self.take(8)?.try_into().map_err(|_| END)?,
            )),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| END)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((number, wire))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(END)?;
        self.0 = rest;
        Ok(taken)
    }
}

const END: &str = "unexpected EOF";

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(END)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("proto: integer overflow".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::decode::{Body, FieldValidation, decode};

    fn encoded(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number > 0x7f {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    fn field(number: usize, bytes: &[u8]) -> Vec<u8> {
        [
            encoded(number << 3 | 2),
            encoded(bytes.len()),
            bytes.to_vec(),
        ]
        .concat()
    }

    fn number(field: usize, value: usize) -> Vec<u8> {
        [encoded(field << 3), encoded(value)].concat()
    }

    fn enveloped(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
        let type_meta = field(
            1,
            &[field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat(),
        );
        [
            MAGIC,
            &type_meta,
            &field(2, message),
            &field(3, b""),
            &field(4, b""),
        ]
        .concat()
    }

    #[test]
    fn messages_become_the_objects_that_json_gives() {
        let metadata = field(1, &[field(1, b"c"), field(2, b""), field(8, b"")].concat());
        let data = field(2, &[field(1, b"a"), field(2, b"1")].concat());
        let secret = field(2, &[field(1, b"k"), field(2, b"hi")].concat());
        let mount = field(9, &[field(1, b"v"), number(2, 0), field(3, b"/v")].concat());
        let limits = field(
            8,
            &field(
                1,
                &[field(1, b"cpu"), field(2, &field(1, b"500m"))].concat(),
            ),
        );
        let get = field(
            2,
            &[
                field(1, b"/"),
                field(2, &[number(1, 1), number(2, 0), field(3, b"web")].concat()),
            ]
            .concat(),
        );
        let container = field(
            2,
            &[
                field(1, b"m"),
                field(2, b"i"),
                limits,
                mount,
                field(10, &field(1, &get)),
            ]
            .concat(),
        );
        let volume = field(
            1,
            &[field(1, b"v"), field(2, &field(2, &field(1, b"Memory")))].concat(),
        );
        let pod = [
            metadata.clone(),
            field(2, &[volume, container, number(25, 0)].concat()),
            field(3, &field(7, &number(1, 60))),
        ]
        .concat();
        let rows = [
            (
                "v1",
                "ConfigMap",
                [metadata.clone(), data].concat(),
                json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "1"}}),
            ),
            (
                "v1",
                "Secret",
                [metadata.clone(), secret].concat(),
                json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"k": "aGk="}}),
            ),
            (
                "v1",
                "Pod",
                pod,
                json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "c"}, "spec": {
                "containers": [{"name": "m", "image": "i", "resources": {"limits": {"cpu": "500m"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": "web"}}}],
                "priority": 0, "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}, "status": {"startTime": "1970-01-01T00:01:00Z"}}),
            ),
        ];
        for (api_version, kind, message, expected) in rows {
            let schema = Schema::of_kind("", api_version, kind).unwrap();
            let found = decode(
                schema,
                Body::Protobuf(&enveloped(api_version, kind, &message)),
                FieldValidation::Strict,
            );
            assert_eq!(found.as_ref(), Ok(&(expected, vec![])), "{kind}");
            let first = found.unwrap().0.as_object().unwrap().keys().next().cloned();
            assert_eq!(first.as_deref(), Some("kind"));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
        let rows = [
            (
                b"{}".to_vec(),
                "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({})",
            ),
            (
                enveloped("v1", "ConfigMap", &[0x0a, 0x7f]),
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: unexpected EOF",
            ),
            (
                enveloped("v1", "ConfigMap", &field(1, &number(1, 1))),
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: unexpected wire type",
            ),
            (
                enveloped("v1", "Secret", &[]),
                "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
            ),
        ];
        for (body, message) in rows {
            let error = decode(schema, Body::Protobuf(&body), FieldValidation::Warn).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (400, message));
        }
    }
}
