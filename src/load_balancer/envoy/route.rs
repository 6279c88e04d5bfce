//! The operator's route document: finds a RouteConfiguration in it, and reads and replaces the weights of two clusters and
//! what is copied to them (`mirror`).
//!
//! Pure. Everything else in the document stays as it is. Weights are written in steps of a hundredth of a percent; where
//! a `weighted_clusters` names further clusters, all its weights are scaled so that those keep their share exactly.

use serde_yaml::{Mapping, Value};

use super::{Pair, mirror, pair};
use crate::ports::Split;
use crate::units::{Weight, shown};

/// Most bytes of a route document.
pub const BYTES_MAX: usize = 1 << 20;

/// Why a route document cannot be used; a person has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`BYTES_MAX`].
    #[error("is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// Neither YAML nor JSON.
    #[error("is not YAML or JSON: {0}")]
    Syntax(String),
    /// No RouteConfiguration of that name.
    #[error("has no RouteConfiguration named `{0}`")]
    NoRoute(String),
    /// Nothing to set.
    #[error("route `{route}` has no weighted_clusters that names both `{one}` and `{two}`")]
    NotNamed {
        /// The RouteConfiguration.
        route: String,
        /// One cluster.
        one: String,
        /// The other.
        two: String,
    },
    /// Weights that the document does not decide.
    #[error(
        "weighted_clusters of `{0}` has a runtime_key_prefix, which lets the runtime override its weights: remove it"
    )]
    Runtime(String),
    /// The runtime that is set does not decide.
    #[error("the weighted_clusters have {found} as runtime_key_prefix, not `{wanted}`")]
    Prefix {
        /// What stands there, for people.
        found: String,
        /// What the fleet says.
        wanted: String,
    },
    /// The split is not one of these two clusters.
    #[error("{0}")]
    Pair(#[from] pair::Error),
    /// Something else than a user's cookie decides.
    #[error(
        "weighted_clusters of `{0}` has a header_name, which decides instead of a user's cookie: remove it"
    )]
    ByHeader(String),
    /// Copies that the document does not decide.
    #[error(
        "a request_mirror_policy of `{0}` has a runtime_key, which lets the runtime override its share: remove it"
    )]
    MirrorRuntime(String),
    /// A share of copies that is no fraction of 100, 10,000 or 1,000,000.
    #[error("the share that a request_mirror_policy copies to `{0}` is not a fraction up to 1")]
    MirrorShare(String),
    /// A cluster stands in one list twice.
    #[error("weighted_clusters names `{0}` twice")]
    Twice(String),
    /// A weight that is not a whole number below 2^32.
    #[error("the weight of `{0}` is not a whole number below 4294967296")]
    Weight(String),
    /// Both clusters have weight 0 beside others that have some.
    #[error(
        "`{0}` and `{1}` have weight 0 beside other clusters: give them the share that they split"
    )]
    NoShare(String, String),
    /// The shares of further clusters are too fine.
    #[error("the weights beside `{0}` and `{1}` are too fine to keep: use smaller numbers")]
    TooFine(String, String),
}

/// Parses a document: a bare RouteConfiguration, or a file with `resources` as Envoy watches it.
pub fn parse(text: &str) -> Result<Value, Error> {
    if text.len() > BYTES_MAX {
        return Err(Error::TooLong);
    }
    let syntax = |error: serde_yaml::Error| Error::Syntax(shown(&error.to_string()));
    let mut document: Value = serde_yaml::from_str(text).map_err(syntax)?;
    document.apply_merge().map_err(syntax)?;
    Ok(document)
}

/// The RouteConfiguration `name` in a document of either form.
pub fn find<'a>(document: &'a mut Value, name: &str) -> Result<&'a mut Value, Error> {
    let named = |value: &Value| value.get("name").and_then(Value::as_str) == Some(name);
    let missing = || Error::NoRoute(shown(name));
    if document.get("resources").is_some() {
        let resources = document.get_mut("resources").and_then(Value::as_sequence_mut);
        let mut routes = resources.into_iter().flatten();
        return routes.find(|route| named(route)).ok_or_else(missing);
    }
    if named(document) { Ok(document) } else { Err(missing()) }
}

/// What each route that splits between both clusters does with its requests, in the document's order; at least one.
pub fn splits(route: &Value, pair: &Pair) -> Result<Vec<Split>, Error> {
    let mut actions = Vec::new();
    collect(route, pair, &mut actions);
    if actions.is_empty() {
        return Err(not_named(route, pair));
    }
    let read = |(action, list): (&Mapping, &Value)| {
        let split = read_list(list, pair)?;
        let copies = mirror::read(action, pair)?;
        Ok(pair
            .slots()
            .iter()
            .cloned()
            .zip(copies)
            .fold(split, |split, (slot, share)| split.with_copies(slot, share)))
    };
    actions.into_iter().map(read).collect()
}

/// Replaces the weights of the pair, and what is copied to its clusters, in each route that splits between both. Nothing
/// else changes, also on error.
pub fn set_split(route: &mut Value, pair: &Pair, split: &Split) -> Result<(), Error> {
    let (weights, copies) = pair.weights_and_copies(split)?;
    let mut changed = route.clone();
    let mut count = 0;
    change(&mut changed, pair, &mut |action| {
        count += 1;
        mirror::write(action, pair, copies);
        let list = action.iter_mut().find(|(key, _)| is_weighted(key)).map(|(_, list)| list);
        list.map_or(Ok(()), |list| write_list(list, pair, weights.map(Weight::hundredths)))
    })?;
    if count == 0 {
        return Err(not_named(route, pair));
    }
    *route = changed;
    Ok(())
}

/// Takes `runtime_key_prefix` off each such list, for a reader that looks at the runtime itself; an error where it is
/// another one than `prefix`, or none.
pub fn without_prefix(route: &mut Value, pair: &Pair, prefix: &str) -> Result<(), Error> {
    change(route, pair, &mut |action| {
        for (_, list) in action.iter_mut().filter(|(key, _)| is_weighted(key)) {
            let found = get(list, "runtime_key_prefix", "runtimeKeyPrefix").and_then(Value::as_str);
            if found != Some(prefix) {
                let found =
                    found.map_or_else(|| "none".to_owned(), |found| format!("`{}`", shown(found)));
                return Err(Error::Prefix { found, wanted: prefix.to_owned() });
            }
            if let Some(list) = list.as_mapping_mut() {
                list.retain(|key, _| {
                    !matches!(key.as_str(), Some("runtime_key_prefix" | "runtimeKeyPrefix"))
                });
            }
        }
        Ok(())
    })
}

fn not_named(route: &Value, pair: &Pair) -> Error {
    let name = route.get("name").and_then(Value::as_str).unwrap_or_default();
    let [one, two] = pair.names().clone();
    Error::NotNamed { route: shown(name), one, two }
}

/// Protobuf's JSON form allows both spellings of a field.
pub(super) fn get<'a>(value: &'a Value, snake: &str, camel: &str) -> Option<&'a Value> {
    value.get(snake).or_else(|| value.get(camel))
}

pub(super) fn is_weighted(key: &Value) -> bool {
    matches!(key.as_str(), Some("weighted_clusters" | "weightedClusters"))
}

fn names_both(list: &Value, pair: &Pair) -> bool {
    let named = |cluster: &String| {
        let clusters = list.get("clusters").and_then(Value::as_sequence);
        clusters.into_iter().flatten().any(|entry| name_of(entry) == Some(cluster))
    };
    pair.names().iter().all(named)
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("name").and_then(Value::as_str)
}

/// Each route action with a list of both clusters. Walks as deep as the parser allowed the document to be.
fn collect<'a>(value: &'a Value, pair: &Pair, found: &mut Vec<(&'a Mapping, &'a Value)>) {
    match value {
        Value::Mapping(mapping) => {
            for (key, inner) in mapping {
                if is_weighted(key) && names_both(inner, pair) {
                    found.push((mapping, inner));
                } else {
                    collect(inner, pair, found);
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| collect(item, pair, found)),
        _ => {}
    }
}

pub(super) fn change(
    value: &mut Value,
    pair: &Pair,
    edit: &mut impl FnMut(&mut Mapping) -> Result<(), Error>,
) -> Result<(), Error> {
    match value {
        Value::Mapping(mapping) => {
            let is_ours =
                mapping.iter().any(|(key, list)| is_weighted(key) && names_both(list, pair));
            if is_ours {
                return edit(mapping);
            }
            mapping.iter_mut().try_for_each(|(_, inner)| change(inner, pair, edit))
        }
        Value::Sequence(items) => items.iter_mut().try_for_each(|item| change(item, pair, edit)),
        _ => Ok(()),
    }
}

/// The weights of one list: of the pair, and of every other entry.
struct Weights {
    pair: [u64; 2],
    others: Vec<u64>,
}

fn weights_of(list: &Value, pair: &Pair) -> Result<Weights, Error> {
    if get(list, "runtime_key_prefix", "runtimeKeyPrefix").is_some() {
        return Err(Error::Runtime(pair.key()));
    }
    let mut own = [None; 2];
    let mut others = Vec::new();
    for entry in list.get("clusters").and_then(Value::as_sequence).into_iter().flatten() {
        let weight = weight_of(entry)?;
        match pair.names().iter().position(|cluster| name_of(entry) == Some(cluster)) {
            Some(index) if own[index].is_some() => {
                return Err(Error::Twice(pair.names()[index].clone()));
            }
            Some(index) => own[index] = Some(weight),
            None => others.push(weight),
        }
    }
    Ok(Weights { pair: own.map(Option::unwrap_or_default), others })
}

fn weight_of(entry: &Value) -> Result<u64, Error> {
    let number = match entry.get("weight") {
        None | Some(Value::Null) => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    number
        .filter(|weight| u32::try_from(*weight).is_ok())
        .ok_or_else(|| Error::Weight(shown(name_of(entry).unwrap_or("?"))))
}

fn read_list(list: &Value, pair: &Pair) -> Result<Split, Error> {
    let [first, second] = weights_of(list, pair)?.pair;
    let [one, two] = pair.names().clone();
    pair.split(first, first + second).ok_or(Error::NoShare(one, two))
}

/// Scales all weights so that the pair's share is a multiple of 10,000, which makes each split of it exact.
fn write_list(list: &mut Value, pair: &Pair, weights: [u16; 2]) -> Result<(), Error> {
    let before = weights_of(list, pair)?;
    let [one, two] = pair.names().clone();
    let share = before.pair[0] + before.pair[1];
    let others_sum: u64 = before.others.iter().sum();
    if share == 0 && others_sum > 0 {
        return Err(Error::NoShare(one, two));
    }
    // With no others this is 1 after division; writing twice gives the same numbers.
    let divisor = before
        .others
        .iter()
        .fold(share.max(1), |gcd, weight| greatest_common_divisor(gcd, *weight));
    let unit = share.max(1) / divisor;
    let sum = (unit + others_sum / divisor) * 10_000;
    if u32::try_from(sum).is_err() {
        return Err(Error::TooFine(one, two));
    }
    let total = ["total_weight", "totalWeight"].into_iter().find(|key| list.get(*key).is_some());
    if let (Some(key), Some(mapping)) = (total, list.as_mapping_mut()) {
        mapping.insert(key.into(), sum.into());
    }
    for entry in list.get_mut("clusters").and_then(Value::as_sequence_mut).into_iter().flatten() {
        let weight = match pair.names().iter().position(|cluster| name_of(entry) == Some(cluster)) {
            Some(index) => unit * u64::from(weights[index]),
            None => weight_of(entry)? / divisor * 10_000,
        };
        set_weight(entry, weight);
    }
    Ok(())
}

fn set_weight(entry: &mut Value, weight: u64) {
    if let Value::Mapping(mapping) = entry {
        mapping.insert("weight".into(), weight.into());
    }
}

fn greatest_common_divisor(one: u64, two: u64) -> u64 {
    if two == 0 { one } else { greatest_common_divisor(two, one % two) }
}

/// The mapping under `key`, made if it is missing; `None` when something else stands there.
pub(super) fn child<'a>(parent: &'a mut Mapping, key: &str) -> Option<&'a mut Mapping> {
    parent.entry(key.into()).or_insert_with(|| Value::Mapping(Mapping::new())).as_mapping_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};

    fn document(routes: &str) -> Value {
        parse(&format!(
            "name: web\nvirtual_hosts:\n- name: all\n  domains: ['*']\n  routes: {routes}\n"
        ))
        .unwrap()
    }

    fn set(document: &mut Value, green_percent: f64) -> Result<(), Error> {
        set_split(document, &pair(), &split(green_percent))
    }

    const BOTH: &str = "[{match: {prefix: /}, route: {timeout: 5s, weighted_clusters: {clusters: \
        [{name: api-blue, weight: 100, x: 1}, {name: api-green}]}}}]";

    #[test]
    fn nothing_but_the_weights_changes() {
        let mut changed = document(BOTH);
        set(&mut changed, 5.0).unwrap();
        let expected = document(
            &BOTH.replace("weight: 100", "weight: 9500").replace("-green", "-green, weight: 500"),
        );
        assert_eq!(changed, expected);
        assert_eq!(splits(&changed, &pair()), Ok(vec![split(5.0)]));
    }

    #[test]
    fn every_percentage_comes_back_exactly_and_repeats() {
        for green in [0.0, 0.01, 1.0, 33.33, 99.99, 100.0] {
            let mut changed = document(BOTH);
            set(&mut changed, green).unwrap();
            let once = changed.clone();
            set(&mut changed, green).unwrap();
            assert_eq!(once, changed);
            assert_eq!(splits(&changed, &pair()), Ok(vec![split(green)]));
        }
    }

    #[test]
    fn further_clusters_keep_their_share() {
        let mut changed = document(
            "[{route: {weighted_clusters: {total_weight: 100, clusters: [{name: api-blue, weight: 90}, \
             {name: api-green, weight: 0}, {name: beta, weight: 10}]}}}]",
        );
        for _ in 0..3 {
            set(&mut changed, 5.0).unwrap();
        }
        let text = serde_yaml::to_string(&changed).unwrap();
        for wanted in ["weight: 85500", "weight: 4500", "weight: 10000", "total_weight: 100000"] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }

    #[test]
    fn other_routes_stay() {
        let plain = "{match: {prefix: /a}, route: {cluster: api-blue}}";
        let other = "{route: {weighted_clusters: {clusters: [{name: api-blue, weight: 1}, {name: x, weight: 1}]}}}";
        let only = document(&format!("[{plain}, {other}]"));
        let mut changed = only.clone();
        let refused = set(&mut changed, 5.0);
        assert!(matches!(refused, Err(Error::NotNamed { .. })), "{refused:?}");
        assert_eq!(changed, only);
        assert!(matches!(splits(&only, &pair()), Err(Error::NotNamed { .. })));
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let list = |entries: &str| {
            let mut document =
                document(&format!("[{{route: {{weighted_clusters: {{{entries}}}}}}}]"));
            set(&mut document, 5.0).unwrap_err()
        };
        let both = "clusters: [{name: api-blue, weight: 1}, {name: api-green";
        assert!(matches!(list(&format!("runtime_key_prefix: a, {both}}}]")), Error::Runtime(_)));
        assert!(matches!(list(&format!("{both}}}, {{name: api-green}}]")), Error::Twice(_)));
        assert!(matches!(list(&format!("{both}, weight: -1}}]")), Error::Weight(_)));
        assert!(matches!(list(&format!("{both}, weight: 0.5}}]")), Error::Weight(_)));
        assert!(matches!(
            list(&format!("{both}}}, {{name: x, weight: 4294967291}}]")),
            Error::TooFine(..)
        ));
        let none = "clusters: [{name: api-blue}, {name: api-green}, {name: x, weight: 1}]";
        assert!(matches!(list(none), Error::NoShare(..)));
    }

    #[test]
    fn a_route_is_found_in_either_form() {
        let mut bare = document(BOTH);
        assert!(find(&mut bare, "web").is_ok());
        assert_eq!(find(&mut bare, "else").unwrap_err(), Error::NoRoute("else".to_owned()));
        let mut file = parse("resources: [{name: a}, {name: web}]").unwrap();
        assert!(find(&mut file, "web").is_ok());
        assert!(find(&mut file, "b").is_err());
    }

    #[test]
    fn documents_from_outside_never_panic() {
        assert_eq!(parse(&" ".repeat(BYTES_MAX + 1)), Err(Error::TooLong));
        for text in ["", "[", "a: *b", "- 1", "{a: 1}: 2", "resources: 3", "name: {}", "<<: 3"] {
            let Ok(mut document) = parse(text) else { continue };
            assert!(find(&mut document, "web").is_err(), "{text}");
            assert!(set(&mut document, 5.0).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(5_000)).is_err());
    }
}
