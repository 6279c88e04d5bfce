//! `tidegate undo`: back from a promotion, without stages.

use std::sync::Arc;

use clap::Args;

use super::connect::connect;
use super::exit::Exit;
use super::failure::Failure;
use super::files;
use super::output::{self, Format};
use super::remote::ApiArgs;
use super::session::{Manner, drive};
use super::start;
use super::summary::Summary;
use crate::driver::service;
use crate::engine::event::Actor;
use crate::server::user;
use crate::units::ServiceName;

/// Go back to the version that was stable before the last promotion, at once, while it is still kept.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate undo api-gateway")]
pub(super) struct UndoArgs {
    /// The service
    service: ServiceName,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn run(args: UndoArgs, format: Format) -> Result<Exit, Failure> {
    if let Some(remote) = args.api.running()? {
        return match remote.begin(&args.service, "undo").await?.rollout {
            Some(id) => start::wait(&remote, &id, format).await,
            None => Ok(Exit::Done),
        };
    }
    let fleet = files::fleet(&args.api.state.fleet)?;
    let service = files::service_of(&fleet, Some(&args.service))?;
    let connection = connect(fleet, service, args.api.state.state.as_deref()).await?;
    let site = Arc::clone(&connection.site);
    let (plan, version) = service::undoing(&site).await?;
    let by = Actor { name: user(), note: None };
    let id = service::start(&site, plan, version, by).await?;
    let manner = Manner { format, attended: false };
    let (exit, state) = drive(&connection, &id, manner).await?;
    match format {
        Format::Table => output::line(Summary::of(&state, None).table().trim_end()),
        _ => output::json_line(&Summary::of(&state, None)),
    }
    Ok(exit)
}
