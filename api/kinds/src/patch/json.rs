//! JSON patch (RFC 6902), with kube-apiserver's limits: so many operations, and so much that `copy` may add.

use crate::error::{StatusError, go_quote};
use crate::schema::decode::{FieldValidation, decode_patched};
use crate::schema::walk::name_of;
use crate::schema::{Schema, json};
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

pub const MAX_OPERATIONS: usize = 10_000;
/// What all copies of a patch may add together: without it, a few copies of copies fill the memory.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

pub fn patch(
    schema: &'static Schema,
    current: &Value,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    let undecodable =
        |text: String| StatusError::bad_request(format!("error decoding patch: {text}"));
    let parsed = json::parse(body).map_err(undecodable)?;
    let mut complaints: Vec<String> = parsed
        .duplicates
        .iter()
        .map(|path| format!("json patch duplicate field {}", go_quote(path)))
        .collect();
    complaints.extend(check(&parsed.value).map_err(undecodable)?);
    let count = parsed.value.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        let text = format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        );
        return Err(StatusError::too_large(&text));
    }
    let Patch(operations) =
        serde_json::from_value(parsed.value).map_err(|_| StatusError::unprocessable())?;
    let (mut patched, mut copied) = (current.clone(), 0);
    for operation in operations {
        if let PatchOperation::Copy(copy) = &operation {
            copied += patched
                .pointer(copy.from.as_str())
                .map_or(0, |value| value.to_string().len());
            if copied > MAX_COPIED_BYTES {
                return Err(StatusError::unprocessable());
            }
        }
        json_patch::patch_unsafe(&mut patched, &[operation])
            .map_err(|_| StatusError::unprocessable())?;
    }
    decode_patched(schema, patched, complaints, validation)
}

/// A list of operations, of which each has strings where strings belong. Gives the fields that an operation has not.
fn check(patch: &Value) -> Result<Vec<String>, String> {
    let wrong = |value: &Value, into: &str| {
        format!("json: cannot unmarshal {} into Go {into}", name_of(value))
    };
    let mut unknown = Vec::new();
    let operations = match patch {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        other => return Err(wrong(other, "value of type []handlers.jsonPatchOp")),
    };
    for (index, operation) in operations.iter().enumerate() {
        let Value::Object(operation) = operation else {
            return Err(wrong(operation, "value of type handlers.jsonPatchOp"));
        };
        for (field, value) in operation {
            match (field.as_str(), value) {
                ("op" | "path" | "from", Value::String(_) | Value::Null) | ("value", _) => {}
                ("op" | "path" | "from", other) => {
                    return Err(wrong(
                        other,
                        &format!("struct field jsonPatchOp.{field} of type string"),
                    ));
                }
                _ => unknown.push(format!(
                    "json patch unknown field {}",
                    go_quote(&format!("[{index}].{field}"))
                )),
            }
        }
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Row<'a> = (&'a str, Result<Value, (u16, &'a str)>);

    #[test]
    fn json_patches_change_what_they_name_or_are_refused() {
        let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
        let current = json!({"metadata": {"name": "c", "annotations": {"x/y": "z", "w": "v"}}, "data": {"a": "1", "b": "2"}});
        let many = Value::Array(vec![
            json!({"op": "test", "path": "/data/a", "value": "1"});
            MAX_OPERATIONS + 1
        ])
        .to_string();
        let doubling: Vec<Value> =
            std::iter::once(json!({"op": "add", "path": "/data/x", "value": "x".repeat(100_000)}))
                .chain((0..40).map(
                    |n| json!({"op": "copy", "from": "/data/x", "path": format!("/data/{n}")}),
                ))
                .collect();
        let doubling = Value::Array(doubling).to_string();
        let unprocessable = "the server rejected our request due to an error in our request";
        let rows: [Row<'_>; 11] = [
            (
                r#"[{"op":"add","path":"/data/c","value":"3"},{"op":"remove","path":"/data/a"}]"#,
                Ok(json!({"b": "2", "c": "3"})),
            ),
            (
                r#"[{"op":"copy","from":"/data/b","path":"/data/d"},{"op":"move","from":"/data/a","path":"/data/e"},{"op":"remove","path":"/metadata/annotations/x~1y"}]"#,
                Ok(json!({"b": "2", "d": "2", "e": "1"})),
            ),
            ("[]", Ok(json!({"a": "1", "b": "2"}))),
            (
                r#"[{"op":"test","path":"/data/b","value":"no"}]"#,
                Err((422, unprocessable)),
            ),
            (
                r#"[{"op":"remove","path":"/data/absent"}]"#,
                Err((422, unprocessable)),
            ),
            (
                r#"[{"op":"frobnicate","path":"/data"}]"#,
                Err((422, unprocessable)),
            ),
            (
                r#"{"op":"add"}"#,
                Err((
                    400,
                    "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
                )),
            ),
            (
                r#"[{"op":1}]"#,
                Err((
                    400,
                    "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
                )),
            ),
            (
                "{broken",
                Err((
                    400,
                    "error decoding patch: invalid character 'b' looking for beginning of object key string",
                )),
            ),
            (
                &many,
                Err((
                    413,
                    "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
                )),
            ),
            (&doubling, Err((422, unprocessable))),
        ];
        for (body, expected) in rows {
            let found = patch(schema, &current, body.as_bytes(), FieldValidation::Warn)
                .map(|(value, _)| value["data"].clone());
            assert_eq!(
                found
                    .as_ref()
                    .map_err(|error| (error.code, error.message.as_str())),
                expected.as_ref().map_err(|error| *error),
                "{body:.100}"
            );
        }
    }
}
