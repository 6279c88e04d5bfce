//! PowerDNS by its HTTP API: one `LUA` record that picks an address by weight, answer by answer.
//!
//! ```text
//! set:  PATCH the zone: the LUA record and the generation as its comment, in one transaction
//! read: GET the record sets of the name, and, where a resolver is given, a few answers of a name server
//! ```
//!
//! The generation is looked at before it is written, so of two writers at the same moment the older one can still be the
//! last; the newer one reads the older generation then. Records and comments stand in PowerDNS's database.

mod api;
mod content;

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::json;

use self::api::{Comment, Record, RecordSet, Zone};
use super::api::{Api, Call, Login};
use super::dns::{self, Domain};
use super::fence::Fence;
use super::{Pair, Unusable};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::{PowerDns, Secret};
use crate::units::{Generation, Weight, shown};

/// Questions to the resolver for one reading.
const QUESTIONS: usize = 4;

/// One name and type of a zone.
pub struct PowerDnsBalancer {
    label: String,
    settings: PowerDns,
    domain: Domain,
    pair: Pair,
    api: Api,
    fence: Fence,
}

/// What the zone says: weights of both slots, or why they cannot be told.
type Found = Result<[u64; 2], String>;

impl PowerDnsBalancer {
    /// For a target of the fleet; nothing is asked yet.
    pub fn new(label: String, settings: &PowerDns) -> Result<Self, Unusable> {
        let label = format!("{label} (powerdns {} {})", settings.name, settings.family.says());
        let names: BTreeMap<_, _> = settings
            .addresses
            .iter()
            .map(|(slot, addresses)| (slot.clone(), format!("{addresses:?}")))
            .collect();
        let pair = Pair::new(&names).map_err(Unusable::new)?;
        let login = Login::Header("x-api-key", settings.key.clone());
        let api = Api::new(label.clone(), &settings.api, Some(login))?;
        let domain = dns::domain(&settings.name)?;
        let settings = settings.clone();
        Ok(Self { label, settings, domain, pair, api, fence: Fence::default() })
    }

    fn path(&self) -> String {
        let PowerDns { server, zone, .. } = &self.settings;
        format!("api/v1/servers/{server}/zones/{zone}.")
    }

    /// The name as the API writes it.
    fn name(&self) -> String {
        format!("{}.", self.settings.name)
    }

    /// Addresses in the order of the slots.
    fn addresses(&self) -> [&[IpAddr]; 2] {
        let of = |slot| self.settings.addresses.get(slot).map(Vec::as_slice).unwrap_or_default();
        self.pair.slots().each_ref().map(of)
    }

    async fn zone(&self) -> Result<Zone, LoadBalancerError> {
        // Older servers do not know the filter and show the whole zone.
        let path = format!("{}?rrset_name={}", self.path(), self.name());
        let answer = self.api.call(Call::get(&path).seeing(&[404])).await?;
        if answer.status == 404 {
            let PowerDns { server, zone, .. } = &self.settings;
            let what = format!("there is no zone `{zone}` at the server `{server}`");
            return Err(self.api.failure(what, Outcome::Misconfigured));
        }
        let strange = || self.api.failure("an answer that is no zone", Outcome::NotSent);
        answer.json().ok_or_else(strange)
    }

    /// The weights that the zone's records say.
    fn weights_of(&self, zone: &Zone) -> Found {
        let family = self.settings.family;
        let (name, addresses) = (self.name(), self.addresses());
        let weighted: Vec<&Record> = zone
            .set(&name, "LUA")
            .into_iter()
            .flat_map(RecordSet::enabled)
            .filter(|record| api::is_of(record, family))
            .collect();
        match (weighted.as_slice(), zone.set(&name, family.says())) {
            ([], None) => Err(format!("the name has no {} record", family.says())),
            ([], Some(plain)) => plain_weights(plain, addresses),
            ([record], None) => content::read(&record.content, family, addresses),
            (_, Some(_)) => Err("a plain record stands beside the weighted one".to_owned()),
            _ => Err("it has more than one weighted record".to_owned()),
        }
    }

    /// What a name server answers that the weights do not allow; `None` when all is well or nobody is asked.
    async fn contradiction(&self, weights: [u64; 2]) -> Option<String> {
        let resolver = self.settings.resolver?;
        for _ in 0..QUESTIONS {
            let seen = match dns::addresses(resolver, &self.domain, self.settings.family).await {
                Ok(seen) => seen,
                Err(what) => return Some(format!("the name server {resolver}: {what}")),
            };
            let slots = self.addresses();
            let allowed = |address: &IpAddr| {
                slots.iter().zip(weights).any(|(slot, weight)| weight > 0 && slot.contains(address))
            };
            let Some(strange) = seen.iter().find(|address| !allowed(address)) else {
                if seen.is_empty() {
                    return Some(format!("the name server {resolver} knows no address"));
                }
                continue;
            };
            return Some(format!("the name server {resolver} still answers {strange}"));
        }
        None
    }

    async fn reading(&self, zone: &Zone) -> Reading {
        let found = self.weights_of(zone).and_then(|weights @ [one, other]| {
            let share = Weight::from_ratio(one, one + other);
            Ok((weights, share.ok_or("all weights are 0")?))
        });
        let (share, note) = match found {
            Ok((weights, share)) => (share, self.contradiction(weights).await),
            Err(what) => (Weight::default(), Some(what)),
        };
        let [first, second] = self.pair.slots().clone();
        let set = zone.set(&self.name(), "LUA");
        Reading {
            split: [(first, share), (second, share.complement())].into(),
            settled: note.is_none(),
            generation: set.and_then(|set| set.generation(self.settings.family)),
            instances: Vec::new(),
            backends: None,
            restart_marker: None,
            note,
        }
    }

    /// The change that makes the zone say these weights; records and comments of others in the set stay.
    fn change(
        &self,
        zone: &Zone,
        weights: [Weight; 2],
        generation: Generation,
    ) -> serde_json::Value {
        let PowerDns { family, ttl, .. } = self.settings;
        let (name, set) = (self.name(), zone.set(&self.name(), "LUA"));
        let content = content::write(family, weights, self.addresses());
        let mut records: Vec<Record> = set
            .into_iter()
            .flat_map(|set| &set.records)
            .filter(|record| !api::is_of(record, family))
            .cloned()
            .collect();
        records.push(Record { content, disabled: false });
        let foreign = set.into_iter().flat_map(|set| set.foreign_comments(family)).cloned();
        let comments: Vec<_> = foreign.chain([Comment::of(family, generation)]).collect();
        let mut sets = vec![json!({
            "name": name, "type": "LUA", "ttl": ttl.0 / 1_000, "changetype": "REPLACE",
            "records": records, "comments": comments,
        })];
        if zone.set(&name, family.says()).is_some() {
            // The name server would answer with both.
            sets.push(json!({"name": name, "type": family.says(), "changetype": "DELETE"}));
        }
        json!({ "rrsets": sets })
    }

    /// Whether the zone says all of this already.
    fn says(&self, zone: &Zone, weights: [Weight; 2], generation: Generation) -> bool {
        let PowerDns { family, ttl, .. } = self.settings;
        let Some(set) = zone.set(&self.name(), "LUA") else { return false };
        let content = content::write(family, weights, self.addresses());
        set.generation(family) == Some(generation)
            && set.ttl == ttl.0 / 1_000
            && zone.set(&self.name(), family.says()).is_none()
            && set
                .records
                .iter()
                .filter(|it| api::is_of(it, family))
                .map(|it| &it.content)
                .eq([&content])
    }

    fn weights(&self, split: &Split) -> Result<[Weight; 2], LoadBalancerError> {
        let wrong = |error| self.api.failure(error, Outcome::Misconfigured);
        self.pair.weights(split).map_err(wrong)
    }
}

/// A name without weights: whose addresses it has.
fn plain_weights(set: &RecordSet, slots: [&[IpAddr]; 2]) -> Found {
    let mut counts = [0, 0];
    for record in set.enabled() {
        let address = record.content.parse::<IpAddr>().ok();
        let slot = address.and_then(|it| slots.iter().position(|slot| slot.contains(&it)));
        let Some(slot) = slot else {
            return Err(format!("{} is of neither slot", shown(&record.content)));
        };
        counts[slot] += 1;
    }
    match counts {
        [0, _] | [_, 0] => Ok(counts),
        _ => Err("plain records of both slots, which have no weights".to_owned()),
    }
}

#[async_trait]
impl LoadBalancer for PowerDnsBalancer {
    fn describe(&self) -> String {
        self.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        Ok(self.reading(&self.zone().await?).await)
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let weights = self.weights(split)?;
        let older = |what| self.api.failure(what, Outcome::Superseded);
        self.fence.admit(generation).map_err(older)?;
        let zone = self.zone().await?;
        let set = zone.set(&self.name(), "LUA");
        let newest = set.and_then(|set| set.generation(self.settings.family));
        if let Some(newest) = newest.filter(|newest| *newest > generation) {
            return Err(older(format!("{generation} is older than {newest} in the zone")));
        }
        if !self.says(&zone, weights, generation) {
            let change = self.change(&zone, weights, generation);
            self.api.call(Call::write(Method::PATCH, &self.path(), change)).await?;
        }
        let mut reading = self.read().await.map_err(|error| {
            let what = format!("set, not read back: {}", error.what);
            self.api.failure(what, Outcome::Unknown)
        })?;
        if reading.settled && reading.split == *split && reading.generation.is_none() {
            reading.settled = false;
            reading.note = Some("the zone's backend keeps no comments".to_owned());
        }
        Ok(reading)
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let weights = self.weights(split)?;
        let zone = self.zone().await?;
        let change = self.change(&zone, weights, generation).to_string();
        let key = match &self.settings.key {
            Secret::Env(name) => format!("${name}"),
            Secret::File(path) => format!("$(cat '{}')", path.display()),
        };
        let base = self.settings.api.trim_end_matches('/');
        Ok(vec![format!(
            "curl -sS --fail-with-body -X PATCH -H \"X-API-Key: {key}\" -H 'Content-Type: application/json' -d '{}' '{base}/{}'",
            change.replace('\'', "'\\''"),
            self.path()
        )])
    }
}
