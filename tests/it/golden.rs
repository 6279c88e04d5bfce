//! Every stored format as it was once written: later versions read it, and write the same for as long as they write it.
//!
//! `TIDEGATE_GOLDEN=write` writes the journals anew from `facts.jsonl`; that is for new formats only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate::engine::event::{Cause, Drift, Event, Fact};
use tidegate::ports::Journal;
use tidegate::store::{Error, Store};
use tidegate::units::{Seq, ServiceName};

use crate::binary_xds::process::call;
use crate::sample::{adopted, checkpoint, fact, polled, started};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store")
}

fn facts() -> Vec<Fact> {
    let text = fs::read_to_string(data().join("facts.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What format 1 can say.
fn is_old(fact: &&Fact) -> bool {
    !matches!(
        fact.event,
        Event::Quarantined { .. }
            | Event::Released { .. }
            | Event::HookStarted { .. }
            | Event::HookEnded { .. }
            | Event::Queued(_)
            | Event::Unqueued { .. }
            | Event::RollbackAsked { .. }
            | Event::Approved { .. }
            | Event::ApprovalsDropped { .. }
            | Event::ApprovalTimedOut { .. }
            | Event::RollbackWithdrawn { .. }
            | Event::RollbackOverdue { .. }
            | Event::GlassBroken { .. }
            | Event::Reviewed { .. }
            | Event::Frozen { .. }
            | Event::Thawed { .. }
    )
}

/// The names that a value of this kind may have, as reading a wrong one says.
fn names<T: DeserializeOwned>() -> BTreeSet<String> {
    let error = serde_json::from_str::<T>("\"nonsense\"").err().unwrap().to_string();
    let expected = error.split("expected one of").nth(1).unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn name(value: &Value) -> String {
    let key = |value: &Value| value.as_object().and_then(|it| it.keys().next().cloned());
    value.as_str().map(str::to_owned).or_else(|| key(value)).unwrap()
}

#[test]
fn every_kind_of_fact_is_read_as_it_was_written_and_written_the_same() {
    let text = fs::read_to_string(data().join("facts.jsonl")).unwrap();
    let (mut events, mut causes, mut drifts) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (number, line) in text.lines().enumerate() {
        let kept: Value = serde_json::from_str(line).unwrap();
        let fact: Fact = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_value(&fact).unwrap(), kept, "line {}", number + 1);
        events.insert(name(&kept["event"]));
        let inner = |pointer: &str| kept.pointer(pointer).map(name);
        causes.extend(inner("/event/rollback_started/cause"));
        drifts.extend(inner("/event/drift_found/kind"));
    }
    assert_eq!(events, names::<Event>());
    assert_eq!(causes, names::<Cause>());
    assert!(drifts.is_subset(&names::<Drift>()) && !drifts.is_empty());
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A state directory of a format, written by this version.
fn written(format: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("format"), format!("{format}\n")).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut seq, service) = (Seq(0), "api-gateway".parse::<ServiceName>().unwrap());
    for fact in facts().iter().filter(|fact| format > 1 || is_old(fact)) {
        seq = run(store.append(&service, seq, std::slice::from_ref(fact), None)).unwrap();
    }
    let web: ServiceName = "web".parse().unwrap();
    let begin = [fact(1, &web, None, adopted()), fact(2, &web, Some(1), started(&web, 1))];
    let mut seq = run(store.append(&web, Seq(0), &begin, None)).unwrap();
    for poll in 0..3 {
        let kept = checkpoint(&web, 1, 20);
        let next = fact(10 + poll, &web, Some(1), polled(poll));
        seq = run(store.append(&web, seq, &[next], Some(&kept))).unwrap();
    }
    if format > 1 {
        run(store.compact()).unwrap();
        run(store.append(&web, seq, &[fact(20, &web, Some(1), polled(9))], None)).unwrap();
    }
    drop(store);
    folder
}

fn journal(state: &Path) -> (String, Vec<u8>) {
    let mut files: Vec<_> =
        fs::read_dir(state.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let path = files.remove(0);
    (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
}

/// A copy of what once was written.
fn fixture(format: u32) -> tempfile::TempDir {
    let (folder, from) = (tempfile::tempdir().unwrap(), data().join(format!("format-{format}")));
    fs::create_dir(folder.path().join("journal")).unwrap();
    let (name, bytes) = journal(&from);
    fs::write(folder.path().join("journal").join(name), bytes).unwrap();
    if from.join("format").exists() {
        fs::copy(from.join("format"), folder.path().join("format")).unwrap();
    }
    folder
}

#[test]
fn each_format_is_written_byte_for_byte_as_it_was() {
    for format in [1, 2] {
        let folder = written(format);
        let (name, bytes) = journal(folder.path());
        let to = data().join(format!("format-{format}"));
        if std::env::var("TIDEGATE_GOLDEN").as_deref() == Ok("write") {
            fs::create_dir_all(to.join("journal")).unwrap();
            fs::write(to.join("journal").join(&name), &bytes).unwrap();
        }
        let (kept_name, kept) = journal(&to);
        assert_eq!(name, kept_name);
        let differs = bytes.iter().zip(&kept).position(|(one, other)| one != other);
        assert_eq!((differs, bytes.len()), (None, kept.len()), "format {format}");
    }
}

#[test]
fn each_format_is_read_in_every_fact() {
    for format in [1, 2] {
        let folder = fixture(format);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
        let service = "api-gateway".parse().unwrap();
        let history = run(store.history(&service, None, usize::MAX)).unwrap();
        let read: Vec<Fact> = history.into_iter().map(|(_, fact)| fact).collect();
        let all = facts();
        let expected: Vec<_> =
            all.iter().filter(|fact| format > 1 || is_old(fact)).cloned().collect();
        assert_eq!(read, expected, "format {format}");
    }
}

#[test]
fn an_old_format_stays_until_it_is_upgraded_after_a_backup() {
    let folder = fixture(1);
    let (_, before) = journal(folder.path());
    let state = folder.path().to_str().unwrap().to_owned();
    let store = Store::open_compacting(folder.path(), 1).unwrap();
    let web: ServiceName = "web".parse().unwrap();
    let (_, seq) = run(store.service(&web)).unwrap().unwrap();
    run(store.append(&web, seq, &[fact(30, &web, Some(1), polled(7))], None)).unwrap();
    drop(store);
    // The version before reads what was appended: it begins as it did, and no record has another version.
    let (name, bytes) = journal(folder.path());
    assert_eq!((name.as_str(), &bytes[..before.len()]), ("00000001.log", &before[..]));
    assert!(!String::from_utf8_lossy(&bytes).contains("\"v\":2"));
    assert!(!folder.path().join("format").exists());
    let refused = call(folder.path(), &["store", "compact", "--state", &state]).expect(1);
    assert!(refused.errors.contains("store upgrade"), "{refused:?}");

    let upgraded = call(folder.path(), &["store", "upgrade", "--state", &state, "-o", "json"]);
    let upgraded = upgraded.expect(0).json();
    assert_eq!((&upgraded["from"], &upgraded["to"]), (&1.into(), &2.into()));
    let backup = upgraded["backup"].as_str().unwrap();
    assert_eq!(journal(Path::new(backup)).1, bytes);
    call(folder.path(), &["restore", backup, "--verify"]).expect(0);
    call(folder.path(), &["store", "compact", "--state", &state]).expect(0);
    call(folder.path(), &["store", "verify", "--state", &state]).expect(0);
    let again = call(folder.path(), &["store", "upgrade", "--state", &state]).expect(0);
    assert!(again.out.contains("it has format 2 already"), "{again:?}");
}

#[test]
fn row_20_a_newer_format_is_refused_with_both_versions_and_nothing_is_touched() {
    let folder = fixture(2);
    fs::write(folder.path().join("format"), "3\n").unwrap();
    let before = journal(folder.path());
    let error = Store::open(folder.path()).err().unwrap();
    assert!(matches!(error, Error::Format { found: 3, known: 2 }), "{error}");
    assert_eq!(journal(folder.path()), before);
    assert!(!folder.path().join("state").exists());
}
