//! The generation inside a route document, where Envoy shows it again and a reader of the file sees it.
//!
//! Each pair of clusters has its own, so that several services may share one document. It stands in the
//! RouteConfiguration's metadata (which makes each generation a different document: Envoy ignores a new version text over
//! an unchanged one) and, for people and for reconnecting Envoys, in the version text: `api-blue/api-green=17`.

use serde_yaml::Value;

use super::{Pair, route};
use crate::units::Generation;

const OWNER: &str = "tidegate";

/// Writes the generation of `pair` into a RouteConfiguration; false when foreign metadata of another shape stands there.
#[must_use]
pub fn write(route: &mut Value, pair: &Pair, generation: Generation) -> bool {
    let markers = route
        .as_mapping_mut()
        .and_then(|route| route::child(route, "metadata"))
        .and_then(|metadata| route::child(metadata, "filter_metadata"))
        .and_then(|owners| route::child(owners, OWNER));
    let Some(markers) = markers else { return false };
    // A string, since protobuf's Struct has no integers.
    markers.insert(pair.key().into(), generation.0.to_string().into());
    true
}

/// The generation of `pair` in a RouteConfiguration.
pub fn read(route: &Value, pair: &Pair) -> Option<Generation> {
    let text = markers(route)?.get(pair.key())?.as_str()?;
    text.parse().ok().map(Generation)
}

/// All generations of a RouteConfiguration as a version text, at most one line per document; empty without any.
pub fn version_text(route: &Value) -> String {
    let entries = markers(route).and_then(Value::as_mapping).into_iter().flatten();
    let texts =
        entries.filter_map(|(key, value)| Some(format!("{}={}", key.as_str()?, value.as_str()?)));
    texts.collect::<Vec<_>>().join(" ")
}

/// The generation of `pair` in a version text, as Envoy repeats it.
pub fn read_version(version: &str, pair: &Pair) -> Option<Generation> {
    let key = pair.key();
    let values = version.split(' ').filter_map(|entry| entry.rsplit_once('='));
    let value = values.into_iter().find(|(name, _)| *name == key)?.1;
    value.parse().ok().map(Generation)
}

fn markers(route: &Value) -> Option<&Value> {
    route.get("metadata")?.get("filter_metadata")?.get(OWNER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::pair;

    #[test]
    fn what_is_written_is_read() {
        let mut document =
            route::parse("{name: web, metadata: {filter_metadata: {mine: {a: 1}}}}").unwrap();
        assert!(write(&mut document, &pair(), Generation(17)));
        assert_eq!(read(&document, &pair()), Some(Generation(17)));
        assert_eq!(version_text(&document), "api-blue/api-green=17");
        assert_eq!(read_version("a/b=3 api-blue/api-green=17", &pair()), Some(Generation(17)));
        assert!(document["metadata"]["filter_metadata"]["mine"]["a"].is_number());
    }

    #[test]
    fn foreign_text_is_no_generation() {
        for version in
            ["", "v1", "api-blue/api-green", "api-blue/api-green=x", "api-blue/api-green=-1"]
        {
            assert_eq!(read_version(version, &pair()), None, "{version}");
        }
        let mut document = route::parse("{name: web, metadata: 3}").unwrap();
        assert!(!write(&mut document, &pair(), Generation(1)));
        assert_eq!(read(&document, &pair()), None);
    }
}
