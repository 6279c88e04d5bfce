//! The past of a service's metrics: which part of it, and which slot played which role.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use comfy_table::{Table, presets};
use indicatif::ProgressBar;

use super::connect::state_dir;
use super::exit::Exit;
use super::failure::{Failure, chain};
use super::files::Loaded;
use super::output::{self, note};
use crate::engine::service::ServiceState;
use crate::metrics;
use crate::metrics::recording::Recording;
use crate::ports::{Journal, MetricsError, MetricsSource, Subject};
use crate::replay::halves::{self, Halves, Known};
use crate::replay::metered::{ArmPast, Metered, RegionPast};
use crate::spec::fleet;
use crate::spec::plan::{Measurement, Plan};
use crate::spec::selector::{self, Track, arm_variables};
use crate::store::Store;
use crate::units::{Millis, RegionName, SlotName, Timestamp, Version, Weight};

/// Who played stable.
#[derive(Debug, Clone, Args)]
pub struct StableArgs {
    /// The slot that played stable [default: as recorded, or the fleet's first]
    #[arg(long, value_name = "SLOT")]
    pub stable_slot: Option<SlotName>,
    /// The stable version, where metrics are labelled with it [default: as recorded]
    #[arg(long, value_name = "VERSION")]
    pub stable_version: Option<Version>,
}

/// A moment: so long ago, or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Timestamp);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let now = now();
        if text == "now" {
            return Ok(Self(now));
        }
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return u64::try_from(time.as_millisecond())
                .map(|ms| Self(Timestamp(ms)))
                .map_err(|_| "before 1970".to_owned());
        }
        let ago = length(text).map_err(|_| {
            format!("`{text}` is neither a time (2026-11-01T08:00:00Z) nor so long ago (7d, 90m)")
        })?;
        Ok(Self(now.minus(ago)))
    }
}

/// A length of time: `15s`, `90m`, `7d`, `2w`.
pub fn length(text: &str) -> Result<Millis, String> {
    let wrong = || format!("`{text}` is not a length of time: expected 15s, 90m, 12h, 7d or 2w");
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(unit);
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let whole = count.checked_mul(seconds).filter(|seconds| (1..=400 * 86_400).contains(seconds));
    whole.map(Millis::from_secs).ok_or_else(wrong)
}

pub(super) fn now() -> Timestamp {
    Timestamp(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default())
}

/// A part of the past that is looked at every `step`.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its begin, in whole seconds.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// From look to look, in whole seconds.
    pub step: Millis,
}

impl Window {
    /// Between two moments; `step` is at least a second.
    pub fn new(from: Moment, to: Moment, step: Millis) -> Result<Self, Failure> {
        let whole = |at: Timestamp| Timestamp(at.0 / 1_000 * 1_000);
        let step = Millis((step.0 / 1_000 * 1_000).max(1_000));
        let (from, to) = (whole(from.0), whole(to.0));
        if to.since(from) < step {
            return Err(Failure::new("--from is not before --to").exit(Exit::Usage));
        }
        Ok(Self { from, to, step })
    }

    /// A bar over it, on a terminal.
    pub fn bar(&self, passes: u64) -> ProgressBar {
        output::bar(self.to.since(self.from).0 / 1_000 * passes)
    }
}

/// The roles that a service's slots played.
pub struct Roles {
    recorded: Option<ServiceState>,
    args: StableArgs,
    canary_version: Option<Version>,
}

impl Roles {
    /// What was said, and what the state directory knows beyond that.
    pub async fn new(loaded: &Loaded, args: &StableArgs, canary: Option<&Version>) -> Self {
        let folder = state_dir(&loaded.fleet, None);
        let asks = args.stable_slot.is_none() || args.stable_version.is_none();
        let mut recorded = None;
        if asks && folder.is_dir() {
            match Store::open(&folder) {
                Ok(store) => {
                    let found = store.service(&loaded.service).await;
                    recorded = found.ok().flatten().map(|(state, _)| state);
                }
                Err(error) => note(&format!(
                    "{} is not read ({}): --stable-slot and --stable-version say who played stable",
                    folder.display(),
                    chain(&error)
                )),
            }
        }
        Self { recorded, args: args.clone(), canary_version: canary.cloned() }
    }

    /// Stable's slot in a region, and the other one.
    fn slots(&self, loaded: &Loaded, region: &RegionName) -> Result<(SlotName, SlotName), Failure> {
        let slots = loaded.fleet.services.get(&loaded.service).map(|service| &service.slots);
        let Some([first, second]) = slots else {
            return Err(Failure::new(format!("the fleet has no service {}", loaded.service)));
        };
        let known = self.recorded.as_ref().and_then(|state| state.regions.get(region));
        let stable = self.args.stable_slot.as_ref().or(known.map(|slots| &slots.stable));
        match stable.unwrap_or(first) {
            stable if stable == first => Ok((first.clone(), second.clone())),
            stable if stable == second => Ok((second.clone(), first.clone())),
            other => {
                let what = format!("{} has no slot {other}", loaded.service);
                Err(Failure::new(what).exit(Exit::Usage).help(format!("{first} or {second}")))
            }
        }
    }

    fn stable_version(&self) -> Option<&Version> {
        let recorded = self.recorded.as_ref().and_then(|state| state.stable.as_ref());
        self.args.stable_version.as_ref().or(recorded)
    }
}

/// The variables of both arms in a region of the past.
struct Arms {
    canary: BTreeMap<String, String>,
    stable: BTreeMap<String, String>,
}

/// Reads the past of every region of the plan; `halves` names the sources that stable is split into.
///
/// With it, both arms are stable's; otherwise the other slot plays the canary.
pub async fn past(
    loaded: &Loaded,
    plan: &Plan,
    roles: &Roles,
    window: Window,
    split: Option<&Arc<Halves>>,
) -> Result<Metered, Failure> {
    let mut regions = BTreeMap::new();
    for name in plan.regions.keys() {
        let Some(region) = loaded.fleet.regions.get(name) else { continue };
        let arms = arms(loaded, plan, roles, name, region, split.is_some())?;
        let source = source(name, region)?;
        let recording: Arc<dyn MetricsSource> =
            Arc::new(Recording::new(source, window.step, window.to));
        let half = |is_canary: bool| -> Arc<dyn MetricsSource> {
            match split {
                Some(halves) => halves.half(Arc::clone(&recording), is_canary),
                None => Arc::clone(&recording),
            }
        };
        let subject = Subject {
            service: loaded.service.clone(),
            version: roles.canary_version.clone().unwrap_or_else(unknown_version),
            region: name.clone(),
        };
        let past = RegionPast {
            canary: ArmPast { source: half(true), variables: arms.canary },
            stable: ArmPast { source: half(false), variables: arms.stable },
            scrape_interval: region.scrape_interval,
            subject,
        };
        regions.insert(name.clone(), past);
    }
    Ok(Metered::new(regions, window.step, window.to))
}

/// What stable was like in a part of the past: by halves of its instances, and where it has only one, as a whole.
pub async fn known(loaded: &Loaded, roles: &Roles, window: Window) -> Result<Vec<Known>, Failure> {
    let (plan, _) = halves::countable(&loaded.plan);
    let bar = window.bar(2);
    let failed = |error: MetricsError| {
        Failure::new(format!("the past cannot be read: {error}")).exit(Exit::NotConnected)
    };
    let mut known: Vec<Known> = Vec::new();
    let half = Weight::from_percent(50.0).unwrap_or_default();
    for (halves, weight, done) in [(Halves::new(1), half, 0), (Halves::none(), Weight::ZERO, 1)] {
        let all = plan.analyses.len() * plan.regions.len();
        if known.len() == all {
            break;
        }
        let mut past = past(loaded, &plan, roles, window, Some(&halves)).await?;
        let all = window.to.since(window.from).0 / 1_000;
        let mut each =
            |at: Timestamp| bar.set_position(done * all + at.since(window.from).0 / 1_000);
        let when = (window.from, window.step);
        let found = halves::survey(&mut past, &plan, weight, when, &mut each).await;
        let is_new = |it: &Known| {
            !known.iter().any(|old| (&old.analysis, &old.region) == (&it.analysis, &it.region))
        };
        let new: Vec<_> = found.map_err(failed)?.into_iter().filter(is_new).collect();
        known.extend(new);
    }
    bar.finish_and_clear();
    known.sort_by(|one, other| (&one.analysis, &one.region).cmp(&(&other.analysis, &other.region)));
    Ok(known)
}

/// The region's Prometheus, to be asked for samples themselves.
fn source(name: &RegionName, region: &fleet::Region) -> Result<Arc<dyn MetricsSource>, Failure> {
    let mut region = region.clone();
    match &mut region.metrics {
        // Sums by the server are for looks at now; the past is read once, in chunks.
        fleet::MetricsSource::Prometheus(config) => config.aggregated = false,
        fleet::MetricsSource::Scrape(_) => {
            return Err(Failure::new(format!(
                "{name} is scraped by Tidegate itself: nobody has its past"
            ))
            .help("give the region a `prometheus`, or replay --samples of a rollout"));
        }
    }
    metrics::connect(&region).map_err(|error| Failure::new(format!("{name}: {}", chain(&error))))
}

fn arms(
    loaded: &Loaded,
    plan: &Plan,
    roles: &Roles,
    name: &RegionName,
    region: &fleet::Region,
    is_split: bool,
) -> Result<Arms, Failure> {
    let (stable_slot, canary_slot) = roles.slots(loaded, name)?;
    let Some(service) = loaded.fleet.services.get(&loaded.service) else {
        return Err(Failure::new(format!("the fleet has no service {}", loaded.service)));
    };
    let needs_version = needs_version(plan, service);
    let version = |known: Option<&Version>, option: &str| match known {
        Some(version) => Ok(version.clone()),
        None if needs_version => {
            let what = "the metrics are labelled with the version, and it is not known";
            Err(Failure::new(what).exit(Exit::Usage).help(format!("{option} VERSION says it")))
        }
        None => Ok(unknown_version()),
    };
    let stable_version = version(roles.stable_version(), "--stable-version")?;
    let variables = |slot, version: &Version, track| {
        arm_variables(&loaded.service, service, name, region, slot, version, track)
    };
    let stable = variables(&stable_slot, &stable_version, Track::Stable);
    if is_split {
        return Ok(Arms { canary: stable.clone(), stable });
    }
    let canary_version = version(roles.canary_version.as_ref(), "--version")?;
    Ok(Arms { canary: variables(&canary_slot, &canary_version, Track::Canary), stable })
}

/// What stands for a version that no selector asks for.
fn unknown_version() -> Version {
    Version::new("unknown").expect("a version")
}

/// Whether any selector depends on the version.
fn needs_version(plan: &Plan, service: &fleet::Service) -> bool {
    let texts = plan.analyses.values().flat_map(|analysis| match &analysis.measurement {
        Measurement::Proportion { part, total, .. } => vec![part, total],
        Measurement::Latency { buckets, .. } => vec![buckets],
        Measurement::Gauge { query, .. } => vec![query],
        Measurement::Check { source: crate::spec::plan::CheckSource::Promql(query), .. } => {
            vec![query]
        }
        Measurement::Check { .. } => Vec::new(),
    });
    let used = texts.filter_map(|text| selector::check(text).ok()).flatten();
    let depends = |name: String| match service.metrics.get(&name) {
        Some(template) => template.contains("{version}"),
        None => name == "version",
    };
    used.into_iter().any(depends)
}

/// What stable was like, as a table.
pub fn known_table(known: &[Known]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["analysis", "region", "requests/s", "bad or slow", "clumpiness", "from"]);
    for known in known {
        table.add_row([
            known.analysis.to_string(),
            known.region.to_string(),
            format!("{:.1}", known.requests_per_second),
            format!("{:.3} %", known.rate * 100.0),
            format!("{:.2}", known.clumpiness),
            if known.is_split { "halves of stable" } else { "neighbouring looks" }.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_lengths_are_read_and_nonsense_is_refused() {
        assert_eq!(length("15s"), Ok(Millis::from_secs(15)));
        assert_eq!(length("2w"), Ok(Millis::from_secs(14 * 86_400)));
        for wrong in ["", "7", "d", "7y", "-1d", "0s", "9999999d", "99999999999999999999s"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
        let at: Moment = "2026-11-01T08:00:00Z".parse().unwrap();
        assert_eq!(at.0, Timestamp(1_793_520_000_000));
        let week: Moment = "1w".parse().unwrap();
        assert!(now().since(week.0).0.abs_diff(7 * 86_400_000) < 5_000);
        assert!("yesterday".parse::<Moment>().is_err());
    }
}
