//! Holding a ledger against itself, offline: chain, checkpoints, and every verdict against its numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Serialize;
use serde_json::Value;

use super::ledger::{self, Error, FIRST, Line, at};
use crate::engine::judge::recheck::recheck;
use crate::engine::verdict::Judgement;
use crate::spec::plan::Plan;
use crate::units::RegionName;

/// What was found in one ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which.
    pub region: RegionName,
    /// Records that are right, up to the first one that is not.
    pub records: u64,
    /// Checkpoints with a right signature.
    pub checkpoints: u64,
    /// Verdicts that were computed again from their numbers.
    pub verdicts: u64,
    /// What is wrong first; none when all is well.
    pub wrong: Option<Wrong>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// At which record.
    pub seq: u64,
    /// What.
    pub what: String,
}

/// The ledgers of a state directory.
///
/// `key`: the public key in hex that the checkpoints have to be signed with; without one, each has to be signed with the
/// key of the first.
///
/// # Errors
/// A file cannot be read.
pub fn verify(state: &Path, key: Option<&str>) -> Result<Vec<Report>, Error> {
    let folder = state.join("audit");
    let regions = ledger::regions(&folder)?;
    regions.iter().map(|region| one(&folder, region, key)).collect()
}

/// At most `limit` records of a region's ledger after `after`, oldest first.
///
/// # Errors
/// It cannot be read.
pub fn export(
    state: &Path,
    region: &RegionName,
    mut each: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<(), Error> {
    let folder = state.join("audit");
    let path = folder.join(format!("{region}.jsonl"));
    for line in ledger::lines(&folder, region)? {
        each(&line.map_err(at(&path))?).map_err(at(&path))?;
    }
    Ok(())
}

fn one(folder: &Path, region: &RegionName, key: Option<&str>) -> Result<Report, Error> {
    let path = folder.join(format!("{region}.jsonl"));
    let mut reader = Reader {
        region: region.clone(),
        key: key.map(str::to_owned),
        head: FIRST.to_owned(),
        plans: BTreeMap::new(),
        report: Report {
            region: region.clone(),
            records: 0,
            checkpoints: 0,
            verdicts: 0,
            wrong: None,
        },
    };
    for line in ledger::lines(folder, region)? {
        let seq = reader.report.records + 1;
        let what = match line {
            Ok(line) => reader.take(&line).err(),
            Err(error) => Some(error.to_string()),
        };
        if let Some(what) = what {
            reader.report.wrong = Some(Wrong { seq, what });
            return Ok(reader.report);
        }
        reader.report.records = seq;
    }
    let head = path.with_extension("head");
    match fs::read_to_string(&head) {
        Ok(text) => reader.ahead(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(&head)(error)),
    }
    Ok(reader.report)
}

struct Reader {
    region: RegionName,
    key: Option<String>,
    head: String,
    plans: BTreeMap<String, Plan>,
    report: Report,
}

impl Reader {
    fn take(&mut self, text: &str) -> Result<(), String> {
        let Line { value, hash, own } = ledger::parse(text).ok_or("it is not a record")?;
        if hash != own {
            return Err("it was changed: its hash is another one".to_owned());
        }
        if value["prev"] != self.head.as_str() {
            return Err("it does not follow the record before it".to_owned());
        }
        if value["seq"] != self.report.records + 1 {
            return Err(format!("its number is {}", value["seq"]));
        }
        if value["kind"] == "checkpoint" {
            self.signature(&value, self.report.records, &self.head.clone())?;
            self.report.checkpoints += 1;
        }
        self.head = hash;
        self.verdicts(&value)
    }

    fn signature(&mut self, value: &Value, upto: u64, head: &str) -> Result<(), String> {
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let named = field("key");
        let known = self.key.get_or_insert_with(|| named.clone());
        if named != *known {
            return Err("a checkpoint is signed with another key".to_owned());
        }
        if value["upto"] != upto || field("head") != head {
            return Err("a checkpoint speaks of other records".to_owned());
        }
        let signature = BASE64_STANDARD.decode(field("signature")).unwrap_or_default();
        let key = UnparsedPublicKey::new(&ED25519, bytes(&named));
        let signed = ledger::signed(&self.region, upto, head);
        key.verify(signed.as_bytes(), &signature)
            .map_err(|_| "the signature of a checkpoint is wrong".to_owned())
    }

    fn verdicts(&mut self, value: &Value) -> Result<(), String> {
        let rollout = value["rollout"].as_str().unwrap_or_default();
        if let Some(plan) = value.pointer("/event/started/plan") {
            let plan = serde_json::from_value(plan.clone())
                .map_err(|error| format!("its plan cannot be read: {error}"))?;
            self.plans.insert(rollout.to_owned(), plan);
        }
        let event = value["event"].as_object().and_then(|event| event.iter().next());
        let Some((name, event)) = event else { return Ok(()) };
        let judgement = match name.as_str() {
            "judged" => event,
            "stage_passed" | "stage_undecided" | "rollback_started" => &event["judgement"],
            _ => return Ok(()),
        };
        let Some(plan) = self.plans.get(rollout).filter(|_| !judgement.is_null()) else {
            return Ok(());
        };
        let judgement: Judgement = serde_json::from_value(judgement.clone())
            .map_err(|error| format!("its verdict cannot be read: {error}"))?;
        self.report.verdicts += judgement.verdicts.len() as u64;
        match recheck(plan, &judgement).first() {
            None => Ok(()),
            Some(what) => Err(format!("a verdict is not what its numbers say: {what}")),
        }
    }

    /// The newest checkpoint, kept beside the ledger, must not be ahead of it.
    fn ahead(&mut self, text: &str) {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let upto = value["upto"].as_u64().unwrap_or_default();
        if upto > self.report.records {
            let what =
                format!("the ledger ends here, a signed checkpoint speaks of {upto} records");
            self.report.wrong = Some(Wrong { seq: self.report.records, what });
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |place: usize| u8::from_str_radix(hex.get(place..place + 2)?, 16).ok();
    (0..hex.len()).step_by(2).filter_map(digit).collect()
}
