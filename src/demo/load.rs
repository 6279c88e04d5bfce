//! The users of one region: an open loop that sends at its rate whatever the answers do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand_distr::{Distribution, Exp1};
use rand_pcg::Pcg64;
use tokio::time::Instant;

use super::http::Client;

/// Requests under way at once; beyond it users are turned away and counted.
const UNDER_WAY_MAX: u64 = 1_000;
/// A user who waits longer gives up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far behind its schedule the load may fall before it forgets what it missed: a machine that stood still for a
/// moment is not to be met by all of its users at once.
const LAG_MAX: Duration = Duration::from_millis(100);

/// What the users of one region saw.
#[derive(Default)]
pub(super) struct Outcomes {
    /// Answered or given up.
    pub ended: AtomicU64,
    /// Those among them without a good answer.
    pub failed: AtomicU64,
    /// Never sent, because too many were under way.
    pub turned_away: AtomicU64,
    under_way: AtomicU64,
}

/// One region's load.
pub(super) struct Load {
    /// Where the proxy is.
    pub proxy: SocketAddr,
    /// Mean rate; at least 1.
    pub requests_per_second: u32,
    /// Spacing of the requests: exponential.
    pub draws: Pcg64,
    /// Counted as it happens.
    pub outcomes: Arc<Outcomes>,
}

impl Load {
    /// Sends until its runtime ends.
    pub async fn run(mut self) {
        let client = Arc::new(Client::new(self.proxy));
        let mut due = Instant::now();
        loop {
            let gap: f64 = Exp1.sample(&mut self.draws);
            due += Duration::from_secs_f64(gap / f64::from(self.requests_per_second));
            let now = Instant::now();
            if due > now {
                tokio::time::sleep_until(due).await;
            } else if now - due > LAG_MAX {
                due = now;
            }
            self.send(&client);
        }
    }

    fn send(&self, client: &Arc<Client>) {
        if self.outcomes.under_way.load(Relaxed) >= UNDER_WAY_MAX {
            self.outcomes.turned_away.fetch_add(1, Relaxed);
            return;
        }
        self.outcomes.under_way.fetch_add(1, Relaxed);
        let (client, outcomes) = (Arc::clone(client), Arc::clone(&self.outcomes));
        tokio::spawn(async move {
            let answer = tokio::time::timeout(PATIENCE, client.get("/")).await;
            let good = matches!(answer, Ok(Ok(answer)) if answer.status.is_success());
            outcomes.ended.fetch_add(1, Relaxed);
            outcomes.failed.fetch_add(u64::from(!good), Relaxed);
            outcomes.under_way.fetch_sub(1, Relaxed);
        });
    }
}
