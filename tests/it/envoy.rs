//! Both Envoy modes on a real Envoy.

mod file;
mod xds;

use std::collections::BTreeMap;
use std::path::Path;

use tidegate::ports::LoadBalancer;
use tidegate::units::SlotName;

use crate::conformance::Subject;
use crate::parts::backend::Backend;
use crate::parts::envoy::{Envoy, EnvoyConfig, Rds};

/// Two backends behind the clusters `api-blue` and `api-green`.
struct World {
    blue: Backend,
    green: Backend,
}

impl World {
    async fn start() -> Self {
        Self { blue: Backend::start("blue").await, green: Backend::start("green").await }
    }

    fn config(&self, node_id: &str, rds: Rds) -> EnvoyConfig {
        EnvoyConfig {
            node_id: node_id.to_owned(),
            node_cluster: "us_east_1".to_owned(),
            route: "web".to_owned(),
            backends: BTreeMap::from([
                ("api-blue".to_owned(), vec![self.blue.address]),
                ("api-green".to_owned(), vec![self.green.address]),
            ]),
            rds,
        }
    }
}

fn clusters() -> BTreeMap<SlotName, String> {
    ["blue", "green"].map(|slot| (slot.parse().unwrap(), format!("api-{slot}"))).into()
}

fn subject<'a>(balancer: &'a dyn LoadBalancer, envoy: &Envoy) -> Subject<'a> {
    let slot = |name: &str| name.parse::<SlotName>().unwrap();
    Subject {
        balancer,
        traffic: envoy.traffic(),
        canary: slot("green"),
        stable: slot("blue"),
        generation: 0,
        stores_generation: true,
    }
}

/// Puts `text` at `path` as a person's editor does: beside it, then renamed.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}
