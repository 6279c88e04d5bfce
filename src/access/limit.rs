//! How often somebody may ask, and how long a source that guesses has to wait.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Requests of one source before anybody knows who it is, per second.
const SOURCE_PER_SECOND: NonZeroU32 = NonZeroU32::new(5_000).expect("more than nothing");
/// Changes of one person per second, and how many at once.
const CHANGES_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("more than nothing");
const CHANGES_AT_ONCE: NonZeroU32 = NonZeroU32::new(60).expect("more than nothing");
/// Sources and people that are remembered; more are forgotten from time to time.
const KEYS_MAX: usize = 10_000;
/// Wrong secrets of one source before it waits.
const GUESSES_FREE: u32 = 10;
/// First and longest wait of a source that guesses.
const LOCK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, MonotonicClock>;

/// What everybody together has asked.
pub struct Limits {
    sources: Limiter<IpAddr>,
    changes: Limiter<String>,
    guesses: Mutex<BTreeMap<String, Guesses>>,
}

#[derive(Debug, Clone, Copy)]
struct Guesses {
    wrong: u32,
    until: Instant,
}

impl Default for Limits {
    fn default() -> Self {
        let changes = Quota::per_second(CHANGES_PER_SECOND).allow_burst(CHANGES_AT_ONCE);
        Self {
            sources: RateLimiter::hashmap(Quota::per_second(SOURCE_PER_SECOND)),
            changes: RateLimiter::hashmap(changes),
            guesses: Mutex::default(),
        }
    }
}

impl Limits {
    /// One more request of a source.
    ///
    /// # Errors
    /// Too many; how long to wait.
    pub fn source(&self, source: IpAddr) -> Result<(), Duration> {
        self.guesses_of(&source.to_string())?;
        check(&self.sources, &source)
    }

    /// One more change by a person.
    ///
    /// # Errors
    /// Too many; how long to wait.
    pub fn change(&self, person: &str) -> Result<(), Duration> {
        check(&self.changes, &person.to_owned())
    }

    /// Whether somebody who guessed has waited long enough.
    ///
    /// # Errors
    /// Not yet; how long.
    pub fn guesses_of(&self, who: &str) -> Result<(), Duration> {
        let guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        let left = guesses.get(who).map(|it| it.until.saturating_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero()).map_or(Ok(()), Err)
    }

    /// A source had a wrong secret. True when it has to wait from now on, longer each time.
    pub fn wrong(&self, source: IpAddr) -> bool {
        self.wrong_of(&source.to_string())
    }

    /// The same for a person who is known and guesses something else.
    pub fn wrong_of(&self, who: &str) -> bool {
        let now = Instant::now();
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if guesses.len() >= KEYS_MAX {
            guesses.retain(|_, it| it.until + LOCK.1 > now);
        }
        if guesses.len() >= KEYS_MAX && !guesses.contains_key(who) {
            // So many guess at once that no more can be told apart; memory stays what it is.
            return true;
        }
        let known = guesses.entry(who.to_owned()).or_insert(Guesses { wrong: 0, until: now });
        // Who was quiet for long begins anew.
        if now.saturating_duration_since(known.until) > LOCK.1 {
            known.wrong = 0;
        }
        known.wrong = known.wrong.saturating_add(1);
        let over = known.wrong.saturating_sub(GUESSES_FREE);
        let wait = LOCK.0.saturating_mul(1 << over.saturating_sub(1).min(20)).min(LOCK.1);
        known.until = if over > 0 { now + wait } else { now };
        over > 0
    }

    /// A source had a right one.
    pub fn right(&self, source: IpAddr) {
        self.right_of(&source.to_string());
    }

    /// The same for a person.
    pub fn right_of(&self, who: &str) {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }
}

fn check<K: Clone + Eq + std::hash::Hash>(limiter: &Limiter<K>, key: &K) -> Result<(), Duration> {
    if limiter.len() > KEYS_MAX {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|until| until.wait_time_from(MonotonicClock.now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_longer_each_time_and_nobody_else_does() {
        let limits = Limits::default();
        let (bad, good): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert!((0..GUESSES_FREE).all(|_| !limits.wrong(bad)));
        assert_eq!(limits.source(bad), Ok(()));
        assert!(limits.wrong(bad));
        let first = limits.source(bad).unwrap_err();
        assert!(limits.wrong(bad));
        let second = limits.source(bad).unwrap_err();
        assert!(second > first && second <= 2 * LOCK.0, "{first:?} {second:?}");
        assert_eq!(limits.source(good), Ok(()));
        for _ in 0..100 {
            limits.wrong(bad);
        }
        assert!(limits.source(bad).unwrap_err() <= LOCK.1);
        limits.right(bad);
        assert_eq!(limits.source(bad), Ok(()));
    }

    #[test]
    fn one_person_asks_for_so_many_changes_at_once_and_no_more() {
        let limits = Limits::default();
        let taken = (0..200).take_while(|_| limits.change("bot").is_ok()).count();
        assert!((60..=80).contains(&taken), "{taken}");
        assert!(limits.change("bot").unwrap_err() <= Duration::from_secs(1));
        assert_eq!(limits.change("ana"), Ok(()));
    }
}
