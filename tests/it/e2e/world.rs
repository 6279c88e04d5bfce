//! Three regions with an Envoy each, one Prometheus, a server per slot, and users.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidegate::metrics::prometheus;
use tidegate::ports::MetricsSource as _;
use tidegate::spec::fleet::{
    Adapter, EnvoyFile, Fleet, MetricsSource, Prometheus as Source, Region, Service, Target,
};
use tidegate::spec::plan::{Authority, Location};
use tidegate::units::{Millis, RegionName, ServiceName, SlotName, Weight};
use tokio::sync::{Mutex, MutexGuard};

use super::admin::{Admin, Witness, now};
use super::load::Load;
use super::plan::{POLL, REGIONS};
use super::server::Server;
use crate::parts::envoy::{Envoy, EnvoyConfig, Rds, rds_yaml};
use crate::parts::prometheus::Prometheus;

/// Worlds are heavy and measure time: one after the other.
pub static TURN: Mutex<()> = Mutex::const_new(());

/// The world. Everything in it ends with it, also when a test panics.
pub struct World {
    loads: Vec<Load>,
    pub prometheus: Prometheus,
    pub regions: Vec<Site>,
    pub blue: Server,
    pub green: Server,
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// One region.
pub struct Site {
    pub name: RegionName,
    pub envoy: Envoy,
    /// The file that its Envoy watches.
    pub routes: PathBuf,
}

/// What an operator knows of a world: enough to make the fleet of it in another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Address {
    /// Where Tidegate keeps its state.
    pub state: PathBuf,
    /// Prometheus.
    pub url: String,
    /// By region: the route file and the admin port.
    pub regions: BTreeMap<RegionName, (PathBuf, String)>,
}

impl World {
    /// Starts it with so many requests per second in each region. All traffic goes to `blue`, which runs `v1`.
    pub async fn start(rates: [u32; 3]) -> Self {
        let turn = TURN.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let (blue, green) = (Server::start("blue", 1).await, Server::start("green", 2).await);
        let mut regions = Vec::new();
        for (name, _) in REGIONS {
            // Each in a folder of its own, because that is what Envoy watches.
            let own = folder.path().join(name);
            std::fs::create_dir(&own).unwrap();
            let routes = own.join("rds.yaml");
            std::fs::write(&routes, rds_yaml("web", [("api-blue", 100), ("api-green", 0)]))
                .unwrap();
            let envoy = Envoy::spawn(EnvoyConfig {
                node_id: format!("edge-{name}"),
                node_cluster: name.to_owned(),
                route: "web".to_owned(),
                backends: BTreeMap::from([
                    ("api-blue".to_owned(), vec![blue.address]),
                    ("api-green".to_owned(), vec![green.address]),
                ]),
                rds: Rds::File(routes.clone()),
                health_checks: false,
            });
            regions.push(Site { name: name.parse().unwrap(), envoy, routes });
        }
        for region in &mut regions {
            region.envoy.ready().await;
        }
        let prometheus = Prometheus::scraping(&jobs(&regions, &[&blue, &green])).await;
        scrapes(&prometheus.url, regions.len() + 2).await;
        let loads = regions.iter().zip(rates);
        let loads = loads.map(|(region, rate)| Load::start(region.envoy.listener, rate)).collect();
        Self { loads, prometheus, regions, blue, green, folder, _turn: turn }
    }

    /// Where everything is.
    pub fn address(&self) -> Address {
        let region =
            |site: &Site| (site.name.clone(), (site.routes.clone(), site.envoy.admin_address()));
        Address {
            state: self.folder.path().join("state"),
            url: self.prometheus.url.clone(),
            regions: self.regions.iter().map(region).collect(),
        }
    }

    /// The weights of `slot` in force at the Envoys, in percent, in the regions' order.
    pub async fn weights(&self, slot: &str) -> [f64; 3] {
        let admin = Admin::new();
        let mut weights = [f64::NAN; 3];
        for (weight, region) in weights.iter_mut().zip(&self.regions) {
            let read = admin.weight(region.envoy.admin, slot).await;
            *weight = read.expect("an Envoy that answers").percent();
        }
        weights
    }

    /// Watches the weight of `slot` everywhere from now on.
    pub fn witness(&self, slot: &'static str) -> Witness {
        let envoys = self.regions.iter().map(|site| (site.name.clone(), site.envoy.admin));
        Witness::start(envoys.collect(), slot)
    }

    /// Requests that users lost without any server having failed them on purpose, and those that were failed so.
    pub fn lost_and_failed(&self) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let sum = |count: fn(&Load) -> u64| self.loads.iter().map(count).sum();
        (sum(|load| load.seen.lost.load(Relaxed)), sum(|load| load.seen.failed.load(Relaxed)))
    }

    /// Requests that users got a good answer to.
    pub fn good(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        self.loads.iter().map(|load| load.seen.good.load(Relaxed)).sum()
    }

    /// Edits a region's weights as a person does: the route file, replaced by rename.
    pub fn edit_by_hand(&self, region: usize, blue: u32, green: u32) {
        let routes = &self.regions[region].routes;
        let beside = routes.with_extension("new");
        let text = rds_yaml("web", [("api-blue", blue), ("api-green", green)]);
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, routes).unwrap();
    }
}

/// Waits until so many targets were scraped; Prometheus takes some seconds to begin.
async fn scrapes(url: &str, targets: usize) {
    let source = prometheus::Prometheus::new(&source(url)).unwrap();
    until("every target is scraped", 20, async || {
        let found = source.evaluate("count(up == 1)", now()).await.unwrap_or_default();
        let value = found.first().and_then(|series| series.samples.last()).map(|(_, value)| *value);
        value == Some(targets as f64)
    })
    .await;
}

fn source(url: &str) -> Source {
    Source {
        url: url.to_owned(),
        auth: None,
        ca: None,
        timeout: Millis::from_secs(2),
        bytes_max: 4 << 20,
        aggregated: false,
    }
}

fn jobs(regions: &[Site], servers: &[&Server]) -> Vec<String> {
    let envoy = |site: &Site| {
        let (name, admin) = (spelled(site.name.as_str()), site.envoy.admin);
        format!(
            "{{job_name: {name}, metrics_path: /stats/prometheus, static_configs: \
             [{{targets: ['{admin}'], labels: {{region: {name}}}}}]}}"
        )
    };
    let addresses: Vec<_> = servers.iter().map(|one| format!("'{}'", one.address)).collect();
    let own =
        format!("{{job_name: servers, static_configs: [{{targets: [{}]}}]}}", addresses.join(", "));
    regions.iter().map(envoy).chain([own]).collect()
}

/// How metrics spell a region.
fn spelled(region: &str) -> String {
    region.replace('_', "-")
}

impl Address {
    /// The fleet that an operator would have written for it.
    pub fn fleet(&self) -> Fleet {
        let slots = ["blue", "green"].map(|slot| slot.parse::<SlotName>().unwrap());
        let template = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let service = Service {
            affinity: None,
            at: at(),
            owner: None,
            authority: Authority::Full,
            slots,
            hooks: BTreeMap::new(),
            metrics: [template("cluster", "api-{slot}"), template("slot", "{slot}")].into(),
            targets: self
                .regions
                .keys()
                .map(|name| (name.clone(), vec![self.target(name)]))
                .collect(),
        };
        Fleet {
            file: "tidegate.yaml".to_owned(),
            state: self.state.clone(),
            regions: REGIONS.iter().map(|(name, share)| self.region(name, *share)).collect(),
            services: [(ServiceName::new("api-gateway").unwrap(), service)].into(),
            checks: BTreeMap::new(),
            xds: None,
            traefik_provider: None,
            notify: BTreeMap::new(),
            escalation: Vec::new(),
            reported: BTreeMap::new(),
            access: Default::default(),
            api: None,
        }
    }

    /// The same as a file.
    pub fn fleet_yaml(&self) -> String {
        let mut text = format!("state: {}\nregions:\n", self.state.display());
        for (name, share) in REGIONS {
            let (region, url) = (spelled(name), &self.url);
            text += &format!(
                "  {name}: {{share: {share}%, labels: {{region: {region}}}, prometheus: {{url: \"{url}\"}}}}\n"
            );
        }
        text += "services:\n  api-gateway:\n    authority: full\n    slots: [blue, green]\n    targets:\n";
        for (name, (path, admin)) in &self.regions {
            let path = path.display();
            text += &format!(
                "      {name}: [{{name: edge, envoy_file: {{route: web, path: \"{path}\", clusters: {{blue: api-blue, \
                 green: api-green}}, admin: [\"http://{admin}\"]}}}}]\n"
            );
        }
        text
    }

    fn region(&self, name: &str, share: f64) -> (RegionName, Region) {
        let region = Region {
            at: at(),
            cohort_of: None,
            share: Weight::from_percent(share).unwrap(),
            role: None,
            compliance: Vec::new(),
            instances: Some(1),
            labels: [("region".to_owned(), spelled(name))].into(),
            metrics: MetricsSource::Prometheus(source(&self.url)),
            poll: POLL,
            scrape_interval: POLL,
            settle: POLL,
            health: None,
            dns_lifetime: None,
            failover_within: None,
        };
        (name.parse().unwrap(), region)
    }

    fn target(&self, region: &RegionName) -> Target {
        let (path, admin) = &self.regions[region];
        let cluster = |slot: &str| (slot.parse().unwrap(), format!("api-{slot}"));
        let envoy = EnvoyFile {
            affinity: None,
            route: "web".to_owned(),
            path: path.clone(),
            clusters: ["blue", "green"].map(cluster).into(),
            admin: vec![admin.clone()],
        };
        Target { name: "edge".parse().unwrap(), at: at(), adapter: Adapter::EnvoyFile(envoy) }
    }
}

fn at() -> Location {
    Location { file: "tidegate.yaml".to_owned(), line: 1, column: 1 }
}

/// Waits until it holds, looking again and again for some seconds.
pub async fn until(what: &str, seconds: u64, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "never within {seconds} s: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
