//! Defaults that the schemas state. Most of Kubernetes' defaults are code, and are hooks in `resources/`; these run before them.

use super::{Schema, Shape, Type};
use serde_json::Value;

/// Sets what is absent and has a default in the schema, at any depth, in structs that are there.
pub fn default(schema: &'static Schema, value: &mut Value) {
    let (Shape::Struct(fields), Value::Object(map)) = (&schema.shape, value) else {
        return;
    };
    for field in &fields.list {
        if let Some(default) = &field.default
            && map.get(&field.name).is_none_or(Value::is_null)
        {
            map.insert(field.name.clone(), default.clone());
        }
    }
    for (name, value) in map.iter_mut() {
        if let Some(field) = fields.get(name) {
            inside(&field.ty, value);
        }
    }
}

fn inside(ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::List(element), Value::Array(items)) => {
            items.iter_mut().for_each(|item| inside(element, item))
        }
        (Type::Map(element), Value::Object(map)) => {
            map.values_mut().for_each(|value| inside(element, value))
        }
        (Type::Named(_), value) => {
            if let Some(schema) = ty.schema() {
                default(schema, value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stated_defaults_are_set_where_absent() {
        let schema = Schema::of("io.k8s.api.core.v1.Service").unwrap();
        let mut service = json!({"spec": {"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]}});
        default(schema, &mut service);
        assert_eq!(
            service,
            json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "UDP"}]}})
        );
    }
}
