//! Who manages which field of an object, as an API server keeps it: lists are one value, maps are not.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

type Path = Vec<String>;

/// One manager's fields by one kind of writing.
#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    operation: &'static str,
    time: String,
    fields: BTreeSet<Path>,
}

/// The managers of one object.
#[derive(Debug, Clone, Default)]
pub struct Managed(Vec<Entry>);

impl Managed {
    /// A write of the whole object or of a patch: what changed is the writer's alone.
    pub fn updated(&mut self, manager: &str, time: &str, before: &Value, after: &Value) {
        let new = fields(after);
        let differs = |path: &&Path| at(before, path) != at(after, path);
        let changed: BTreeSet<Path> = new.iter().filter(differs).cloned().collect();
        for entry in &mut self.0 {
            entry.fields.retain(|path| new.contains(path) && !changed.contains(path));
        }
        if !changed.is_empty() {
            self.entry(manager, "Update", time).fields.extend(changed);
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// A server-side apply: the object that comes of it, or who is in the way of which fields.
    pub fn applied(
        &mut self,
        manager: &str,
        time: &str,
        live: &Value,
        wanted: &Value,
        force: bool,
    ) -> Result<Value, Vec<(String, Path)>> {
        let own = fields(wanted);
        let is_me = |entry: &Entry| entry.manager == manager && entry.operation == "Apply";
        let differs = |path: &&Path| at(live, path) != at(wanted, path);
        let mut conflicts = Vec::new();
        for entry in self.0.iter().filter(|entry| !is_me(entry)) {
            let both = entry.fields.intersection(&own).filter(differs);
            conflicts.extend(both.map(|path| (entry.manager.clone(), path.clone())));
        }
        if !conflicts.is_empty() && !force {
            return Err(conflicts);
        }
        for entry in self.0.iter_mut().filter(|entry| !is_me(entry)) {
            entry.fields.retain(|path| !conflicts.iter().any(|(_, taken)| taken == path));
        }
        let mut after = live.clone();
        let before = std::mem::take(&mut self.entry(manager, "Apply", time).fields);
        for gone in before.difference(&own) {
            if !self.0.iter().any(|entry| entry.fields.contains(gone)) {
                remove(&mut after, gone);
            }
        }
        own.iter().for_each(|path| put(&mut after, path, at(wanted, path).unwrap().clone()));
        self.entry(manager, "Apply", time).fields = own;
        self.0.retain(|entry| !entry.fields.is_empty());
        Ok(after)
    }

    fn entry(&mut self, manager: &str, operation: &'static str, time: &str) -> &mut Entry {
        let is = |entry: &Entry| entry.manager == manager && entry.operation == operation;
        let place = self.0.iter().position(is).unwrap_or_else(|| {
            let (manager, time) = (manager.to_owned(), time.to_owned());
            self.0.push(Entry { manager, operation, time, fields: BTreeSet::new() });
            self.0.len() - 1
        });
        time.clone_into(&mut self.0[place].time);
        &mut self.0[place]
    }

    /// `metadata.managedFields`
    pub fn shown(&self) -> Value {
        let entries = self.0.iter().map(|entry| {
            let mut tree = json!({});
            for path in &entry.fields {
                let path: Path = path.iter().map(|step| format!("f:{step}")).collect();
                put(&mut tree, &path, json!({}));
            }
            json!({
                "manager": entry.manager, "operation": entry.operation, "time": entry.time,
                "fieldsType": "FieldsV1", "fieldsV1": tree,
            })
        });
        Value::Array(entries.collect())
    }
}

/// Everything that somebody can manage: not the server's own metadata, and not the status.
fn fields(object: &Value) -> BTreeSet<Path> {
    fn walk(value: &Value, path: &Path, all: &mut BTreeSet<Path>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                walk(value, &[path.as_slice(), std::slice::from_ref(key)].concat(), all);
            }),
            _ => drop(all.insert(path.clone())),
        }
    }
    let mut all = BTreeSet::new();
    walk(object, &Vec::new(), &mut all);
    all.retain(|path| match path.first().map(String::as_str) {
        Some("metadata") => matches!(path[1].as_str(), "labels" | "annotations"),
        Some("status" | "apiVersion" | "kind") => false,
        _ => true,
    });
    all
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| value.get(step))
}

fn put(object: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else { return *object = value };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    put(object.as_object_mut().unwrap().entry(first.clone()).or_insert(Value::Null), rest, value);
}

fn remove(object: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(object, |value, step| value.get_mut(step));
    if let Some(Value::Object(map)) = parent {
        map.remove(last);
    }
}
