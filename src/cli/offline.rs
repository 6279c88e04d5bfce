//! `rollback --offline`: back at the load balancers themselves, with the fleet file alone.
//!
//! For when nothing answers: the state is broken, locked by a process that hangs, or gone. What plays stable is read
//! from the journal as far as that can be read, without a lock; where it says nothing, a person does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use super::connect::known;
use super::exit::Exit;
use super::failure::{Failure, chain};
use super::files;
use super::output::{self, BAD, Format, GOOD, note, styled};
use super::remote::StateArgs;
use crate::driver::effects::split;
use crate::engine::event::ArmSlots;
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
use crate::load_balancer::{self, Known, TargetKey};
use crate::ports::{LoadBalancer, Outcome, Split};
use crate::spec::fleet::Fleet;
use crate::store::offline::{Remembered, remembered};
use crate::units::{Generation, RegionName, ServiceName, SlotName, Weight};

/// Pause between two tries at one load balancer.
const PAUSE: Duration = Duration::from_millis(250);

/// How it is done without a daemon.
#[derive(Debug, Args)]
pub(super) struct OfflineArgs {
    /// The service; may be left out when the fleet has only one
    #[arg(long, value_name = "NAME", requires = "offline")]
    service: Option<ServiceName>,
    /// The slot that plays stable in every region [default: what the journal says]
    #[arg(long, value_name = "SLOT", requires = "offline")]
    stable_slot: Option<SlotName>,
    /// Only print the commands that do it by hand
    #[arg(long, requires = "offline")]
    print: bool,
    /// Seconds after which a load balancer that is not read back at 0 is given up
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    patience: u64,
}

#[derive(Serialize)]
struct Went {
    service: ServiceName,
    generation: Generation,
    targets: Vec<TargetWent>,
}

#[derive(Serialize)]
struct TargetWent {
    region: RegionName,
    target: String,
    /// Read back without canary on every instance.
    back: bool,
    /// Why not.
    why: Option<String>,
}

/// One load balancer, and what it is to do.
struct Way {
    key: TargetKey,
    balancer: std::sync::Arc<dyn LoadBalancer>,
    split: Split,
}

pub(super) async fn rollback(
    args: &OfflineArgs,
    state: &StateArgs,
    format: Format,
) -> Result<Exit, Failure> {
    let fleet = files::fleet(&state.fleet)?;
    let service = files::service_of(&fleet, args.service.as_ref())?;
    let folder: PathBuf = super::connect::state_dir(&fleet, state.state.as_deref());
    let remembered = remembered(&folder);
    if let Some(damage) = &remembered.damage {
        note(&format!("{}: {}", styled(output::WARN, "the journal ends early"), damage.chain()));
    }
    let roles = roles(&fleet, &service, args.stable_slot.as_ref(), &remembered)?;
    let before = remembered.services.get(&service).map_or(Generation(0), |it| it.generation);
    let targets = known_targets(&fleet, &service, &roles, remembered, before.next());
    let connected = load_balancer::connect(&fleet, Some(&service), &targets).await;
    let connected = connected.map_err(|error| {
        Failure::new(chain(&error)).help(
            "where a process serves these load balancers, `tidegate rollback` asks it; one that does not answer has to \
             be ended first",
        )
    })?;
    let ways: Vec<_> = connected
        .targets
        .iter()
        .filter_map(|(key, balancer)| {
            let split = split(roles.get(&key.region)?, Weight::ZERO);
            Some(Way { key: key.clone(), balancer: std::sync::Arc::clone(balancer), split })
        })
        .collect();
    let newest = join_all(ways.iter().map(Way::newest)).await.into_iter().flatten().max();
    let generation = newest.map_or(before, |newest| newest.max(before)).next();
    if args.print {
        return print(&ways, generation).await;
    }
    let until = Instant::now() + Duration::from_secs(args.patience);
    let targets = join_all(ways.iter().map(|way| way.go_back(generation, until))).await;
    let exit = if targets.iter().all(|it| it.back) { Exit::Done } else { Exit::Error };
    output::emit(format, &Went { service, generation, targets }, said)?;
    Ok(exit)
}

fn said(went: &Went) -> String {
    let line = |it: &TargetWent| match &it.why {
        None => format!("{} {}: {}", it.region, it.target, styled(GOOD, "read back at 0 %")),
        Some(why) => format!("{} {}: {}: {why}", it.region, it.target, styled(BAD, "NOT BACK")),
    };
    let lines: Vec<_> = went.targets.iter().map(line).collect();
    let service = &went.service;
    format!("{}\nnext: tidegate run --resume {service} takes it over", lines.join("\n"))
}

async fn print(ways: &[Way], generation: Generation) -> Result<Exit, Failure> {
    for way in ways {
        output::line(&format!("# {}", way.balancer.describe()));
        let commands = way.balancer.by_hand(&way.split, generation).await;
        let commands = commands.map_err(|error| Failure::new(error.to_string()))?;
        if commands.is_empty() {
            output::line("# has its weights from Tidegate alone: run this without --print");
        }
        commands.iter().for_each(|command| output::line(command));
    }
    Ok(Exit::Done)
}

/// Who plays which role in each region of the service.
fn roles(
    fleet: &Fleet,
    service: &ServiceName,
    stable: Option<&SlotName>,
    remembered: &Remembered,
) -> Result<BTreeMap<RegionName, ArmSlots>, Failure> {
    let Some(described) = fleet.services.get(service) else { return Ok(BTreeMap::new()) };
    let [one, two] = &described.slots;
    if let Some(stable) = stable {
        let canary = match stable {
            stable if stable == one => two,
            stable if stable == two => one,
            other => {
                let what = format!("{service} has the slots {one} and {two}, not {other}");
                return Err(Failure::new(what).exit(Exit::Usage));
            }
        };
        let slots = ArmSlots { canary: canary.clone(), stable: stable.clone() };
        return Ok(described.targets.keys().map(|name| (name.clone(), slots.clone())).collect());
    }
    let (known, open) = (remembered.services.get(service), remembered.open.get(service));
    let role = |region: &RegionName| {
        let arms = open.and_then(|open| open.slots.get(region).cloned());
        let idle = known.and_then(|known| known.regions.get(region));
        arms.or_else(|| {
            idle.map(|it| ArmSlots { canary: it.idle.clone(), stable: it.stable.clone() })
        })
    };
    let found: BTreeMap<_, _> = described
        .targets
        .keys()
        .filter_map(|region| Some((region.clone(), role(region)?)))
        .collect();
    if found.len() == described.targets.len() {
        return Ok(found);
    }
    Err(Failure::new(format!("the journal does not say which slot of {service} is stable"))
        .exit(Exit::Usage)
        .help(format!("--stable-slot {one} or --stable-slot {two} does")))
}

/// What adapters that serve weights begin with: this service is back already, the others are as they were recorded.
fn known_targets(
    fleet: &Fleet,
    service: &ServiceName,
    roles: &BTreeMap<RegionName, ArmSlots>,
    remembered: Remembered,
    generation: Generation,
) -> BTreeMap<TargetKey, Known> {
    let Remembered { services, mut open, .. } = remembered;
    let recorded: Vec<(ServiceState, Option<Rollout>)> = services
        .into_values()
        .filter(|state| state.name != *service)
        .map(|state| {
            let open = open.remove(&state.name);
            (state, open)
        })
        .collect();
    let mut targets = known(fleet, &recorded);
    let Some(described) = fleet.services.get(service) else { return targets };
    for (region, slots) in roles {
        for target in described.targets.get(region).into_iter().flatten() {
            let key = TargetKey {
                service: service.clone(),
                region: region.clone(),
                target: target.name.clone(),
            };
            let split = split(slots, Weight::ZERO);
            targets.insert(key, Known { split, generation, instances: Vec::new() });
        }
    }
    targets
}

impl Way {
    /// The newest generation found there.
    async fn newest(&self) -> Option<Generation> {
        let read = tokio::time::timeout(Duration::from_secs(5), self.balancer.read()).await;
        read.ok()?.ok()?.generation
    }

    async fn go_back(&self, mut generation: Generation, until: Instant) -> TargetWent {
        let (mut why, mut back) = (Some("no answer".to_owned()), false);
        while !back && Instant::now() < until {
            let call = self.balancer.set(&self.split, generation);
            match tokio::time::timeout_at(until, call).await {
                Ok(Ok(reading)) if reading.settled && reading.split == self.split => {
                    (why, back) = (None, true);
                    continue;
                }
                Ok(Ok(reading)) => why = Some(reading.note.unwrap_or("not settled".to_owned())),
                Ok(Err(error)) => {
                    if error.outcome == Outcome::Superseded {
                        generation = self.newest().await.unwrap_or(generation).next();
                    }
                    why = Some(error.to_string());
                }
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        let TargetKey { region, target, .. } = self.key.clone();
        TargetWent { region, target: target.to_string(), back, why }
    }
}
