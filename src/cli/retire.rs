//! `tidegate retire`: takes the previous version out after a promotion.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::connect::connect;
use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs};
use super::output::{self, Format};
use crate::driver::retire::{retirable, retire};
use crate::units::{RolloutId, ServiceName, Version};

/// Run the hook `retire` for the version that was stable before the last promotion.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate retire api-gateway")]
pub(super) struct RetireArgs {
    /// The service
    service: ServiceName,
    /// Also before `keep_previous` is over: the way back without stages ends with it
    #[arg(long)]
    now: bool,
    /// State directory [default: the fleet's]
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    #[command(flatten)]
    fleet: FleetArgs,
}

#[derive(Serialize)]
struct Done {
    changed: bool,
    rollout: RolloutId,
    version: Option<Version>,
}

pub(super) async fn run(args: RetireArgs, format: Format) -> Result<Exit, Failure> {
    let fleet = files::fleet(&args.fleet)?;
    let service = files::service_of(&fleet, Some(&args.service))?;
    let connection = connect(fleet, service, args.state.as_deref()).await?;
    let what = retirable(&connection.site).await?;
    let rollout = what.id.clone();
    let version =
        connection.site.journal.rollout(&rollout).await?.map(|(rollout, _)| rollout.stable_version);
    retire(&connection.site, what, args.now).await?;
    output::emit(format, &Done { changed: true, rollout, version }, |done| {
        let version = done.version.as_ref().map_or(String::new(), ToString::to_string);
        format!("{version} is retired everywhere")
    })?;
    Ok(Exit::Done)
}
