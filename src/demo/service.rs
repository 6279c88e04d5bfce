//! One server of one version: answers after a drawn time, fails now and then, counts what it did.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hyper::{StatusCode, Uri};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

use super::SERVICE;
use super::http::{Reply, lock, reply};
use super::telemetry::Telemetry;

/// Median of the time that a good server takes.
const LATENCY_MEDIAN_SECONDS: f64 = 0.020;
/// Standard deviation of its logarithm: the 95th percentile is near 39 ms.
const LATENCY_SPREAD: f64 = 0.4;
/// No request takes longer than this.
const LATENCY_MAX_SECONDS: f64 = 2.0;
/// How much longer a slow server takes.
const SLOWDOWN: f64 = 3.0;
/// Share of requests that a good server fails.
const FAILURE_SHARE_BASE: f64 = 0.001;
/// Share of requests that a bad server fails.
const FAILURE_SHARE_BAD: f64 = 0.20;
/// Share of requests whose users leave a rating.
const RATED_SHARE: f64 = 0.05;
/// Cumulative shares of 1 to 4 stars among content users; the rest leave 5. The mean is 4.73.
const STARS_UP_TO: [f64; 4] = [0.005, 0.015, 0.05, 0.20];
/// Beyond this, users take away one star.
const PATIENCE: Duration = Duration::from_millis(100);

/// How the servers of the canary's version behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Behaviour {
    /// Like the stable version.
    #[default]
    Good,
    /// Fails 20 % of its requests.
    Errors,
    /// Takes three times as long.
    Slow,
    /// Fails 20 % of its requests once canaries of more than one region have had traffic.
    Late,
    /// Serves well, but its metrics vanish soon after its first request.
    Silent,
}

impl fmt::Display for Behaviour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Good => "good",
            Self::Errors => "errors",
            Self::Slow => "slow",
            Self::Late => "late",
            Self::Silent => "silent",
        })
    }
}

/// Which regions' servers of one version have had requests; shared by all of them.
#[derive(Default)]
pub(super) struct Reach(AtomicU32);

impl Reach {
    /// Notes the region of this index (below 32) and says how many there are by now.
    fn arrived(&self, region: u32) -> u32 {
        let bit = 1 << region;
        // A plain read nearly always: the line is shared by all regions.
        if self.0.load(Relaxed) & bit == 0 {
            self.0.fetch_or(bit, Relaxed);
        }
        self.0.load(Relaxed).count_ones()
    }
}

/// What a server is, besides what it draws.
pub(super) struct Character {
    /// Name of its region, as its metrics spell it.
    pub region: String,
    /// From 0.
    pub region_index: u32,
    /// What it serves.
    pub version: &'static str,
    /// How.
    pub behaviour: Behaviour,
    /// Shared by the servers of its version.
    pub reach: Arc<Reach>,
    /// From its first request to the end of its metrics, if it is silent.
    pub silent_after: Duration,
}

/// One server.
pub(super) struct Service {
    character: Character,
    labels: String,
    telemetry: Telemetry,
    draws: Mutex<Pcg64>,
    first_request: OnceLock<Instant>,
}

/// One request's fate.
struct Draw {
    latency: Duration,
    failed: bool,
    stars: Option<u8>,
}

impl Service {
    /// A server that has served nothing yet; `draws` decides its requests' fates.
    pub fn new(character: Character, draws: Pcg64) -> Self {
        let labels = format!(
            "service=\"{SERVICE}\",region=\"{}\",version=\"{}\"",
            character.region, character.version
        );
        Self {
            character,
            labels,
            telemetry: Telemetry::default(),
            draws: Mutex::new(draws),
            first_request: OnceLock::new(),
        }
    }

    /// Requests answered and those failed among them.
    pub fn served(&self) -> (u64, u64) {
        self.telemetry.served()
    }

    /// Answers one request: `/metrics`, `/healthz`, or work.
    pub async fn answer(&self, uri: &Uri) -> Reply {
        match uri.path() {
            "/metrics" => reply(StatusCode::OK, self.page()),
            "/healthz" => reply(StatusCode::OK, "ok\n"),
            _ => self.work().await,
        }
    }

    fn page(&self) -> String {
        let mut page = "# TYPE service_info gauge\nservice_info 1\n".to_owned();
        if !self.is_silent() {
            page += &self.telemetry.page(&self.labels);
        }
        page
    }

    fn is_silent(&self) -> bool {
        self.character.behaviour == Behaviour::Silent
            && self
                .first_request
                .get()
                .is_some_and(|first| first.elapsed() >= self.character.silent_after)
    }

    async fn work(&self) -> Reply {
        let began = Instant::now();
        self.first_request.get_or_init(|| began);
        let draw = self.draw();
        tokio::time::sleep(draw.latency).await;
        let took = began.elapsed();
        let stars = draw.stars.map(|stars| rating(stars, draw.failed, took));
        self.telemetry.observe(draw.failed, took, stars);
        if draw.failed {
            reply(StatusCode::INTERNAL_SERVER_ERROR, "failed\n")
        } else {
            reply(StatusCode::OK, self.character.version)
        }
    }

    fn draw(&self) -> Draw {
        let regions = self.character.reach.arrived(self.character.region_index);
        let (failure_share, slowdown) = match self.character.behaviour {
            Behaviour::Errors => (FAILURE_SHARE_BAD, 1.0),
            Behaviour::Late if regions > 1 => (FAILURE_SHARE_BAD, 1.0),
            Behaviour::Slow => (FAILURE_SHARE_BASE, SLOWDOWN),
            Behaviour::Good | Behaviour::Late | Behaviour::Silent => (FAILURE_SHARE_BASE, 1.0),
        };
        let mut draws = lock(&self.draws);
        let normal: f64 = StandardNormal.sample(&mut *draws);
        let seconds = LATENCY_MEDIAN_SECONDS * slowdown * (LATENCY_SPREAD * normal).exp();
        let failed = draws.random::<f64>() < failure_share;
        let rated = draws.random::<f64>() < RATED_SHARE;
        let mood = draws.random::<f64>();
        Draw {
            latency: Duration::from_secs_f64(seconds.min(LATENCY_MAX_SECONDS)),
            failed,
            stars: rated.then(|| content_stars(mood)),
        }
    }
}

/// Stars of a user who got an answer in good time; `mood` in [0, 1).
fn content_stars(mood: f64) -> u8 {
    let worse = STARS_UP_TO.iter().filter(|&&share| mood >= share).count();
    // At most four.
    1 + worse as u8
}

/// What failure and waiting make of a rating.
fn rating(stars: u8, failed: bool, took: Duration) -> u8 {
    match (failed, took > PATIENCE) {
        (true, _) => 1,
        (false, true) => stars.saturating_sub(1).max(1),
        (false, false) => stars,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(behaviour: Behaviour, region_index: u32, reach: &Arc<Reach>) -> Service {
        let character = Character {
            region: "here".to_owned(),
            region_index,
            version: "v2",
            behaviour,
            reach: Arc::clone(reach),
            silent_after: Duration::from_secs(3),
        };
        Service::new(character, Pcg64::new(7, 7))
    }

    /// Share of failures and the median in milliseconds of `count` requests.
    fn drawn(service: &Service, count: usize) -> (f64, f64) {
        let draws: Vec<_> = (0..count).map(|_| service.draw()).collect();
        let failures = draws.iter().filter(|draw| draw.failed).count();
        let mut millis: Vec<_> =
            draws.iter().map(|draw| draw.latency.as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        (failures as f64 / count as f64, millis[count / 2])
    }

    #[test]
    fn behaviours_draw_what_they_say() {
        for (behaviour, failures, median) in [
            (Behaviour::Good, 0.001, 20.0),
            (Behaviour::Errors, 0.20, 20.0),
            (Behaviour::Slow, 0.001, 60.0),
            (Behaviour::Late, 0.001, 20.0),
            (Behaviour::Silent, 0.001, 20.0),
        ] {
            let (failed, middle) = drawn(&service(behaviour, 0, &Arc::default()), 20_000);
            assert!((failed - failures).abs() < 0.01, "{behaviour}: {failed}");
            assert!((middle / median - 1.0).abs() < 0.03, "{behaviour}: {middle} ms");
        }
    }

    #[test]
    fn late_fails_everywhere_once_a_second_region_has_traffic() {
        let reach = Arc::default();
        let (first, second) =
            (service(Behaviour::Late, 0, &reach), service(Behaviour::Late, 1, &reach));
        assert!(drawn(&first, 5_000).0 < 0.01);
        assert!(drawn(&second, 5_000).0 > 0.17);
        assert!(drawn(&first, 5_000).0 > 0.17);
    }

    #[test]
    fn content_users_rate_4_73_on_average_and_disappointed_ones_less() {
        let total: u32 = (0..1_000).map(|i| u32::from(content_stars(f64::from(i) / 1e3))).sum();
        assert_eq!(total, 4_730);
        assert_eq!(rating(5, false, Duration::from_millis(20)), 5);
        assert_eq!(rating(5, false, Duration::from_millis(120)), 4);
        assert_eq!(rating(1, false, Duration::from_millis(120)), 1);
        assert_eq!(rating(5, true, Duration::from_millis(20)), 1);
    }
}
