//! What Traefik is given, in a file or when it fetches, and what its API shows of it.

use serde::Deserialize;

use super::super::Pair;
use crate::units::{Generation, Weight};

/// A service as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// With its provider: `web@file`.
    pub name: String,
    /// Of a weighted service.
    pub weighted: Option<Weighted>,
    /// Of a service with servers of its own.
    pub load_balancer: Option<LoadBalancer>,
    /// Server → `UP` or `DOWN`; all are up without health checks.
    #[serde(default)]
    pub server_status: std::collections::BTreeMap<String, String>,
}

/// The services that a weighted one has.
#[derive(Debug, Deserialize)]
pub struct Weighted {
    /// In the order of the file.
    #[serde(default)]
    pub services: Vec<Part>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub struct Part {
    /// As the file says it.
    pub name: String,
    /// Traefik takes 1 where there is none.
    pub weight: Option<u64>,
}

/// Of a service with servers, what matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// There are health checks.
    pub health_check: Option<serde::de::IgnoredAny>,
}

impl Weighted {
    /// Both weights in the order of the pair; or why they are no split. `provider` is that of the weighted service.
    pub fn weights(&self, pair: &Pair, provider: &str) -> Result<[u64; 2], String> {
        // Its own provider, which is where a name is looked for anyway, may be said or not.
        let of = |name: &String| {
            let same = |part: &&Part| plain(&part.name, provider) == plain(name, provider);
            self.services.iter().find(same).map(|part| part.weight.unwrap_or(1))
        };
        let [one, other] = pair.names();
        match (of(one), of(other)) {
            (Some(first), Some(second)) if self.services.len() == 2 => Ok([first, second]),
            (Some(_), Some(_)) => Err("it has services that are no slot's".to_owned()),
            _ => Err(format!("its services are not `{one}` and `{other}`")),
        }
    }
}

/// A name without this provider.
fn plain<'a>(name: &'a str, provider: &str) -> &'a str {
    name.strip_suffix(provider).and_then(|name| name.strip_suffix('@')).unwrap_or(name)
}

/// What stands before the generation in the name of a service that nobody uses: the only thing of ours that Traefik takes
/// and shows again.
pub fn marker(service: &str) -> String {
    format!("tidegate-{service}-generation-")
}

/// The generation that a text names.
pub fn generation_of(text: &str, service: &str) -> Option<Generation> {
    let (_, rest) = text.split_once(&marker(service))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().map(Generation)
}

/// A whole document: YAML, which both providers read.
pub fn text(service: &str, pair: &Pair, weights: [Weight; 2], generation: Generation) -> String {
    let [one, other] = pair.names();
    let [first, second] = weights.map(Weight::hundredths);
    let marker = marker(service);
    format!(
        "# Written by Tidegate.\n\
         http:\n  services:\n    \"{service}\":\n      weighted:\n        services:\n          \
         - {{name: \"{one}\", weight: {first}}}\n          - {{name: \"{other}\", weight: {second}}}\n    \
         # Nobody uses this one: its name says the generation.\n    \
         \"{marker}{}\":\n      weighted:\n        services:\n          - {{name: \"{one}\", weight: 1}}\n",
        generation.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};

    #[test]
    fn what_is_written_is_read() {
        let weights = pair().weights(&split(5.0)).unwrap();
        let text = text("web", &pair(), weights, Generation(12));
        assert_eq!(generation_of(&text, "web"), Some(Generation(12)));
        assert_eq!(generation_of(&text, "we"), None);
        let document: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let weighted = document["http"]["services"]["web"]["weighted"].clone();
        let weighted: Weighted = serde_yaml::from_value(weighted).unwrap();
        assert_eq!(weighted.weights(&pair(), "file"), Ok([9_500, 500]));
    }

    #[test]
    fn other_services_are_no_split() {
        let weights_at = |text: &str, provider: &str| {
            let weighted: Weighted = serde_yaml::from_str(text).unwrap();
            weighted.weights(&pair(), provider)
        };
        let weights = |text: &str| weights_at(text, "file");
        let both = "{name: api-blue@file}, {name: api-green, weight: 0}";
        assert_eq!(weights(&format!("services: [{both}]")), Ok([1, 0]));
        assert!(weights(&format!("services: [{both}, {{name: x}}]")).is_err());
        assert!(weights("services: [{name: api-blue}, {name: api-green@docker}]").is_err());
        assert!(weights("{}").is_err());
        assert!(weights_at(&format!("services: [{both}]"), "http").is_err());
    }
}
