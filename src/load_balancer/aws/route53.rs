//! Amazon Route 53: the weights of two record sets of one name, changed together with a marker.
//!
//! ```text
//! read: ListResourceRecordSets (what the API holds), and GetChange while a change of ours is on its way
//! set:  one ChangeBatch, all or nothing: DELETE the marker exactly as it was read, CREATE the next one, UPSERT both sets
//! ```
//!
//! The marker is a TXT record beside the name: `_a._tidegate.www.example.org "generation=7 change=51c0…"`. AWS refuses to
//! delete a record whose value is not the one given, and to create one that is there, so a batch over a marker that
//! somebody else has replaced changes nothing. Each value is another one, so that the same generation written twice is seen.
//!
//! What is confirmed is what AWS's name servers answer. Resolvers keep an older answer for the records' TTL: for that long,
//! and for all who ignore it, a weight has not moved, forward or back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_route53::Client;
use aws_sdk_route53::error::ProvideErrorMetadata;
use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, ChangeInfo, ChangeStatus, ResourceRecord, ResourceRecordSet,
    RrType,
};
use tokio::sync::OnceCell;

use super::{Session, twice};
use crate::load_balancer::fence::Fence;
use crate::load_balancer::{Pair, Unusable};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::{RecordKind, Route53};
use crate::units::Generation;

/// Records of one answer: the two, the marker, and whatever stands between them.
const PAGE: i32 = 100;
/// How often and how long a change is waited for; it takes up to a minute, and `read` goes on asking.
const ASK_EVERY: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Seconds that resolvers may keep the marker; nobody needs to look it up.
const MARKER_TTL_S: i64 = 60;

/// Two weighted record sets.
pub struct Route53Balancer {
    session: Session,
    settings: Route53,
    pair: Pair,
    fence: Fence,
    client: OnceCell<Client>,
    /// The change of ours that not all of AWS's servers have, as far as we know.
    under_way: Mutex<Option<String>>,
}

/// What stands at AWS.
struct Found {
    /// In the order of the slots.
    sets: [ResourceRecordSet; 2],
    /// In the order of the slots.
    weights: [u32; 2],
    marker: Option<ResourceRecordSet>,
}

impl Found {
    fn generation(&self) -> Option<Generation> {
        let record = self.marker.as_ref()?.resource_records().first()?;
        let mut words = record.value().trim_matches('"').split(' ');
        words.find_map(|word| word.strip_prefix("generation=")?.parse().ok()).map(Generation)
    }
}

impl Route53Balancer {
    /// For these settings; nothing is asked yet.
    pub fn new(label: String, settings: &Route53) -> Result<Self, Unusable> {
        Ok(Self {
            session: Session::new(label, &settings.access)?,
            pair: Pair::new(&settings.set_identifiers).map_err(Unusable::new)?,
            settings: settings.clone(),
            fence: Fence::default(),
            client: OnceCell::new(),
            under_way: Mutex::new(None),
        })
    }

    async fn client(&self) -> &Client {
        let made = || async { Client::new(self.session.config().await) };
        self.client.get_or_init(made).await
    }

    fn wrong(&self, what: impl std::fmt::Display) -> LoadBalancerError {
        self.session.failure(what, Outcome::Misconfigured)
    }

    /// Both weights, in the order of the slots; never both 0, which would mean the same for both.
    fn weights(&self, split: &Split) -> Result<[u32; 2], LoadBalancerError> {
        let [one, other] = self.pair.weights(split).map_err(|error| self.wrong(error))?;
        let steps = self.capabilities().steps;
        steps.pair(one).ok_or_else(|| {
            self.wrong(format!("{one} and {other} do not fit Route 53's weights: {}", steps.says()))
        })
    }

    fn kind(&self) -> RrType {
        match self.settings.record {
            RecordKind::A => RrType::A,
            RecordKind::Aaaa => RrType::Aaaa,
            RecordKind::Cname => RrType::Cname,
        }
    }

    /// As AWS writes names.
    fn name(&self) -> String {
        format!("{}.", self.settings.name)
    }

    fn marker_name(&self) -> String {
        let kind = self.settings.record.as_str().to_ascii_lowercase();
        format!("_{kind}._tidegate.{}.", self.settings.name)
    }

    /// Records in AWS's order from a name and type on, and whether there are more.
    async fn list(
        &self,
        name: String,
        kind: RrType,
        items: i32,
    ) -> Result<(Vec<ResourceRecordSet>, bool), LoadBalancerError> {
        let call = self.client().await.list_resource_record_sets();
        let call = call.hosted_zone_id(&self.settings.zone).max_items(items);
        let call = call.start_record_name(name).start_record_type(kind);
        let answer = self.session.read(call.send().await)?;
        Ok((answer.resource_record_sets, answer.is_truncated))
    }

    async fn found(&self) -> Result<Found, LoadBalancerError> {
        let (page, has_more) = self.list(self.name(), self.kind(), PAGE).await?;
        let is_marker =
            |set: &ResourceRecordSet| set.name == self.marker_name() && set.r#type == RrType::Txt;
        // Names below a name follow it, so it is mostly in the same answer.
        let marker = match page.iter().find(|set| is_marker(set)) {
            Some(marker) => Some(marker.clone()),
            None if has_more => {
                let (rest, _) = self.list(self.marker_name(), RrType::Txt, 1).await?;
                rest.into_iter().find(is_marker)
            }
            None => None,
        };
        let own = |set: &ResourceRecordSet| set.name == self.name() && set.r#type == self.kind();
        let sets: Vec<_> = page.into_iter().filter(own).collect();
        let (sets, weights) =
            pair_of(sets, self.pair.names()).map_err(|error| self.wrong(error))?;
        Ok(Found { sets, weights, marker })
    }

    fn admit(&self, found: &Found, generation: Generation) -> Result<(), LoadBalancerError> {
        match found.generation() {
            Some(newest) if newest > generation => {
                let what = format!("{generation} is older than {newest}, which stands beside it");
                Err(self.session.failure(what, Outcome::Superseded))
            }
            _ => Ok(()),
        }
    }

    /// All in one batch, or nothing.
    async fn write(
        &self,
        found: &Found,
        wanted: [u32; 2],
        generation: Generation,
    ) -> Result<ChangeInfo, LoadBalancerError> {
        let unfit = |error: aws_sdk_route53::error::BuildError| self.wrong(error);
        let change = |action: ChangeAction, set: ResourceRecordSet| {
            Change::builder().action(action).resource_record_set(set).build().map_err(unfit)
        };
        let mut changes = Vec::new();
        if let Some(marker) = &found.marker {
            changes.push(change(ChangeAction::Delete, marker.clone())?);
        }
        changes.push(change(ChangeAction::Create, self.marker(generation)?)?);
        for set in weighted(&found.sets, wanted) {
            changes.push(change(ChangeAction::Upsert, set)?);
        }
        let batch = ChangeBatch::builder().set_changes(Some(changes)).comment("tidegate").build();
        let call = self.client().await.change_resource_record_sets();
        let call = call.hosted_zone_id(&self.settings.zone).change_batch(batch.map_err(unfit)?);
        let answer = match call.send().await {
            Err(error) if error.code() == Some("InvalidChangeBatch") => {
                let refusal = self.session.failed(&error, Outcome::Unknown);
                return Err(self.refused(refusal, found, generation).await);
            }
            answer => self.session.written(answer)?,
        };
        answer.change_info.ok_or_else(|| {
            self.session.failure("it does not say what became of the change", Outcome::Unknown)
        })
    }

    /// Nothing was changed: because somebody else was in between, or because AWS does not want it.
    async fn refused(
        &self,
        refusal: LoadBalancerError,
        before: &Found,
        generation: Generation,
    ) -> LoadBalancerError {
        match self.found().await {
            Ok(now) if now.marker != before.marker => match self.admit(&now, generation) {
                Err(superseded) => superseded,
                Ok(()) => self.session.failure("another writer was in between", Outcome::NotSent),
            },
            _ => refusal,
        }
    }

    fn marker(&self, generation: Generation) -> Result<ResourceRecordSet, LoadBalancerError> {
        let random = ring::rand::generate::<[u8; 8]>(&ring::rand::SystemRandom::new());
        let random = random.map_err(|_| self.session.failure("no randomness", Outcome::NotSent))?;
        let value = format!(
            "\"generation={} change={:016x}\"",
            generation.0,
            u64::from_be_bytes(random.expose())
        );
        let record = ResourceRecord::builder().value(value).build();
        let set = ResourceRecordSet::builder()
            .name(self.marker_name())
            .r#type(RrType::Txt)
            .ttl(MARKER_TTL_S)
            .resource_records(record.map_err(|error| self.wrong(error))?);
        set.build().map_err(|error| self.wrong(error))
    }

    /// Asks until all of AWS's servers have the change, for a while.
    async fn wait(&self) -> Result<(), LoadBalancerError> {
        let asked = async {
            while self.is_under_way().await? {
                tokio::time::sleep(ASK_EVERY).await;
            }
            Ok(())
        };
        tokio::time::timeout(WAIT_MAX, asked).await.unwrap_or(Ok(()))
    }

    async fn is_under_way(&self) -> Result<bool, LoadBalancerError> {
        let known = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(id) = known else { return Ok(false) };
        let answer = self.session.read(self.client().await.get_change().id(&id).send().await)?;
        let done = answer.change_info.is_some_and(|info| info.status == ChangeStatus::Insync);
        let mut known = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if done && known.as_ref() == Some(&id) {
            *known = None;
        }
        Ok(!done)
    }

    fn reading(&self, found: &Found, is_under_way: bool) -> Reading {
        // With no weight at all, Route 53 answers with both alike.
        let [one, other] = if found.weights == [0, 0] { [1, 1] } else { found.weights };
        let split = self.pair.split(u64::from(one), u64::from(one) + u64::from(other));
        Reading {
            split: split.unwrap_or_default(),
            settled: !is_under_way,
            generation: found.generation(),
            instances: Vec::new(),
            backends: None,
            restart_marker: None,
            note: is_under_way.then(|| "not all of AWS's name servers have it yet".to_owned()),
        }
    }
}

/// Both sets and their weights, in the order of the identifiers; an error unless there are these two and no other.
fn pair_of(
    sets: Vec<ResourceRecordSet>,
    identifiers: &[String; 2],
) -> Result<([ResourceRecordSet; 2], [u32; 2]), String> {
    let of = |id: &String| sets.iter().find(|set| set.set_identifier() == Some(id)).cloned();
    let found =
        |id: &String| of(id).ok_or_else(|| format!("there is no record set `{id}` of this name"));
    let both = [found(&identifiers[0])?, found(&identifiers[1])?];
    if sets.len() > both.len() {
        return Err("the name has other record sets beside these two".to_owned());
    }
    let weight = |set: &ResourceRecordSet| {
        let weight = set.weight.and_then(|weight| u32::try_from(weight).ok());
        weight.ok_or_else(|| "its record sets are not weighted".to_owned())
    };
    let weights = [weight(&both[0])?, weight(&both[1])?];
    Ok((both, weights))
}

/// The same sets with other weights.
fn weighted(sets: &[ResourceRecordSet; 2], wanted: [u32; 2]) -> [ResourceRecordSet; 2] {
    let mut sets = sets.clone();
    for (set, weight) in sets.iter_mut().zip(wanted) {
        set.weight = Some(i64::from(weight));
    }
    sets
}

/// A record set as the command line of AWS takes it.
fn command_of(set: &ResourceRecordSet) -> serde_json::Value {
    let mut written = serde_json::json!({
        "Name": set.name, "Type": set.r#type.as_str(), "SetIdentifier": set.set_identifier, "Weight": set.weight,
    });
    if let Some(seconds) = set.ttl {
        written["TTL"] = seconds.into();
    }
    if let Some(records) = &set.resource_records {
        let value = |record: &ResourceRecord| serde_json::json!({"Value": record.value()});
        written["ResourceRecords"] = records.iter().map(value).collect();
    }
    if let Some(alias) = &set.alias_target {
        written["AliasTarget"] = serde_json::json!({
            "HostedZoneId": alias.hosted_zone_id, "DNSName": alias.dns_name,
            "EvaluateTargetHealth": alias.evaluate_target_health,
        });
    }
    if let Some(id) = &set.health_check_id {
        written["HealthCheckId"] = id.as_str().into();
    }
    serde_json::json!({"Action": "UPSERT", "ResourceRecordSet": written})
}

#[async_trait]
impl LoadBalancer for Route53Balancer {
    fn describe(&self) -> String {
        let (name, kind) = (&self.settings.name, self.settings.record.as_str());
        format!("{} (route53 {name} {kind})", self.session.label)
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        let (found, is_under_way) = tokio::try_join!(self.found(), self.is_under_way())?;
        Ok(self.reading(&found, is_under_way))
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let wanted = self.weights(split)?;
        let admitted = self.fence.admit(generation);
        admitted.map_err(|what| self.session.failure(what, Outcome::Superseded))?;
        let before = self.found().await?;
        self.admit(&before, generation)?;
        if before.weights != wanted || before.generation() != Some(generation) {
            let info = self.write(&before, wanted, generation).await?;
            let waits = info.status != ChangeStatus::Insync;
            *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) =
                waits.then_some(info.id);
        }
        let read = async {
            self.wait().await?;
            twice(|| self.read()).await
        };
        let reading = read.await.map_err(|error| {
            let what = format!("set, not read back: {}", error.what);
            self.session.failure(what, Outcome::Unknown)
        })?;
        match reading.generation {
            Some(newer) if newer > generation => {
                let what = format!("{generation} is older than {newer}, which came after it");
                Err(self.session.failure(what, Outcome::Superseded))
            }
            _ => Ok(reading),
        }
    }

    async fn by_hand(
        &self,
        split: &Split,
        _generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let wanted = self.weights(split)?;
        // The records' own values are part of the command.
        let sets = weighted(&self.found().await?.sets, wanted);
        let batch = serde_json::json!({"Changes": sets.iter().map(command_of).collect::<Vec<_>>()});
        let batch = batch.to_string();
        if batch.contains('\'') {
            return Ok(Vec::new());
        }
        let access = &self.settings.access;
        let endpoint = access.endpoint.as_ref().map(|url| format!(" --endpoint-url '{url}'"));
        Ok(vec![format!(
            "aws route53 --region {}{} change-resource-record-sets --hosted-zone-id {} --change-batch '{batch}'",
            access.region,
            endpoint.unwrap_or_default(),
            self.settings.zone,
        )])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(id: &str, weight: Option<i64>) -> ResourceRecordSet {
        let record = ResourceRecord::builder().value("192.0.2.1").build().unwrap();
        let set = ResourceRecordSet::builder().name("www.example.org.").r#type(RrType::A).ttl(10);
        let set = set.set_identifier(id).set_weight(weight).resource_records(record);
        set.health_check_id("h").build().unwrap()
    }

    fn ids() -> [String; 2] {
        ["blue".to_owned(), "green".to_owned()]
    }

    #[test]
    fn only_the_weights_of_these_two_change() {
        let (sets, weights) =
            pair_of(vec![set("green", Some(5)), set("blue", Some(250))], &ids()).unwrap();
        assert_eq!(weights, [250, 5]);
        let changed = weighted(&sets, [190, 10]);
        assert_eq!((changed[0].weight, changed[1].weight), (Some(190), Some(10)));
        let back = weighted(&changed, weights);
        assert_eq!(back, sets);
        let command = command_of(&changed[0]).to_string();
        for part in [r#""Weight":190"#, r#""TTL":10"#, "192.0.2.1", r#""HealthCheckId":"h""#] {
            assert!(command.contains(part), "{command}");
        }
    }

    #[test]
    fn what_is_not_a_pair_of_weighted_sets_is_refused() {
        let all = [
            (vec![set("blue", Some(1))], "no record set `green`"),
            (
                vec![set("blue", Some(1)), set("green", Some(1)), set("red", Some(0))],
                "other record",
            ),
            (vec![set("blue", Some(1)), set("green", None)], "not weighted"),
        ];
        for (sets, word) in all {
            let said = pair_of(sets, &ids()).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }
}
