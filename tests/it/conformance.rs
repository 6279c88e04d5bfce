//! What every load-balancer adapter must do, seen from outside: what it reads must be what traffic does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate::ports::{LoadBalancer, Outcome, Reading, Split};
use tidegate::units::{Generation, SlotName, Weight};

use crate::parts::backend::{Counts, Traffic};

/// A balancer under test: two slots whose backends answer with the slot's name.
pub struct Subject<'a> {
    pub balancer: &'a dyn LoadBalancer,
    pub traffic: Traffic,
    /// The slot that is raised and lowered.
    pub canary: SlotName,
    pub stable: SlotName,
    /// Generations are counted up from here.
    pub generation: u64,
    /// The balancer has a place for them.
    pub stores_generation: bool,
}

impl Subject<'_> {
    pub fn split(&self, canary_percent: f64) -> Split {
        let canary = Weight::from_percent(canary_percent).unwrap();
        Split::from([(self.canary.clone(), canary), (self.stable.clone(), canary.complement())])
    }

    /// Sets the next generation and returns what was read back, settled.
    pub async fn set(&mut self, canary_percent: f64) -> Reading {
        self.generation += 1;
        let split = self.split(canary_percent);
        let reading = self.balancer.set(&split, Generation(self.generation)).await.unwrap();
        assert!(reading.settled, "{canary_percent} %: {reading:?}");
        assert_eq!(
            (&reading.split, reading.generation),
            (&split, self.stores_generation.then_some(Generation(self.generation)))
        );
        reading
    }

    fn canary_share(&self, counts: &Counts, requests: u64) -> f64 {
        assert_eq!(counts.get("error"), None, "{counts:?}");
        *counts.get(self.canary.as_str()).unwrap_or(&0) as f64 / requests as f64
    }

    /// Waits until `read` says what `wanted` asks (5 s at most).
    pub async fn read_until(&self, wanted: impl Fn(&Reading) -> bool) -> Reading {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let reading = self.balancer.read().await;
            if let Some(reading) = reading.as_ref().ok().filter(|reading| wanted(reading)) {
                return reading.clone();
            }
            assert!(Instant::now() < deadline, "not reached: {reading:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Runs all of it.
pub async fn all(subject: &mut Subject<'_>) {
    traffic_follows(subject).await;
    repeating_is_harmless(subject).await;
    older_is_refused(subject).await;
    wrong_splits_are_refused(subject).await;
    no_request_is_lost(subject).await;
}

/// The share of 5,000 requests is within its 99.9 % interval; 0 and 100 % are exact.
pub async fn traffic_follows(subject: &mut Subject<'_>) {
    const REQUESTS: u64 = 5_000;
    for percent in [0.0, 1.0, 5.0, 25.0, 50.0, 99.0, 100.0] {
        subject.set(percent).await;
        let share = subject.canary_share(&subject.traffic.send(REQUESTS).await, REQUESTS);
        let asked = percent / 100.0;
        // Four instead of 3.29 standard errors: five shares, and many runs.
        let allowed = 4.0 * (asked * (1.0 - asked) / REQUESTS as f64).sqrt();
        assert!((share - asked).abs() <= allowed, "asked {asked}, saw {share} ± {allowed}");
    }
}

/// The same call twice changes nothing; weights are absolute.
pub async fn repeating_is_harmless(subject: &mut Subject<'_>) {
    let first = subject.set(25.0).await;
    subject.generation -= 1;
    let second = subject.set(25.0).await;
    assert_eq!((first.split, first.instances), (second.split, second.instances));
    let read = subject.balancer.read().await.unwrap();
    assert!(read.settled, "{read:?}");
    assert_eq!(read.split, subject.split(25.0));
    // The same weights under a new generation are a new fact.
    subject.set(25.0).await;
}

/// A late caller cannot undo a newer one.
pub async fn older_is_refused(subject: &mut Subject<'_>) {
    subject.set(5.0).await;
    let older =
        subject.balancer.set(&subject.split(50.0), Generation(subject.generation - 1)).await;
    assert_eq!(older.unwrap_err().outcome, Outcome::Superseded);
    assert_eq!(subject.balancer.read().await.unwrap().split, subject.split(5.0));
}

/// A split that is not this target's never reaches the balancer.
pub async fn wrong_splits_are_refused(subject: &mut Subject<'_>) {
    subject.set(5.0).await;
    let next = Generation(subject.generation + 1);
    let mut wrong = subject.split(5.0);
    wrong.insert(subject.canary.clone(), Weight::ZERO);
    let refused = subject.balancer.set(&wrong, next).await;
    assert_eq!(refused.unwrap_err().outcome, Outcome::Misconfigured);
    let refused = subject.balancer.set(&Split::new(), next).await;
    assert_eq!(refused.unwrap_err().outcome, Outcome::Misconfigured);
    assert_eq!(subject.balancer.read().await.unwrap().split, subject.split(5.0));
}

/// Twenty switches under load lose nothing.
pub async fn no_request_is_lost(subject: &mut Subject<'_>) {
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = subject.traffic.clone();
    let load = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move { traffic.send_until(stop).await }
    });
    for round in 0..20 {
        subject.set([0.0, 100.0, 50.0, 1.0][round % 4]).await;
    }
    stop.store(true, Ordering::Relaxed);
    let counts = load.await.unwrap();
    assert_eq!(counts.get("error"), None, "{counts:?}");
    assert!(counts.values().sum::<u64>() > 100, "{counts:?}");
}
