//! The store against what happens to disks, processes and people's hands.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;
use tidegate::engine::event::Fact;
use tidegate::engine::rollout::Rollout;
use tidegate::engine::service::ServiceState;
use tidegate::ports::{Checkpoint, Journal, JournalError};
use tidegate::store::{Error, FrameError, Store};
use tidegate::units::{RolloutId, Seq, ServiceName};

use crate::sample::{adopted, checkpoint, fact, last_event, middle_event, polled, started};

const LOG: &str = "journal/00000001.log";

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn append(
    store: &Store,
    seq: Seq,
    facts: &[Fact],
    checkpoint: Option<&Checkpoint>,
) -> Result<Seq, JournalError> {
    let name = facts.first().map(|fact| &fact.service);
    let name = name.or(checkpoint.map(|checkpoint| &checkpoint.rollout.service)).unwrap();
    run(store.append(name, seq, facts, checkpoint))
}

/// A service with one rollout under way and `polls` more records.
fn filled(path: &Path, polls: u64) -> Vec<Fact> {
    let (store, name) = (Store::open(path).unwrap(), service("web"));
    let mut facts =
        vec![fact(1, &name, None, adopted()), fact(2, &name, Some(1), started(&name, 1))];
    let mut seq = append(&store, Seq(0), &facts, None).unwrap();
    for poll in 0..polls {
        let next = fact(10 + poll, &name, Some(1), polled(poll));
        seq = append(&store, seq, std::slice::from_ref(&next), Some(&checkpoint(&name, 1, 50)))
            .unwrap();
        facts.push(next);
    }
    facts
}

/// Every field of everything the store gives, against the fold of `facts`.
fn assert_holds(store: &Store, facts: &[Fact]) {
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    let mut streams: BTreeMap<ServiceName, Vec<Fact>> = BTreeMap::new();
    for fact in facts {
        streams.entry(fact.service.clone()).or_default().push(fact.clone());
    }
    let states: Vec<ServiceState> =
        streams.iter().map(|(name, facts)| assert_stream(store, name, facts)).collect();
    assert_eq!(run(store.services()).unwrap(), states);
    let open: Vec<RolloutId> = states.into_iter().filter_map(|state| state.open).collect();
    assert_eq!(run(store.open_rollouts()).unwrap(), open);
}

fn assert_stream(store: &Store, name: &ServiceName, facts: &[Fact]) -> ServiceState {
    let history = run(store.history(name, None, usize::MAX)).unwrap();
    assert!(history.is_sorted_by(|one, two| one.0 < two.0));
    assert_eq!(history.into_iter().map(|(_, fact)| fact).collect::<Vec<_>>(), facts);
    let mut rollouts: BTreeMap<RolloutId, Vec<&Fact>> = BTreeMap::new();
    for fact in facts {
        if let Some(id) = &fact.rollout {
            rollouts.entry(id.clone()).or_default().push(fact);
        }
    }
    let rollouts: BTreeMap<_, _> =
        rollouts.into_iter().map(|(id, facts)| (id, Rollout::fold(facts).unwrap())).collect();
    for (id, rollout) in &rollouts {
        assert_eq!(&run(store.rollout(id)).unwrap().unwrap().0, rollout);
    }
    let mut state = ServiceState::unknown(name.clone());
    for fact in facts {
        state.apply(fact, fact.rollout.as_ref().map(|id| &rollouts[id].version));
    }
    assert_eq!(run(store.service(name)).unwrap().unwrap().0, state);
    state
}

/// Rollouts of two services, one after the other, as appends.
fn appends() -> impl Strategy<Value = Vec<Vec<Fact>>> {
    let rollout =
        (any::<bool>(), prop::collection::vec(any::<u32>(), 0..12), any::<u32>(), 1usize..4);
    prop::collection::vec(rollout, 1..5).prop_map(|rollouts| {
        let (mut appends, mut numbers) = (Vec::new(), BTreeMap::<ServiceName, u64>::new());
        for (other, middle, last, size) in rollouts {
            let name = service(if other { "api-gateway" } else { "web" });
            let number = numbers.entry(name.clone()).or_default();
            *number += 1;
            let mut facts = Vec::new();
            let at = *number * 1_000;
            if *number == 1 {
                facts.push(fact(at, &name, None, adopted()));
            }
            facts.push(fact(at, &name, Some(*number), started(&name, *number)));
            let generation = |index: usize| *number * 100 + index as u64;
            for (index, choice) in middle.into_iter().enumerate() {
                let event = middle_event(choice, generation(index));
                facts.push(fact(at + index as u64, &name, Some(*number), event));
            }
            for event in last_event(last, generation(50)) {
                facts.push(fact(at + 500, &name, Some(*number), event));
            }
            appends.extend(facts.chunks(size).map(<[Fact]>::to_vec));
        }
        appends
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_is_the_fold_of_the_journal_in_every_field(appends in appends(), reopen_at in 0usize..20) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let mut seqs = BTreeMap::<ServiceName, Seq>::new();
        for (index, facts) in appends.iter().enumerate() {
            if index == reopen_at {
                drop(store);
                store = Store::open(directory.path()).unwrap();
            }
            let seq = seqs.entry(facts[0].service.clone()).or_default();
            *seq = append(&store, *seq, facts, None).unwrap();
        }
        let facts = appends.concat();
        assert_holds(&store, &facts);
        drop(store);
        fs::remove_dir_all(directory.path().join("state")).unwrap();
        assert_holds(&Store::open(directory.path()).unwrap(), &facts);
    }
}

#[test]
fn facts_and_checkpoint_come_together_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let (store, name) = (Store::open(directory.path()).unwrap(), service("web"));
    let id = RolloutId { service: name.clone(), number: 1 };
    let start = [fact(1, &name, None, adopted()), fact(2, &name, Some(1), started(&name, 1))];
    let mut seq = append(&store, Seq(0), &start, None).unwrap();
    for bytes in [10, 200_000, 20_000, 7] {
        let kept = checkpoint(&name, 1, bytes);
        let before = seq;
        seq = append(&store, seq, &[fact(3, &name, Some(1), polled(bytes as u64))], Some(&kept))
            .unwrap();
        let (rollout, found) = run(store.rollout(&id)).unwrap().unwrap();
        assert_eq!((rollout.clocks.bake.0, found), (bytes as u64, Some(kept)));
        // A refused append changes neither.
        let refused = append(
            &store,
            before,
            &[fact(4, &name, Some(1), polled(1))],
            Some(&checkpoint(&name, 1, 1)),
        );
        assert!(matches!(refused, Err(JournalError::Conflict { actual, .. }) if actual == seq));
        assert_eq!(run(store.rollout(&id)).unwrap().unwrap().0.clocks, rollout.clocks);
    }
    let alone = checkpoint(&name, 1, 42);
    assert!(append(&store, seq, &[], Some(&alone)).unwrap() > seq);
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(run(store.rollout(&id)).unwrap().unwrap().1, Some(alone));
    assert_eq!(run(store.history(&name, Some(&id), 2)).unwrap().len(), 2);
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}

#[test]
fn what_does_not_fit_the_stream_is_refused_and_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let facts = filled(directory.path(), 1);
    let (store, name, other) =
        (Store::open(directory.path()).unwrap(), service("web"), service("other"));
    let (_, seq) = run(store.service(&name)).unwrap().unwrap();
    let strangers = [
        fact(5, &name, Some(9), polled(1)),
        fact(5, &name, Some(1), started(&name, 1)),
        fact(5, &other, None, adopted()),
    ];
    for stranger in strangers {
        let result = run(store.append(&name, seq, std::slice::from_ref(&stranger), None));
        assert!(matches!(result, Err(JournalError::Failed(_))), "{stranger:?}: {result:?}");
    }
    let length = fs::metadata(directory.path().join(LOG)).unwrap().len();
    let huge = checkpoint(&name, 1, 17 * 1024 * 1024);
    assert!(matches!(append(&store, seq, &[], Some(&huge)), Err(JournalError::Failed(_))));
    assert_eq!(fs::metadata(directory.path().join(LOG)).unwrap().len(), length);
    assert_holds(&store, &facts);
}

#[test]
fn a_journal_whose_end_is_missing_behind_the_state_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 2);
    let log = directory.path().join(LOG);
    let short = fs::read(&log).unwrap();
    drop(filled_more(directory.path()));
    fs::write(&log, &short).unwrap();
    let error = Store::open(directory.path()).err().unwrap();
    assert!(matches!(error, Error::JournalBehind { journal: Seq(3), state: Seq(4) }), "{error}");
    // A torn last record that the state has seen is the same, and nothing is cut.
    fs::write(&log, &short[..short.len() - 1]).unwrap();
    let error = Store::open(directory.path()).err().unwrap();
    assert!(matches!(error, Error::JournalBehind { journal: Seq(2), state: Seq(4) }), "{error}");
    assert_eq!(fs::metadata(&log).unwrap().len(), short.len() as u64 - 1);
}

fn filled_more(path: &Path) -> Store {
    let (store, name) = (Store::open(path).unwrap(), service("web"));
    let (_, seq) = run(store.service(&name)).unwrap().unwrap();
    append(&store, seq, &[fact(99, &name, Some(1), polled(99))], None).unwrap();
    store
}

#[test]
fn a_state_of_another_journal_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(one.path(), 1);
    filled(two.path(), 0);
    drop(filled_more(two.path()));
    fs::copy(two.path().join(LOG), one.path().join(LOG)).unwrap();
    assert!(matches!(Store::open(one.path()), Err(Error::Diverged { seq: Seq(2) })));
}

#[test]
fn a_last_record_torn_at_any_byte_is_cut_and_nothing_else_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let facts = filled(directory.path(), 2);
    let log = directory.path().join(LOG);
    let whole = fs::read(&log).unwrap();
    let start = whole.windows(4).rposition(|bytes| bytes == [0xFF, b'T', b'G', 1]).unwrap();
    for end in (start..whole.len()).step_by(7).chain([whole.len() - 1]) {
        let torn = tempfile::tempdir().unwrap();
        fs::create_dir(torn.path().join("journal")).unwrap();
        fs::write(torn.path().join(LOG), &whole[..end]).unwrap();
        let store = Store::open(torn.path()).unwrap();
        assert_eq!(fs::metadata(torn.path().join(LOG)).unwrap().len(), start as u64);
        assert_holds(&store, &facts[..facts.len() - 1]);
    }
}

#[test]
fn a_flipped_bit_in_the_middle_is_refused_by_sequence_and_place() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 3);
    let log = directory.path().join(LOG);
    let mut bytes = fs::read(&log).unwrap();
    let starts: Vec<_> =
        (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&[0xFF, b'T', b'G', 1])).collect();
    bytes[starts[1] + 100] ^= 4;
    fs::write(&log, &bytes).unwrap();
    for _ in 0..2 {
        let error = Store::open(directory.path()).err().unwrap();
        let Error::Journal { source: FrameError::Damaged { seq, offset, .. }, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((*seq, *offset), (Seq(2), starts[1] as u64));
        assert!(error.chain().contains("record 2 at byte"), "{}", error.chain());
        assert_eq!(fs::read(&log).unwrap(), bytes);
    }
}

/// Whether the state was moved aside since the last call; forgets it again.
fn was_moved_aside(directory: &Path) -> bool {
    let aside = directory.join("state.broken-1");
    aside.exists() && fs::remove_dir_all(aside).is_ok()
}

#[test]
fn a_damaged_state_never_shows_and_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let facts = filled(directory.path(), 20);
    let database = directory.path().join("state/db");
    let length = fs::metadata(&database).unwrap().len();
    for part in 0..8 {
        // The first 64 KiB hold data whatever the size of the file. Where sled cuts what it cannot read, the rest is
        // replayed; where it fails or panics, the state is made anew.
        let at = if part < 6 { part * 9_000 } else { length * part / 8 };
        let mut file = fs::OpenOptions::new().write(true).open(&database).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[0xA5; 64]).unwrap();
        drop(file);
        assert_holds(&Store::open(directory.path()).unwrap(), &facts);
    }
}

#[test]
fn a_state_that_does_not_open_is_moved_aside_and_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let facts = filled(directory.path(), 3);
    fs::write(directory.path().join("state/conf"), [0xA5; 64]).unwrap();
    assert_holds(&Store::open(directory.path()).unwrap(), &facts);
    assert!(was_moved_aside(directory.path()));
    assert_holds(&Store::open(directory.path()).unwrap(), &facts);
    assert!(!was_moved_aside(directory.path()));
}

#[test]
fn a_state_that_lost_or_changed_anything_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let facts = filled(directory.path(), 3);
    for name in ["services", "rollouts", "checkpoints", "facts", "meta"] {
        let database = sled::open(directory.path().join("state")).unwrap();
        let tree = database.open_tree(name).unwrap();
        let (key, value) = tree.iter().last().unwrap().unwrap();
        tree.insert(key, [&value, &b" "[..]].concat()).unwrap();
        drop((tree, database));
        assert_holds(&Store::open(directory.path()).unwrap(), &facts);
        assert!(was_moved_aside(directory.path()), "{name}");
    }
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let error = Store::open(directory.path()).err().unwrap();
    let Error::InUse { pid, path } = &error else { panic!("{error}") };
    assert_eq!((*pid, path.as_path()), (Some(std::process::id()), directory.path()));
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[test]
fn appends_that_wait_together_all_come_through() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(directory.path()).unwrap());
    run(async {
        let tasks: Vec<_> = (0..40)
            .map(|number| {
                let (store, name) = (store.clone(), service(&format!("service-{number}")));
                tokio::spawn(async move {
                    store.append(&name, Seq(0), &[fact(1, &name, None, adopted())], None).await
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), Seq(1));
        }
        let name = service("service-1");
        let facts = [fact(2, &name, None, adopted())];
        let (one, two) = tokio::join!(
            store.append(&name, Seq(1), &facts, None),
            store.append(&name, Seq(1), &facts, None),
        );
        assert!(matches!(
            (one, two),
            (Ok(Seq(2)), Err(JournalError::Conflict { actual: Seq(2), .. }))
        ));
    });
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// The journal's files.
fn logs(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory.join("journal")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_compacted_journal_holds_all_but_old_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let mut facts = filled(directory.path(), 40);
    let name = service("web");
    let id = RolloutId { service: name.clone(), number: 1 };
    let store = Store::open(directory.path()).unwrap();
    let (_, seq) = run(store.service(&name)).unwrap().unwrap();
    // Checkpoints alone take a sequence each.
    let newest = checkpoint(&name, 1, 20_000);
    let seq = (0..5).fold(seq, |seq, _| append(&store, seq, &[], Some(&newest)).unwrap());
    let before = store.bytes().unwrap().0;
    for generation in 2..5 {
        run(store.compact()).unwrap();
        assert_eq!(logs(directory.path()), [format!("{generation:08}.log")]);
        assert_holds(&store, &facts);
    }
    assert!(store.bytes().unwrap().0 < before / 2, "{:?} of {before}", store.bytes().unwrap());
    let next = fact(900, &name, Some(1), polled(900));
    append(&store, seq, std::slice::from_ref(&next), None).unwrap();
    facts.push(next);
    drop(store);
    // From state and journal, and from the journal alone.
    for is_lost in [false, true] {
        if is_lost {
            fs::remove_dir_all(directory.path().join("state")).unwrap();
        }
        let store = Store::open(directory.path()).unwrap();
        assert_holds(&store, &facts);
        assert_eq!(run(store.service(&name)).unwrap().unwrap().1, Seq(seq.0 + 1));
        assert_eq!(run(store.rollout(&id)).unwrap().unwrap().1, Some(newest.clone()));
    }
}

/// Every place at which a compaction may be cut short, by what it leaves on disk.
#[test]
fn a_compaction_cut_short_anywhere_loses_nothing() {
    let origin = tempfile::tempdir().unwrap();
    let facts = filled(origin.path(), 20);
    let [old, older, new] = [0; 3].map(|_| tempfile::tempdir().unwrap());
    copy(origin.path(), old.path());
    let store = Store::open(older.path()).unwrap();
    let seq = append(&store, Seq(0), &facts[..2], None).unwrap();
    drop(store);
    assert!(seq < Seq(20));
    copy(origin.path(), new.path());
    run(Store::open(new.path()).unwrap().compact()).unwrap();
    let opened = |directory: &Path| {
        let store = Store::open(directory).unwrap();
        assert_holds(&store, &facts);
        assert_eq!(logs(directory).len(), 1, "{:?}", logs(directory));
    };

    // Not all of the new file was written.
    let cut = tempfile::tempdir().unwrap();
    copy(old.path(), cut.path());
    fs::write(cut.path().join("journal/00000002.log.new"), b"half").unwrap();
    opened(cut.path());
    // The new file is in place; the state did not move over, and the old file is still there.
    let both = tempfile::tempdir().unwrap();
    copy(old.path(), both.path());
    copy(&new.path().join("journal"), &both.path().join("journal"));
    opened(both.path());
    // The state lost its end as well, or is gone.
    for state in [Some(older.path()), None] {
        let lost = tempfile::tempdir().unwrap();
        copy(&new.path().join("journal"), &lost.path().join("journal"));
        if let Some(state) = state {
            copy(&state.join("state"), &lost.path().join("state"));
        }
        opened(lost.path());
    }
    // An old journal under a newer state has lost records.
    let backwards = tempfile::tempdir().unwrap();
    copy(&old.path().join("journal"), &backwards.path().join("journal"));
    copy(&new.path().join("state"), &backwards.path().join("state"));
    let refused = Store::open(backwards.path()).map(drop).unwrap_err();
    assert!(matches!(refused, Error::OlderJournal { journal: 1, state: 2 }), "{refused}");
}

/// The real binary: what it printed, and how it ended.
fn tidegate(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).env("NO_COLOR", "1").output();
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code(), text)
}

#[test]
fn a_backup_taken_while_it_is_written_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let facts = filled(directory.path(), 30);
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let state = path("");
    // Somebody has it open, and compacts.
    let store = Store::open(directory.path()).unwrap();
    run(store.compact()).unwrap();
    let (code, said) = tidegate(&["backup", &path("copy"), "--state", &state]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(tidegate(&["backup", &path("copy"), "--state", &state]).0, Some(1), "not over it");
    let (code, said) = tidegate(&["store", "verify", "--state", &state]);
    assert_eq!(code, Some(4), "{said}");
    let (code, lines) = tidegate(&["export", "--state", &state]);
    assert_eq!((code, lines.lines().count()), (Some(0), facts.len()), "{lines}");
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"], 1, "{first}");
    drop(store);

    assert_eq!(tidegate(&["restore", &path("copy"), "--verify"]).0, Some(0));
    let (code, said) = tidegate(&["restore", &path("copy"), "--state", &path("new")]);
    assert_eq!(code, Some(0), "{said}");
    assert_holds(&Store::open(Path::new(&path("new"))).unwrap(), &facts);
    let (code, said) = tidegate(&["restore", &path("copy"), "--state", &path("new")]);
    assert!(code == Some(1) && said.contains("holds a journal already"), "{said}");

    for command in ["rebuild", "compact", "verify"] {
        let (code, said) = tidegate(&["store", command, "--state", &path("new")]);
        assert_eq!(code, Some(0), "{command}: {said}");
        assert_holds(&Store::open(Path::new(&path("new"))).unwrap(), &facts);
    }
    let (code, said) = tidegate(&["store", "verify", "--state", &path("nowhere")]);
    assert!(code == Some(1) && !Path::new(&path("nowhere")).exists(), "{said}");
}

#[test]
fn a_damaged_journal_makes_no_backup() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 10);
    let log = directory.path().join(LOG);
    let mut bytes = fs::read(&log).unwrap();
    bytes[200] ^= 1;
    fs::write(&log, bytes).unwrap();
    let to = directory.path().join("copy");
    let state = directory.path().to_str().unwrap();
    let (code, said) = tidegate(&["backup", to.to_str().unwrap(), "--state", state]);
    assert!(code == Some(1) && said.contains("is damaged"), "{said}");
    assert_eq!(logs(&to), Vec::<String>::new());
}

#[test]
fn a_journal_of_many_checkpoints_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let name = service("web");
    let store = Store::open_compacting(directory.path(), 1 << 20).unwrap();
    let facts = vec![fact(1, &name, None, adopted()), fact(2, &name, Some(1), started(&name, 1))];
    let mut seq = append(&store, Seq(0), &facts, None).unwrap();
    let big = checkpoint(&name, 1, 50_000);
    let mut highest = 0;
    for _ in 0..400 {
        seq = append(&store, seq, &[], Some(&big)).unwrap();
        highest = highest.max(store.bytes().unwrap().0);
    }
    // 20 MB were written.
    assert!(highest < 5 << 20, "{highest} bytes");
    assert_holds(&store, &facts);
    drop(store);
    assert_holds(&Store::open(directory.path()).unwrap(), &facts);
}

const CHILD: &str = "TIDEGATE_TEST_STORE_DIRECTORY";

/// Not a test by itself: appends until it is killed, and prints what was acknowledged.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    // Compacting all the time.
    let store = Arc::new(Store::open_compacting(Path::new(&path), 4_000).unwrap());
    run(async {
        let tasks: Vec<_> =
            (0..3).map(|number| tokio::spawn(append_for_ever(store.clone(), number))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn append_for_ever(store: Arc<Store>, number: u32) {
    let name = service(&format!("service-{number}"));
    let mut seq = store.service(&name).await.unwrap().map_or(Seq(0), |(_, seq)| seq);
    // Ends by itself should nobody kill it.
    for at in 0..20_000 {
        seq = store.append(&name, seq, &[fact(at, &name, None, adopted())], None).await.unwrap();
        println!("acknowledged {name} {seq}");
    }
}

#[test]
fn kill_9_at_any_instant_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::<ServiceName, u64>::new();
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut take = |line: String| {
            let words: Vec<_> = line.split(' ').collect();
            if let Some(at) = words.iter().position(|word| word.ends_with("acknowledged")) {
                acknowledged.insert(service(words[at + 1]), words[at + 2].parse().unwrap());
                return true;
            }
            false
        };
        let mut seen = 0;
        while seen < 1 + round * 7 {
            let Some(line) = lines.next() else { break };
            seen += u32::from(take(line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // A line cut short by the kill says nothing; whole ones count.
        for line in lines.filter(|line| line.split(' ').count() == 3) {
            take(line);
        }
        let store = Store::open(directory.path()).unwrap();
        for (name, seq) in &acknowledged {
            let (_, found) = run(store.service(name)).unwrap().unwrap();
            assert!(
                found.0 >= *seq,
                "round {round}: {name} stands at {found}, acknowledged was {seq}"
            );
            assert_eq!(run(store.history(name, None, usize::MAX)).unwrap().len() as u64, found.0);
        }
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    }
    assert!(!acknowledged.is_empty());
}
