//! From the operator's YAML to the protobuf that Envoy's gRPC wants.
//!
//! Every field of RouteConfiguration is known, and the usual per-filter configurations; anything else is refused by
//! name, so that nothing is silently dropped. `routes.binpb` is written by `scripts/envoy-descriptors`.

use std::sync::LazyLock;

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_yaml::Value;

use super::route;
use crate::units::shown;

/// The type that Envoy asks for.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(include_bytes!("routes.binpb").as_slice()).ok());

/// The encoded RouteConfiguration; an error names the first field or type that is not known.
pub fn encode(route: &Value) -> Result<Vec<u8>, route::Error> {
    let pool = POOL.as_ref().ok_or_else(|| route::Error::Syntax("no descriptors".to_owned()))?;
    let message = pool.get_message_by_name("envoy.config.route.v3.RouteConfiguration");
    let message =
        message.ok_or_else(|| route::Error::Syntax("no RouteConfiguration".to_owned()))?;
    let mut bare = route.clone();
    if let Some(mapping) = bare.as_mapping_mut() {
        // In a file of resources this names the type that is already given.
        mapping.remove("@type");
    }
    let decoded = DynamicMessage::deserialize(message, bare);
    let decoded = decoded.map_err(|error| route::Error::Syntax(shown(&error.to_string())))?;
    Ok(decoded.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, route as pb};

    use super::*;

    fn decoded(text: &str) -> RouteConfiguration {
        let bytes = encode(&route::parse(text).unwrap()).unwrap();
        RouteConfiguration::decode(bytes.as_slice()).unwrap()
    }

    #[test]
    fn what_people_write_arrives() {
        let route = decoded(
            "'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: web
request_headers_to_add: [{header: {key: x-a, value: b}, append_action: ADD_IF_ABSENT}]
metadata: {filter_metadata: {tidegate: {a/b: '17'}}}
virtual_hosts:
- name: all
  domains: ['*']
  typed_per_filter_config:
    cors: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, allow_methods: GET}
  routes:
  - match: {safe_regex: {regex: '/a.*'}, headers: [{name: x, string_match: {exact: y}}]}
    direct_response: {status: 404}
  - match: {prefix: /}
    route:
      timeout: 1.5s
      prefix_rewrite: /b
      retry_policy: {retry_on: 5xx, num_retries: 2}
      weighted_clusters: {clusters: [{name: a, weight: 9500}, {name: b, weight: 500}]}
",
        );
        let host = &route.virtual_hosts[0];
        let Some(pb::Action::Route(action)) = &host.routes[1].action else { panic!("{route:?}") };
        assert_eq!(
            action.timeout.as_ref().map(|time| (time.seconds, time.nanos)),
            Some((1, 500_000_000))
        );
        assert_eq!(action.prefix_rewrite, "/b");
        assert!(host.typed_per_filter_config.contains_key("cors"));
        assert_eq!(route.request_headers_to_add.len(), 1);
        assert!(route.metadata.is_some());
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let refused = |text: &str| encode(&route::parse(text).unwrap()).unwrap_err().to_string();
        assert!(refused("{name: web, virtual_hots: []}").contains("virtual_hots"));
        let filter =
            "{name: web, typed_per_filter_config: {x: {'@type': type.googleapis.com/foo.Bar}}}";
        assert!(refused(filter).contains("foo.Bar"), "{}", refused(filter));
        assert!(!refused("{name: {}}").is_empty());
        assert!(!refused("[]").is_empty());
    }
}
