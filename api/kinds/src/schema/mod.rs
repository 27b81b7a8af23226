//! The kinds' schemas: which fields there are, of what type, which default, how lists and maps merge.
//!
//! `data/schemas.json` is compiled by `compile.py` from the OpenAPI documents of a real kube-apiserver, for every kind it has; `data/go.json`
//! adds what those documents leave out of the wire format. One table serves decoding, defaults, patches, ownership of fields and
//! the OpenAPI that we serve, so that nothing about a type is said twice. It is read once, at first use, and never changes.

pub mod decode;
pub mod defaults;
pub mod json;
pub mod openapi;
pub mod protobuf;
mod scalars;
pub(crate) mod walk;
pub mod yaml;

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

/// One named type: `io.k8s.api.core.v1.PodSpec`.
#[derive(Debug)]
pub struct Schema {
    pub name: String,
    /// (group, version, kind) of what is served as an object of its own.
    pub gvk: Option<(String, String, String)>,
    pub shape: Shape,
    /// The whole is one value to owners and merges: nobody owns a part of it.
    pub atomic: bool,
    pub required: Vec<String>,
    /// The row as compiled, for OpenAPI.
    row: Value,
}

#[derive(Debug)]
pub enum Shape {
    Struct(Fields),
    /// Anything at all, kept as it came.
    Any,
    Quantity,
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339 with six digits.
    MicroTime,
}

/// In the order they are written: kind, apiVersion, metadata, then the others by name.
#[derive(Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    index: HashMap<String, usize>,
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    /// Absent and zero are two things: zero is kept.
    pub pointer: bool,
    /// Written even when it is zero.
    pub always: bool,
    /// A default that Kubernetes states in the schema (others are code).
    pub default: Option<Value>,
    /// The owner of a list or a map, by field: overrides the type's own.
    pub list: ListType,
    pub atomic: bool,
    pub merge_key: Option<String>,
    pub merges: bool,
    /// A map that a patch replaces whole.
    pub replaces: bool,
    /// Its number in protobuf, after those of the messages that JSON inlines around it; empty for none.
    pub number: Vec<u32>,
    /// The Go type, where it is not what the type says: `v1.PullPolicy`.
    go: Option<String>,
}

/// How a list is owned and merged (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    /// By these fields of its items.
    Map(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    String,
    Bytes,
    Int32,
    Int64,
    Double,
    Bool,
    List(Box<Type>),
    Map(Box<Type>),
    /// A named type: see [`Type::schema`].
    Named(usize),
    Any,
}

struct Table {
    schemas: Vec<Schema>,
    by_name: HashMap<String, usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("data/schemas.json")));

impl Schema {
    /// By its name in the OpenAPI documents.
    pub fn of(name: &str) -> Option<&'static Schema> {
        TABLE.by_name.get(name).map(|index| &TABLE.schemas[*index])
    }

    /// By group, version and kind.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
        TABLE.schemas.iter().find(|schema| {
            schema.gvk.as_ref().is_some_and(|gvk| {
                (gvk.0.as_str(), gvk.1.as_str(), gvk.2.as_str()) == (group, version, kind)
            })
        })
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.shape {
            Shape::Struct(fields) => fields.get(name),
            _ => None,
        }
    }

    pub fn fields(&self) -> &[Field] {
        match &self.shape {
            Shape::Struct(fields) => &fields.list,
            _ => &[],
        }
    }

    /// The name without its package: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// `v1.PodSpec`
    fn go_name(&self) -> &str {
        let mut dots = self.name.rmatch_indices('.');
        dots.nth(1)
            .map_or(self.name.as_str(), |(at, _)| &self.name[at + 1..])
    }
}

impl Fields {
    fn get(&self, name: &str) -> Option<&Field> {
        self.index.get(name).map(|index| &self.list[*index])
    }
}

impl Type {
    /// The named type that this is.
    pub fn schema(&self) -> Option<&'static Schema> {
        match self {
            Self::Named(index) => Some(&TABLE.schemas[*index]),
            _ => None,
        }
    }

    /// The type of a list's items or a map's values.
    pub fn element(&self) -> Option<&Type> {
        match self {
            Self::List(element) | Self::Map(element) => Some(element),
            _ => None,
        }
    }

    /// The type as Go prints it.
    fn go_name(&self) -> String {
        match self {
            Self::String => "string".into(),
            Self::Bytes => "[]uint8".into(),
            Self::Int32 => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Double => "float64".into(),
            Self::Bool => "bool".into(),
            Self::List(element) => format!("[]{}", element.go_name()),
            Self::Map(element) => format!("map[string]{}", element.go_name()),
            Self::Named(_) => self
                .schema()
                .map_or(String::new(), |schema| schema.go_name().to_owned()),
            Self::Any => "interface {}".into(),
        }
    }
}

impl Table {
    fn read(text: &str) -> Self {
        let rows: Map<String, Value> = serde_json::from_str(text)
            .expect("the compiled table is JSON: a test decodes it whole");
        let by_name: HashMap<String, usize> = rows
            .keys()
            .enumerate()
            .map(|(index, name)| (name.clone(), index))
            .collect();
        let schemas = rows
            .into_iter()
            .map(|(name, row)| read_schema(name, row, &by_name))
            .collect();
        Self { schemas, by_name }
    }
}

fn read_schema(name: String, row: Value, by_name: &HashMap<String, usize>) -> Schema {
    let shape = match (name.as_str(), row.get("fields").and_then(Value::as_object)) {
        (_, Some(rows)) => {
            let list: Vec<Field> = rows
                .iter()
                .map(|(name, row)| read_field(name, row, by_name))
                .collect();
            let index = list
                .iter()
                .enumerate()
                .map(|(index, field)| (field.name.clone(), index))
                .collect();
            Shape::Struct(Fields { list, index })
        }
        (name, None) if name.ends_with(".resource.Quantity") => Shape::Quantity,
        (name, None) if name.ends_with(".intstr.IntOrString") => Shape::IntOrString,
        (name, None) if name.ends_with(".meta.v1.Time") => Shape::Time,
        (name, None) if name.ends_with(".meta.v1.MicroTime") => Shape::MicroTime,
        _ => Shape::Any,
    };
    let gvk = row
        .get("gvk")
        .map(|gvk| (string(&gvk[0]), string(&gvk[1]), string(&gvk[2])));
    Schema {
        gvk,
        shape,
        atomic: row.get("map").is_some_and(|map| map == "atomic"),
        required: strings(row.get("required")),
        name,
        row,
    }
}

fn read_field(name: &str, row: &Value, by_name: &HashMap<String, usize>) -> Field {
    let strategy = row
        .get("strategy")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Field {
        name: name.to_owned(),
        ty: read_type(row, by_name),
        pointer: row.get("pointer").is_some(),
        always: row.get("always").is_some(),
        default: row.get("default").cloned(),
        list: match row.get("list").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(strings(row.get("keys"))),
            _ => ListType::Atomic,
        },
        atomic: row.get("map").is_some_and(|map| map == "atomic"),
        merge_key: row.get("merge_key").map(string),
        merges: strategy.split(',').any(|part| part == "merge"),
        replaces: strategy.split(',').any(|part| part == "replace"),
        number: numbers(row.get("number")),
        go: row.get("go").map(string),
    }
}

fn read_type(row: &Value, by_name: &HashMap<String, usize>) -> Type {
    if let Some(index) = row
        .get("ref")
        .and_then(Value::as_str)
        .and_then(|name| by_name.get(name))
    {
        return Type::Named(*index);
    }
    let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("format")) {
        ("string", "byte") => Type::Bytes,
        ("string", _) => Type::String,
        ("integer", "int32") => Type::Int32,
        ("integer", _) => Type::Int64,
        ("number", _) => Type::Double,
        ("boolean", _) => Type::Bool,
        ("array", _) => Type::List(Box::new(
            row.get("items")
                .map_or(Type::Any, |items| read_type(items, by_name)),
        )),
        ("object", _) if row.get("values").is_some() => {
            Type::Map(Box::new(read_type(&row["values"], by_name)))
        }
        _ => Type::Any,
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .map(|items| items.iter().map(string).collect())
        .unwrap_or_default()
}

fn numbers(value: Option<&Value>) -> Vec<u32> {
    let numbers = value.and_then(Value::as_array).into_iter().flatten();
    numbers
        .filter_map(Value::as_u64)
        .filter_map(|number| u32::try_from(number).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_kubernetes_says() {
        let pod = Schema::of("io.k8s.api.core.v1.Pod").unwrap();
        assert_eq!(pod.gvk, Some((String::new(), "v1".into(), "Pod".into())));
        assert_eq!(
            pod.fields()
                .iter()
                .map(|field| field.name.as_str())
                .collect::<Vec<_>>(),
            ["kind", "apiVersion", "metadata", "spec", "status"]
        );
        let rows = [
            (
                "io.k8s.api.core.v1.PodSpec",
                "containers",
                "[]v1.Container",
                false,
                true,
                ListType::Map(vec!["name".into()]),
                Some("name"),
            ),
            (
                "io.k8s.api.core.v1.PodSpec",
                "hostNetwork",
                "bool",
                false,
                false,
                ListType::Atomic,
                None,
            ),
            (
                "io.k8s.api.core.v1.PodSpec",
                "priority",
                "int32",
                true,
                false,
                ListType::Atomic,
                None,
            ),
            (
                "io.k8s.api.core.v1.Container",
                "resources",
                "v1.ResourceRequirements",
                false,
                true,
                ListType::Atomic,
                None,
            ),
            (
                "io.k8s.api.core.v1.Secret",
                "data",
                "map[string][]uint8",
                false,
                false,
                ListType::Atomic,
                None,
            ),
            (
                "io.k8s.api.apps.v1.DeploymentSpec",
                "replicas",
                "int32",
                true,
                false,
                ListType::Atomic,
                None,
            ),
            (
                "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                "finalizers",
                "[]string",
                false,
                false,
                ListType::Set,
                None,
            ),
        ];
        for (schema, name, go, pointer, always, list, merge_key) in rows {
            let field = Schema::of(schema)
                .and_then(|schema| schema.field(name))
                .unwrap();
            let found = (
                field.ty.go_name(),
                field.pointer,
                field.always,
                field.list.clone(),
                field.merge_key.as_deref(),
            );
            assert_eq!(
                found,
                (go.to_owned(), pointer, always, list, merge_key),
                "{schema} {name}"
            );
        }
        assert!(
            Schema::of_kind("apps", "v1", "Deployment").is_some()
                && Schema::of_kind("apps", "v2", "Deployment").is_none()
        );
    }

    /// Where the reference documents are there, the compiled table is what compile.py makes of them.
    #[test]
    fn the_table_is_compiled_from_the_documents() {
        let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let documents = home.join("../../../shared/kube-reference/openapi-v3");
        if !documents.is_dir() {
            println!("skipped: no {}", documents.display());
            return;
        }
        let run = std::process::Command::new("python3")
            .arg(home.join("src/schema/compile.py"))
            .arg(&documents)
            .arg("--check")
            .output();
        match run {
            Err(error) => println!("skipped: no python3 ({error})"),
            Ok(run) => assert!(
                run.status.success(),
                "{}{}",
                String::from_utf8_lossy(&run.stdout),
                String::from_utf8_lossy(&run.stderr)
            ),
        }
    }
}
