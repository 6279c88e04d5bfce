//! AWS's application load balancer: the weights of two target groups in one forward action.

use std::collections::BTreeMap;

use super::affinity::Keeping;
use super::aws::AwsAccess;
#[cfg(feature = "files")]
use super::aws::{ArnOf, check_arn, decode_access};
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, decode::Spanned, file::Node};
use crate::units::{Millis, SlotName};

/// A forward action with two target groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsAlb {
    /// How AWS is asked.
    pub access: AwsAccess,
    /// Whose action it is.
    pub place: AlbPlace,
    /// Slot → ARN of its target group.
    pub target_groups: BTreeMap<SlotName, String>,
}

/// Whose forward action carries the weights; each holds an ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlbPlace {
    /// A rule of a listener.
    Rule(String),
    /// A listener, for what no rule takes.
    Listener(String),
}

impl AlbPlace {
    /// The ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        match self {
            Self::Rule(arn) | Self::Listener(arn) => arn,
        }
    }
}

impl AwsAlb {
    /// AWS's largest weight of a target group.
    const WEIGHT_MAX: u32 = 999;

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            steps: Steps::Pairs(Self::WEIGHT_MAX),
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::Marker,
            effect_lag: Millis::ZERO,
            mirror: Mirroring::None,
            sees_requests: true,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let access = decode_access(decoder, &mut fields, None);
        let rule = fields.get(decoder, "rule", Decoder::spanned_text);
        let listener = fields.get(decoder, "listener", Decoder::spanned_text);
        let groups_at = fields.key_span("target_groups");
        let groups = fields
            .require(decoder, "target_groups", |decoder, node| names_by_slot(decoder, node, place));
        if fields.key_span("rule").is_some() == fields.key_span("listener").is_some() {
            let message = "the weights stand in exactly one of `rule` and `listener`";
            let help = "`listener` means its default action";
            decoder.error(codes::MISSING_KEY, fields.span, message, help);
        }
        fields.finish(decoder);
        let (access, groups) = (access?, groups?);
        let (of, written) = match (rule, listener) {
            (Some(rule), None) => (ArnOf::Rule, rule),
            (None, Some(listener)) => (ArnOf::Listener, listener),
            _ => return None,
        };
        let mut fits = arn(decoder, &written, of, &access);
        for group in groups.values() {
            let span = groups_at.unwrap_or(written.span);
            let group = Spanned { value: group.clone(), span };
            fits &= arn(decoder, &group, ArnOf::TargetGroup, &access);
        }
        let place = match of {
            ArnOf::Rule => AlbPlace::Rule(written.value),
            _ => AlbPlace::Listener(written.value),
        };
        fits.then_some(Self { access, place, target_groups: groups })
    }
}

#[cfg(feature = "files")]
fn arn(decoder: &mut Decoder, written: &Spanned<String>, of: ArnOf, access: &AwsAccess) -> bool {
    let checked = check_arn(&written.value, of, &access.region);
    let fits = checked.is_ok();
    if let Err(message) = checked {
        let help = "copy it from AWS's console, or `aws elbv2 describe-...`";
        decoder.error(codes::INVALID_NAME, written.span, message, help);
    }
    fits
}
