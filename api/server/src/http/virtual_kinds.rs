//! Kinds that are questions: answered from what the server knows, and never stored.

use super::authenticate::User;
use super::authorize::{self, Attributes};
use super::call::{Call, Target};
use super::options::WriteOptions;
use super::request_info::ResourcePath;
use super::respond::Reply;
use super::subresources;
use super::write;
use kinds::error::{FieldError, StatusError};
use kinds::kind::VirtualKind;
use kinds::resources;
use kinds::schema::Schema;
use serde_json::{Map, Value, json};

pub(crate) async fn serve(
    call: &Call,
    kind: &'static VirtualKind,
    path: &ResourcePath,
) -> Result<Reply, StatusError> {
    if call.info.verb != "create"
        || !path.name.is_empty()
        || kind.namespaced == path.namespace.is_empty()
    {
        return Err(StatusError::method_not_allowed());
    }
    let accept = call.accept()?;
    let options = WriteOptions::read(call, "CreateOptions")?;
    let schema = Schema::of_kind(kind.group, kind.version, kind.kind)
        .ok_or_else(|| StatusError::internal(&format!("there is no schema of {}", kind.kind)))?;
    let (mut object, warnings) = write::decode_body(call, schema, options.validation)?;
    let status = match kind.kind {
        "Binding" => return bind(call, path, &object).await,
        "SelfSubjectReview" => {
            object["metadata"]["creationTimestamp"] = json!(call.core().now().to_string());
            json!({"userInfo": call.user.to_value()})
        }
        "TokenReview" => token_review(&object)?,
        "SelfSubjectAccessReview" => decision(&call.user, &asked(kind, &object)?),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let named = asked(kind, &object)?;
            if kind.namespaced && named.namespace != path.namespace {
                let text = format!("must match metadata.namespace: {}", path.namespace);
                return Err(refuse(
                    kind,
                    FieldError::invalid("spec.resourceAttributes.namespace", named.namespace, text),
                ));
            }
            decision(&subject(kind, &object)?, &named)
        }
        "SelfSubjectRulesReview" => rules(&call.user),
        other => {
            return Err(StatusError::internal(&format!(
                "{other} is listed and not answered"
            )));
        }
    };
    object["status"] = status;
    Ok(Reply::value(accept, 201, &object).with_warnings(warnings))
}

/// `POST …/bindings`: the same as to the pod it names.
async fn bind(call: &Call, path: &ResourcePath, binding: &Value) -> Result<Reply, StatusError> {
    let pods = resources::by_resource("pods").ok_or_else(StatusError::no_such_path)?;
    let name = binding["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    subresources::bind(
        call,
        &Target {
            kind: pods,
            namespace: path.namespace.clone(),
            name,
        },
    )
    .await
}

fn refuse(kind: &VirtualKind, error: FieldError) -> StatusError {
    StatusError::invalid(kind.group, kind.kind, "", &[error])
}

/// No token was ever issued, so none is valid.
fn token_review(object: &Value) -> Result<Value, StatusError> {
    if object["spec"]["token"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        return Err(StatusError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    Ok(json!({"user": {}, "error": "[invalid bearer token, this server issues no tokens yet]"}))
}

fn asked(kind: &VirtualKind, object: &Value) -> Result<Attributes, StatusError> {
    let (resource, other) = (
        &object["spec"]["resourceAttributes"],
        &object["spec"]["nonResourceAttributes"],
    );
    if resource.is_null() == other.is_null() {
        let text = if resource.is_null() {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        } else {
            "cannot be specified in combination with resourceAttributes"
        };
        let path = if resource.is_null() {
            "spec.resourceAttributes"
        } else {
            "spec.nonResourceAttributes"
        };
        return Err(refuse(
            kind,
            FieldError::invalid(path, object["spec"]["resourceAttributes"].clone(), text),
        ));
    }
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    if resource.is_null() {
        return Ok(Attributes {
            verb: text(other, "verb"),
            path: text(other, "path"),
            ..Attributes::default()
        });
    }
    Ok(Attributes {
        verb: text(resource, "verb"),
        group: text(resource, "group"),
        namespace: text(resource, "namespace"),
        resource: text(resource, "resource"),
        subresource: text(resource, "subresource"),
        name: text(resource, "name"),
        path: String::new(),
    })
}

fn subject(kind: &VirtualKind, object: &Value) -> Result<User, StatusError> {
    let groups: Vec<String> = object["spec"]["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let name = object["spec"]["user"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if name.is_empty() && groups.is_empty() {
        return Err(refuse(
            kind,
            FieldError::invalid(
                "spec.user",
                "",
                "at least one of user or group must be specified",
            ),
        ));
    }
    Ok(User {
        name,
        groups,
        ..User::default()
    })
}

fn decision(user: &User, asked: &Attributes) -> Value {
    let mut status = Map::new();
    status.insert("allowed".into(), json!(authorize::allowed(user, asked)));
    Value::Object(status)
}

fn rules(user: &User) -> Value {
    if authorize::is_master(user) {
        return json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        });
    }
    json!({
        "resourceRules": [
            {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
            {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
        ],
        "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]},
            {"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]},
        ],
        "incomplete": false,
    })
}
