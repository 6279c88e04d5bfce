//! `tidegate demo`: three regions, real HTTP, a canary that may misbehave, and nothing else installed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::exit::Exit;
use super::failure::{Failure, chain};
use super::output::{self, Format, note};
use super::session::{Manner, drive_to_end};
use super::summary::Summary;
use crate::access::audit::Silent;
use crate::demo::{self, Behaviour, World, WorldConfig};
use crate::driver::clock::SystemClock;
use crate::driver::effects::RegionBalancers;
use crate::driver::service;
use crate::driver::site::{RegionSite, Site};
use crate::engine::event::Actor;
use crate::hooks::FleetHooks;
use crate::metrics;
use crate::notify;
use crate::ports::Clock;
use crate::spec::fleet::Fleet;
use crate::spec::plan::Plan;
use crate::spec::plan_from_text;
use crate::store::Store;
use crate::units::{Millis, ServiceName, Version};

/// The demo's poll interval at speed 1.
const POLL: Millis = Millis(1_000);

/// The pipeline and the analyses are part of the binary: the demo needs no files.
const PIPELINE: &str = include_str!("../../pipelines/demo.yaml");

macro_rules! analyses {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../analysis/demo/", $name, ".yaml")))),+]
    };
}

const ANALYSES: [(&str, &str); 10] = analyses![
    "all_regions_healthy",
    "availability",
    "business_metrics_stable",
    "compliance_checks_passed",
    "cross_region_functionality_verified",
    "error_rate",
    "global_load_balancing_optimal",
    "performance_benchmarks_met",
    "response_time",
    "user_satisfaction_score",
];

/// Walk three regions in an embedded world.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate demo\n  tidegate demo --version errors   # ends with exit code 5"
)]
pub(super) struct DemoArgs {
    /// How the new version behaves
    #[arg(long, value_enum, default_value = "good")]
    version: Behaviour,
    /// Scales clocks (durations of stages), never counts or thresholds
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    speed: f64,
    /// Requests per second in each region
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(1_000..=20_000))]
    rps: u32,
    /// Decides every draw of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the state directory
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: DemoArgs, format: Format) -> Result<Exit, Failure> {
    if !(0.1..=10.0).contains(&args.speed) {
        return Err(
            Failure::new(format!("--speed {}: expected 0.1 to 10", args.speed)).exit(Exit::Usage)
        );
    }
    let folder = tempfile::Builder::new()
        .prefix("tidegate-demo-")
        .tempdir()
        .map_err(|error| Failure::new(format!("no temporary folder: {error}")))?;
    let config = WorldConfig {
        seed: args.seed,
        requests_per_second: args.rps,
        behaviour: args.version,
        silent_after: scaled(Millis::from_secs(3), args.speed),
    };
    let world = tokio::task::spawn_blocking(move || World::start(config))
        .await
        .map_err(|error| Failure::new(error.to_string()))?
        .map_err(|error| Failure::new(chain(&error)))?;
    let fleet = demo::fleet(&world, folder.path().to_path_buf(), POLL)
        .map_err(|error| Failure::new(chain(&error)))?;
    let service =
        ServiceName::new(demo::SERVICE).map_err(|error| Failure::new(error.to_string()))?;
    let plan = plan(&fleet, &service, args.speed)?;
    introduce(&args, folder.path(), format);
    let site = Arc::new(site(&world, fleet, service, folder.path())?);
    let exit = walk(&site, plan, folder.path(), format).await;
    drop(site);
    if args.keep {
        note(&format!("state kept in {}", folder.keep().display()));
    }
    // The world joins its threads; not on the runtime's own.
    let _ = tokio::task::spawn_blocking(move || drop(world)).await;
    exit
}

fn introduce(args: &DemoArgs, state: &Path, format: Format) {
    if format != Format::Table {
        return;
    }
    note(&format!(
        "three regions, {} requests/s each; {} runs, {} is rolled out ({:?}); seed {}",
        args.rps,
        demo::STABLE_VERSION,
        demo::CANARY_VERSION,
        args.version,
        args.seed
    ));
    note(&format!("from another terminal: tidegate status --state {}", state.display()));
}

async fn walk(site: &Arc<Site>, plan: Plan, state: &Path, format: Format) -> Result<Exit, Failure> {
    let by = Actor { name: crate::server::user(), note: Some("demo".to_owned()) };
    let version = |text: &str| Version::new(text).map_err(|error| Failure::new(error.to_string()));
    service::adopt(site, version(demo::STABLE_VERSION)?, false, by.clone()).await?;
    let id = service::start(site, plan, version(demo::CANARY_VERSION)?, by).await?;
    let manner = Manner { format, attended: false };
    let (exit, state) =
        drive_to_end(Arc::clone(site), state, &id, manner, Arc::new(Silent)).await?;
    let next = match exit {
        Exit::RolledBack => Some("tidegate demo --version good".to_owned()),
        _ => Some("tidegate demo --version errors".to_owned()),
    };
    output::emit(format, &Summary::of(&state, next), Summary::table)?;
    Ok(exit)
}

fn site(world: &World, fleet: Fleet, service: ServiceName, state: &Path) -> Result<Site, Failure> {
    let store = Store::open(state)?;
    let mut regions = BTreeMap::new();
    for region in world.regions() {
        let described = &fleet.regions[&region.name];
        let metrics = metrics::connect(described).map_err(|error| Failure::new(chain(&error)))?;
        let targets = vec![Arc::clone(&region.balancer)];
        let balancers = RegionBalancers { region: region.name.clone(), targets };
        regions.insert(region.name.clone(), RegionSite { balancers, metrics, prober: None });
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Ok(Site {
        hooks: Arc::new(FleetHooks::default()),
        checker: Arc::new(metrics::check::Checks::new(fleet.checks.clone())),
        fleet: Arc::new(fleet),
        service,
        regions,
        journal: Arc::new(store),
        clock,
        notifier: Arc::new(notify::Log),
    })
}

fn plan(fleet: &Fleet, service: &ServiceName, speed: f64) -> Result<Plan, Failure> {
    let file = |name: &str| format!("analysis/demo/{name}.yaml");
    let analyses: Vec<_> = ANALYSES
        .iter()
        .map(|(name, text)| ((*name).to_owned(), file(name), (*text).to_owned()))
        .collect();
    let (plan, problems) =
        plan_from_text("pipelines/demo.yaml", PIPELINE, &analyses, fleet, service);
    let mut plan = plan.ok_or_else(|| {
        let errors: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Failure::new(errors.join("\n"))
    })?;
    for stage in &mut plan.stages {
        stage.duration = scaled(stage.duration, speed);
        stage.max_duration = scaled(stage.max_duration, speed);
        for step in &mut stage.steps {
            step.bake = scaled(step.bake, speed);
        }
    }
    plan.policy.on_missing.after = scaled(plan.policy.on_missing.after, speed);
    Ok(plan)
}

fn scaled(time: Millis, speed: f64) -> Millis {
    // Between a tenth and ten times a demo's time: far from any limit of the number.
    Millis((time.0 as f64 / speed).round() as u64)
}
