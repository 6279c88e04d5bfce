//! What a fact leaves in the audit, and in which regions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::engine::event::{Event, Fact};
use crate::units::{RegionName, Seq};

/// Where a fact belongs.
pub(super) enum Concerns {
    /// Nowhere: it is not for the audit.
    Nobody,
    /// One region alone.
    Region(RegionName),
    /// Every region of its rollout, or of its service.
    All,
    /// These.
    These(BTreeSet<RegionName>),
}

/// Readings, looks and clocks are the journal's; who decided what, and on which numbers, is the audit's.
pub(super) fn concerns(event: &Event) -> Concerns {
    match event {
        Event::Looked(_)
        | Event::Polled { .. }
        | Event::BackendsSeen { .. }
        | Event::Recovered
        | Event::Prepared => Concerns::Nobody,
        Event::RegionRead { confirmed: None, .. } => Concerns::Nobody,
        Event::RegionRead { region, .. }
        | Event::EffectUnknown { region, .. }
        | Event::DriftFound { region, .. }
        | Event::HookStarted { region, .. }
        | Event::HookEnded { region, .. }
        | Event::RegionHealth { region, .. } => Concerns::Region(region.clone()),
        Event::Adopted(adopted) => Concerns::These(adopted.regions.keys().cloned().collect()),
        Event::Started(started) => Concerns::These(started.plan.regions.keys().cloned().collect()),
        _ => Concerns::All,
    }
}

/// The record of a fact at this place of its service's stream.
pub(super) fn record(seq: Seq, fact: &Fact, before: &str, after: &str) -> Value {
    let event = json!(fact.event);
    let what = match &event {
        Value::String(name) => name.clone(),
        Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    json!({
        "kind": "fact", "service": fact.service, "rollout": fact.rollout, "stream": seq, "what": what,
        "by": actor(&event), "before": before, "after": after, "event": event,
    })
}

/// Who did it: a person, or Tidegate itself.
fn actor(event: &Value) -> Value {
    let by = event.as_object().and_then(|map| map.values().next()).and_then(|it| it.get("by"));
    let asked = event.pointer("/rollback_started/cause/asked/by");
    asked.or(by).filter(|by| !by.is_null()).cloned().unwrap_or_else(|| json!({"name": "tidegate"}))
}
