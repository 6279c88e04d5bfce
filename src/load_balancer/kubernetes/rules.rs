//! Where the two weights and the copies stand in an object, and the patch that changes them and nothing else.

use serde_json::{Value, json};

use super::super::Pair;
use super::mirror;
use crate::spec::fleet::{KubernetesObject, RouteRule};
use crate::units::{Generation, Weight};

/// The annotation that holds the generation, and how a JSON pointer spells it.
pub const ANNOTATION: &str = "tidegate.dev/generation";
const ANNOTATION_POINTER: &str = "/metadata/annotations/tidegate.dev~1generation";

/// A rule of the object that splits traffic over the two slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// For people: `rule 0`.
    pub label: String,
    /// Pointers to what has the weight, in the order of the slots.
    places: [String; 2],
    /// Pointers from there to the name, and the names.
    names: [(&'static str, String); 2],
    weights: [u64; 2],
    /// Pointer to the rule itself.
    pointer: String,
    /// Shares that are copied, in the order of the slots; or why nobody can say.
    copies: Result<[Weight; 2], String>,
}

/// What has to be there.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The first slot's share.
    pub share: Weight,
    /// Both weights.
    pub weights: [u32; 2],
    /// Shares that are copied.
    pub copies: [Weight; 2],
    /// The generation that wants it.
    pub generation: Generation,
}

impl Rule {
    /// The first slot's share; `None` when neither has any weight.
    pub fn share(&self) -> Option<Weight> {
        let [one, other] = self.weights;
        Weight::from_ratio(one, one.saturating_add(other))
    }

    /// The shares that are copied to the slots; an error that a person has to mend.
    pub fn copies(&self) -> Result<[Weight; 2], String> {
        self.copies.clone()
    }

    /// The host that the first destination names.
    pub fn host<'a>(&self, object: &'a Value) -> Option<&'a str> {
        object.pointer(&self.places[0])?.pointer("/destination/host")?.as_str()
    }
}

type IsMeant<'a> = Box<dyn Fn(usize, &Value) -> bool + 'a>;

/// How a kind of object is laid out.
struct Layout<'a> {
    rules: &'static str,
    entries: &'static str,
    /// From an entry to the name that stands for a slot.
    name: &'static str,
    /// What an entry without a weight has.
    absent: u64,
    /// Whether an entry can be one of ours, apart from its name.
    is_ours: Box<dyn Fn(&Value) -> bool + 'a>,
    /// Whether a rule is meant, by its place and content; `None`: all that fit.
    is_meant: Option<IsMeant<'a>>,
}

impl<'a> Layout<'a> {
    fn of(object: &'a KubernetesObject) -> Self {
        let text = |value: &Value, name: &str| value.pointer(name)?.as_str().map(str::to_owned);
        match object {
            KubernetesObject::HttpRoute(route) => Self {
                rules: "/spec/rules",
                entries: "backendRefs",
                name: "/name",
                absent: 1,
                is_ours: Box::new(move |entry| {
                    text(entry, "/namespace").is_none_or(|other| other == route.namespace)
                }),
                is_meant: route.rule.as_ref().map(|rule| -> IsMeant<'a> {
                    Box::new(move |place, value| match rule {
                        RouteRule::Place(wanted) => usize::try_from(*wanted) == Ok(place),
                        RouteRule::Name(name) => text(value, "/name").as_ref() == Some(name),
                    })
                }),
            },
            KubernetesObject::VirtualService(service) => Self {
                rules: "/spec/http",
                entries: "route",
                name: "/destination/subset",
                absent: 0,
                is_ours: Box::new(move |entry| {
                    service.host.is_none() || text(entry, "/destination/host") == service.host
                }),
                is_meant: service.http.as_ref().map(|name| -> IsMeant<'a> {
                    Box::new(move |_, value| text(value, "/name").as_ref() == Some(name))
                }),
            },
        }
    }
}

/// The rules of an object that have both; an error that a person has to mend when there are none, or more in one.
pub fn rules_of(
    settings: &KubernetesObject,
    pair: &Pair,
    object: &Value,
) -> Result<Vec<Rule>, String> {
    let layout = Layout::of(settings);
    let all = object.pointer(layout.rules).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut found = Vec::new();
    for (place, value) in all.iter().enumerate() {
        if layout.is_meant.as_ref().is_some_and(|is_meant| !is_meant(place, value)) {
            continue;
        }
        found.extend(rule(settings, &layout, pair, place, value)?);
    }
    if found.is_empty() {
        let [one, other] = pair.names();
        return Err(format!("it has no such rule with both `{one}` and `{other}`"));
    }
    Ok(found)
}

/// A rule with both of them; `None` when one is not there.
fn rule(
    settings: &KubernetesObject,
    layout: &Layout<'_>,
    pair: &Pair,
    place: usize,
    value: &Value,
) -> Result<Option<Rule>, String> {
    let label = format!("rule {place}");
    let entries = value.get(layout.entries).and_then(Value::as_array);
    let entries = entries.map_or(&[][..], Vec::as_slice);
    let name =
        |entry: &Value| entry.pointer(layout.name).and_then(Value::as_str).map(str::to_owned);
    let weight = |entry: &Value| entry.get("weight").map_or(Some(layout.absent), Value::as_u64);
    let places = pair.names().each_ref().map(|wanted| -> Vec<usize> {
        let fits = |entry: &Value| name(entry).as_ref() == Some(wanted) && (layout.is_ours)(entry);
        entries.iter().enumerate().filter(|(_, entry)| fits(entry)).map(|(at, _)| at).collect()
    });
    let [one, other] = match places.each_ref().map(Vec::as_slice) {
        [[one], [other]] => [*one, *other],
        [[], _] | [_, []] => return Ok(None),
        _ => return Err(format!("{label} names a backend twice")),
    };
    // Whoever else gets traffic there takes it from both, and no share would be what it says.
    let strange = entries
        .iter()
        .enumerate()
        .find(|(at, entry)| *at != one && *at != other && weight(entry) != Some(0));
    if let Some((_, entry)) = strange {
        let name = name(entry).unwrap_or_default();
        return Err(format!("{label} gives weight to `{}`, too", crate::units::shown(&name)));
    }
    let (Some(first), Some(second)) = (weight(&entries[one]), weight(&entries[other])) else {
        return Err(format!("{label} has a weight that is no number"));
    };
    let [one_name, other_name] = pair.names().clone();
    let copies = mirror::read(settings, value, [&entries[one], &entries[other]]);
    let pointer = format!("{}/{place}", layout.rules);
    Ok(Some(Rule {
        places: [one, other].map(|at| format!("{pointer}/{}/{at}", layout.entries)),
        copies: copies.map_err(|what| format!("{label}: {what}")),
        label,
        pointer,
        names: [(layout.name, one_name), (layout.name, other_name)],
        weights: [first, second],
    }))
}

/// Operations that bring weights, copies and the generation into the object as it was read; none when they are there.
///
/// The server takes them only for this version of the object.
pub fn patch(
    settings: &KubernetesObject,
    object: &Value,
    rules: &[Rule],
    wanted: Wanted,
) -> Result<Option<Value>, String> {
    let mut operations = changes(rules, wanted);
    operations.extend(copies(settings, object, rules, wanted, false)?);
    operations.extend(mark(object, wanted.generation));
    if operations.is_empty() {
        return Ok(None);
    }
    let version = object.pointer("/metadata/resourceVersion");
    operations
        .insert(0, json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}));
    Ok(Some(Value::Array(operations)))
}

/// The same for a person: for every later version in which the names still stand where they stood, and what is copied is
/// the same where that changes.
pub fn patch_by_hand(
    settings: &KubernetesObject,
    object: &Value,
    rules: &[Rule],
    wanted: Wanted,
) -> Result<Value, String> {
    let tests = rules.iter().flat_map(|rule| {
        rule.places.iter().zip(&rule.names).map(|(place, (pointer, name))| {
            json!({"op": "test", "path": format!("{place}{pointer}"), "value": name})
        })
    });
    let mut all: Vec<_> = tests.chain(changes(rules, wanted)).collect();
    all.extend(copies(settings, object, rules, wanted, true)?);
    all.extend(mark(object, wanted.generation));
    Ok(Value::Array(all))
}

/// Rules with other numbers for the same share are left as they are.
fn changes(rules: &[Rule], wanted: Wanted) -> Vec<Value> {
    let other = rules.iter().filter(|rule| rule.share() != Some(wanted.share));
    let set =
        |(place, weight)| json!({"op": "add", "path": format!("{place}/weight"), "value": weight});
    other.flat_map(|rule| rule.places.iter().zip(wanted.weights).map(set)).collect()
}

/// Rules that copy what is wanted are left as they are.
fn copies(
    settings: &KubernetesObject,
    object: &Value,
    rules: &[Rule],
    wanted: Wanted,
    tested: bool,
) -> Result<Vec<Value>, String> {
    let mut operations = Vec::new();
    for rule in rules.iter().filter(|rule| rule.copies.as_ref() != Ok(&wanted.copies)) {
        let at = |pointer: &str| object.pointer(pointer).unwrap_or(&Value::Null);
        let (before, entries) = (at(&rule.pointer), rule.places.each_ref().map(|it| at(it)));
        let after = mirror::write(settings, before, entries, wanted.copies)
            .map_err(|what| format!("{}: {what}", rule.label))?;
        operations.extend(mirror::operations(settings, &rule.pointer, [before, &after], tested));
    }
    Ok(operations)
}

fn mark(object: &Value, generation: Generation) -> Option<Value> {
    if generation_of(object) == Some(generation) {
        return None;
    }
    let value = generation.0.to_string();
    Some(match object.pointer("/metadata/annotations") {
        Some(Value::Object(_)) => json!({"op": "add", "path": ANNOTATION_POINTER, "value": value}),
        _ => json!({"op": "add", "path": "/metadata/annotations", "value": {ANNOTATION: value}}),
    })
}

/// The generation that stands beside the weights.
pub fn generation_of(object: &Value) -> Option<Generation> {
    let annotations = object.pointer("/metadata/annotations")?;
    annotations.get(ANNOTATION)?.as_str()?.parse().ok().map(Generation)
}
