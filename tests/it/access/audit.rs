//! The ledgers: what stands in them, and what is found when somebody changed them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tidegate::access::audit::verify::{Report, verify};
use tidegate::access::audit::{Audit, Audited, Auditor};
use tidegate::engine::event::Fact;
use tidegate::ports::Journal;
use tidegate::store::Store;
use tidegate::units::{RegionName, Seq, ServiceName, Timestamp};

const SERVICE: &str = "api-gateway";

fn facts() -> Vec<Fact> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/store/facts.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn open(state: &Path) -> (Audited, Arc<Audit>) {
    let store: Arc<dyn Journal> = Arc::new(Store::open(state).unwrap());
    let audit = Arc::new(Audit::open(state).unwrap());
    (Audited::new(store, Arc::clone(&audit)).await.unwrap(), audit)
}

/// A state directory with every fact there is, audited.
async fn audited() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (journal, audit) = open(folder.path()).await;
    let (service, mut seq): (ServiceName, _) = (SERVICE.parse().unwrap(), Seq(0));
    for fact in facts() {
        seq = journal.append(&service, seq, &[fact], None).await.unwrap();
    }
    audit.sign();
    folder
}

fn whole(reports: &[Report]) -> bool {
    !reports.is_empty() && reports.iter().all(|report| report.wrong.is_none())
}

fn ledger(state: &Path) -> std::path::PathBuf {
    state.join("audit/us_east_1.jsonl")
}

fn lines(state: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(ledger(state)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The first thing that is wrong in the ledger that is changed here.
fn wrong(state: &Path, lines: &[String], key: Option<&str>) -> (u64, String) {
    std::fs::write(ledger(state), lines.join("\n") + "\n").unwrap();
    let reports = verify(state, key).unwrap();
    let report = reports.iter().find(|it| it.region.as_str() == "us_east_1").unwrap();
    let wrong = report.wrong.clone().expect("something wrong");
    (wrong.seq, wrong.what)
}

/// The chain as somebody without the key would make it anew.
fn rechained(lines: &[String]) -> Vec<String> {
    let mut prev = "0".repeat(64);
    let mut all = Vec::new();
    for line in lines {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("hash");
        value["prev"] = prev.into();
        if value["kind"] == "checkpoint" {
            value["head"] = value["prev"].clone();
        }
        let body = value.to_string();
        let digest = Sha256::digest(body.as_bytes());
        prev = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        all.push(format!("{},\"hash\":\"{prev}\"}}", body.strip_suffix('}').unwrap()));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_33_a_ledger_that_somebody_changed_names_the_record() {
    let folder = audited().await;
    let state = folder.path();
    let reports = verify(state, None).unwrap();
    assert!(whole(&reports), "{reports:?}");
    let counted: Vec<_> =
        reports.iter().map(|it| (it.records, it.checkpoints, it.verdicts)).collect();
    assert!(
        counted.iter().all(|(records, checkpoints, verdicts)| {
            *records > 50 && *checkpoints >= 1 && *verdicts > 20
        }),
        "{counted:?}"
    );
    let good = lines(state);

    // One character of one record.
    let mut edited = good.clone();
    edited[41] = edited[41].replacen("\"before\"", "\"befor3\"", 1);
    let (seq, what) = wrong(state, &edited, None);
    assert_eq!((seq, what.as_str()), (42, "it was changed: its hash is another one"));
    // One taken out.
    let mut gap = good.clone();
    gap.remove(41);
    assert_eq!(
        wrong(state, &gap, None),
        (42, "it does not follow the record before it".to_owned())
    );
    // The end cut off behind the last checkpoint but one.
    let cut = &good[..good.len() - 3];
    let (seq, what) = wrong(state, cut, None);
    assert_eq!(seq, cut.len() as u64);
    assert!(what.contains("a signed checkpoint speaks of"), "{what}");
    // The whole chain made anew around a changed record: who has no key cannot sign it.
    let checkpoint = good.iter().position(|line| line.contains("\"kind\":\"checkpoint\"")).unwrap();
    let rebuilt = rechained(&edited);
    let (seq, what) = wrong(state, &rebuilt, None);
    assert_eq!(
        (seq, what.as_str()),
        (checkpoint as u64 + 1, "the signature of a checkpoint is wrong")
    );
    // Another key than the one that is known.
    let (_, what) = wrong(state, &good[..checkpoint + 1], Some(&"00".repeat(32)));
    assert_eq!(what, "a checkpoint is signed with another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_that_its_numbers_do_not_bear_out_is_named_although_the_chain_is_right() {
    let folder = audited().await;
    let state = folder.path();
    let good = lines(state);
    let passed = |line: &&String| line.contains("\"stage_passed\"") && line.contains("\"log_ok\"");
    let place = good.iter().position(|line| passed(&line)).expect("a stage that passed");
    let mut value: Value = serde_json::from_str(&good[place]).unwrap();
    let verdicts = value.pointer_mut("/event/stage_passed/judgement/verdicts").unwrap();
    let passes = verdicts.as_array_mut().unwrap().iter_mut();
    let verdict = passes
        .into_iter()
        .find(|it| it["outcome"] == "pass" && it["numbers"]["log_ok"].is_number());
    verdict.expect("a proof")["numbers"]["log_ok"] = serde_json::json!(0.5);
    let mut edited = good[..=place].to_vec();
    edited[place] = value.to_string();
    // No checkpoint in what is looked at: the chain itself is right again.
    let edited: Vec<_> =
        edited.into_iter().filter(|line| !line.contains("\"kind\":\"checkpoint\"")).collect();
    let mut numbered = Vec::new();
    for (line, seq) in edited.iter().zip(1..) {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value["seq"] = serde_json::json!(seq);
        numbered.push(value.to_string());
    }
    let (seq, what) = wrong(state, &rechained(&numbered), None);
    assert_eq!(seq, numbered.len() as u64);
    assert!(what.contains("not what its numbers say") && what.contains("0.5000"), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_is_behind_or_torn_catches_up_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let all = facts();
    let (service, mut seq): (ServiceName, _) = (SERVICE.parse().unwrap(), Seq(0));
    let (first, rest) = all.split_at(all.len() / 2);
    {
        let (journal, _audit) = open(state).await;
        for fact in first {
            seq = journal.append(&service, seq, std::slice::from_ref(fact), None).await.unwrap();
        }
    }
    {
        // As if the process had died between the journal and the ledger, in the middle of a line.
        let store = Store::open(state).unwrap();
        for fact in rest {
            seq = store.append(&service, seq, std::slice::from_ref(fact), None).await.unwrap();
        }
    }
    let text = std::fs::read(ledger(state)).unwrap();
    std::fs::write(ledger(state), &text[..text.len() - 7]).unwrap();
    let (journal, audit) = open(state).await;
    drop(journal);
    audit.sign();
    let reports = verify(state, None).unwrap();
    assert!(whole(&reports), "{reports:?}");
    // The same as one that was never behind, record by record.
    let other = audited().await;
    let streams = |state: &Path| -> Vec<Value> {
        let fact = |line: &String| {
            let value: Value = serde_json::from_str(line).unwrap();
            (value["kind"] == "fact").then(|| value["stream"].clone())
        };
        lines(state).iter().filter_map(fact).collect()
    };
    assert_eq!(streams(state), streams(other.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_kept_where_it_concerns_and_a_flood_of_them_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (_journal, audit) = open(folder.path()).await;
    let regions: Vec<RegionName> =
        ["eu_west_1", "us_east_1"].map(|name| name.parse().unwrap()).into();
    for number in 0..500 {
        audit.refused(&regions, "rob", "rob may not promote", Timestamp(number));
    }
    let kept = audit.read(&regions[0], 0, 10).unwrap();
    assert_eq!(
        (kept.len(), &kept[0]["kind"], &kept[0]["by"]),
        (1, &"refused".into(), &"rob".into())
    );
    assert_eq!(audit.read(&regions[1], 0, 10).unwrap().len(), 1);
    for number in 0..500 {
        audit.refused(&regions[..1], "rob", &format!("try {number}"), Timestamp(number));
    }
    let kept = audit.read(&regions[0], 0, 1_000).unwrap().len();
    assert!(kept <= 102, "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_restored_from_yesterday_is_said_and_what_comes_after_is_audited() {
    let (folder, old) = (audited().await, tempfile::tempdir().unwrap());
    let (service, all): (ServiceName, _) = (SERVICE.parse().unwrap(), facts());
    let mut seq = Seq(0);
    {
        let store = Store::open(old.path()).unwrap();
        for fact in &all[..all.len() / 2] {
            seq = store.append(&service, seq, std::slice::from_ref(fact), None).await.unwrap();
        }
    }
    std::fs::rename(folder.path().join("audit"), old.path().join("audit")).unwrap();
    let (journal, audit) = open(old.path()).await;
    let before = lines(old.path()).len();
    for fact in &all[all.len() / 2..] {
        seq = journal.append(&service, seq, std::slice::from_ref(fact), None).await.unwrap();
    }
    audit.sign();
    let after = lines(old.path());
    assert!(after[before - 1].contains("\"kind\":\"restored\""), "{}", after[before - 1]);
    assert!(after[before].contains("\"kind\":\"fact\""), "{}", after[before]);
    assert!(after.iter().skip(before).any(|line| line.contains("\"frozen\"")));
    assert!(whole(&verify(old.path(), None).unwrap()));
}
