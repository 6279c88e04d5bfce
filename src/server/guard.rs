//! What stands before every handler: how a request has to look, who sends it, and whether they may.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::problem::Problem;
use super::{Api, START_BYTES_MAX};
use crate::access::{Identity, Via};
use crate::engine::event::Actor;
use crate::spec::access::Permission;
use crate::units::{RegionName, RolloutId, ServiceName};

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Through the socket; the kernel's word on who.
    Socket(Option<u32>),
    /// Over TCP, with the names in the client's certificate.
    Tcp(IpAddr, Vec<String>),
}

/// What a route asks of who calls it. There is no route without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To be somebody; the handler shows only what they may see.
    Anybody,
    /// This permission on the rollout in the path, in all its regions.
    OnRollout(Permission),
    /// This permission on the service in the path, in all its regions.
    OnService(Permission),
    /// This permission in the region in the path, on some service.
    OnRegion(Permission),
    /// This permission on the service that the body names, which the handler asks for.
    InBody(Permission),
}

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Identity);

impl Caller {
    /// For the record.
    pub(super) fn actor(&self) -> Actor {
        let note = (self.0.via != Via::Owner).then(|| self.0.via.note());
        Actor { name: self.0.name.clone(), note }
    }

    /// Whether they may, and a line for the audit when not.
    pub(super) fn may<'a>(
        &self,
        api: &Api,
        permission: Permission,
        service: &ServiceName,
        regions: impl IntoIterator<Item = &'a RegionName>,
    ) -> Result<(), Problem> {
        let fleet = api.rollouts().fleet();
        self.0.may(&fleet.access, permission, service, regions).map_err(|denied| {
            warn!(by = self.0.name, via = self.0.via.note(), "{denied}");
            api.denied(&self.0, &denied);
            denied.into()
        })
    }

    /// Whether they may see anything of this in one of these regions.
    pub(super) fn sees(
        &self,
        api: &Api,
        service: &ServiceName,
        regions: &BTreeSet<RegionName>,
    ) -> bool {
        let access = &api.rollouts().fleet().access;
        // A token for one thing alone does not hide what it is about.
        let whole = Identity { scopes: None, ..self.0.clone() };
        let sees = |region| whole.may(access, Permission::Read, service, [region]).is_ok();
        regions.iter().any(sees)
    }
}

/// Looks at the request itself, then finds out who sends it.
pub(super) async fn enter(State(api): State<Api>, request: Request, next: Next) -> Response {
    let mut answer = match entered(&api, request, next).await {
        Ok(answer) => answer,
        Err(problem) => problem.into_response(),
    };
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

async fn entered(api: &Api, mut request: Request, next: Next) -> Result<Response, Problem> {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or(Peer::Socket(None));
    if let Peer::Tcp(source, _) = &peer {
        api.limits().source(*source).map_err(Problem::too_many)?;
        is_for_us(api, &request)?;
    }
    is_plain(&request)?;
    let identity = identify(api, &peer, request.headers()).await?;
    request.extensions_mut().insert(Caller(identity.clone()));
    if request.method() == Method::GET {
        return Ok(next.run(request).await);
    }
    if identity.via != Via::Owner {
        api.limits().change(&identity.name).map_err(Problem::too_many)?;
    }
    Ok(api.replays().once(&identity, request, next, START_BYTES_MAX).await)
}

/// By a name that is ours, and not by a page of somebody else's in a browser.
fn is_for_us(api: &Api, request: &Request) -> Result<(), Problem> {
    let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    let named = match hosts.as_slice() {
        [host] => host.to_str().ok(),
        _ => None,
    };
    let absolute = request.uri().authority().map(axum::http::uri::Authority::as_str);
    if named.is_none_or(|host| !api.is_host(host)) || absolute.is_some_and(|it| !api.is_host(it)) {
        return Err(Problem::new("wrong_host", 421, "this is not called by that name"));
    }
    if request.headers().contains_key(header::ORIGIN) {
        return Err(Problem::new("cross_origin", 403, "this is not for pages in a browser"));
    }
    Ok(())
}

/// Nothing that could be understood in two ways.
fn is_plain(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new("encoded", 415, "bodies are taken as they are, not compressed"));
    }
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let json =
        |kind: &str| kind.split(';').next().is_some_and(|it| it.trim() == "application/json");
    if request.method() != Method::GET && kind.is_some_and(|kind| !json(kind)) {
        return Err(Problem::new("not_json", 415, "a body is application/json"));
    }
    let query = request.uri().query().unwrap_or_default().to_ascii_lowercase();
    let is_secret = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let named = ["token", "secret", "password"].iter().any(|name| key.contains(name));
        named || value.starts_with("tg_") || value.starts_with("bg_")
    };
    if query.split('&').any(is_secret) {
        let what = "a secret does not belong into an address: send it as Authorization: Bearer";
        return Err(Problem::new("secret_in_query", 400, what));
    }
    Ok(())
}

async fn identify(api: &Api, peer: &Peer, headers: &HeaderMap) -> Result<Identity, Problem> {
    let rollouts = api.rollouts();
    let fleet = rollouts.fleet();
    let known = |identity: &Identity| fleet.access.people.contains_key(&identity.name);
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let source = match peer {
            Peer::Tcp(source, _) => Some(*source),
            Peer::Socket(_) => None,
        };
        let text = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let found = match text {
            Some(text) if text.starts_with("tg_") => api.tokens().identify(text, api.now()),
            Some(text) => github(api, &fleet.access, text).await?,
            None => None,
        };
        let Some(identity) = found.filter(known) else {
            if source.is_some_and(|source| api.limits().wrong(source)) {
                warn!(?source, "guesses tokens, and has to wait");
                api.guessed(source);
            }
            return Err(Problem::unauthenticated());
        };
        if let Some(source) = source {
            api.limits().right(source);
        }
        return Ok(identity);
    }
    match peer {
        Peer::Socket(uid) => of_socket(&fleet.access, *uid),
        Peer::Tcp(_, names) => {
            let mut people = fleet.access.people.iter();
            let is = |wanted: &String| names.contains(wanted);
            let found = people.find(|(_, it)| it.certificate.as_ref().is_some_and(is));
            let (name, _) = found.ok_or_else(Problem::unauthenticated)?;
            Ok(Identity { name: name.clone(), via: Via::Certificate, scopes: None })
        }
    }
}

async fn github(
    api: &Api,
    access: &crate::spec::access::Access,
    text: &str,
) -> Result<Option<Identity>, Problem> {
    let Some(github) = api.github() else { return Ok(None) };
    match github.identify(text, access, api.now()).await {
        Ok(identity) => Ok(Some(identity)),
        Err(error) => {
            warn!(%error, "a token of GitHub Actions does not count");
            api.strange_job(&error);
            // Which claim it was stands in the audit only.
            let forbidden = Problem::new("not_allowed", 403, "this job may not come in");
            if error.is_forbidden() { Err(forbidden) } else { Ok(None) }
        }
    }
}

fn of_socket(access: &crate::spec::access::Access, uid: Option<u32>) -> Result<Identity, Problem> {
    let person = access.people.iter().find(|(_, it)| it.uid.is_some() && it.uid == uid);
    let person = person.map(|(name, _)| name.clone());
    if uid == Some(rustix::process::geteuid().as_raw()) {
        return Ok(Identity::owner(person.unwrap_or_else(super::user)));
    }
    let what =
        "only the user who runs Tidegate, and people with a uid in the fleet, use its socket";
    let name = person.ok_or_else(|| Problem::new("not_allowed", 403, what))?;
    Ok(Identity { name, via: Via::Socket, scopes: None })
}

/// Whether who calls may do what the route does.
pub(super) async fn authorize(
    State((api, need)): State<(Api, Need)>,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let parameter = |name: &str| {
        parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let allowed = match caller {
        Some(caller) => allowed(&api, &caller, need, parameter).await,
        None => Err(Problem::unauthenticated()),
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn allowed(
    api: &Api,
    caller: &Caller,
    need: Need,
    parameter: impl Fn(&str) -> Option<String>,
) -> Result<(), Problem> {
    let wrong = || Problem::new("invalid_name", 400, "this is not a name");
    let (permission, service, regions) = match need {
        Need::Anybody | Need::InBody(_) => return Ok(()),
        Need::OnRollout(permission) => {
            let id: RolloutId = parameter("id").and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
            let known = api.rollouts().find(&id).await?.ok_or_else(Problem::not_found)?;
            let regions = known.view.rollout.plan.regions.keys().cloned().collect();
            (permission, id.service, regions)
        }
        Need::OnService(permission) => {
            let name = parameter("service").and_then(|name| name.parse().ok());
            let service: ServiceName = name.ok_or_else(wrong)?;
            let regions = api.regions_of(&service).ok_or_else(Problem::not_found)?;
            (permission, service, regions)
        }
        Need::OnRegion(permission) => {
            let name = parameter("region").and_then(|name| name.parse().ok());
            return in_region(api, caller, permission, &name.ok_or_else(wrong)?);
        }
    };
    // Who may see nothing of it is not told that it is there.
    if !caller.sees(api, &service, &regions) {
        return Err(Problem::not_found());
    }
    caller.may(api, permission, &service, &regions)
}

fn in_region(
    api: &Api,
    caller: &Caller,
    permission: Permission,
    region: &RegionName,
) -> Result<(), Problem> {
    let fleet: Arc<_> = api.rollouts().fleet();
    if !fleet.regions.contains_key(region) {
        return Err(Problem::not_found());
    }
    let services = fleet.services.keys();
    let mut may = services.map(|service| {
        caller.0.may(&fleet.access, permission, service, [region]).map_err(Problem::from)
    });
    may.find(Result::is_ok).unwrap_or_else(|| {
        Err(Problem::new("not_allowed", 403, format!("no `{permission}` in {region}")))
    })
}
