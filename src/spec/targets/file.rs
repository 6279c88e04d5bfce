//! The load balancers of a service, as the fleet file writes them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Adapter, Affinity, Target};
use crate::spec::codes;
use crate::spec::decode::Decoder;
use crate::spec::file::{Node, Value};
use crate::units::{RegionName, SlotName, TargetName};

const TARGETS_MAX: usize = 20;

/// What a target has to fit.
pub(in crate::spec) struct Place<'a> {
    pub(in crate::spec) region: &'a RegionName,
    pub(in crate::spec) slots: Option<&'a [SlotName; 2]>,
    pub(in crate::spec) ports: Ports,
    pub(in crate::spec) affinity: Option<&'a Affinity>,
}

/// Which ports that load balancers fetch from the fleet has.
#[derive(Clone, Copy)]
pub(in crate::spec) struct Ports {
    pub(in crate::spec) xds: bool,
    pub(in crate::spec) traefik_provider: bool,
}

/// The load balancers of a service in one region.
pub(in crate::spec) fn decode_targets(
    decoder: &mut Decoder,
    node: &Node,
    place: &Place<'_>,
) -> Option<Vec<Target>> {
    let list = decoder.list(node)?;
    if list.is_empty() || list.len() > TARGETS_MAX {
        let message = format!(
            "a service has 1 to {TARGETS_MAX} load balancers in a region, not {}",
            list.len()
        );
        decoder.error(codes::TOO_MANY, node.span, message, "");
        return None;
    }
    let mut targets: Vec<Target> = Vec::new();
    for node in list {
        let Some(target) = decode_target(decoder, node, place) else { continue };
        if targets.iter().any(|other| other.name == target.name) {
            let message = format!("a second target `{}` in this region", target.name);
            let help = "give each a name of its own";
            decoder.error(codes::DUPLICATE_TARGET, node.span, message, help);
        }
        targets.push(target);
    }
    Some(targets)
}

fn decode_target(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Target> {
    let mut fields = decoder.fields(node)?;
    let name = fields.require(decoder, "name", Decoder::name::<TargetName>);
    let adapter = Adapter::decode(decoder, &mut fields, place);
    if Adapter::KINDS.iter().filter(|kind| fields.key_span(kind).is_some()).count() != 1 {
        let help = "docs/load-balancers.md says what each is told, and how";
        let message = format!("a target needs exactly one of {}", Adapter::KINDS.join(", "));
        decoder.error(codes::MISSING_KEY, fields.span, message, help);
    }
    let at = decoder.at(fields.span);
    fields.finish(decoder);
    Some(Target { name: name?, at, adapter: adapter? })
}

/// A different name for each of the two slots.
pub(super) fn names_by_slot(
    decoder: &mut Decoder,
    node: &Node,
    place: &Place<'_>,
) -> Option<BTreeMap<SlotName, String>> {
    let texts = decoder.texts(node)?;
    let slots = place.slots?;
    let different: BTreeSet<&String> = texts.values().collect();
    let complete = texts.len() == 2
        && slots.iter().all(|slot| texts.contains_key(slot.as_str()))
        && different.len() == 2;
    if !complete {
        let help =
            format!("write {{{}: ..., {}: ...}} with two different names", slots[0], slots[1]);
        decoder.error(codes::SLOTS, node.span, "each slot needs a name of its own here", help);
        return None;
    }
    let named =
        slots.iter().filter_map(|slot| Some((slot.clone(), texts.get(slot.as_str())?.clone())));
    Some(named.collect())
}

/// Something for each of the two slots, and for nobody else.
pub(super) fn by_slot<T>(
    decoder: &mut Decoder,
    node: &Node,
    place: &Place<'_>,
    mut each: impl FnMut(&mut Decoder, &Node) -> Option<T>,
) -> Option<BTreeMap<SlotName, T>> {
    let slots = place.slots?;
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    let named = |slot: &SlotName| entries.iter().find(|(key, _)| key.text == slot.as_str());
    let (Some((_, one)), Some((_, other)), 2) = (named(&slots[0]), named(&slots[1]), entries.len())
    else {
        let help = format!("write {{{}: ..., {}: ...}}", slots[0], slots[1]);
        decoder.error(codes::SLOTS, node.span, "each of the two slots needs its own here", help);
        return None;
    };
    let (first, second) = (each(decoder, one), each(decoder, other));
    Some([(slots[0].clone(), first?), (slots[1].clone(), second?)].into())
}
