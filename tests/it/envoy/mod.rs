//! Both Envoy modes on a real Envoy.

pub mod affinity;
mod file;
pub mod suite;
mod xds;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use tidegate::ports::{LoadBalancer, Reading, Split};
use tidegate::units::{Generation, SlotName, Weight};

use crate::parts::backend::Backend;
use crate::parts::envoy::{EnvoyConfig, Rds};

/// Two backends behind the clusters `api-blue` and `api-green`.
struct World {
    blue: Backend,
    /// None while it is sick.
    green: Option<Backend>,
    green_address: SocketAddr,
}

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        Self { blue, green_address: green.address, green: Some(green) }
    }

    async fn green_again(&mut self) {
        self.green = Some(Backend::at("green", self.green_address).await);
    }

    /// With active health checks.
    fn checked(&self, node_id: &str, rds: Rds) -> EnvoyConfig {
        EnvoyConfig { health_checks: true, ..self.config(node_id, rds) }
    }

    fn config(&self, node_id: &str, rds: Rds) -> EnvoyConfig {
        EnvoyConfig {
            node_id: node_id.to_owned(),
            node_cluster: "us_east_1".to_owned(),
            route: "web".to_owned(),
            backends: BTreeMap::from([
                ("api-blue".to_owned(), vec![self.blue.address]),
                ("api-green".to_owned(), vec![self.green_address]),
            ]),
            rds,
            health_checks: false,
        }
    }
}

fn clusters() -> BTreeMap<SlotName, String> {
    ["blue", "green"].map(|slot| (slot.parse().unwrap(), format!("api-{slot}"))).into()
}

/// An adapter and the traffic of an Envoy behind it.
struct Subject<'a> {
    balancer: &'a dyn LoadBalancer,
    /// Generations are counted up from here.
    generation: u64,
}

fn subject<'a>(balancer: &'a dyn LoadBalancer) -> Subject<'a> {
    Subject { balancer, generation: 0 }
}

impl Subject<'_> {
    fn split(&self, green_percent: f64) -> Split {
        let green = Weight::from_percent(green_percent).unwrap();
        ["blue", "green"]
            .map(|slot| slot.parse().unwrap())
            .into_iter()
            .zip([green.complement(), green])
            .collect()
    }

    /// Sets the next generation and returns what was read back, settled.
    async fn set(&mut self, green_percent: f64) -> Reading {
        self.generation += 1;
        let (split, generation) = (self.split(green_percent), Generation(self.generation));
        let reading = self.balancer.set(&split, generation).await.unwrap();
        assert!(reading.settled, "{green_percent} %: {reading:?}");
        assert_eq!((&reading.split, reading.generation), (&split, Some(generation)));
        reading
    }

    /// Waits until `read` says what `wanted` asks (5 s at most).
    async fn read_until(&self, wanted: impl Fn(&Reading) -> bool) -> Reading {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        loop {
            let reading = self.balancer.read().await;
            if let Some(reading) = reading.as_ref().ok().filter(|reading| wanted(reading)) {
                return reading.clone();
            }
            assert!(std::time::Instant::now() < deadline, "not reached: {reading:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Puts `text` at `path` as a person's editor does: beside it, then renamed.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}
