//! JSON merge patch (RFC 7396): null removes, maps merge, all else replaces.

use crate::error::{StatusError, go_quote};
use crate::schema::decode::{FieldValidation, decode_patched};
use crate::schema::walk::name_of;
use crate::schema::{Schema, json};
use serde_json::Value;

pub fn patch(
    schema: &'static Schema,
    current: &Value,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    let undecodable =
        |text: String| StatusError::bad_request(format!("error decoding patch: {text}"));
    let parsed = json::parse(body).map_err(undecodable)?;
    if !parsed.value.is_object() {
        let found = name_of(&parsed.value);
        return Err(undecodable(format!(
            "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    }
    let mut patched = current.clone();
    json_patch::merge(&mut patched, &parsed.value);
    let repeated = parsed
        .duplicates
        .iter()
        .map(|path| format!("duplicate field {}", go_quote(path)))
        .collect();
    decode_patched(schema, patched, repeated, validation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Row<'a> = (&'a str, Result<Value, (u16, &'a str)>);

    #[test]
    fn merge_patches_merge_remove_and_replace() {
        let schema = Schema::of_kind("", "v1", "Pod").unwrap();
        let current = json!({"metadata": {"name": "p", "labels": {"l1": "a", "l2": "b"}}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let rows: [Row<'_>; 5] = [
            (
                r#"{"metadata":{"labels":{"l1":null,"l3":"c"}}}"#,
                Ok(json!([{"l2": "b", "l3": "c"}, 2])),
            ),
            (
                r#"{"metadata":{"labels":null},"spec":{"containers":[{"name":"x"}]}}"#,
                Ok(json!([null, 1])),
            ),
            (
                "[1]",
                Err((
                    400,
                    "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
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
                r#"{"spec":null,"metadata":{"labels":{"a":1}},"status":null}"#,
                Err((
                    422,
                    r#" "" is invalid: patch: Invalid value: "{\"metadata\":{\"labels\":{\"a\":1,\"l1\":\"a\",\"l2\":\"b\"},\"name\":\"p\"}}": json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"#,
                )),
            ),
        ];
        for (body, expected) in rows {
            let found = patch(schema, &current, body.as_bytes(), FieldValidation::Warn);
            let found = found.map(|(value, _)| {
                json!([
                    value["metadata"]["labels"],
                    value["spec"]["containers"].as_array().map_or(0, Vec::len)
                ])
            });
            assert_eq!(
                found
                    .as_ref()
                    .map_err(|error| (error.code, error.message.as_str())),
                expected.as_ref().map_err(|error| *error),
                "{body}"
            );
        }
        let strict = patch(
            schema,
            &current,
            br#"{"dataa":{}}"#,
            FieldValidation::Strict,
        )
        .unwrap_err();
        assert!(
            strict.code == 422
                && strict
                    .message
                    .ends_with(": strict decoding error: unknown field \"dataa\""),
            "{strict}"
        );
    }
}
