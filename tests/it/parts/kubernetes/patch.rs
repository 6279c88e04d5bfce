//! Patches as an API server takes them.

use serde_json::Value;

/// Operations of a JSON patch, all or none; the error is what the server says.
pub fn json(object: &Value, operations: &Value) -> Result<Value, String> {
    let mut after = object.clone();
    for operation in operations.as_array().ok_or("cannot decode the patch")? {
        let text =
            |key| operation.get(key).and_then(Value::as_str).ok_or("cannot decode the patch");
        let (kind, path) = (text("op")?, text("path")?);
        let value = operation.get("value").cloned().unwrap_or_default();
        if kind == "test" {
            // What is not there passes for null, as a real server has it.
            if after.pointer(path).unwrap_or(&Value::Null) != &value {
                return Err(format!("testing value {path} failed: test failed"));
            }
            continue;
        }
        if kind == "replace" && after.pointer(path).is_none() {
            return Err(format!("replace operation does not apply: doc is missing key: {path}"));
        }
        let missing = || format!("{kind} operation does not apply: doc is missing path: {path}");
        let (parent, key) = path.rsplit_once('/').ok_or_else(missing)?;
        let key = key.replace("~1", "/").replace("~0", "~");
        match (after.pointer_mut(parent).ok_or_else(missing)?, kind) {
            (Value::Object(map), "add" | "replace") => drop(map.insert(key, value)),
            (Value::Object(map), "remove") => drop(map.remove(&key).ok_or_else(missing)?),
            (Value::Array(list), "replace") => {
                *list.get_mut(key.parse::<usize>().unwrap()).ok_or_else(missing)? = value;
            }
            _ => return Err(format!("the mock knows no {kind} there")),
        }
    }
    Ok(after)
}

/// A JSON merge patch.
pub fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *object = patch.clone() };
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    let map = object.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
