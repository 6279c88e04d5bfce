//! `tidegate adopt`: take a service over as it stands.

use clap::Args;

use super::connect::connect;
use super::exit::Exit;
use super::failure::Failure;
use super::files;
use super::output::{self, Format};
use super::remote::ApiArgs;
use crate::driver::service;
use crate::engine::event::{Actor, Adopted};
use crate::server::dto::AdoptRequest;
use crate::server::user;
use crate::units::{ServiceName, Version};

/// Record what runs now. Changes no weights; Envoys that Tidegate serves get the weights of their route file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate adopt api-gateway --version v1")]
pub(super) struct AdoptArgs {
    /// The service
    service: ServiceName,
    /// The version that runs now
    #[arg(long)]
    version: Version,
    /// Accept a split in progress: the slot with more traffic is stable
    #[arg(long)]
    as_is: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn run(args: AdoptArgs, format: Format) -> Result<Exit, Failure> {
    if let Some(remote) = args.api.running()? {
        let request = AdoptRequest { version: args.version, as_is: args.as_is };
        let adopted = remote.adopt(&args.service, &request).await?;
        output::emit(format, &adopted, |adopted| table(&args.service, adopted))?;
        return Ok(Exit::Done);
    }
    let fleet = files::fleet(&args.api.state.fleet)?;
    let service = files::service_of(&fleet, Some(&args.service))?;
    let connection = connect(fleet, service, args.api.state.state.as_deref()).await?;
    let by = Actor { name: user(), note: None };
    let adopted = service::adopt(&connection.site, args.version, args.as_is, by).await?;
    output::emit(format, &adopted, |adopted| table(&args.service, adopted))?;
    Ok(Exit::Done)
}

fn table(service: &ServiceName, adopted: &Adopted) -> String {
    let mut text = format!("{service} runs {}\n", adopted.version);
    for (name, region) in &adopted.regions {
        let line = format!(
            "  {name:<18} stable in {}, idle {} at {}\n",
            region.stable, region.idle, region.idle_weight
        );
        text.push_str(&line);
    }
    text + &format!("next: tidegate run PIPELINE --service {service} --version <new version>")
}
