//! What Traefik is given, in a file or when it fetches, and what its API shows of it.

use serde::Deserialize;

use super::super::Pair;
use crate::units::{Generation, Weight, shown};

/// A longer body is not copied: one that is copied lies in Traefik's memory first, and waits there until it is whole.
const COPIED_BYTES_MAX: u32 = 1024 * 1024;

/// A service as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// With its provider: `web@file`.
    pub name: String,
    /// `disabled` where requests for it are answered by nobody.
    pub status: Option<String>,
    /// Why.
    #[serde(default)]
    pub error: Vec<String>,
    /// Of a weighted service.
    pub weighted: Option<Weighted>,
    /// Of one that copies what it gets.
    pub mirroring: Option<Mirrored>,
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

/// A service that lets another one answer, and copies what comes to further ones.
#[derive(Debug, Deserialize)]
pub struct Mirrored {
    /// Who answers.
    pub service: String,
    /// Who gets copies.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
}

/// One that gets copies.
#[derive(Debug, Deserialize)]
pub struct Mirror {
    /// As the file says it.
    pub name: String,
    /// Traefik takes 0 where there is none.
    pub percent: Option<i64>,
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

impl Mirrored {
    /// What is copied to each service of the pair, in its order; or why this is not what Tidegate writes for `service`.
    pub fn copies(
        &self,
        service: &str,
        pair: &Pair,
        provider: &str,
    ) -> Result<[Weight; 2], String> {
        let (over, inner) = (plain(&self.service, provider), inner(service));
        if over != inner {
            return Err(format!("it mirrors over `{}`, not over `{inner}`", shown(over)));
        }
        let mut copies = [Weight::ZERO; 2];
        for Mirror { name, percent } in &self.mirrors {
            let (name, says) = (plain(name, provider), shown(name));
            let place = pair.names().iter().position(|own| plain(own, provider) == name);
            let place = place.ok_or_else(|| {
                format!("it mirrors to `{says}`, which is no slot's: a service of your own before it can")
            })?;
            if !copies[place].is_zero() {
                return Err(format!("it mirrors to `{says}` twice"));
            }
            let percent = u64::try_from(percent.unwrap_or(0)).ok();
            let share = percent.and_then(|percent| Weight::from_ratio(percent, 100));
            copies[place] = share.ok_or_else(|| {
                format!("what it mirrors to `{says}` is not between 0 and 100 percent")
            })?;
        }
        Ok(copies)
    }
}

/// A name without this provider.
fn plain<'a>(name: &'a str, provider: &str) -> &'a str {
    name.strip_suffix(provider).and_then(|name| name.strip_suffix('@')).unwrap_or(name)
}

/// The weighted service that answers while `service` copies.
pub fn inner(service: &str) -> String {
    format!("tidegate-{service}-weighted")
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

/// A whole document: YAML, which both providers read. Copies are of whole percents.
pub fn text(
    service: &str,
    pair: &Pair,
    weights: [Weight; 2],
    copies: [Weight; 2],
    generation: Generation,
) -> String {
    let [one, other] = pair.names();
    let [first, second] = weights.map(Weight::hundredths);
    let (marker, copying) = (marker(service), copying(service, pair, copies));
    let weighted = if copying.is_empty() { service.to_owned() } else { inner(service) };
    format!(
        "# Written by Tidegate.\n\
         http:\n  services:\n{copying}    \"{weighted}\":\n      weighted:\n        services:\n          \
         - {{name: \"{one}\", weight: {first}}}\n          - {{name: \"{other}\", weight: {second}}}\n    \
         # Nobody uses this one: its name says the generation.\n    \
         \"{marker}{}\":\n      weighted:\n        services:\n          - {{name: \"{one}\", weight: 1}}\n",
        generation.0
    )
}

/// The service that copies; nothing where nothing is copied.
fn copying(service: &str, pair: &Pair, copies: [Weight; 2]) -> String {
    let copied = pair.names().iter().zip(copies).filter(|(_, share)| !share.is_zero());
    let mirrors: String = copied
        .map(|(name, share)| {
            let percent = share.hundredths() / 100;
            format!("          - {{name: \"{name}\", percent: {percent}}}\n")
        })
        .collect();
    if mirrors.is_empty() {
        return mirrors;
    }
    let inner = inner(service);
    format!(
        "    \"{service}\":\n      mirroring:\n        service: \"{inner}\"\n        \
         maxBodySize: {COPIED_BYTES_MAX}\n        mirrors:\n{mirrors}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};

    #[test]
    fn what_is_written_is_read() {
        let weights = pair().weights(&split(5.0)).unwrap();
        let text = text("web", &pair(), weights, [Weight::ZERO; 2], Generation(12));
        assert_eq!(generation_of(&text, "web"), Some(Generation(12)));
        assert_eq!(generation_of(&text, "we"), None);
        let document: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let weighted = document["http"]["services"]["web"]["weighted"].clone();
        let weighted: Weighted = serde_yaml::from_value(weighted).unwrap();
        assert_eq!(weighted.weights(&pair(), "file"), Ok([9_500, 500]));
    }

    #[test]
    fn copies_are_read_and_leave_without_a_trace() {
        let (weights, none) = (pair().weights(&split(0.0)).unwrap(), [Weight::ZERO; 2]);
        let text = |copies| text("web", &pair(), weights, copies, Generation(12));
        let tenth = [Weight::ZERO, Weight::from_percent(10.0).unwrap()];
        assert_eq!(generation_of(&text(tenth), "web"), Some(Generation(12)));
        let document: serde_yaml::Value = serde_yaml::from_str(&text(tenth)).unwrap();
        let services = &document["http"]["services"];
        let read: Mirrored = serde_yaml::from_value(services["web"]["mirroring"].clone()).unwrap();
        assert_eq!(read.copies("web", &pair(), "file"), Ok(tenth));
        let weighted = services[inner("web")]["weighted"].clone();
        let weighted: Weighted = serde_yaml::from_value(weighted).unwrap();
        assert_eq!(weighted.weights(&pair(), "file"), Ok([10_000, 0]));
        assert_eq!(
            text(none),
            "# Written by Tidegate.\nhttp:\n  services:\n    \"web\":\n      weighted:\n        services:\n          \
             - {name: \"api-blue\", weight: 10000}\n          - {name: \"api-green\", weight: 0}\n    \
             # Nobody uses this one: its name says the generation.\n    \"tidegate-web-generation-12\":\n      \
             weighted:\n        services:\n          - {name: \"api-blue\", weight: 1}\n"
        );
    }

    #[test]
    fn what_others_mirror_is_told_from_ours() {
        let copies = |over: &str, mirrors: &str| {
            let text = format!("{{service: {over}, mirrors: [{mirrors}]}}");
            let read: Mirrored = serde_yaml::from_str(&text).unwrap();
            read.copies("web", &pair(), "file").map(|both| both.map(Weight::hundredths))
        };
        let ours = "tidegate-web-weighted";
        assert_eq!(copies(ours, ""), Ok([0, 0]));
        assert_eq!(copies(ours, "{name: api-green}"), Ok([0, 0]));
        let both = "{name: api-green@file, percent: 7}, {name: api-blue, percent: 100}";
        assert_eq!(copies(&format!("{ours}@file"), both), Ok([10_000, 700]));
        let wrong = |over: &str, mirrors: &str, word: &str| {
            let said = copies(over, mirrors).unwrap_err();
            assert!(said.contains(word), "{said}");
        };
        wrong("api-blue", both, "over `api-blue`, not over `tidegate-web-weighted`");
        wrong(&format!("{ours}@http"), both, "not over");
        wrong(ours, &format!("{both}, {{name: shadow, percent: 1}}"), "`shadow`, which is no slot");
        wrong(ours, &format!("{both}, {both}"), "twice");
        for percent in ["101", "-1"] {
            let mirror = format!("{{name: api-green, percent: {percent}}}");
            wrong(ours, &mirror, "not between 0 and 100");
        }
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
