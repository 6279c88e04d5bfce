//! `tidegate auth`: tokens, secrets for emergencies, and who may do what.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files;
use super::output::{self, Format};
use super::remote::{ApiArgs, StateArgs};
use crate::access::glass::Glass;
use crate::access::token::{Kept, Tokens};
use crate::driver::clock::SystemClock;
use crate::ports::Clock;
use crate::server::dto::CanAnswer;
use crate::spec::access::Permission;
use crate::units::{Millis, RegionName, ServiceName};

/// Look after who may do what.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate auth token create --for ana --expires 30d\n  tidegate auth can-i promote --service api-gateway\n  tidegate auth glass create --region eu_west_1"
)]
pub(super) struct AuthArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tokens for the API; whoever may write the state directory may make them
    Token(TokenArgs),
    /// Secrets for emergencies: one region each, used once
    Glass(GlassArgs),
    /// Whether you may do something; exit code 0 for yes, 3 for no
    #[command(
        after_help = "Example:\n  tidegate auth can-i promote --service api-gateway --region eu_west_1"
    )]
    CanI(CanArgs),
}

#[derive(Debug, Args)]
struct TokenArgs {
    #[command(subcommand)]
    what: TokenWhat,
}

#[derive(Debug, Subcommand)]
enum TokenWhat {
    /// Make one; it is shown this once
    #[command(
        after_help = "Example:\n  tidegate auth token create --for ana --scopes read,pause --expires 8h"
    )]
    Create(CreateArgs),
    /// All of them, without their secrets
    List(StateArgs),
    /// End one, at once
    Revoke {
        /// Its id: the part between the first and the second `_`
        id: String,
        #[command(flatten)]
        state: StateArgs,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// A person of the fleet's `access`
    #[arg(long = "for", value_name = "PERSON")]
    person: String,
    /// What it is limited to [default: all that the person may]
    #[arg(long, value_delimiter = ',', value_name = "PERMISSIONS")]
    scopes: Vec<Permission>,
    /// How long it counts, at most 366d
    #[arg(long, default_value = "30d", value_parser = crate::spec::quantity::duration)]
    expires: Millis,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Args)]
struct GlassArgs {
    #[command(subcommand)]
    what: GlassWhat,
}

#[derive(Debug, Subcommand)]
enum GlassWhat {
    /// Make one; it is shown this once, and belongs into a safe
    Create {
        /// The region
        #[arg(long)]
        region: RegionName,
        #[command(flatten)]
        state: StateArgs,
    },
    /// How many are left for each region
    List(StateArgs),
}

#[derive(Debug, Args)]
struct CanArgs {
    /// What
    permission: Permission,
    /// Of which service
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// In which region [default: all of the service's]
    #[arg(long)]
    region: Option<RegionName>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn run(args: AuthArgs, format: Format) -> Result<Exit, Failure> {
    match args.what {
        What::Token(TokenArgs { what: TokenWhat::Create(create) }) => made(create, format),
        What::Token(TokenArgs { what: TokenWhat::List(state) }) => listed(&state, format),
        What::Token(TokenArgs { what: TokenWhat::Revoke { id, state } }) => {
            revoked(&id, &state, format)
        }
        What::Glass(GlassArgs { what: GlassWhat::Create { region, state } }) => {
            glass(&region, &state, format)
        }
        What::Glass(GlassArgs { what: GlassWhat::List(state) }) => {
            let left = Glass::of(&state.folder()?).left().map_err(|error| failed(&error))?;
            output::emit(format, &left, |left| {
                left.iter().map(|(region, count)| format!("{region}: {count}\n")).collect()
            })?;
            Ok(Exit::Done)
        }
        What::CanI(can) => can_i(can, format).await,
    }
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::new(format!("the state directory cannot be used: {error}"))
}

/// A token as it is shown, once.
#[derive(Serialize)]
struct Made {
    token: String,
    #[serde(flatten)]
    kept: Shown,
}

/// A token without anything of its secret.
#[derive(Serialize)]
struct Shown {
    id: String,
    person: String,
    scopes: Option<Vec<String>>,
    expires: String,
}

impl From<Kept> for Shown {
    fn from(kept: Kept) -> Self {
        let scopes = kept.scopes.map(|all| all.iter().map(ToString::to_string).collect());
        let expires = super::status::time(kept.expires);
        Self { id: kept.id, person: kept.person, scopes, expires }
    }
}

fn made(args: CreateArgs, format: Format) -> Result<Exit, Failure> {
    let fleet = files::fleet(&args.state.fleet)?;
    if !fleet.access.people.contains_key(&args.person) {
        let names: Vec<_> = fleet.access.people.keys().map(String::as_str).collect();
        return Err(Failure::new(format!("the fleet's `access` has no `{}`", args.person))
            .exit(Exit::Usage)
            .help(format!("there are: {}", names.join(", "))));
    }
    let scopes = (!args.scopes.is_empty()).then(|| args.scopes.into_iter().collect());
    let tokens = Tokens::of(&args.state.folder()?);
    let now = SystemClock::new().now();
    let (kept, token) =
        tokens.create(&args.person, scopes, args.expires, now).map_err(|error| failed(&error))?;
    output::emit(format, &Made { token, kept: kept.into() }, |made| {
        format!(
            "{}\nfor {} until {}; it is not shown again; next: TIDEGATE_TOKEN=... tidegate list --server URL",
            made.token, made.kept.person, made.kept.expires
        )
    })?;
    Ok(Exit::Done)
}

fn listed(state: &StateArgs, format: Format) -> Result<Exit, Failure> {
    let all = Tokens::of(&state.folder()?).list().map_err(|error| failed(&error))?;
    let all: Vec<Shown> = all.into_iter().map(Shown::from).collect();
    output::emit(format, &all, |all| {
        let line = |one: &Shown| {
            let scopes = one.scopes.as_ref().map_or("everything".to_owned(), |all| all.join(","));
            format!("{}  {}  until {}  {scopes}\n", one.id, one.person, one.expires)
        };
        all.iter().map(line).collect()
    })?;
    Ok(Exit::Done)
}

fn revoked(id: &str, state: &StateArgs, format: Format) -> Result<Exit, Failure> {
    if !Tokens::of(&state.folder()?).revoke(id).map_err(|error| failed(&error))? {
        return Err(Failure::new("there is no token of that id").exit(Exit::Usage));
    }
    output::emit(format, &id, |id| format!("token {id} counts no more"))?;
    Ok(Exit::Done)
}

fn glass(region: &RegionName, state: &StateArgs, format: Format) -> Result<Exit, Failure> {
    let fleet = files::fleet(&state.fleet)?;
    if !fleet.regions.contains_key(region) {
        return Err(Failure::new(format!("the fleet has no region {region}")).exit(Exit::Usage));
    }
    let now = SystemClock::new().now();
    let secret = Glass::of(&state.folder()?).create(region, now).map_err(|error| failed(&error))?;
    output::emit(format, &secret, |secret| {
        format!("{secret}\nopens {region} once: tidegate break-glass; it is not shown again")
    })?;
    Ok(Exit::Done)
}

async fn can_i(args: CanArgs, format: Format) -> Result<Exit, Failure> {
    let region = args.region.as_ref().map(ToString::to_string);
    let permission = args.permission.to_string();
    let answer = args.api.remote()?.can_i(&permission, &args.service, region.as_deref()).await?;
    output::emit(format, &answer, |answer: &CanAnswer| match &answer.reason {
        None => format!("yes, {} may", answer.name),
        Some(reason) => format!("no: {reason}"),
    })?;
    Ok(if answer.allowed { Exit::Done } else { Exit::NotConnected })
}
