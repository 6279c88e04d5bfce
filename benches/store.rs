//! What keeping costs: prints figures of one run, beside those of the machine. Machines are noisy; compare ratios.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::engine::decide::decide;
use tidegate::engine::event::{Actor, Adopted, Event, Fact};
use tidegate::engine::input::{Command, Input};
use tidegate::ports::{Checkpoint, Journal};
use tidegate::sim::sample;
use tidegate::store::Store;
use tidegate::units::{RolloutId, Seq, ServiceName, Timestamp};

/// How long each rate is measured.
const MEASURE: Duration = Duration::from_secs(3);
/// Rollouts that a recovery finds.
const ROLLOUTS: u64 = 10_000;
/// An hour of 100 updates a second.
const UPDATES: u64 = 360_000;
/// Rollouts under way that the updates are of, and bytes of each update: 5 MiB are live.
const LIVE: u64 = 100;
const LIVE_BYTES: usize = 5 * 1024 * 1024 / 100;
/// Callers at once.
const CALLERS: u64 = 64;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let machine = syncs_per_second();
    println!("{machine:>12.0}  fdatasync of 1 KiB per second, one after the other: the machine");
    let (one, many) = (runtime.block_on(appends(1)), runtime.block_on(appends(CALLERS)));
    println!(
        "{one:>12.0}  acknowledged appends per second of one caller ({:.2} of it)",
        one / machine
    );
    println!(
        "{many:>12.0}  of {CALLERS} callers at once, who share syncs ({:.1} times it)",
        many / machine
    );
    runtime.block_on(rollbacks());
    recovery(&runtime);
    if std::env::args().any(|argument| argument == "--full") {
        runtime.block_on(hour(UPDATES));
    } else {
        runtime.block_on(hour(UPDATES / 100));
        println!("              (a hundredth of the hour; `-- --full` writes all of it)");
    }
}

fn service(number: u64) -> ServiceName {
    format!("service-{number}").parse().unwrap()
}

fn syncs_per_second() -> f64 {
    let folder = tempfile::tempdir_in("target").unwrap();
    let mut file = File::create(folder.path().join("file")).unwrap();
    let (begin, mut syncs) = (Instant::now(), 0);
    while begin.elapsed() < MEASURE {
        file.write_all(&[7; 1_024]).unwrap();
        file.sync_data().unwrap();
        syncs += 1;
    }
    f64::from(syncs) / begin.elapsed().as_secs_f64()
}

fn adopted(service: &ServiceName) -> Fact {
    let adopted = Adopted {
        version: "v1".parse().unwrap(),
        regions: [].into(),
        generation: None,
        by: Actor { name: "bench".to_owned(), note: None },
    };
    fact(service, None, Event::Adopted(adopted))
}

fn fact(service: &ServiceName, rollout: Option<&RolloutId>, event: Event) -> Fact {
    Fact { at: Timestamp(1), service: service.clone(), rollout: rollout.cloned(), event }
}

fn started(service: &ServiceName) -> (RolloutId, Fact) {
    let id = RolloutId { service: service.clone(), number: 1 };
    let mut plan = sample::plan();
    plan.service = service.clone();
    let event = Event::Started(Box::new(sample::started(plan)));
    let fact = fact(service, Some(&id), event);
    (id, fact)
}

async fn appends(callers: u64) -> f64 {
    let folder = tempfile::tempdir_in("target").unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let begin = Instant::now();
    let tasks = (0..callers).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let name = service(number);
            let (mut seq, fact) = (Seq(0), [adopted(&name)]);
            while begin.elapsed() < MEASURE {
                seq = store.append(&name, seq, &fact, None).await.unwrap();
            }
            seq.0
        })
    });
    let mut all = 0;
    for task in tasks.collect::<Vec<_>>() {
        all += task.await.unwrap();
    }
    all as f64 / begin.elapsed().as_secs_f64()
}

/// From the decision to go back to its record on disk, while everybody else writes as fast as they can.
async fn rollbacks() {
    let folder = tempfile::tempdir_in("target").unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let others: Vec<_> = (1..CALLERS)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let name = service(number);
                let (mut seq, fact) = (Seq(0), [adopted(&name)]);
                loop {
                    seq = store.append(&name, seq, &fact, None).await.unwrap();
                }
            })
        })
        .collect();
    let name = service(0);
    let (id, start) = started(&name);
    let state = sample::rollout(sample::plan());
    let mut seq = store.append(&name, Seq(0), &[adopted(&name), start], None).await.unwrap();
    let (mut took, begin) = (Vec::new(), Instant::now());
    while begin.elapsed() < MEASURE {
        let (by, reason) = (sample::person(), "slow".to_owned());
        let input = Input::Commanded { by, command: Command::Rollback { reason } };
        let asked = Instant::now();
        let decision = decide(&state, &input, Timestamp(1));
        let facts: Vec<_> =
            decision.events.into_iter().map(|event| fact(&name, Some(&id), event)).collect();
        seq = store.append(&name, seq, &facts, None).await.unwrap();
        took.push(asked.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    others.iter().for_each(tokio::task::JoinHandle::abort);
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{:>12.2}  ms from the decision to go back to its record on disk, beside {} writers (p99 {:.2}, worst of {} {:.2})",
        at(0.5),
        CALLERS - 1,
        at(0.99),
        took.len(),
        at(1.0)
    );
}

fn recovery(runtime: &tokio::runtime::Runtime) {
    let folder = tempfile::tempdir_in("target").unwrap();
    runtime.block_on(async {
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let tasks = (0..CALLERS).map(|caller| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in (caller..ROLLOUTS).step_by(CALLERS as usize) {
                    let name = service(number);
                    let facts = [adopted(&name), started(&name).1];
                    store.append(&name, Seq(0), &facts, None).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    let opened = |what: &str, path: &Path| {
        let begin = Instant::now();
        drop(Store::open(path).unwrap());
        println!("{:>12.2}  s to open {ROLLOUTS} rollouts, {what}", begin.elapsed().as_secs_f64());
    };
    opened("state and journal", folder.path());
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    opened("state made anew from the journal", folder.path());
}

/// Updates of what is live, as fast as they can be written.
async fn hour(updates: u64) {
    let folder = tempfile::tempdir_in("target").unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let begin = Instant::now();
    let tasks = (0..LIVE).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let name = service(number);
            let (rollout, start) = started(&name);
            let mut seq =
                store.append(&name, Seq(0), &[adopted(&name), start], None).await.unwrap();
            for update in 0..updates / LIVE {
                let judge = serde_json::json!({"at": update, "kept": "x".repeat(LIVE_BYTES)});
                let meters = serde_json::Value::Null;
                let checkpoint =
                    Checkpoint { rollout: rollout.clone(), statistics: 1, judge, meters };
                seq = store.append(&name, seq, &[], Some(&checkpoint)).await.unwrap();
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut highest = (0, 0);
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        let (journal, state) = bytes(folder.path());
        highest = (highest.0.max(journal), highest.1.max(state));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (journal, state) = bytes(folder.path());
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    println!(
        "{:>12.1}  MiB on disk after {updates} updates of 5 MiB in {:.0} s: journal {:.1}, state {:.1}; at most {:.1} and {:.1}",
        mib(journal + state),
        begin.elapsed().as_secs_f64(),
        mib(journal),
        mib(state),
        mib(highest.0),
        mib(highest.1)
    );
}

/// Bytes of the folders `journal` and `state`.
fn bytes(path: &Path) -> (u64, u64) {
    (folder_bytes(&path.join("journal")), folder_bytes(&path.join("state")))
}

fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
