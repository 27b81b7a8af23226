//! The OpenAPI that we serve: v3, a document a group version, and v2 in JSON, both rendered from the table of kinds and the schemas.
//!
//! kubectl reads in it whether a kind takes `fieldValidation`, and by which keys lists merge; there is no prose in it. It is
//! rendered on demand and the same for the same kinds: the caller keeps what it has rendered.

use super::{Schema, Shape};
use crate::kind::{Kind, Subresource};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// `/openapi/v3`: where the document of each group version is.
pub fn index(kinds: &[&Kind]) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(kinds) {
        let name = document_name(&group, &version);
        let document = document(kinds, &group, &version)
            .unwrap_or_default()
            .to_string();
        let hash: String = Sha256::digest(document)
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        paths.insert(
            name.clone(),
            json!({"serverRelativeURL": format!("/openapi/v3/{name}?hash={hash}")}),
        );
    }
    json!({"paths": paths})
}

/// `/openapi/v3/<name>` by the name that the index gives: `api/v1`, `apis/apps/v1`.
pub fn document_by_name(kinds: &[&Kind], name: &str) -> Option<Value> {
    let parts: Vec<&str> = name.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", version] => document(kinds, "", version),
        ["apis", group, version] => document(kinds, group, version),
        _ => None,
    }
}

/// The document of one group version; None where no kind is in it.
pub fn document(kinds: &[&Kind], group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| kind.group == group && kind.version == version)
        .collect();
    if kinds.is_empty() {
        return None;
    }
    let schemas = closure(&kinds)
        .into_iter()
        .map(|schema| (schema.name.clone(), render(schema, V3)))
        .collect::<Map<_, _>>();
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "1.36"},
        "paths": paths(&kinds, V3),
        "components": {"schemas": schemas},
    }))
}

/// `/openapi/v2`, all of it.
pub fn swagger(kinds: &[&Kind]) -> Value {
    let definitions = closure(kinds)
        .into_iter()
        .map(|schema| (schema.name.clone(), render(schema, V2)))
        .collect::<Map<_, _>>();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "1.36"},
        "paths": paths(kinds, V2),
        "definitions": definitions,
    })
}

/// Which of the two formats is being rendered.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    V2,
    V3,
}
use Format::{V2, V3};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const LIST_PARAMETERS: [(&str, &str); 9] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const WRITE_PARAMETERS: [(&str, &str); 3] = [
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const DELETE_PARAMETERS: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

fn group_versions(kinds: &[&Kind]) -> BTreeSet<(String, String)> {
    kinds
        .iter()
        .map(|kind| (kind.group.to_owned(), kind.version.to_owned()))
        .collect()
}

fn document_name(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// What a subresource is written as, and the kind that its documents are of.
fn body_of(kind: &Kind, subresource: Subresource) -> (&'static str, &'static [&'static str]) {
    match subresource {
        Subresource::Status | Subresource::Finalize => (kind.schema, &["get", "put", "patch"]),
        Subresource::Scale => ("io.k8s.api.autoscaling.v1.Scale", &["get", "put", "patch"]),
        Subresource::Binding => ("io.k8s.api.core.v1.Binding", &["post"]),
        Subresource::Eviction => ("io.k8s.api.policy.v1.Eviction", &["post"]),
        Subresource::Token => ("io.k8s.api.authentication.v1.TokenRequest", &["post"]),
        _ => ("", &["get"]),
    }
}

// ---- paths ------------------------------------------------------------------------------------------------------------------

fn paths(kinds: &[&Kind], format: Format) -> Value {
    let mut paths = Map::new();
    for kind in kinds {
        let root = format!("/{}", document_name(kind.group, kind.version));
        let (all, one) = (
            format!("{root}/{}", kind.plural),
            format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
        );
        let collection = if kind.namespaced { one } else { all.clone() };
        let has = |verb: &str| kind.verbs.contains(&verb);
        let list = format!("{}List", kind.schema);
        let list = if Schema::of(&list).is_some() {
            list.as_str()
        } else {
            kind.schema
        };
        let own = Target {
            kind,
            schema: kind.schema,
            subresource: "",
        };
        let mut operations = Map::new();
        for (verb, method, action, schema, parameters) in [
            ("list", "get", "list", list, &LIST_PARAMETERS[..]),
            ("create", "post", "post", kind.schema, &WRITE_PARAMETERS[..]),
            (
                "deletecollection",
                "delete",
                "deletecollection",
                "",
                &LIST_PARAMETERS[..],
            ),
        ] {
            if has(verb) {
                operations.insert(
                    method.into(),
                    own.operation(action, schema, parameters, format),
                );
            }
        }
        insert(
            &mut paths,
            collection.clone(),
            operations,
            kind.namespaced,
            false,
        );
        if kind.namespaced && has("list") {
            let list = own.operation("list", list, &LIST_PARAMETERS, format);
            insert(
                &mut paths,
                all,
                Map::from_iter([("get".to_owned(), list)]),
                false,
                false,
            );
        }
        let mut operations = Map::new();
        for (verb, method, action, parameters) in [
            ("get", "get", "get", &[][..]),
            ("update", "put", "put", &WRITE_PARAMETERS[..]),
            ("patch", "patch", "patch", &WRITE_PARAMETERS[..]),
            ("delete", "delete", "delete", &DELETE_PARAMETERS[..]),
        ] {
            if has(verb) {
                operations.insert(
                    method.into(),
                    own.operation(action, kind.schema, parameters, format),
                );
            }
        }
        let item = format!("{collection}/{{name}}");
        insert(&mut paths, item.clone(), operations, kind.namespaced, true);
        for subresource in kind.subresources {
            let (schema, methods) = body_of(kind, *subresource);
            let target = Target {
                kind,
                schema,
                subresource: subresource.name(),
            };
            let operation = |method: &&str| {
                let parameters = if *method == "get" {
                    &[][..]
                } else {
                    &WRITE_PARAMETERS[..]
                };
                (
                    (*method).to_owned(),
                    target.operation(method, schema, parameters, format),
                )
            };
            let operations = methods.iter().map(operation).collect();
            insert(
                &mut paths,
                format!("{item}/{}", subresource.name()),
                operations,
                kind.namespaced,
                true,
            );
        }
    }
    Value::Object(paths)
}

fn insert(
    paths: &mut Map<String, Value>,
    path: String,
    mut operations: Map<String, Value>,
    namespaced: bool,
    named: bool,
) {
    if operations.is_empty() {
        return;
    }
    let in_path = [("name", named), ("namespace", namespaced)]
        .into_iter()
        .filter(|(_, there)| *there);
    let in_path = in_path.map(|(name, _)| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    operations.insert("parameters".into(), in_path.collect());
    paths.insert(path, Value::Object(operations));
}

struct Target<'a> {
    kind: &'a Kind,
    schema: &'a str,
    subresource: &'a str,
}

impl Target<'_> {
    /// `body` is the schema of what goes in and comes out; empty for a Status.
    fn operation(
        &self,
        action: &str,
        body: &str,
        parameters: &[(&str, &str)],
        format: Format,
    ) -> Value {
        let gvk = Schema::of(self.schema).and_then(|schema| schema.gvk.clone());
        let (group, version, kind) = gvk.unwrap_or_else(|| {
            (
                self.kind.group.to_owned(),
                self.kind.version.to_owned(),
                self.kind.kind.to_owned(),
            )
        });
        let query = |(name, typ): &(&str, &str)| match format {
            V2 => json!({"name": name, "in": "query", "type": typ, "uniqueItems": true}),
            V3 => {
                json!({"name": name, "in": "query", "schema": {"type": typ, "uniqueItems": true}})
            }
        };
        let mut parameters: Vec<Value> = parameters.iter().map(query).collect();
        if action == "patch" {
            parameters.push(query(&("force", "boolean")));
        }
        let answer = if body.is_empty() || action == "delete" {
            format!("{META}.Status")
        } else {
            body.to_owned()
        };
        let sent = match action {
            "post" | "put" => Some(body.to_owned()),
            "patch" => Some(format!("{META}.Patch")),
            "delete" | "deletecollection" => Some(format!("{META}.DeleteOptions")),
            _ => None,
        };
        let mut operation = json!({"tags": [self.tag()], "operationId": self.id(action)});
        match format {
            V2 => {
                let body = |schema: &String| json!({"name": "body", "in": "body", "schema": reference(schema, V2)});
                parameters.extend(sent.as_ref().map(body));
                operation["consumes"] = if action == "patch" {
                    json!(PATCH_TYPES)
                } else {
                    json!(["*/*"])
                };
                operation["produces"] = json!(MEDIA_TYPES);
                operation["responses"] =
                    json!({"200": {"description": "OK", "schema": reference(&answer, V2)}});
            }
            V3 => {
                if let Some(sent) = &sent {
                    let types: &[&str] = if action == "patch" {
                        &PATCH_TYPES
                    } else {
                        &["*/*"]
                    };
                    operation["requestBody"] = json!({"content": contents(types, sent), "required": !action.starts_with("delete")});
                }
                operation["responses"] = json!({"200": {"description": "OK", "content": contents(&MEDIA_TYPES, &answer)}});
            }
        }
        operation["parameters"] = Value::Array(parameters);
        operation["x-kubernetes-action"] = json!(action);
        operation["x-kubernetes-group-version-kind"] =
            json!({"group": group, "version": version, "kind": kind});
        operation
    }

    /// `apps_v1`
    fn tag(&self) -> String {
        let group = self
            .kind
            .group
            .split('.')
            .next()
            .filter(|group| !group.is_empty())
            .unwrap_or("core");
        format!("{group}_{}", self.kind.version)
    }

    /// `patchAppsV1NamespacedDeploymentStatus`
    fn id(&self, action: &str) -> String {
        let verb = match action {
            "get" => "read",
            "post" => "create",
            "put" => "replace",
            "deletecollection" => "deleteCollection",
            other => other,
        };
        let namespaced = if self.kind.namespaced {
            "Namespaced"
        } else {
            ""
        };
        let camel = |text: &str| text.split('_').map(capital).collect::<String>();
        format!(
            "{verb}{}{namespaced}{}{}",
            camel(&self.tag()),
            self.kind.kind,
            capital(self.subresource)
        )
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_ascii_uppercase().to_string() + chars.as_str()
    })
}

fn contents(types: &[&str], schema: &str) -> Value {
    types
        .iter()
        .map(|media| {
            (
                (*media).to_owned(),
                json!({"schema": reference(schema, V3)}),
            )
        })
        .collect::<Map<_, _>>()
        .into()
}

// ---- schemas ----------------------------------------------------------------------------------------------------------------

/// All schemas that the kinds' paths name, and those that these name, by name.
fn closure(kinds: &[&Kind]) -> Vec<&'static Schema> {
    let mut names: BTreeSet<String> = ["Status", "Patch", "DeleteOptions"]
        .iter()
        .map(|name| format!("{META}.{name}"))
        .collect();
    for kind in kinds {
        names.extend([kind.schema.to_owned(), format!("{}List", kind.schema)]);
        names.extend(
            kind.subresources
                .iter()
                .map(|subresource| body_of(kind, *subresource).0.to_owned()),
        );
    }
    let mut open: Vec<String> = names.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let Some(schema) = Schema::of(&name) else {
            continue;
        };
        for field in schema.fields() {
            let mut ty = &field.ty;
            while let Some(element) = ty.element() {
                ty = element;
            }
            if let Some(inner) = ty.schema()
                && names.insert(inner.name.clone())
            {
                open.push(inner.name.clone());
            }
        }
    }
    names.iter().filter_map(|name| Schema::of(name)).collect()
}

fn reference(name: &str, format: Format) -> Value {
    match format {
        V2 => json!({"$ref": format!("#/definitions/{name}")}),
        V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

fn render(schema: &Schema, format: Format) -> Value {
    let row = &schema.row;
    let mut out = json!({});
    match (&schema.shape, format) {
        (Shape::Quantity, V3) => out["oneOf"] = json!([{"type": "string"}, {"type": "number"}]),
        (Shape::IntOrString, V3) => {
            out = json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Shape::Quantity, V2) => out["type"] = json!("string"),
        (Shape::IntOrString, V2) => out = json!({"type": "string", "format": "int-or-string"}),
        _ => copy(
            row,
            &mut out,
            &[
                ("type", "type"),
                ("format", "format"),
                ("required", "required"),
            ],
        ),
    }
    if let Some(fields) = row.get("fields").and_then(Value::as_object) {
        out["properties"] = fields
            .iter()
            .map(|(name, row)| (name.clone(), render_field(row, format)))
            .collect::<Map<_, _>>()
            .into();
    }
    copy(row, &mut out, &[("map", "x-kubernetes-map-type")]);
    if let Some((group, version, kind)) = &schema.gvk {
        out["x-kubernetes-group-version-kind"] =
            json!([{"group": group, "kind": kind, "version": version}]);
    }
    if let Some(unions) = row.get("unions").and_then(Value::as_array) {
        let union = |union: &Value| {
            let mut out = json!({});
            copy(
                union,
                &mut out,
                &[
                    ("discriminator", "discriminator"),
                    ("fields", "fields-to-discriminateBy"),
                ],
            );
            out
        };
        out["x-kubernetes-unions"] = unions.iter().map(union).collect();
    }
    out
}

fn render_field(row: &Value, format: Format) -> Value {
    let mut out = render_type(row, format);
    let zero = row
        .get("always")
        .filter(|_| row.get("pointer").is_none())
        .and_then(|_| match row.get("type").and_then(Value::as_str) {
            Some("string") => Some(json!("")),
            Some("integer" | "number") => Some(json!(0)),
            Some("boolean") => Some(json!(false)),
            Some(_) => None,
            None => Some(json!({})),
        });
    if let (Some(zero), V3) = (row.get("default").cloned().or(zero), format) {
        if out.get("$ref").is_some() {
            out = json!({"allOf": [out]});
        }
        out["default"] = zero;
    }
    let copied = [
        ("enum", "enum"),
        ("list", "x-kubernetes-list-type"),
        ("keys", "x-kubernetes-list-map-keys"),
        ("map", "x-kubernetes-map-type"),
        ("merge_key", "x-kubernetes-patch-merge-key"),
        ("strategy", "x-kubernetes-patch-strategy"),
    ];
    if format == V3
        && out.get("$ref").is_some()
        && copied.iter().any(|(field, _)| row.get(field).is_some())
    {
        out = json!({"allOf": [out]});
    }
    copy(row, &mut out, &copied);
    out
}

fn render_type(row: &Value, format: Format) -> Value {
    if let Some(name) = row.get("ref").and_then(Value::as_str) {
        return reference(name, format);
    }
    let mut out = json!({});
    copy(row, &mut out, &[("type", "type"), ("format", "format")]);
    if let Some(items) = row.get("items") {
        out["items"] = render_type(items, format);
    }
    if let Some(values) = row.get("values") {
        out["additionalProperties"] = render_type(values, format);
    }
    out
}

fn copy(from: &Value, to: &mut Value, fields: &[(&str, &str)]) {
    for (source, target) in fields {
        if let Some(value) = from.get(source) {
            to[*target] = value.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_renders_what_the_documents_said() {
        let rows = [
            (
                "io.k8s.api.core.v1.ContainerPort",
                json!({"type": "object", "required": ["containerPort"], "properties": {"containerPort": {"type": "integer", "format": "int32", "default": 0}, "hostIP": {"type": "string"}, "hostPort": {"type": "integer", "format": "int32"}, "name": {"type": "string"}, "protocol": {"type": "string", "default": "TCP", "enum": ["SCTP", "TCP", "UDP"]}}}),
            ),
            (
                "io.k8s.api.core.v1.Pod",
                json!({"type": "object", "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "metadata": {"default": {}, "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]}, "spec": {"default": {}, "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]}, "status": {"default": {}, "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodStatus"}]}},
                "x-kubernetes-group-version-kind": [{"group": "", "kind": "Pod", "version": "v1"}]}),
            ),
            (
                "io.k8s.apimachinery.pkg.api.resource.Quantity",
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            ),
        ];
        for (name, expected) in rows {
            assert_eq!(render(Schema::of(name).unwrap(), V3), expected, "{name}");
        }
        let containers = &render(Schema::of("io.k8s.api.core.v1.PodSpec").unwrap(), V3)["properties"]
            ["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    }
}
