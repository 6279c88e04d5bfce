//! What the definitions of the two kinds allow, and what a data plane makes of an object.

use serde_json::Value;

/// What a data plane does: weights of the two pools, and how many of a million requests it copies to each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    pub weights: [u64; 2],
    pub copies: [u64; 2],
}

const MILLION: u64 = 1_000_000;

/// Of an object's first rule.
pub fn shares(object: &Value) -> Option<Shares> {
    let (rule, key) = match object.pointer("/spec/rules/0") {
        Some(rule) => (rule, "backendRefs"),
        None => (object.pointer("/spec/http/0")?, "route"),
    };
    let list = rule.get(key)?;
    Some(Shares {
        weights: [0, 1].map(|place| list[place]["weight"].as_u64().unwrap_or(1)),
        copies: [0, 1].map(|place| match key {
            "route" => mirrored(rule, &list[place]["destination"]),
            _ => filtered(rule, &list[place]["name"]),
        }),
    })
}

fn filtered(rule: &Value, name: &Value) -> u64 {
    let filters = rule["filters"].as_array().into_iter().flatten();
    let mirrors = filters.filter(|filter| filter["type"] == "RequestMirror");
    let own = mirrors.filter(|filter| filter["requestMirror"]["backendRef"]["name"] == *name);
    own.map(|filter| {
        let mirror = &filter["requestMirror"];
        let fraction = &mirror["fraction"];
        match (fraction["numerator"].as_u64(), mirror["percent"].as_u64()) {
            (Some(part), _) => part * MILLION / fraction["denominator"].as_u64().unwrap_or(100),
            (None, Some(percent)) => percent * MILLION / 100,
            (None, None) => MILLION,
        }
    })
    .sum()
}

fn mirrored(rule: &Value, destination: &Value) -> u64 {
    let part = |percentage: &Value| {
        let percent = percentage["value"].as_f64().unwrap_or_default();
        if percentage.is_null() { MILLION } else { (percent * 10_000.0).round() as u64 }
    };
    let alone = (rule["mirror"] == *destination).then(|| part(&rule["mirrorPercentage"]));
    let list = rule["mirrors"].as_array().into_iter().flatten();
    let own = list.filter(|mirror| mirror["destination"] == *destination);
    alone.into_iter().chain(own.map(|mirror| part(&mirror["percentage"]))).sum()
}

/// What the schema or the admission of the kinds has against an object.
pub fn refusal(object: &Value) -> Option<String> {
    if let Some(wrong) = out_of_range(object) {
        return Some(format!(
            "spec.rules[0].backendRefs[0].weight: Invalid value: {wrong}: should be less than or equal to 1000000"
        ));
    }
    let rules = object.pointer("/spec/http").and_then(Value::as_array).into_iter().flatten();
    let both = |rule: &Value| !rule["mirror"].is_null() && !rule["mirrors"].is_null();
    rules.into_iter().any(both).then(|| {
        "admission webhook \"validation.istio.io\" denied the request: HTTP route cannot contain both mirror and mirrors"
            .to_owned()
    })
}

fn out_of_range(object: &Value) -> Option<u64> {
    let rules = object.pointer("/spec/rules")?.as_array()?;
    let entries = rules.iter().filter_map(|rule| rule["backendRefs"].as_array()).flatten();
    entries.filter_map(|entry| entry["weight"].as_u64()).find(|weight| *weight > 1_000_000)
}

/// Takes out what the HTTPRoutes of Gateway API v1.1 do not know, and says where it stood.
pub fn prune(object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let rules = object.pointer_mut("/spec/rules").and_then(Value::as_array_mut);
    for (at, rule) in rules.into_iter().flatten().enumerate() {
        let filters = rule.get_mut("filters").and_then(Value::as_array_mut);
        for (place, filter) in filters.into_iter().flatten().enumerate() {
            let Some(mirror) = filter.get_mut("requestMirror").and_then(Value::as_object_mut)
            else {
                continue;
            };
            for key in ["percent", "fraction"] {
                if mirror.remove(key).is_some() {
                    unknown.push(format!("spec.rules[{at}].filters[{place}].requestMirror.{key}"));
                }
            }
        }
    }
    unknown
}
