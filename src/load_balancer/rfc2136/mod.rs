//! A name server by dynamic update (RFC 2136) over TCP, signed by a key (TSIG): `SRV` records with weights, or addresses.
//!
//! ```text
//! set:  one update: the records and, in a TXT record beside them, the generation; it holds only if all of these are as read
//! read: the records and the generation, asked of the same server, in answers that it has signed
//! ```
//!
//! The server itself refuses an update over something that has changed, so of two writers one reads again and learns of the
//! other. Records stand in the zone and outlive the server.

mod records;
mod session;
mod zone;

use std::time::Duration;

use async_trait::async_trait;
use domain::base::Rtype;

use self::records::{Behind, Data};
use self::session::{Problem, Session};
use self::zone::RecordSet;
use super::dns::{self, Domain};
use super::fence::Fence;
use super::{Pair, Unusable};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::{Rfc2136, Secret};
use crate::units::{Generation, Weight};

/// Longest time for reading, or for setting.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Looks that a reading or a change takes at most while others change the name.
const LOOKS_MAX: usize = 4;
/// Before the name: where the generation stands.
const MARKER: &str = "_tidegate";

/// One name of a zone.
pub struct Rfc2136Balancer {
    label: String,
    settings: Rfc2136,
    zone: Domain,
    name: Domain,
    marker: Domain,
    behind: Behind,
    pair: Pair,
    fence: Fence,
}

/// What the zone has of ours at one moment.
struct Seen {
    marker: RecordSet,
    sets: Vec<RecordSet>,
}

impl Rfc2136Balancer {
    /// For a target of the fleet; nothing is asked yet.
    pub fn new(label: String, settings: &Rfc2136) -> Result<Self, Unusable> {
        let (behind, pair) = Behind::new(&settings.records)?;
        Ok(Self {
            label: format!("{label} (rfc2136 {} at {})", settings.name, settings.server),
            zone: dns::domain(&settings.zone)?,
            name: dns::domain(&settings.name)?,
            marker: dns::domain(&format!("{MARKER}.{}", settings.name))?,
            settings: settings.clone(),
            behind,
            pair,
            fence: Fence::default(),
        })
    }

    fn failure(&self, what: impl std::fmt::Display, outcome: Outcome) -> LoadBalancerError {
        LoadBalancerError { target: self.label.clone(), what: what.to_string(), outcome }
    }

    fn ttl(&self) -> u32 {
        u32::try_from(self.settings.ttl.0 / 1_000).unwrap_or(u32::MAX)
    }

    async fn session(&self) -> Result<Session, Problem> {
        Session::open(&self.settings.server, &self.settings.key).await
    }

    /// Everything as it was at one moment: what stood there before and after reading is the same.
    async fn look(&self, session: &mut Session) -> Result<Seen, Problem> {
        let mut marker = RecordSet::read(session, &self.marker, Rtype::TXT).await?;
        for _ in 0..LOOKS_MAX {
            let mut sets = Vec::new();
            for kind in self.behind.types() {
                sets.push(RecordSet::read(session, &self.name, kind).await?);
            }
            let after = RecordSet::read(session, &self.marker, Rtype::TXT).await?;
            if after == marker {
                return Ok(Seen { marker, sets });
            }
            marker = after;
        }
        Err(Problem::new("it changes while it is read", Outcome::NotSent))
    }

    fn reading(&self, seen: &Seen) -> Reading {
        let records: Vec<Data> = seen.sets.iter().flat_map(|set| set.records.clone()).collect();
        let found = self.behind.read(&records).and_then(|[one, other]| {
            Weight::from_ratio(one, one + other).ok_or_else(|| "no weights".to_owned())
        });
        let (share, note) = match found {
            Ok(share) => (share, None),
            Err(what) => (Weight::default(), Some(what)),
        };
        let [first, second] = self.pair.slots().clone();
        Reading {
            split: [(first, share), (second, share.complement())].into(),
            settled: note.is_none(),
            generation: records::generation(&seen.marker.records),
            instances: Vec::new(),
            backends: None,
            restart_marker: None,
            note,
        }
    }

    /// Every set with what it is to hold.
    fn changes<'a>(
        &self,
        seen: &'a Seen,
        weights: [Weight; 2],
        generation: Generation,
    ) -> Vec<(&'a RecordSet, Vec<Data>)> {
        let records = self.behind.write(weights);
        let of = |set: &RecordSet| {
            records.iter().filter(|record| kind_of(record) == set.kind).cloned().collect()
        };
        let marker = records::marker(generation).into_iter().collect();
        let sets = seen.sets.iter().map(|set| (set, of(set)));
        sets.chain([(&seen.marker, marker)]).collect()
    }

    /// Sets the weights unless a newer generation is there; what is read back afterwards.
    async fn change(
        &self,
        weights: [Weight; 2],
        generation: Generation,
    ) -> Result<Reading, Problem> {
        let mut session = self.session().await?;
        for _ in 0..LOOKS_MAX {
            let seen = self.look(&mut session).await?;
            let newest = records::generation(&seen.marker.records);
            if let Some(newest) = newest.filter(|newest| *newest > generation) {
                let what = format!("{generation} is older than {newest} in the zone");
                return Err(Problem::new(what, Outcome::Superseded));
            }
            let (changes, ttl) = (self.changes(&seen, weights, generation), self.ttl());
            let is_done = changes.iter().all(|(set, records)| set.says(records, ttl));
            if is_done || zone::replace(&mut session, &self.zone, &changes, ttl).await? {
                let seen = self.look(&mut session).await.map_err(|problem| {
                    let what = format!("set, not read back: {}", problem.what);
                    Problem::new(what, Outcome::Unknown)
                })?;
                return Ok(self.reading(&seen));
            }
            // Somebody was here in between.
        }
        Err(Problem::new("others change it again and again", Outcome::Refused))
    }

    /// The weights of both slots, in steps that the records can show.
    fn weights(&self, split: &Split) -> Result<[Weight; 2], LoadBalancerError> {
        let wrong = |what: String| self.failure(what, Outcome::Misconfigured);
        let weights = self.pair.weights(split).map_err(|error| wrong(error.to_string()))?;
        let steps = self.capabilities().steps;
        if steps.show(weights[0]) {
            return Ok(weights);
        }
        let [one, other] = weights;
        Err(wrong(format!("{one} and {other} do not fit addresses: {}", steps.says())))
    }
}

fn kind_of(record: &Data) -> Rtype {
    domain::base::rdata::RecordData::rtype(record)
}

#[async_trait]
impl LoadBalancer for Rfc2136Balancer {
    fn describe(&self) -> String {
        self.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        let looked = async {
            let mut session = self.session().await?;
            self.look(&mut session).await
        };
        let looked = tokio::time::timeout(CALL_MAX, looked).await;
        let seen = looked
            .map_err(|_| self.failure("no answer in time", Outcome::NotSent))?
            .map_err(|problem| self.failure(problem.what, problem.outcome))?;
        Ok(self.reading(&seen))
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let weights = self.weights(split)?;
        let admitted = self.fence.admit(generation);
        admitted.map_err(|what| self.failure(what, Outcome::Superseded))?;
        let changed = tokio::time::timeout(CALL_MAX, self.change(weights, generation)).await;
        changed
            .map_err(|_| self.failure("no answer in time", Outcome::Unknown))?
            .map_err(|problem| self.failure(problem.what, problem.outcome))
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let weights = self.weights(split)?;
        let Rfc2136 { server, zone, name, key, .. } = &self.settings;
        let (host, port) = server.rsplit_once(':').unwrap_or((server, "53"));
        let host = host.trim_matches(['[', ']']);
        let (ttl, marker) = (self.ttl(), format!("{MARKER}.{name}"));
        let mut lines = vec![format!("server {host} {port}"), format!("zone {zone}.")];
        for kind in self.behind.types() {
            lines.push(format!("update delete {name}. {kind}"));
        }
        for record in self.behind.write(weights) {
            let kind = kind_of(&record);
            lines.push(format!("update add {name}. {ttl} {kind} {}", in_zone_file(&record)));
        }
        lines.push(format!("update delete {marker}. TXT"));
        lines.push(format!("update add {marker}. {ttl} TXT \"generation={}\"", generation.0));
        lines.push("send".to_owned());
        let lines = lines.iter().map(|line| format!("'{line}'")).collect::<Vec<_>>().join(" ");
        let secret = match &key.secret {
            Secret::Env(name) => format!("${name}"),
            Secret::File(path) => format!("$(cat '{}')", path.display()),
        };
        Ok(vec![format!(
            "printf '%s\\n' {lines} | nsupdate -y \"hmac-sha256:{}:{secret}\"",
            key.name
        )])
    }
}

/// As a person writes it; names end with a dot.
fn in_zone_file(record: &Data) -> String {
    match record {
        Data::Srv(it) => {
            format!("{} {} {} {}.", it.priority(), it.weight(), it.port(), it.target())
        }
        other => other.to_string(),
    }
}
