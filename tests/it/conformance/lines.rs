//! The lines of the suite. Each leaves the server well and the canary somewhere between 0 and 100 %.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tidegate::load_balancer;
use tidegate::ports::{
    Fencing, LoadBalancer, LoadBalancerError, Mirroring, Outcome, Reading, Split, Steps,
};
use tidegate::spec;

use super::{Fault, Found, Line, Reason, Subject, connect, fleet_text};
use crate::parts::backend::Counts;

const REQUESTS: u64 = 20_000;
/// Shares that are tried.
const PERCENTS: [f64; 5] = [1.0, 5.0, 25.0, 50.0, 99.0];
/// Half width of an interval, in standard errors, outside of which one of a hundred shares falls in one run of a
/// thousand: 99.9 % for the whole table at once, since a table that cries wolf is not read.
const ERRORS_MAX: f64 = 4.42;
/// No call may take longer.
const CALL_MAX: Duration = Duration::from_secs(15);

type Answer = Result<Found, Reason>;

pub async fn run(line: Line, subject: &mut Subject) -> Answer {
    match line {
        Line::Split => split(subject).await,
        Line::Ends => ends(subject).await,
        Line::Copies => copies(subject).await,
        Line::Switches => switches(subject).await,
        Line::Repeatable => repeatable(subject).await,
        Line::ReadBack => read_back(subject).await,
        Line::Older => older(subject).await,
        Line::OtherProcess => other_process(subject).await,
        Line::Restarted => begins_again(subject, Fault::Restart).await,
        Line::Reloaded => begins_again(subject, Fault::Reload).await,
        Line::Gone => gone(subject).await,
        Line::Slow => slow(subject).await,
        Line::Refusing => refusing(subject).await,
        Line::Lying => lying(subject).await,
        Line::Edited => edited(subject).await,
        Line::Concurrent => concurrent(subject).await,
        Line::Sick => sick(subject).await,
        Line::Coarse => coarse(subject).await,
        Line::Bad => bad(subject).await,
    }
}

/// Shares that this balancer can show, of those asked for.
fn shown(subject: &Subject, percents: &[f64]) -> Vec<f64> {
    let steps = subject.balancer.capabilities().steps;
    let shows = |percent: &f64| steps.show(subject.split(*percent)[&subject.canary]);
    percents.iter().copied().filter(shows).collect()
}

/// Two shares for lines in which it only matters that they differ.
fn two(subject: &Subject) -> [f64; 2] {
    match subject.balancer.capabilities().steps {
        Steps::Ends => [0.0, 100.0],
        _ => [5.0, 50.0],
    }
}

async fn send(subject: &Subject, requests: u64) -> Result<Counts, Reason> {
    let left = AtomicI64::new(i64::try_from(requests).unwrap());
    subject.world.load(Arc::new(move || left.fetch_sub(1, Ordering::Relaxed) > 0)).await
}

fn share(subject: &Subject, counts: &Counts) -> f64 {
    assert_eq!(counts.get("error"), None, "{counts:?}");
    let canary = *counts.get(subject.canary.as_str()).unwrap_or(&0);
    canary as f64 / counts.values().sum::<u64>() as f64
}

/// The share of the requests lies in its interval.
async fn split(subject: &mut Subject) -> Answer {
    send(subject, 1).await?;
    let percents = shown(subject, &PERCENTS);
    if percents.is_empty() {
        return Err("it knows all or nothing");
    }
    for percent in percents {
        subject.set(percent).await;
        let seen = share(subject, &send(subject, REQUESTS).await?);
        let asked = percent / 100.0;
        let allowed = ERRORS_MAX * (asked * (1.0 - asked) / REQUESTS as f64).sqrt();
        assert!((seen - asked).abs() <= allowed, "asked {asked}, saw {seen} ± {allowed}");
    }
    Ok(Found::Pass)
}

async fn ends(subject: &mut Subject) -> Answer {
    for percent in [0.0, 100.0, 0.0] {
        subject.set(percent).await;
        let seen = share(subject, &send(subject, REQUESTS / 10).await?);
        assert!((seen - percent / 100.0).abs() < f64::EPSILON, "asked {percent} %, saw {seen}");
    }
    Ok(Found::Pass)
}

/// The canary gets copies, and nobody gets its answers; whoever cannot copy says so and changes nothing.
async fn copies(subject: &mut Subject) -> Answer {
    let tenth = subject.split(10.0)[&subject.canary];
    let copied = subject.split(0.0).with_copies(subject.canary.clone(), tenth);
    subject.set(0.0).await;
    let generation = subject.next();
    if subject.balancer.capabilities().mirror == Mirroring::None {
        let refused = subject.balancer.set(&copied, generation).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
        assert_eq!(subject.balancer.read().await.unwrap().split, subject.split(0.0));
        return Err("it copies no requests, and says so");
    }
    let reading = subject.balancer.set(&copied, generation).await.unwrap();
    assert!(reading.settled && reading.split == copied, "{reading:?}");
    let before = subject.world.had().unwrap();
    let answered = share(subject, &send(subject, REQUESTS).await?);
    assert!(answered.abs() < f64::EPSILON, "{answered} of the answers are the canary's");
    let allowed = ERRORS_MAX * (0.1 * 0.9 * REQUESTS as f64).sqrt();
    let came = (subject.world.had().unwrap() - before) as f64;
    let wanted = 0.1 * REQUESTS as f64;
    assert!((came - wanted).abs() <= allowed, "{came} copies came, not {wanted} ± {allowed}");
    // They end with the next weights.
    subject.set(0.0).await;
    let before = subject.world.had();
    send(subject, REQUESTS / 10).await?;
    assert_eq!(subject.world.had(), before, "copies go on");
    Ok(Found::Pass)
}

async fn switches(subject: &mut Subject) -> Answer {
    send(subject, 1).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let more = Arc::clone(&stop);
    let percents = shown(subject, &[0.0, 100.0, 50.0, 1.0]);
    let world = subject.world.load(Arc::new(move || !more.load(Ordering::Relaxed)));
    let switched = async {
        for round in 0..50 {
            let split = subject.split(percents[round % percents.len()]);
            let generation = tidegate::units::Generation(subject.generation + 1 + round as u64);
            let reading = subject.balancer.set(&split, generation).await;
            let reading = reading.unwrap_or_else(|error| panic!("switch {round}: {error}"));
            assert!(reading.settled && reading.split == split, "switch {round}: {reading:?}");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (counts, ()) = tokio::join!(world, switched);
    subject.generation += 50;
    let counts = counts?;
    assert!(counts.values().sum::<u64>() > 500, "{counts:?}");
    let broken = counts.get("error").copied().unwrap_or_default();
    match subject.world.breaks() {
        Some(why) => {
            assert!(broken <= 20, "{counts:?}");
            Ok(Found::Weaker(why))
        }
        None => {
            assert_eq!(broken, 0, "{counts:?}");
            Ok(Found::Pass)
        }
    }
}

/// The same call twice changes nothing; weights are absolute.
async fn repeatable(subject: &mut Subject) -> Answer {
    let percent = two(subject)[1];
    let first = subject.set(percent).await;
    subject.generation -= 1;
    let second = subject.set(percent).await;
    assert_eq!((&first.split, &first.instances), (&second.split, &second.instances));
    let read = subject.balancer.read().await.unwrap();
    assert!(read.settled && read.split == first.split, "{read:?}");
    // The same weights under a new generation are a new fact.
    subject.set(percent).await;
    // A split that is not this target's never reaches the balancer.
    let next = subject.next();
    let mut wrong = subject.split(percent);
    wrong.insert(subject.canary.clone(), subject.split(1.0)[&subject.canary]);
    for wrong in [wrong, Split::default()] {
        let refused = subject.balancer.set(&wrong, next).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
    }
    assert_eq!(subject.balancer.read().await.unwrap().split, first.split);
    Ok(Found::Pass)
}

/// Both what `set` returned and what `read` says is what traffic does.
async fn read_back(subject: &mut Subject) -> Answer {
    send(subject, 1).await?;
    for percent in two(subject) {
        // What somebody else did is no echo of ours; where nobody else can, it is what we did.
        if subject.world.edit(percent as u32).await.is_err() {
            subject.set(percent).await;
        }
        let wanted = subject.split(percent);
        subject.read_until(|reading| reading.split == wanted).await;
        let seen = share(subject, &send(subject, REQUESTS / 4).await?);
        let asked = percent / 100.0;
        let allowed = ERRORS_MAX * (asked * (1.0 - asked) / (REQUESTS / 4) as f64).sqrt();
        assert!((seen - asked).abs() <= allowed, "reads {asked}, traffic {seen}");
    }
    Ok(Found::Pass)
}

async fn older(subject: &mut Subject) -> Answer {
    let [first, second] = two(subject);
    subject.set(first).await;
    let older = tidegate::units::Generation(subject.generation - 1);
    let refused = subject.balancer.set(&subject.split(second), older).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Superseded, "{refused}");
    assert_eq!(subject.balancer.read().await.unwrap().split, subject.split(first));
    Ok(Found::Pass)
}

async fn other_process(subject: &mut Subject) -> Answer {
    if subject.balancer.capabilities().fencing == Fencing::Process {
        return Ok(Found::Weaker("grade C: the balancer has no place for a generation"));
    }
    let [first, second] = two(subject);
    subject.set(first).await;
    let Some((other, _open)) = another(subject).await else {
        return Err("a second controller cannot open the same port");
    };
    let older = tidegate::units::Generation(subject.generation - 1);
    let refused = other.set(&subject.split(second), older).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Superseded, "{refused}");
    assert_eq!(subject.balancer.read().await.unwrap().split, subject.split(first));
    Ok(Found::Pass)
}

/// Another controller; none where the server's way to it is one port of ours.
async fn another(subject: &Subject) -> Option<(Arc<dyn LoadBalancer>, load_balancer::Connected)> {
    let serves = subject.world.serves();
    if serves { None } else { Some(connect(subject.world.as_ref()).await) }
}

/// Its weights are still there, or it shows that it is another process, and they can be set again.
async fn begins_again(subject: &mut Subject, fault: Fault) -> Answer {
    let [percent, _] = two(subject);
    let percent = if percent == 0.0 { 100.0 } else { percent };
    let before = subject.set(percent).await;
    subject.world.happen(fault).await?;
    let keeps = subject.balancer.capabilities().weights_survive_restart;
    let after = subject.read_until(|reading| !keeps || reading.settled).await;
    if keeps {
        assert_eq!(after.split, before.split, "{after:?}");
        let marks = before.restart_marker.is_some() && subject.world.marks_restarts();
        if fault == Fault::Restart && marks {
            subject.read_until(|reading| reading.restart_marker != before.restart_marker).await;
        }
    } else if after.split != before.split {
        let another =
            before.restart_marker.is_some() && after.restart_marker != before.restart_marker;
        let lost = before.generation.is_some() && after.generation.is_none();
        assert!(another || lost, "nothing says that it is another one: {before:?} {after:?}");
    }
    subject.set(percent).await;
    Ok(Found::Pass)
}

/// Nothing is taken for done while nobody answers.
async fn gone(subject: &mut Subject) -> Answer {
    let [percent, other] = two(subject);
    subject.set(percent).await;
    subject.world.happen(Fault::Gone).await?;
    nothing_confirmed(bounded(subject.balancer.read()).await);
    let (split, generation) = (subject.split(other), subject.next());
    nothing_confirmed(bounded(subject.balancer.set(&split, generation)).await);
    subject.world.happen(Fault::Back).await?;
    subject.read_until(|_| true).await;
    subject.set(percent).await;
    Ok(Found::Pass)
}

/// Either an error, or a reading that is not settled.
fn nothing_confirmed(answer: Result<Reading, LoadBalancerError>) {
    match answer {
        Ok(reading) => assert!(!reading.settled, "{reading:?}"),
        Err(error) => {
            assert!(matches!(error.outcome, Outcome::NotSent | Outcome::Unknown), "{error:?}");
            assert!(!error.what.is_empty() && !error.target.is_empty());
        }
    }
}

async fn bounded<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(CALL_MAX, call).await.expect("a call without an end")
}

async fn slow(subject: &mut Subject) -> Answer {
    let [percent, other] = two(subject);
    subject.set(percent).await;
    subject.world.happen(Fault::Slow).await?;
    let (split, generation) = (subject.split(other), subject.next());
    nothing_confirmed(bounded(subject.balancer.set(&split, generation)).await);
    subject.world.happen(Fault::Honest).await?;
    // Whether it was done or not: it is looked at, and set again under the same generation.
    subject.generation -= 1;
    subject.read_until(|_| true).await;
    subject.set(other).await;
    Ok(Found::Pass)
}

async fn refusing(subject: &mut Subject) -> Answer {
    let [percent, other] = two(subject);
    let before = subject.set(percent).await;
    subject.world.happen(Fault::Refusing).await?;
    let (split, generation) = (subject.split(other), subject.next());
    let error = bounded(subject.balancer.set(&split, generation)).await.unwrap_err();
    assert!(matches!(error.outcome, Outcome::Refused | Outcome::Misconfigured), "{error:?}");
    subject.world.happen(Fault::Honest).await?;
    let after = subject.read_until(|_| true).await;
    assert_eq!(after.split, before.split, "{after:?}");
    subject.set(other).await;
    Ok(Found::Pass)
}

async fn lying(subject: &mut Subject) -> Answer {
    let [percent, other] = two(subject);
    subject.set(percent).await;
    subject.world.happen(Fault::Lying).await?;
    let (split, generation) = (subject.split(other), subject.next());
    match bounded(subject.balancer.set(&split, generation)).await {
        Ok(reading) => {
            let believed = reading.settled && reading.split == split;
            assert!(!believed, "an echo was taken for a reading: {reading:?}");
        }
        Err(error) => assert_ne!(error.outcome, Outcome::NotSent, "{error:?}"),
    }
    subject.world.happen(Fault::Honest).await?;
    subject.set(other).await;
    Ok(Found::Pass)
}

async fn edited(subject: &mut Subject) -> Answer {
    let [first, second] = two(subject);
    subject.set(first).await;
    subject.world.edit(second as u32).await?;
    let wanted = subject.split(second);
    subject.read_until(|reading| reading.split == wanted).await;
    subject.set(first).await;
    Ok(Found::Pass)
}

/// Two controllers, of which one is older: the end is the newer one's.
async fn concurrent(subject: &mut Subject) -> Answer {
    let [first, second] = two(subject);
    subject.set(first).await;
    let Some((other, _open)) = another(subject).await else {
        return Err("a second controller cannot open the same port");
    };
    let is_fenced = subject.balancer.capabilities().fencing != Fencing::Process;
    let slips = subject.world.slips();
    for _ in 0..5 {
        let (older, newer) = (subject.next(), subject.next());
        let (to, from) = (subject.split(second), subject.split(first));
        let (_, newest) =
            tokio::join!(other.set(&from, older), set_again(subject.balancer.as_ref(), &to, newer));
        newest.unwrap();
        let read = subject.read_until(|reading| reading.settled).await;
        let has_slipped = slips.is_some() && read.generation == Some(older);
        if is_fenced && !has_slipped {
            assert_eq!(read.split, to, "the older one won: {read:?}");
        } else {
            // Whoever came last; and the newer one sees that it is not its own.
            assert!(read.split == to || read.split == from, "{read:?}");
        }
        subject.set(first).await;
    }
    match (is_fenced, slips) {
        (true, None) => Ok(Found::Pass),
        (true, Some(why)) => Ok(Found::Weaker(why)),
        _ => Ok(Found::Weaker("grade C: the last one wins, and the other reads it")),
    }
}

/// As the controller does: what met another writer, or was not confirmed in time, is tried again.
async fn set_again(
    balancer: &dyn LoadBalancer,
    split: &Split,
    generation: tidegate::units::Generation,
) -> Result<Reading, LoadBalancerError> {
    for _ in 0..10 {
        match balancer.set(split, generation).await {
            Ok(reading) if reading.settled && reading.split == *split => return Ok(reading),
            Err(error) if error.outcome == Outcome::Misconfigured => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    balancer.set(split, generation).await
}

async fn sick(subject: &mut Subject) -> Answer {
    let seen = subject.set(two(subject)[1]).await;
    if seen.backends.is_none() {
        return Err("it does not show its backends");
    }
    let canary = subject.canary.clone();
    let healthy =
        |reading: &Reading| reading.backends.as_ref().map_or(0, |all| all[&canary].healthy);
    assert!(healthy(&subject.read_until(|reading| healthy(reading) > 0).await) > 0);
    subject.world.happen(Fault::CanarySick).await?;
    subject.read_until(|reading| healthy(reading) == 0).await;
    subject.world.happen(Fault::CanaryWell).await?;
    subject.read_until(|reading| healthy(reading) > 0).await;
    Ok(Found::Pass)
}

async fn coarse(subject: &mut Subject) -> Answer {
    let steps = subject.balancer.capabilities().steps;
    if steps == Steps::Hundredths {
        let reading = subject.set(0.01).await;
        assert_eq!(reading.split, subject.split(0.01));
        return Err("it shows every hundredth of a percent");
    }
    let before = subject.set(two(subject)[0]).await;
    let generation = subject.next();
    let refused = subject.balancer.set(&subject.split(0.01), generation).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
    assert!(refused.what.contains("0.01"), "{refused}");
    assert_eq!(subject.balancer.read().await.unwrap().split, before.split);
    Ok(Found::Pass)
}

/// Every one is refused before anything is asked, with a word that helps.
async fn bad(subject: &mut Subject) -> Answer {
    let all = subject.world.bad();
    assert!(all.len() >= 2, "too few bad settings");
    for (target, word) in all {
        let text = fleet_text(&target, &subject.world.fleet());
        let (fleet, problems) = spec::fleet_from_text("tidegate.yaml", &text);
        let said = if problems.has_errors() {
            let text = problems.to_string();
            assert!(text.contains("tidegate.yaml:"), "{text}");
            text
        } else {
            match load_balancer::connect(&fleet.unwrap(), None, &BTreeMap::new()).await {
                Ok(_) => panic!("taken: {target}"),
                Err(error) => error.to_string(),
            }
        };
        assert!(said.contains(word), "{target}: {said} (no `{word}`)");
    }
    Ok(Found::Pass)
}
