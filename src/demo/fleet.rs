//! The fleet that this world is, as Tidegate's operator would have written it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::world::{Region, World};
use super::{CANARY_SLOT, Error, SERVICE, STABLE_SLOT};
use crate::spec::fleet;
use crate::spec::plan::{Authority, Location};
use crate::units::{Millis, ServiceName, SlotName};

/// What locations of this fleet name as its file.
const FILE: &str = "the demo's fleet";
/// What else is said of each region: name, role, rules that apply there.
const ABOUT: [(&str, &str, &[&str]); 3] = [
    ("us_east_1", "primary", &["sox", "ccpa"]),
    ("eu_west_1", "secondary", &["gdpr", "data_residency_eu"]),
    ("ap_southeast_2", "regional", &["privacy_act_au", "pdpa_singapore"]),
];

/// The fleet of `world`: its regions scraped every `poll`, its one service with full authority and no targets.
///
/// The proxies have no form in a fleet file; their adapters are [`Region::balancer`]. `state` is where Tidegate keeps
/// its state; `settle` is one poll, as it is by default.
pub fn fleet(world: &World, state: PathBuf, poll: Millis) -> Result<fleet::Fleet, Error> {
    let regions = world.regions();
    let service = fleet::Service {
        affinity: None,
        at: location(),
        owner: Some("team-demo".to_owned()),
        authority: Authority::Full,
        slots: [SlotName::new(STABLE_SLOT)?, SlotName::new(CANARY_SLOT)?],
        metrics: BTreeMap::from([("version".to_owned(), "{version}".to_owned())]),
        hooks: BTreeMap::new(),
        targets: regions.iter().map(|region| (region.name.clone(), Vec::new())).collect(),
    };
    Ok(fleet::Fleet {
        file: FILE.to_owned(),
        state,
        regions: regions.iter().map(|here| (here.name.clone(), region(here, poll))).collect(),
        services: BTreeMap::from([(ServiceName::new(SERVICE)?, service)]),
        checks: BTreeMap::new(),
        xds: None,
        traefik_provider: None,
        notify: BTreeMap::new(),
        escalation: Vec::new(),
        reported: BTreeMap::new(),
        access: Default::default(),
        api: None,
    })
}

fn region(region: &Region, poll: Millis) -> fleet::Region {
    let about = ABOUT.iter().find(|(name, ..)| *name == region.name.as_str());
    let endpoint =
        |url: &String| fleet::ScrapeEndpoint { url: url.clone(), labels: BTreeMap::new() };
    fleet::Region {
        at: location(),
        cohort_of: None,
        share: region.share,
        role: about.map(|(_, role, _)| (*role).to_owned()),
        compliance: about
            .map_or(&[][..], |(.., rules)| rules)
            .iter()
            .map(|&rule| rule.into())
            .collect(),
        instances: Some(1),
        labels: BTreeMap::from([("region".to_owned(), region.name.to_string())]),
        metrics: fleet::MetricsSource::Scrape(fleet::Scrape {
            endpoints: region.metrics_urls.iter().map(endpoint).collect(),
            auth: None,
            timeout: Millis::from_secs(2),
            bytes_max: 1024 * 1024,
        }),
        poll,
        scrape_interval: poll,
        settle: poll,
        health: Some(probe(region.health_url.clone())),
        dns_lifetime: None,
        failover_within: None,
    }
}

fn probe(url: String) -> fleet::Probe {
    fleet::Probe {
        at: location(),
        url: Some(url),
        interval: Millis::from_secs(1),
        failures: 3,
        successes: 2,
        timeout: Millis::from_secs(1),
    }
}

fn location() -> Location {
    Location { file: FILE.to_owned(), line: 1, column: 1 }
}
