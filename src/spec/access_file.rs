//! Who may do what, and where the API is, as the fleet file says it.

use std::collections::{BTreeMap, BTreeSet};

use super::access::{Access, Api, ApiTls, GithubIssuer, GithubJob, Permission, Person, Role};
use super::codes;
use super::decode::{Decoder, Fields, nearest};
use super::file::{Node, Span, Value};
use super::fleet_file::{decode_secret, decode_url};
use crate::units::{RegionName, ServiceName};

/// Most roles, and most people.
const ENTRIES_MAX: usize = 2_000;
/// Who signs the tokens of GitHub Actions.
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// Names that roles may speak of.
pub(super) struct Known<'a> {
    pub(super) services: &'a BTreeSet<ServiceName>,
    pub(super) regions: &'a BTreeSet<RegionName>,
}

pub(super) fn decode(decoder: &mut Decoder, node: &Node, known: &Known<'_>) -> Option<Access> {
    let mut fields = decoder.fields(node)?;
    let roles = fields
        .require(decoder, "roles", |decoder, node| {
            entries(decoder, node, |decoder, _, fields| decode_role(decoder, fields, known))
        })
        .unwrap_or_default();
    let names: BTreeSet<String> = roles.keys().cloned().collect();
    let people = fields
        .require(decoder, "people", |decoder, node| {
            entries(decoder, node, |decoder, _, fields| decode_person(decoder, fields, &names))
        })
        .unwrap_or_default();
    let narrowed = fields
        .get(decoder, "regions", |decoder, node| decode_narrowed(decoder, node, known, &names))
        .unwrap_or_default();
    fields.finish(decoder);
    twice(decoder, node.span, &people);
    Some(Access { roles, people, narrowed })
}

/// A mapping from plain names to mappings.
fn entries<T>(
    decoder: &mut Decoder,
    node: &Node,
    mut item: impl FnMut(&mut Decoder, Span, &mut Fields<'_>) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let Value::Map(map) = &node.value else {
        let _ = decoder.fields(node);
        return None;
    };
    if map.len() > ENTRIES_MAX {
        let message = format!("more than {ENTRIES_MAX} entries");
        decoder.error(codes::TOO_MANY, node.span, message, "let roles speak for many people");
    }
    let mut found = BTreeMap::new();
    for (key, node) in map.iter().take(ENTRIES_MAX) {
        if !is_plain(&key.text) {
            let help = "up to 63 lower-case letters, digits, `-`, `_` and `.`, a letter first";
            decoder.error(codes::INVALID_NAME, key.span, "this cannot be a name here", help);
            continue;
        }
        let Some(mut fields) = decoder.fields(node) else { continue };
        fields.span = key.span;
        let decoded = item(decoder, key.span, &mut fields);
        fields.finish(decoder);
        found.extend(decoded.map(|it| (key.text.clone(), it)));
    }
    Some(found)
}

/// A name that cannot hold anything but a name, wherever it is shown.
fn is_plain(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(rest)
        && name != "tidegate"
}

fn decode_role(decoder: &mut Decoder, fields: &mut Fields<'_>, known: &Known<'_>) -> Option<Role> {
    let allow = fields.require(decoder, "allow", decode_permissions);
    let services = fields.get(decoder, "services", |decoder, node| {
        let names = decoder.each(node, |decoder, node| among(decoder, node, known.services))?;
        Some(names.into_iter().collect())
    });
    let regions = fields.get(decoder, "regions", |decoder, node| {
        let names = decoder.each(node, |decoder, node| among(decoder, node, known.regions))?;
        Some(names.into_iter().collect())
    });
    Some(Role { allow: allow?, services, regions })
}

fn decode_permissions(decoder: &mut Decoder, node: &Node) -> Option<BTreeSet<Permission>> {
    let one = |decoder: &mut Decoder, node: &Node| decoder.choice(node, &Permission::ALL);
    Some(decoder.each(node, one)?.into_iter().collect())
}

/// A name that the fleet has.
fn among<T>(decoder: &mut Decoder, node: &Node, known: &BTreeSet<T>) -> Option<T>
where
    T: Ord + Clone + std::fmt::Display + std::str::FromStr<Err = crate::units::Error>,
{
    let name = decoder.name::<T>(node)?;
    if !known.contains(&name) {
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        let near = nearest(&name.to_string(), names.iter().map(String::as_str));
        let help = near.map_or_else(String::new, |name| format!("did you mean `{name}`?"));
        let message = format!("the fleet has no `{name}`");
        decoder.error(codes::INVALID_VALUE, node.span, message, help);
        return None;
    }
    Some(name)
}

fn role_name(decoder: &mut Decoder, node: &Node, names: &BTreeSet<String>) -> Option<String> {
    let name = decoder.text(node)?;
    if !names.contains(&name) {
        let near = nearest(&name, names.iter().map(String::as_str));
        let help = near.map_or_else(String::new, |name| format!("did you mean `{name}`?"));
        let message = format!("there is no role `{}`", crate::units::shown(&name));
        decoder.error(codes::INVALID_VALUE, node.span, message, help);
        return None;
    }
    Some(name)
}

fn decode_person(
    decoder: &mut Decoder,
    fields: &mut Fields<'_>,
    names: &BTreeSet<String>,
) -> Option<Person> {
    let roles = fields.require(decoder, "roles", |decoder, node| {
        let roles = decoder.each(node, |decoder, node| role_name(decoder, node, names))?;
        Some(roles.into_iter().collect())
    });
    let uid = fields.get(decoder, "uid", |decoder, node| decoder.count(node, 0, u32::MAX - 1));
    let certificate = fields.get(decoder, "certificate", Decoder::text);
    let github = fields.get(decoder, "github", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let repository_id = fields.require(decoder, "repository_id", Decoder::text);
        let environment = fields.require(decoder, "environment", Decoder::text);
        let workflow = fields.require(decoder, "job_workflow_ref", Decoder::text);
        fields.finish(decoder);
        let job_workflow_ref = workflow?;
        Some(GithubJob {
            repository_id: repository_id?,
            environment: environment?,
            job_workflow_ref,
        })
    });
    Some(Person { roles: roles?, uid, certificate, github })
}

type Narrowed = BTreeMap<RegionName, BTreeMap<String, BTreeSet<Permission>>>;

fn decode_narrowed(
    decoder: &mut Decoder,
    node: &Node,
    known: &Known<'_>,
    names: &BTreeSet<String>,
) -> Option<Narrowed> {
    let Value::Map(map) = &node.value else {
        let _ = decoder.fields(node);
        return None;
    };
    let mut narrowed = Narrowed::new();
    for (key, node) in map {
        let region = key.text.parse::<RegionName>().ok().filter(|it| known.regions.contains(it));
        let Some(region) = region else {
            let message = format!("there is no region `{}`", crate::units::shown(&key.text));
            decoder.error(codes::UNKNOWN_REGION, key.span, message, "");
            continue;
        };
        let Value::Map(roles) = &node.value else {
            let _ = decoder.fields(node);
            continue;
        };
        for (role, node) in roles {
            if !names.contains(&role.text) {
                let message = format!("there is no role `{}`", crate::units::shown(&role.text));
                decoder.error(codes::INVALID_VALUE, role.span, message, "");
                continue;
            }
            // What cannot be read allows nothing.
            let left = decode_permissions(decoder, node).unwrap_or_default();
            narrowed.entry(region.clone()).or_default().insert(role.text.clone(), left);
        }
    }
    Some(narrowed)
}

/// One way in must lead to one person.
fn twice(decoder: &mut Decoder, span: Span, people: &BTreeMap<String, Person>) {
    let mut seen: BTreeMap<String, &String> = BTreeMap::new();
    for (name, person) in people {
        let uid = person.uid.map(|uid| format!("the uid {uid}"));
        let certificate = person.certificate.as_ref().map(|it| format!("the certificate {it}"));
        let github = person.github.as_ref().map(|it| format!("the job {it:?}"));
        for way in [uid, certificate, github].into_iter().flatten() {
            if let Some(other) = seen.insert(way.clone(), name) {
                let message = format!("{way} is both {other} and {name}");
                let help =
                    "two names for one person would count twice where approvals are asked for";
                decoder.error(codes::INVALID_VALUE, span, message, help);
            }
        }
    }
}

pub(super) fn decode_api(decoder: &mut Decoder, node: &Node) -> Option<Api> {
    let mut fields = decoder.fields(node)?;
    let help = "write an IP address and a port such as 127.0.0.1:7443";
    let parse = |text: &str| text.parse::<std::net::SocketAddr>();
    let listen = fields.require(decoder, "listen", |decoder, node| {
        decoder.parsed(node, codes::INVALID_VALUE, help, parse)
    });
    let hosts = fields.get(decoder, "hosts", |decoder, node| decoder.each(node, Decoder::text));
    let has_tls = fields.key_span("tls").is_some();
    let tls = fields.get(decoder, "tls", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let certificate = fields.require(decoder, "certificate", Decoder::text);
        let key = fields.require(decoder, "key", decode_secret);
        let client_ca = fields.get(decoder, "client_ca", Decoder::text);
        let revoked = fields.get(decoder, "revoked", Decoder::text);
        fields.finish(decoder);
        Some(ApiTls {
            certificate: certificate?.into(),
            key: key?,
            client_ca: client_ca.map(Into::into),
            revoked: revoked.map(Into::into),
        })
    });
    let github = fields.get(decoder, "github", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let issuer = fields.get(decoder, "issuer", decode_url);
        let audience = fields.require(decoder, "audience", Decoder::text);
        fields.finish(decoder);
        Some(GithubIssuer {
            issuer: issuer.unwrap_or_else(|| GITHUB.to_owned()),
            audience: audience?,
        })
    });
    if let Some(listen) = listen
        && !listen.ip().is_loopback()
        && !has_tls
    {
        let help = "add `tls: {certificate, key}`, or listen on 127.0.0.1";
        decoder.error(codes::ACCESS, fields.span, "beyond loopback the API needs TLS", help);
    }
    fields.finish(decoder);
    let hosts = hosts.unwrap_or_default().into_iter().collect();
    Some(Api { listen: listen?, hosts, tls, github })
}
