//! What the controllers say of an object, and who else wrote its weights.

use serde_json::Value;

use crate::spec::fleet::KubernetesObject;
use crate::units::shown;

/// How far the data plane's controllers are with the object as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// All of them have taken it.
    Taken,
    /// They do not say; what is written is all that is known.
    Unsaid,
    /// Not yet, or not at all, and why.
    Not(String),
}

/// Looks at `status` for the object's current `metadata.generation`.
pub fn seen(settings: &KubernetesObject, object: &Value) -> Seen {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Seen::Not("it is being deleted".to_owned());
    }
    let Some(current) = object.pointer("/metadata/generation").and_then(number) else {
        return Seen::Not("it has no generation".to_owned());
    };
    match settings {
        KubernetesObject::HttpRoute(route) => parents(object, &route.namespace, current),
        KubernetesObject::VirtualService(_) => istio(object, current),
    }
}

/// Every parent of an HTTPRoute has at least one controller, and all of them have taken it.
fn parents(object: &Value, namespace: &str, current: u64) -> Seen {
    let list =
        |pointer| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let (wanted, said) = (list("/spec/parentRefs"), list("/status/parents"));
    if wanted.is_empty() {
        return Seen::Not("it has no parent".to_owned());
    }
    for parent in &wanted {
        let name = shown(parent.get("name").and_then(Value::as_str).unwrap_or_default());
        let is_this = |status: &&Value| {
            status.get("parentRef").is_some_and(|other| is_same(parent, other, namespace))
        };
        let answers: Vec<_> = said.iter().filter(is_this).collect();
        if answers.is_empty() {
            return Seen::Not(format!("no controller of `{name}` has seen it"));
        }
        for answer in answers {
            for kind in ["Accepted", "ResolvedRefs"] {
                if let Err(what) = condition(answer, kind, current) {
                    return Seen::Not(format!("parent `{name}`: {what}"));
                }
            }
            if let Some(why) = left_out(answer) {
                return Seen::Not(format!("parent `{name}`: leaves rules out: {why}"));
            }
        }
    }
    Seen::Taken
}

/// What a status says about a parent names it as the spec does, with the defaults filled in.
fn is_same(parent: &Value, other: &Value, namespace: &str) -> bool {
    let same = |key: &str, default: &str| {
        let of =
            |value: &Value| value.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
        of(parent) == of(other)
    };
    same("name", "")
        && same("kind", "Gateway")
        && same("namespace", namespace)
        && same("sectionName", "")
        && parent.get("port") == other.get("port")
}

fn condition(answer: &Value, kind: &str, current: u64) -> Result<(), String> {
    let conditions = answer.get("conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|it| it.get("type") == Some(&kind.into()));
    let found = found.ok_or_else(|| format!("does not say {kind} yet"))?;
    let text = |key| shown(found.get(key).and_then(Value::as_str).unwrap_or_default());
    match found.get("observedGeneration").and_then(number) {
        Some(observed) if observed >= current => {}
        Some(observed) => return Err(format!("has seen version {observed} of {current}")),
        None => return Err("does not say which version it has seen".to_owned()),
    }
    if text("status") == "True" { Ok(()) } else { Err(format!("not {kind}: {}", text("reason"))) }
}

/// Why a controller that has accepted the object drops some of its rules, or keeps them as they were before.
fn left_out(answer: &Value) -> Option<String> {
    let conditions = answer.get("conditions")?.as_array()?;
    let is = |it: &&Value, key: &str, value: &str| it.get(key) == Some(&value.into());
    let found = conditions
        .iter()
        .find(|it| is(it, "type", "PartiallyInvalid") && is(it, "status", "True"))?;
    Some(shown(found.get("message").and_then(Value::as_str).unwrap_or_default()))
}

/// istiod writes a status only where it is told to.
fn istio(object: &Value, current: u64) -> Seen {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let behind = conditions.into_iter().flatten().find(|condition| {
        condition.get("type") == Some(&"Reconciled".into())
            && condition.get("status") == Some(&"False".into())
    });
    match object.pointer("/status/observedGeneration").and_then(number) {
        Some(observed) if observed < current => {
            Seen::Not(format!("istiod has seen version {observed} of {current}"))
        }
        Some(_) if behind.is_some() => Seen::Not("not every proxy has it yet".to_owned()),
        Some(_) => Seen::Taken,
        None => Seen::Unsaid,
    }
}

/// Istio writes numbers of 64 bits as texts.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Who wrote the weights after us, by the object's record of its fields' managers; `None` when nobody did.
///
/// Whoever changes a list that is one value takes it from its managers: while we are one, what stands there is ours.
pub fn other_writer(settings: &KubernetesObject, object: &Value, own: &str) -> Option<String> {
    let list = match settings {
        KubernetesObject::HttpRoute(_) => "f:rules",
        KubernetesObject::VirtualService(_) => "f:http",
    };
    let entries = object.pointer("/metadata/managedFields")?.as_array()?;
    let has = |entry: &&Value| {
        entry.pointer("/fieldsV1/f:spec").and_then(|spec| spec.get(list)).is_some()
    };
    let is_own = |entry: &&Value| entry.get("manager").and_then(Value::as_str) == Some(own);
    if !entries.iter().any(|entry| is_own(&entry))
        || entries.iter().any(|entry| is_own(&entry) && has(&entry))
    {
        return None;
    }
    let time = |entry: &&Value| entry.get("time").and_then(Value::as_str).map(str::to_owned);
    let last = entries.iter().filter(has).max_by_key(time)?;
    Some(shown(last.get("manager")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_of_which_rules_are_left_out_is_not_taken() {
        let with = |partially: &str| {
            let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "observedGeneration": 3, "message": "no fraction"});
            let conditions = [
                condition("Accepted", "True"),
                condition("ResolvedRefs", "True"),
                condition("PartiallyInvalid", partially),
            ];
            let parent = json!({"name": "edge"});
            let object = json!({
                "metadata": {"generation": 3},
                "spec": {"parentRefs": [parent]},
                "status": {"parents": [{"parentRef": parent, "conditions": conditions}]},
            });
            parents(&object, "shop", 3)
        };
        assert_eq!(with("False"), Seen::Taken);
        let said = "parent `edge`: leaves rules out: no fraction";
        assert_eq!(with("True"), Seen::Not(said.to_owned()));
    }
}
