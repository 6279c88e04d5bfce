//! The fleet file: regions, where their numbers come from, services and their load balancers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::access::Access;
use super::access_file;
use super::codes;
use super::cohort;
use super::decode::{Decoder, Fields, nearest};
use super::file::{self, Node, Span, Value};
use super::fleet::{Auth, Fleet, FleetCheck, FleetHook, HookRun, Region, Secret, Service};
use super::notify_file;
use super::plan::{Authority, Hook};
use super::region_file;
use super::reported_file;
use super::served_file;
use super::targets::{Affinity, Place, Ports, decode_targets};
use crate::units::{Millis, RegionName, ServiceName, SlotName, shown};

/// Longest time of one try of a hook, where the file says nothing.
const HOOK_TIMEOUT: Millis = Millis::from_secs(600);
/// Longest time of one try that may be asked for.
const HOOK_TIMEOUT_MAX: Millis = Millis::from_secs(6 * 3_600);
/// What may be put into a hook's arguments.
pub const HOOK_VALUES: [&str; 5] = ["{service}", "{region}", "{slot}", "{version}", "{key}"];
pub(super) const REGIONS_MAX: usize = 200;
const SERVICES_MAX: usize = 2_000;
const CHECKS_MAX: usize = 1_000;
const SECRET_HELP: &str = "write {env: NAME} or {file: PATH}";

/// Decodes a fleet; its problems are added to `decoder`. `None` while there is an error.
pub fn decode(decoder: &mut Decoder, text: &str) -> Option<Fleet> {
    let (node, problems) = file::parse(&decoder.file, text);
    decoder.problems.extend(problems);
    let node = node?;
    let mut fields = decoder.fields(&node)?;
    let state = fields
        .get(decoder, "state", Decoder::text)
        .map_or_else(|| PathBuf::from(".tidegate"), PathBuf::from);
    let regions = fields.require(decoder, "regions", region_file::decode);
    let ports = Ports {
        xds: fields.key_span("xds").is_some(),
        traefik_provider: fields.key_span("traefik_provider").is_some(),
    };
    let xds =
        fields.get(decoder, "xds", |decoder, node| served_file::decode(decoder, node, codes::XDS));
    let traefik_provider = fields.get(decoder, "traefik_provider", |decoder, node| {
        served_file::decode(decoder, node, codes::TRAEFIK_PROVIDER)
    });
    let (regions, names) = regions.unwrap_or_default();
    let services = fields.require(decoder, "services", |decoder, node| {
        named(decoder, node, SERVICES_MAX, "services", |decoder, _, span, node| {
            decode_service(decoder, span, node, (&names, &regions), ports)
        })
    });
    let checks = fields.get(decoder, "checks", decode_checks).unwrap_or_default();
    let notify = fields.get(decoder, "notify", notify_file::decode).unwrap_or_default();
    let escalation = fields.get(decoder, "escalation", |decoder, node| {
        notify_file::decode_escalation(decoder, node, &notify, &names)
    });
    let reported = fields
        .get(decoder, "reported", |decoder, node| reported_file::decode(decoder, node, &names));
    let access = decode_access(decoder, &mut fields, &names, services.as_ref());
    let api_span = fields.key_span("api");
    let api = fields.get(decoder, "api", access_file::decode_api);
    if let (Some(api), Some(span)) = (&api, api_span)
        && access.people.is_empty()
        && !api.listen.ip().is_loopback()
    {
        let help = "add `access: {roles, people}`: nobody else could use it";
        decoder.error(codes::ACCESS, span, "beyond loopback the API needs people", help);
    }
    fields.finish(decoder);
    region_file::check_shares(decoder, &regions);
    let file = decoder.file.clone();
    let services: BTreeMap<ServiceName, Service> = services?;
    cohort::check_fleet(decoder, &regions, &services);
    (!decoder.problems.has_errors()).then_some(Fleet {
        file,
        state,
        regions,
        services,
        checks,
        xds,
        traefik_provider,
        notify,
        escalation: escalation.unwrap_or_default(),
        reported: reported.unwrap_or_default(),
        access,
        api,
    })
}

fn decode_access(
    decoder: &mut Decoder,
    fields: &mut Fields<'_>,
    regions: &BTreeSet<RegionName>,
    services: Option<&BTreeMap<ServiceName, Service>>,
) -> Access {
    let services = services.iter().flat_map(|all| all.keys().cloned()).collect();
    let known = access_file::Known { services: &services, regions };
    let access =
        fields.get(decoder, "access", |decoder, node| access_file::decode(decoder, node, &known));
    access.unwrap_or_default()
}

/// A mapping from names to what `item` decodes; at least one and at most `most`.
pub(super) fn named<K, T>(
    decoder: &mut Decoder,
    node: &Node,
    most: usize,
    what: &str,
    mut item: impl FnMut(&mut Decoder, &K, Span, &Node) -> Option<T>,
) -> Option<BTreeMap<K, T>>
where
    K: Ord + std::str::FromStr<Err = crate::units::Error>,
{
    let Value::Map(entries) = &node.value else {
        let _ = decoder.fields(node);
        return None;
    };
    if entries.is_empty() {
        decoder.error(codes::INVALID_VALUE, node.span, format!("no {what} here"), "");
    }
    if entries.len() > most {
        decoder.error(
            codes::TOO_MANY,
            node.span,
            format!("{} {what} are more than {most}", entries.len()),
            "",
        );
        return None;
    }
    let mut map = BTreeMap::new();
    for (key, node) in entries {
        match key.text.parse::<K>() {
            Ok(name) => {
                if let Some(value) = item(decoder, &name, key.span, node) {
                    map.insert(name, value);
                }
            }
            Err(error) => decoder.error(codes::INVALID_NAME, key.span, error.to_string(), ""),
        }
    }
    Some(map)
}

pub(super) fn decode_auth(decoder: &mut Decoder, fields: &mut Fields<'_>) -> Option<Auth> {
    let bearer = fields.get(decoder, "bearer", decode_secret).map(Auth::Bearer);
    let basic = fields.get(decoder, "basic", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let username = fields.require(decoder, "username", Decoder::text);
        let password = fields.require(decoder, "password", decode_secret);
        fields.finish(decoder);
        Some(Auth::Basic { username: username?, password: password? })
    });
    if let (Some(_), Some(span)) = (fields.key_span("bearer"), fields.key_span("basic")) {
        decoder.error(
            codes::INVALID_VALUE,
            span,
            "both `bearer` and `basic`",
            "keep one of the two",
        );
    }
    bearer.or(basic)
}

/// The text of an inline secret is never repeated.
pub(super) fn decode_secret(decoder: &mut Decoder, node: &Node) -> Option<Secret> {
    let Value::Map(_) = node.value else {
        decoder.error(codes::INLINE_SECRET, node.span, "a secret stands in this file", SECRET_HELP);
        return None;
    };
    let mut fields = decoder.fields(node)?;
    let env = fields.get(decoder, "env", Decoder::text).map(Secret::Env);
    let file =
        fields.get(decoder, "file", Decoder::text).map(|path| Secret::File(PathBuf::from(path)));
    let both = fields.key_span("env").is_some() == fields.key_span("file").is_some();
    if both {
        decoder.error(
            codes::INVALID_VALUE,
            node.span,
            "a secret has exactly one place",
            SECRET_HELP,
        );
    }
    fields.finish(decoder);
    if both { None } else { env.or(file) }
}

pub(super) fn decode_url(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let text = decoder.text(node)?;
    let help = "write an absolute address such as https://prometheus.example.internal";
    let authority = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let odd = text.len() > 2_048
        || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\');
    match authority {
        Some(authority) if authority.contains('@') => {
            let help = "put them into `bearer` or `basic`";
            decoder.error(
                codes::INLINE_SECRET,
                node.span,
                "a user name or password stands in this address",
                help,
            );
            None
        }
        Some(authority) if !authority.is_empty() && !authority.starts_with(':') && !odd => {
            Some(text)
        }
        _ => {
            decoder.error(
                codes::INVALID_URL,
                node.span,
                "this is not an http or https address",
                help,
            );
            None
        }
    }
}

fn decode_service(
    decoder: &mut Decoder,
    span: Span,
    node: &Node,
    (names, regions): (&BTreeSet<RegionName>, &BTreeMap<RegionName, Region>),
    ports: Ports,
) -> Option<Service> {
    let mut fields = decoder.fields(node)?;
    fields.span = span;
    let authorities = [
        ("observe", Authority::Observe),
        ("rollback_only", Authority::RollbackOnly),
        ("full", Authority::Full),
    ];
    let owner = fields.get(decoder, "owner", Decoder::text);
    let authority =
        fields.get(decoder, "authority", |decoder, node| decoder.choice(node, &authorities));
    let slots = fields.require(decoder, "slots", decode_slots);
    let metrics = fields.get(decoder, "metrics", decode_templates).unwrap_or_default();
    let affinity = fields.get(decoder, "affinity", Affinity::decode);
    let targets = fields.require(decoder, "targets", |decoder, node| {
        named(decoder, node, REGIONS_MAX, "targets", |decoder, region: &RegionName, span, node| {
            if !names.contains(region) {
                let help = nearest(region.as_str(), names.iter().map(RegionName::as_str));
                let help = help.map_or_else(String::new, |name| format!("did you mean `{name}`?"));
                decoder.error(
                    codes::UNKNOWN_REGION,
                    span,
                    format!("there is no region `{region}`"),
                    help,
                );
            }
            // The Envoys of a cohort are those of its region.
            let whole = regions.get(region).and_then(|it| it.cohort_of.as_ref());
            let region = whole.unwrap_or(region);
            let (slots, affinity) = (slots.as_ref(), affinity.as_ref());
            decode_targets(decoder, node, &Place { region, slots, ports, affinity })
        })
    });
    let hooks = fields.get(decoder, "hooks", decode_hooks).unwrap_or_default();
    fields.finish(decoder);
    Some(Service {
        at: decoder.at(span),
        owner,
        authority: authority.unwrap_or(Authority::Observe),
        slots: slots?,
        metrics,
        targets: targets?,
        affinity,
        hooks,
    })
}

fn decode_slots(decoder: &mut Decoder, node: &Node) -> Option<[SlotName; 2]> {
    let slots = decoder.each(node, Decoder::name::<SlotName>)?;
    match <[SlotName; 2]>::try_from(slots) {
        Ok([first, second]) if first != second => Some([first, second]),
        _ => {
            decoder.error(
                codes::SLOTS,
                node.span,
                "a service has two different slots",
                "write for example [blue, green]",
            );
            None
        }
    }
}

fn decode_templates(decoder: &mut Decoder, node: &Node) -> Option<BTreeMap<String, String>> {
    let templates = decoder.texts(node)?;
    let known = ["service", "region", "version", "slot", "track"];
    for (name, template) in &templates {
        let variable =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !variable || name.starts_with(|c: char| c.is_ascii_digit()) {
            decoder.error(
                codes::INVALID_NAME,
                node.span,
                format!("`{}` is not the name of a variable", shown(name)),
                "",
            );
        }
        let used = template
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split_once('}'))
            .map(|(name, _)| name);
        for name in used.filter(|name| !known.contains(name)) {
            let help = "there are {service}, {region}, {version}, {slot} and {track}";
            decoder.error(
                codes::UNKNOWN_VARIABLE,
                node.span,
                format!("`{{{}}}` has no value", shown(name)),
                help,
            );
        }
    }
    Some(templates)
}

fn decode_checks(decoder: &mut Decoder, node: &Node) -> Option<BTreeMap<String, FleetCheck>> {
    let Value::Map(entries) = &node.value else {
        let _ = decoder.fields(node);
        return None;
    };
    if entries.len() > CHECKS_MAX {
        decoder.error(codes::TOO_MANY, node.span, format!("more than {CHECKS_MAX} checks"), "");
    }
    let mut checks = BTreeMap::new();
    for (key, node) in entries.iter().take(CHECKS_MAX) {
        let Some(mut fields) = decoder.fields(node) else { continue };
        let http = fields.get(decoder, "http", decode_http_check);
        let command =
            fields.get(decoder, "command", |decoder, node| decoder.each(node, Decoder::text));
        if fields.key_span("http").is_some() == fields.key_span("command").is_some() {
            let help = "`http: {url: ...}` or `command: [program, argument]`";
            decoder.error(
                codes::MISSING_KEY,
                key.span,
                "a check needs exactly one of `http` and `command`",
                help,
            );
        }
        if matches!(&command, Some(command) if command.is_empty()) {
            decoder.error(
                codes::INVALID_VALUE,
                node.span,
                "a command needs at least its program",
                "",
            );
        }
        fields.finish(decoder);
        if let Some(check) = http.or(command.map(FleetCheck::Command)) {
            checks.insert(key.text.clone(), check);
        }
    }
    Some(checks)
}

fn decode_hooks(decoder: &mut Decoder, node: &Node) -> Option<BTreeMap<Hook, FleetHook>> {
    let mut fields = decoder.fields(node)?;
    let mut hooks = BTreeMap::new();
    for (name, hook) in Hook::ALL {
        hooks.extend(fields.get(decoder, name, decode_hook).map(|decoded| (hook, decoded)));
    }
    fields.finish(decoder);
    Some(hooks)
}

/// `[program, argument]`, or the long form.
fn decode_hook(decoder: &mut Decoder, node: &Node) -> Option<FleetHook> {
    if !matches!(node.value, Value::Map(_)) {
        let run = decode_hook_run(decoder, node)?;
        return Some(FleetHook { run, status: None, timeout: HOOK_TIMEOUT });
    }
    let mut fields = decoder.fields(node)?;
    let run = fields.require(decoder, "run", decode_hook_run);
    let status = fields.get(decoder, "status", decode_hook_run);
    let timeout = fields.get(decoder, "timeout", Decoder::positive).unwrap_or(HOOK_TIMEOUT);
    if timeout > HOOK_TIMEOUT_MAX {
        let span = fields.key_span("timeout").unwrap_or(node.span);
        let message = format!("a hook may take {HOOK_TIMEOUT_MAX} at most");
        decoder.error(codes::INVALID_VALUE, span, message, "write for example 10m");
    }
    fields.finish(decoder);
    Some(FleetHook { run: run?, status, timeout })
}

fn decode_hook_run(decoder: &mut Decoder, node: &Node) -> Option<HookRun> {
    if matches!(node.value, Value::Map(_)) {
        let mut fields = decoder.fields(node)?;
        let url = fields.require(decoder, "url", decode_url);
        let auth = decode_auth(decoder, &mut fields);
        fields.finish(decoder);
        return Some(HookRun::Http { url: url?, auth });
    }
    let command = decoder.each(node, Decoder::text)?;
    if command.is_empty() {
        let help = "write `[program, argument]`, or `{url: ...}`";
        decoder.error(codes::INVALID_VALUE, node.span, "a hook needs at least its program", help);
        return None;
    }
    let inside = |argument: &&String| {
        HOOK_VALUES.iter().any(|name| argument.contains(name) && argument.as_str() != *name)
    };
    if let Some(argument) = command.iter().find(inside) {
        let message = format!("`{argument}` has a value inside an argument");
        let help = "a value is an argument of its own: `[\"./deploy.sh\", \"{version}\"]`";
        decoder.error(codes::INVALID_VALUE, node.span, message, help);
    }
    Some(HookRun::Command(command))
}

fn decode_http_check(decoder: &mut Decoder, node: &Node) -> Option<FleetCheck> {
    let mut fields = decoder.fields(node)?;
    let url = fields.require(decoder, "url", decode_url);
    let auth = decode_auth(decoder, &mut fields);
    fields.finish(decoder);
    Some(FleetCheck::Http { url: url?, auth })
}
