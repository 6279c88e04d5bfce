//! Copies of requests in a rule of an object: `RequestMirror` filters of an HTTPRoute, `mirror` or `mirrors` of a
//! VirtualService. Pure; what is copied to others stays as it is.

use serde_json::{Value, json};

use crate::spec::fleet::KubernetesObject;
use crate::units::{Weight, shown};

/// Ways to say how much `mirror` copies; the first is the one that is written.
const PERCENTAGES: [&str; 3] = ["mirrorPercentage", "mirrorPercent", "mirror_percent"];

/// The fields of a rule that copies stand in.
fn fields(object: &KubernetesObject) -> &'static [&'static str] {
    match object {
        KubernetesObject::HttpRoute(_) => &["filters"],
        KubernetesObject::VirtualService(_) => {
            &["mirror", PERCENTAGES[0], PERCENTAGES[1], PERCENTAGES[2], "mirrors"]
        }
    }
}

/// Share of the rule's requests that is copied to each of its two entries. An error needs a person.
pub fn read(
    object: &KubernetesObject,
    rule: &Value,
    entries: [&Value; 2],
) -> Result<[Weight; 2], String> {
    let mut shares = [Weight::ZERO; 2];
    for (share, entry) in shares.iter_mut().zip(entries) {
        let name = name_of(object, entry);
        let found = match object {
            KubernetesObject::HttpRoute(route) => {
                if is_mirrored_behind_it(entries, entry, &route.namespace) {
                    return Err(format!(
                        "copies to `{name}` in the filters of a backend: make it a filter of the rule"
                    ));
                }
                let own = list(rule, "filters").iter();
                let own = own.filter(|filter| is_mirror_of(filter, entry, &route.namespace));
                own.map(|filter| share_of_filter(&filter["requestMirror"])).collect::<Vec<_>>()
            }
            KubernetesObject::VirtualService(service) => {
                let is_own =
                    |other: Option<&Value>| is_destination(other, entry, &service.namespace);
                let alone = is_own(rule.get("mirror")).then(|| share_of_mirror(rule));
                let own = list(rule, "mirrors").iter();
                let own = own.filter(|mirror| is_own(mirror.get("destination")));
                let own = own.map(|mirror| percentage(mirror.get("percentage")));
                alone.into_iter().chain(own).collect()
            }
        };
        *share = match found[..] {
            [] => Weight::ZERO,
            [Some(share)] => share,
            [None] => {
                return Err(format!("the share that is copied to `{name}` is not one up to 100 %"));
            }
            _ => return Err(format!("copies to `{name}` twice")),
        };
    }
    Ok(shares)
}

/// The rule with these shares copied to its two entries. Copies always end; some begin only where what is there can be
/// read, and where there is place for them.
pub fn write(
    object: &KubernetesObject,
    rule: &Value,
    entries: [&Value; 2],
    shares: [Weight; 2],
) -> Result<Value, String> {
    if shares.iter().any(|share| !share.is_zero()) {
        read(object, rule, entries)?;
    }
    let wanted = entries.into_iter().zip(shares).filter(|(_, share)| !share.is_zero());
    let wanted: Vec<(&Value, Weight)> = wanted.collect();
    let mut changed = rule.clone();
    match object {
        KubernetesObject::HttpRoute(route) => {
            let mut filters = list(rule, "filters").to_vec();
            filters.retain(|it| !entries.iter().any(|own| is_mirror_of(it, own, &route.namespace)));
            filters.extend(wanted.into_iter().map(|(entry, share)| filter(entry, share)));
            put(&mut changed, "filters", filters);
        }
        KubernetesObject::VirtualService(service) => {
            write_mirrors(&mut changed, &service.namespace, entries, wanted)?;
        }
    }
    Ok(changed)
}

/// A rule of a VirtualService has one `mirror` or a list of them, not both.
fn write_mirrors(
    rule: &mut Value,
    namespace: &str,
    entries: [&Value; 2],
    wanted: Vec<(&Value, Weight)>,
) -> Result<(), String> {
    let is_own =
        |it: Option<&Value>| entries.iter().any(|entry| is_destination(it, entry, namespace));
    let mut mirrors = list(rule, "mirrors").to_vec();
    let is_list = !mirrors.is_empty() || wanted.len() > 1;
    mirrors.retain(|mirror| !is_own(mirror.get("destination")));
    if is_own(rule.get("mirror")) {
        remove(rule, "mirror");
        PERCENTAGES.iter().for_each(|key| remove(rule, key));
    }
    if let (Some(other), false) = (rule.get("mirror"), wanted.is_empty()) {
        let host = other.get("host").and_then(Value::as_str).unwrap_or_default();
        return Err(format!(
            "its `mirror` is `{}`: write that as an entry of `mirrors`",
            shown(host)
        ));
    }
    match wanted[..] {
        [(entry, share)] if !is_list => {
            PERCENTAGES.iter().for_each(|key| remove(rule, key));
            rule["mirror"] = entry["destination"].clone();
            rule[PERCENTAGES[0]] = json!({"value": share.percent()});
        }
        _ => mirrors.extend(wanted.iter().map(|(entry, share)| {
            json!({"destination": entry["destination"], "percentage": {"value": share.percent()}})
        })),
    }
    put(rule, "mirrors", mirrors);
    Ok(())
}

/// Operations of a JSON patch that make one rule, at `pointer`, of another; with `tested` for any version of the object in
/// which the fields to change are still what they are here.
pub fn operations(
    object: &KubernetesObject,
    pointer: &str,
    [before, after]: [&Value; 2],
    tested: bool,
) -> Vec<Value> {
    let mut operations = Vec::new();
    for field in fields(object).iter().filter(|field| before.get(**field) != after.get(**field)) {
        let path = format!("{pointer}/{field}");
        if tested {
            // An API server takes a field that is not there for null.
            operations.push(json!({"op": "test", "path": path, "value": before.get(*field)}));
        }
        operations.push(match after.get(*field) {
            Some(value) => json!({"op": "add", "path": path, "value": value}),
            None => json!({"op": "remove", "path": path}),
        });
    }
    operations
}

fn name_of(object: &KubernetesObject, entry: &Value) -> String {
    let pointer = match object {
        KubernetesObject::HttpRoute(_) => "/name",
        KubernetesObject::VirtualService(_) => "/destination/subset",
    };
    shown(entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A list that is empty goes; where none was, none comes.
fn put(rule: &mut Value, key: &str, list: Vec<Value>) {
    if list.is_empty() { remove(rule, key) } else { rule[key] = list.into() }
}

fn remove(rule: &mut Value, key: &str) {
    if let Some(fields) = rule.as_object_mut() {
        fields.remove(key);
    }
}

/// A copy for each request needs no fraction, which older definitions of HTTPRoutes do not have.
fn filter(entry: &Value, share: Weight) -> Value {
    let mut target = entry.clone();
    // What else stands beside a backend is not for its copies.
    ["weight", "filters"].iter().for_each(|key| remove(&mut target, key));
    let mut mirror = json!({"backendRef": target});
    if share != Weight::FULL {
        mirror["fraction"] = json!({"numerator": share.hundredths(), "denominator": 10_000});
    }
    json!({"type": "RequestMirror", "requestMirror": mirror})
}

/// Whether a filter copies to the backend of an entry; the API server fills defaults in.
fn is_mirror_of(filter: &Value, entry: &Value, namespace: &str) -> bool {
    let Some(target) = filter.pointer("/requestMirror/backendRef") else { return false };
    let same = |key: &str, default: &str| {
        let of = |it: &Value| it.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
        of(target) == of(entry)
    };
    same("name", "") && same("namespace", namespace) && same("kind", "Service") && same("group", "")
}

/// A backend's own filters see only the requests that go to it; what they copy is no share of the rule's.
fn is_mirrored_behind_it(entries: [&Value; 2], entry: &Value, namespace: &str) -> bool {
    let mut behind = entries.into_iter().flat_map(|backend| list(backend, "filters"));
    behind.any(|filter| is_mirror_of(filter, entry, namespace))
}

/// Without a share all requests are copied.
fn share_of_filter(mirror: &Value) -> Option<Weight> {
    match (mirror.get("percent"), mirror.get("fraction")) {
        (None, None) => Some(Weight::FULL),
        (Some(percent), None) => Weight::from_ratio(percent.as_u64()?, 100),
        (None, Some(fraction)) => {
            let whole = fraction.get("denominator").map_or(Some(100), Value::as_u64)?;
            Weight::from_ratio(fraction.get("numerator")?.as_u64()?, whole)
        }
        (Some(_), Some(_)) => None,
    }
}

fn is_destination(other: Option<&Value>, entry: &Value, namespace: &str) -> bool {
    let text =
        |it: &Value, key: &str| it.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (Some(other), Some(own)) = (other, entry.get("destination")) else { return false };
    text(other, "subset") == text(own, "subset")
        && is_host(&text(other, "host"), &text(own, "host"), namespace)
}

/// A name without a dot is one of the object's namespace.
fn is_host(one: &str, other: &str, namespace: &str) -> bool {
    let is_short_for = |short: &str, long: &str| {
        !short.contains('.') && long.starts_with(&format!("{short}.{namespace}.svc."))
    };
    one == other || is_short_for(one, other) || is_short_for(other, one)
}

/// Of the one `mirror`. Without a share all requests are copied.
fn share_of_mirror(rule: &Value) -> Option<Weight> {
    let [exact, whole, older] = PERCENTAGES.map(|key| rule.get(key));
    match (exact, whole.or(older)) {
        (None, Some(whole)) => Weight::from_ratio(whole.as_u64()?, 100),
        (exact, _) => percentage(exact),
    }
}

/// `{value: 20.0}`; istiod knows the millionth of the requests as the smallest share.
fn percentage(value: Option<&Value>) -> Option<Weight> {
    let Some(value) = value else { return Some(Weight::FULL) };
    let percent = value.get("value").map_or(Some(0.0), Value::as_f64)?;
    let millionths = (percent * 10_000.0).round();
    // In range by the check before.
    let part = (0.0..=1e6).contains(&millionths).then_some(millionths as u64)?;
    Weight::from_ratio(part, 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fleet::{HttpRoute, VirtualService};

    const NONE: [Weight; 2] = [Weight::ZERO; 2];

    fn route() -> KubernetesObject {
        let backends = ["blue", "green"].map(|it| (it.parse().unwrap(), format!("web-{it}")));
        let (name, namespace) = ("web".to_owned(), "shop".to_owned());
        KubernetesObject::HttpRoute(HttpRoute {
            name,
            namespace,
            rule: None,
            backends: backends.into(),
        })
    }

    fn service() -> KubernetesObject {
        KubernetesObject::VirtualService(VirtualService {
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            destination_rule: None,
            http: None,
            host: None,
            subsets: ["blue", "green"].map(|it| (it.parse().unwrap(), it.to_owned())).into(),
        })
    }

    /// The entries of a rule with more fields.
    fn rule(object: &KubernetesObject, more: Value) -> Value {
        let mut rule = match object {
            KubernetesObject::HttpRoute(_) => json!({"backendRefs": [
                {"name": "web-blue", "port": 80, "weight": 1},
                {"name": "web-green", "port": 80, "weight": 0, "filters": []},
            ]}),
            KubernetesObject::VirtualService(_) => json!({"route": [
                {"destination": {"host": "web", "subset": "blue"}, "weight": 100},
                {"destination": {"host": "web", "subset": "green", "port": {"number": 80}}, "weight": 0},
            ]}),
        };
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    }

    fn entries(rule: &Value) -> [&Value; 2] {
        let list = rule.get("backendRefs").or(rule.get("route")).unwrap();
        [&list[0], &list[1]]
    }

    fn read_of(object: &KubernetesObject, more: Value) -> Result<[Weight; 2], String> {
        let rule = rule(object, more);
        read(object, &rule, entries(&rule))
    }

    fn written(
        object: &KubernetesObject,
        rule: &Value,
        shares: [Weight; 2],
    ) -> Result<Value, String> {
        write(object, rule, entries(rule), shares)
    }

    /// Copies for the second slot.
    fn green(hundredths: u16) -> [Weight; 2] {
        [Weight::ZERO, Weight::try_from(hundredths).unwrap()]
    }

    fn filter_for(name: &str, share: Value) -> Value {
        let mut mirror = json!({"backendRef": {"name": name, "port": 80}});
        mirror.as_object_mut().unwrap().extend(share.as_object().unwrap().clone());
        json!({"type": "RequestMirror", "requestMirror": mirror})
    }

    fn destination(subset: &str) -> Value {
        json!({"host": "web.shop.svc.cluster.local", "subset": subset})
    }

    #[test]
    fn copies_come_back_exactly_and_leave_without_a_trace() {
        let header = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {}});
        let others = json!({"filters": [header, filter_for("audit", json!({}))]});
        let more = json!({"mirrors": [{"destination": {"host": "audit"}}]});
        for (object, others) in
            [(route(), json!({})), (route(), others), (service(), json!({})), (service(), more)]
        {
            let before = rule(&object, others);
            assert_eq!(written(&object, &before, NONE).unwrap(), before);
            let mut rule = before.clone();
            for shares in [green(1), green(2_000), green(10_000), [green(3)[1], green(1_234)[1]]] {
                rule = written(&object, &rule, shares).unwrap();
                assert_eq!(read(&object, &rule, entries(&rule)), Ok(shares), "{rule}");
                assert_eq!(written(&object, &rule, shares).unwrap(), rule);
            }
            assert_eq!(written(&object, &rule, NONE).unwrap(), before);
        }
    }

    #[test]
    fn they_are_written_as_each_api_has_them() {
        let of = |object: &KubernetesObject, more: Value, hundredths| {
            written(object, &rule(object, more), green(hundredths)).unwrap()
        };
        let fraction = json!({"fraction": {"numerator": 2_000, "denominator": 10_000}});
        let rule = of(&route(), json!({}), 2_000);
        assert_eq!(rule["filters"], json!([filter_for("web-green", fraction)]));
        let all = of(&route(), json!({}), 10_000);
        assert_eq!(all["filters"], json!([filter_for("web-green", json!({}))]));

        let own = json!({"host": "web", "subset": "green", "port": {"number": 80}});
        let rule = of(&service(), json!({"mirror_percent": 7}), 2_050);
        assert_eq!(rule["mirror"], own);
        assert_eq!(rule["mirrorPercentage"], json!({"value": 20.5}));
        assert_eq!((rule.get("mirrors"), rule.get("mirror_percent")), (None, None));
        let other = json!({"destination": {"host": "audit"}, "percentage": {"value": 5}});
        let rule = of(&service(), json!({"mirrors": [other]}), 2_050);
        let mine = json!({"destination": own, "percentage": {"value": 20.5}});
        assert_eq!((&rule["mirrors"], rule.get("mirror")), (&json!([other, mine]), None));
    }

    #[test]
    fn what_others_wrote_is_read_as_the_data_planes_do() {
        let of =
            |share: Value| read_of(&route(), json!({"filters": [filter_for("web-green", share)]}));
        assert_eq!(of(json!({})), Ok(green(10_000)));
        assert_eq!(of(json!({"percent": 20})), Ok(green(2_000)));
        assert_eq!(of(json!({"percent": 0})), Ok(NONE));
        assert_eq!(of(json!({"fraction": {"numerator": 5}})), Ok(green(500)));
        assert_eq!(of(json!({"fraction": {"numerator": 5, "denominator": 1_000}})), Ok(green(50)));
        for wrong in [
            json!({"percent": 101}),
            json!({"percent": "20"}),
            json!({"percent": 1, "fraction": {"numerator": 1}}),
            json!({"fraction": {"numerator": 2, "denominator": 1}}),
            json!({"fraction": {}}),
        ] {
            assert!(of(wrong).unwrap_err().contains("to `web-green` is not one up to 100 %"));
        }
        // With its defaults filled in, and one of another namespace.
        let mut full = filter_for("web-green", json!({"percent": 1}));
        full["requestMirror"]["backendRef"] = json!({"group": "", "kind": "Service", "name": "web-green", "namespace": "shop", "port": 80});
        assert_eq!(read_of(&route(), json!({"filters": [full]})), Ok(green(100)));
        full["requestMirror"]["backendRef"]["namespace"] = "else".into();
        assert_eq!(read_of(&route(), json!({"filters": [full]})), Ok(NONE));

        let of = |share: Value| {
            let mut more = json!({"mirror": destination("green")});
            more.as_object_mut().unwrap().extend(share.as_object().unwrap().clone());
            read_of(&service(), more)
        };
        assert_eq!(of(json!({})), Ok(green(10_000)));
        assert_eq!(of(json!({"mirrorPercentage": {"value": 20.0}})), Ok(green(2_000)));
        assert_eq!(
            of(json!({"mirrorPercentage": {"value": 20}, "mirrorPercent": 5})),
            Ok(green(2_000))
        );
        assert_eq!(of(json!({"mirrorPercentage": {}})), Ok(NONE));
        assert_eq!(of(json!({"mirrorPercent": 5})), Ok(green(500)));
        assert_eq!(of(json!({"mirror_percent": 5})), Ok(green(500)));
        for wrong in [
            json!({"mirrorPercentage": {"value": 100.1}}),
            json!({"mirrorPercentage": {"value": -1}}),
            json!({"mirrorPercentage": {"value": "1"}}),
            json!({"mirrorPercent": 101}),
        ] {
            assert!(of(wrong).unwrap_err().contains("to `green` is not one up to 100 %"));
        }
        let of = |mirror: Value| read_of(&service(), json!({"mirrors": [mirror]}));
        assert_eq!(of(json!({"destination": destination("green")})), Ok(green(10_000)));
        let share = json!({"destination": destination("green"), "percentage": {"value": 0.01}});
        assert_eq!(of(share), Ok(green(1)));
        for other in ["web.else.svc.cluster.local", "other"] {
            assert_eq!(of(json!({"destination": {"host": other, "subset": "green"}})), Ok(NONE));
        }
    }

    /// What a person has to mend stands in the way of copies, and never in the way of their end.
    #[test]
    fn what_cannot_be_read_takes_no_copies_and_loses_them() {
        let twice = |mirror: Value| json!([mirror, mirror]);
        let mirrors = twice(json!({"destination": destination("green")}));
        let both = json!({"mirror": destination("green"), "mirrors": [mirrors[0]]});
        for (object, more) in [
            (route(), json!({"filters": twice(filter_for("web-green", json!({"percent": 1})))})),
            (service(), json!({"mirrors": mirrors})),
            (service(), both),
        ] {
            let rule = rule(&object, more);
            let error = read(&object, &rule, entries(&rule)).unwrap_err();
            assert!(error.contains("copies to `") && error.contains("green` twice"), "{error}");
            assert_eq!(written(&object, &rule, green(5)).unwrap_err(), error);
            let ended = written(&object, &rule, NONE).unwrap();
            assert_eq!(read(&object, &ended, entries(&ended)), Ok(NONE), "{ended}");
        }

        let taken = rule(&service(), json!({"mirror": {"host": "audit"}, "mirrorPercent": 5}));
        assert_eq!(read(&service(), &taken, entries(&taken)), Ok(NONE));
        assert_eq!(written(&service(), &taken, NONE).unwrap(), taken);
        let error = written(&service(), &taken, green(5)).unwrap_err();
        assert_eq!(error, "its `mirror` is `audit`: write that as an entry of `mirrors`");

        let mut behind = rule(&route(), json!({}));
        behind["backendRefs"][0]["filters"] = json!([filter_for("web-green", json!({}))]);
        let error = read(&route(), &behind, entries(&behind)).unwrap_err();
        assert!(error.contains("in the filters of a backend"), "{error}");
    }

    #[test]
    fn a_patch_changes_only_what_differs_and_a_persons_looks_first() {
        let before = rule(&service(), json!({"mirror": destination("green"), "mirror_percent": 5}));
        let after = written(&service(), &before, NONE).unwrap();
        let of = |both: [&Value; 2], tested| operations(&service(), "/spec/http/0", both, tested);
        let [mirror, percent] = ["/spec/http/0/mirror", "/spec/http/0/mirror_percent"];
        assert_eq!(
            of([&before, &after], false),
            [json!({"op": "remove", "path": mirror}), json!({"op": "remove", "path": percent})]
        );
        assert_eq!(
            of([&after, &before], true),
            [
                json!({"op": "test", "path": mirror, "value": null}),
                json!({"op": "add", "path": mirror, "value": destination("green")}),
                json!({"op": "test", "path": percent, "value": null}),
                json!({"op": "add", "path": percent, "value": 5}),
            ]
        );
        assert!(of([&before, &before], true).is_empty());
    }
}
