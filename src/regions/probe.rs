//! Asks a region's health address again and again, and keeps what follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tracing::warn;

use super::health::Health;
use crate::http;
use crate::spec::fleet::Probe;
use crate::units::RegionName;

/// A running probe. It ends when this is dropped.
#[derive(Debug)]
pub struct Prober {
    healthy: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts probing; `None` when the probe has no address.
    ///
    /// # Errors
    /// The address is not one.
    pub fn start(region: &RegionName, probe: &Probe) -> Result<Option<Self>, http::Error> {
        let Some(url) = probe.url.clone() else { return Ok(None) };
        let client = http::client(&url, probe.timeout, None)?;
        let healthy = Arc::new(AtomicBool::new(true));
        let (shared, region, probe) = (Arc::clone(&healthy), region.clone(), probe.clone());
        let task = tokio::spawn(async move {
            let mut health = Health::new(probe.failures, probe.successes);
            let mut timer = tokio::time::interval(probe.interval.duration());
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                timer.tick().await;
                let answer = client.get(&url).send().await;
                let succeeded = answer.is_ok_and(|answer| answer.status().is_success());
                let now = health.probed(succeeded);
                if shared.swap(now, Ordering::Relaxed) != now {
                    warn!(%region, healthy = now, "region health changed");
                }
            }
        });
        Ok(Some(Self { healthy, task }))
    }

    /// Whether the region is healthy now.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}
