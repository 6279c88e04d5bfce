//! AWS's application load balancer: the weights of two target groups in the forward action of a rule or a listener.
//!
//! ```text
//! read: DescribeRules | DescribeListeners, DescribeTags, DescribeTargetHealth of both groups
//! set:  AddTags (announces generation and weights), DescribeTags, ModifyRule | ModifyListener, and all of it read back
//! ```
//!
//! One call sets both weights. The generation is announced *before* them. A crash in between leaves a mark without its
//! weights: that is read as the newer generation with the old split, which nobody takes for done, and is set again. The
//! other way round an older controller that comes in between would find no trace of the newer one and undo it.
//!
//! Two writers at once: who is older sees the newer's mark before it writes, or after it wrote, and then puts the newer's
//! weights back from the mark. AWS itself refuses neither, so this is as good as both of them are alive (grade B).

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, TargetHealthStateEnum,
};
use tokio::sync::OnceCell;

use super::marks::{Marks, mark};
use super::{Session, twice};
use crate::load_balancer::fence::Fence;
use crate::load_balancer::{Pair, Unusable};
use crate::ports::{
    Backends, Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split,
};
use crate::spec::fleet::{AlbPlace, AwsAlb};
use crate::units::{Generation, SlotName};

/// Two target groups of one forward action.
pub struct AlbBalancer {
    session: Session,
    settings: AwsAlb,
    pair: Pair,
    fence: Fence,
    client: OnceCell<Client>,
    /// Both target groups were seen.
    groups_seen: OnceCell<()>,
}

/// What stands at AWS.
struct Found {
    /// All actions, in their order.
    actions: Vec<Action>,
    /// In the order of the slots.
    weights: [u32; 2],
    marks: Marks,
}

impl AlbBalancer {
    /// For these settings; nothing is asked yet.
    pub fn new(label: String, settings: &AwsAlb) -> Result<Self, Unusable> {
        Ok(Self {
            session: Session::new(label, &settings.access)?,
            pair: Pair::new(&settings.target_groups).map_err(Unusable::new)?,
            settings: settings.clone(),
            fence: Fence::default(),
            client: OnceCell::new(),
            groups_seen: OnceCell::new(),
        })
    }

    async fn client(&self) -> &Client {
        let made = || async { Client::new(self.session.config().await) };
        self.client.get_or_init(made).await
    }

    fn wrong(&self, what: impl std::fmt::Display) -> LoadBalancerError {
        self.session.failure(what, Outcome::Misconfigured)
    }

    /// Both weights, in the order of the slots.
    fn weights(&self, split: &Split) -> Result<[u32; 2], LoadBalancerError> {
        let [one, other] = self.pair.weights(split).map_err(|error| self.wrong(error))?;
        let steps = self.capabilities().steps;
        steps.pair(one).ok_or_else(|| {
            self.wrong(format!("{one} and {other} do not fit AWS's weights: {}", steps.says()))
        })
    }

    async fn actions(&self) -> Result<Vec<Action>, LoadBalancerError> {
        let client = self.client().await;
        let actions = match &self.settings.place {
            AlbPlace::Rule(arn) => {
                let answer = client.describe_rules().rule_arns(arn).send().await;
                let rules = self.session.read(answer)?.rules.unwrap_or_default();
                rules.into_iter().next().and_then(|rule| rule.actions)
            }
            AlbPlace::Listener(arn) => {
                let answer = client.describe_listeners().listener_arns(arn).send().await;
                let listeners = self.session.read(answer)?.listeners.unwrap_or_default();
                listeners.into_iter().next().and_then(|listener| listener.default_actions)
            }
        };
        let mut actions = actions.ok_or_else(|| self.wrong("AWS does not show it"))?;
        actions.sort_by_key(|action| action.order);
        Ok(actions)
    }

    async fn marks(&self) -> Result<Marks, LoadBalancerError> {
        let arn = self.settings.place.arn();
        let answer = self.client().await.describe_tags().resource_arns(arn).send().await;
        let found = self.session.read(answer)?.tag_descriptions.unwrap_or_default();
        let own = found.iter().find(|found| found.resource_arn() == Some(arn));
        Ok(own.map_or_else(Marks::default, |own| Marks::of(own.tags(), &self.pair)))
    }

    async fn found(&self) -> Result<Found, LoadBalancerError> {
        let (actions, marks) = tokio::try_join!(self.actions(), self.marks())?;
        let weights = weights_of(&actions, self.pair.names()).map_err(|error| self.wrong(error))?;
        Ok(Found { actions, weights, marks })
    }

    /// Before the first change: a weight for a group that is not there would be taken by some, and serve nobody.
    async fn groups(&self) -> Result<(), LoadBalancerError> {
        let seen = || async {
            let arns = self.pair.names().to_vec();
            let client = self.client().await;
            let asked = client.describe_target_groups().set_target_group_arns(Some(arns));
            let found = self.session.read(asked.send().await)?.target_groups.unwrap_or_default();
            let has = |arn: &&String| !found.iter().any(|it| it.target_group_arn() == Some(arn));
            match self.pair.names().iter().find(has) {
                Some(missing) => Err(self.wrong(format!("there is no target group {missing}"))),
                None => Ok(()),
            }
        };
        self.groups_seen.get_or_try_init(seen).await.copied()
    }

    async fn backends(&self) -> Result<BTreeMap<SlotName, Backends>, LoadBalancerError> {
        let [one, other] = self.pair.names();
        let (one, other) = tokio::try_join!(self.health(one), self.health(other))?;
        let [first, second] = self.pair.slots().clone();
        Ok([(first, one), (second, other)].into())
    }

    async fn health(&self, group: &str) -> Result<Backends, LoadBalancerError> {
        let client = self.client().await;
        let answer = client.describe_target_health().target_group_arn(group).send().await;
        let targets = self.session.read(answer)?.target_health_descriptions.unwrap_or_default();
        let states = targets.iter().filter_map(|target| target.target_health()?.state());
        let (mut healthy, mut total) = (0, 0);
        for state in states {
            // One on its way out gets nothing new; `unavailable` is not checked, and served.
            total += u32::from(*state != TargetHealthStateEnum::Draining);
            let serves = [TargetHealthStateEnum::Healthy, TargetHealthStateEnum::Unavailable];
            healthy += u32::from(serves.contains(state));
        }
        Ok(Backends { healthy, total })
    }

    fn reading(&self, found: &Found, backends: Option<BTreeMap<SlotName, Backends>>) -> Reading {
        let [one, other] = found.weights.map(u64::from);
        let none = self.pair.split(0, 1).unwrap_or_default();
        let split = self.pair.split(one, one + other);
        let note = split.is_none().then(|| "no target group has any weight".to_owned());
        Reading {
            split: split.unwrap_or(none),
            settled: note.is_none(),
            generation: found.marks.newest().map(|(generation, _)| generation),
            instances: Vec::new(),
            backends,
            restart_marker: None,
            note,
        }
    }

    fn admit(&self, marks: &Marks, generation: Generation) -> Result<(), LoadBalancerError> {
        match marks.newest() {
            Some((newest, _)) if newest > generation => {
                let what = format!("{generation} is older than {newest}, which stands in its tags");
                Err(self.session.failure(what, Outcome::Superseded))
            }
            _ => Ok(()),
        }
    }

    async fn announce(
        &self,
        generation: Generation,
        wanted: [u32; 2],
    ) -> Result<(), LoadBalancerError> {
        let tag = mark(generation, wanted, &self.pair);
        let call = self.client().await.add_tags().resource_arns(self.settings.place.arn());
        self.session.written(call.tags(tag).send().await).map(|_| ())
    }

    /// The whole list of actions as it was read, with other weights.
    async fn write(&self, found: &Found, wanted: [u32; 2]) -> Result<(), LoadBalancerError> {
        let actions = Some(with_weights(&found.actions, self.pair.names(), wanted));
        let client = self.client().await;
        match &self.settings.place {
            AlbPlace::Rule(arn) => {
                let call = client.modify_rule().rule_arn(arn).set_actions(actions);
                self.session.written(call.send().await).map(|_| ())
            }
            AlbPlace::Listener(arn) => {
                let call = client.modify_listener().listener_arn(arn).set_default_actions(actions);
                self.session.written(call.send().await).map(|_| ())
            }
        }
    }

    /// A newer one wrote while we did: its weights are in force when this returns, if AWS takes them.
    async fn give_way(&self, found: &Found, generation: Generation) -> LoadBalancerError {
        let Err(superseded) = self.admit(&found.marks, generation) else {
            return self.session.failure("another writer was here", Outcome::Unknown);
        };
        match found.marks.newest() {
            Some((_, Some(weights))) if weights != found.weights => {
                match self.write(found, weights).await {
                    Ok(()) => superseded,
                    Err(error) => {
                        let what = format!("{}; its weights were overwritten", superseded.what);
                        self.session.failure(format!("{what}: {}", error.what), Outcome::Superseded)
                    }
                }
            }
            _ => superseded,
        }
    }

    /// Marks of the past: a resource takes fifty tags. What fails here is done with the next change.
    async fn tidy(&self, marks: &Marks, generation: Generation) {
        let keys = marks.keys_before(generation);
        if keys.is_empty() {
            return;
        }
        let call = self.client().await.remove_tags().resource_arns(self.settings.place.arn());
        if let Err(error) = self.session.written(call.set_tag_keys(Some(keys)).send().await) {
            tracing::debug!(%error, "older marks stay");
        }
    }
}

/// The weights of both groups; an error unless the only thing that serves is a forward to these two.
fn weights_of(actions: &[Action], arns: &[String; 2]) -> Result<[u32; 2], String> {
    let ends = |action: &&Action| {
        !matches!(
            action.r#type(),
            Some(
                ActionTypeEnum::AuthenticateOidc
                    | ActionTypeEnum::AuthenticateCognito
                    | ActionTypeEnum::JwtValidation
            )
        )
    };
    let ends: Vec<&Action> = actions.iter().filter(ends).collect();
    let [Action { r#type: Some(ActionTypeEnum::Forward), forward_config, .. }] = ends[..] else {
        return Err("it has something else than one `forward` action".to_owned());
    };
    let groups =
        forward_config.as_ref().map(ForwardActionConfig::target_groups).unwrap_or_default();
    let known = |arn: Option<&str>| arn.is_some_and(|arn| arns.iter().any(|own| own == arn));
    if let Some(other) = groups.iter().find(|group| !known(group.target_group_arn())) {
        let arn = crate::units::shown(other.target_group_arn().unwrap_or_default());
        return Err(format!("it forwards to another target group as well: {arn}"));
    }
    let weight = |arn: &String| {
        let group = groups.iter().find(|group| group.target_group_arn() == Some(arn));
        let group = group.ok_or_else(|| {
            format!("it does not forward to {arn}: list both target groups, one with weight 0")
        })?;
        u32::try_from(group.weight().unwrap_or(1)).map_err(|_| "a weight below 0".to_owned())
    };
    Ok([weight(&arns[0])?, weight(&arns[1])?])
}

/// The same actions with other weights of the two groups.
fn with_weights(actions: &[Action], arns: &[String; 2], wanted: [u32; 2]) -> Vec<Action> {
    let mut actions = actions.to_vec();
    for action in &mut actions {
        if let Some(oidc) = &mut action.authenticate_oidc_config {
            // AWS shows no client secret, and takes an action without one only so.
            oidc.use_existing_client_secret = Some(true);
        }
        let Some(forward) = &mut action.forward_config else { continue };
        // What it says for a single group; beside two, AWS refuses it.
        action.target_group_arn = None;
        for group in forward.target_groups.iter_mut().flatten() {
            let place = arns.iter().position(|arn| Some(arn) == group.target_group_arn.as_ref());
            let weight = place.and_then(|place| i32::try_from(wanted[place]).ok());
            group.weight = weight.or(group.weight);
        }
    }
    actions
}

/// The one forward action as the command line of AWS takes it; `None` where there are other actions.
fn command_of(actions: &[Action]) -> Option<serde_json::Value> {
    let [action] = actions else { return None };
    let forward = action.forward_config.as_ref()?;
    let groups = forward.target_groups().iter().map(|group| {
        serde_json::json!({"TargetGroupArn": group.target_group_arn(), "Weight": group.weight()})
    });
    let mut config = serde_json::json!({"TargetGroups": groups.collect::<Vec<_>>()});
    if let Some(sticky) = forward.target_group_stickiness_config() {
        let mut written = serde_json::json!({"Enabled": sticky.enabled().unwrap_or(false)});
        if let Some(seconds) = sticky.duration_seconds() {
            written["DurationSeconds"] = seconds.into();
        }
        config["TargetGroupStickinessConfig"] = written;
    }
    Some(serde_json::json!([{"Type": "forward", "ForwardConfig": config}]))
}

#[async_trait]
impl LoadBalancer for AlbBalancer {
    fn describe(&self) -> String {
        let resource = self.settings.place.arn().rsplit(':').next().unwrap_or_default();
        format!("{} (aws alb {resource})", self.session.label)
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        let (found, backends) = tokio::try_join!(self.found(), self.backends())?;
        Ok(self.reading(&found, Some(backends)))
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let wanted = self.weights(split)?;
        let admitted = self.fence.admit(generation);
        admitted.map_err(|what| self.session.failure(what, Outcome::Superseded))?;
        self.groups().await?;
        let before = self.found().await?;
        self.admit(&before.marks, generation)?;
        let is_marked = before.marks.newest() == Some((generation, Some(wanted)));
        if before.weights != wanted || !is_marked {
            self.announce(generation, wanted).await?;
            // From here on an older writer sees us; what it wrote before is overwritten now.
            self.admit(&self.marks().await?, generation)?;
            self.write(&before, wanted).await?;
        }
        let (found, backends) = tokio::join!(twice(|| self.found()), self.backends());
        let found = found.map_err(|error| {
            let what = format!("set, not read back: {}", error.what);
            self.session.failure(what, Outcome::Unknown)
        })?;
        if found.marks.newest().is_some_and(|(newest, _)| newest > generation) {
            return Err(self.give_way(&found, generation).await);
        }
        self.tidy(&found.marks, generation).await;
        Ok(self.reading(&found, backends.ok()))
    }

    async fn by_hand(
        &self,
        split: &Split,
        _generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let wanted = self.weights(split)?;
        // What stands there is part of the command: without it, it would take away a login or stickiness.
        let found = self.found().await?;
        let actions = with_weights(&found.actions, self.pair.names(), wanted);
        let Some(actions) = command_of(&actions) else { return Ok(Vec::new()) };
        let access = &self.settings.access;
        let mut command = format!("aws elbv2 --region {}", access.region);
        if let Some(endpoint) = &access.endpoint {
            command += &format!(" --endpoint-url '{endpoint}'");
        }
        command += &match &self.settings.place {
            AlbPlace::Rule(arn) => format!(" modify-rule --rule-arn {arn} --actions '{actions}'"),
            AlbPlace::Listener(arn) => {
                format!(" modify-listener --listener-arn {arn} --default-actions '{actions}'")
            }
        };
        Ok(vec![command])
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_elasticloadbalancingv2::types::{
        AuthenticateOidcActionConfig, TargetGroupStickinessConfig, TargetGroupTuple,
    };

    use super::*;

    fn arns() -> [String; 2] {
        ["arn:blue".to_owned(), "arn:green".to_owned()]
    }

    fn forward(groups: &[(&str, i32)]) -> Action {
        let group = |(arn, weight): &(&str, i32)| {
            TargetGroupTuple::builder().target_group_arn(*arn).weight(*weight).build()
        };
        let sticky = TargetGroupStickinessConfig::builder().enabled(true).duration_seconds(60);
        let config = ForwardActionConfig::builder()
            .set_target_groups(Some(groups.iter().map(group).collect()))
            .target_group_stickiness_config(sticky.build())
            .build();
        Action::builder().r#type(ActionTypeEnum::Forward).order(2).forward_config(config).build()
    }

    fn login() -> Action {
        let config = AuthenticateOidcActionConfig::builder().issuer("i").build();
        let kind = ActionTypeEnum::AuthenticateOidc;
        Action::builder().r#type(kind).order(1).authenticate_oidc_config(config).build()
    }

    #[test]
    fn only_the_weights_change_and_what_stands_before_stays() {
        let actions = [login(), forward(&[("arn:green", 0), ("arn:blue", 200)])];
        assert_eq!(weights_of(&actions, &arns()), Ok([200, 0]));
        let changed = with_weights(&actions, &arns(), [190, 10]);
        assert_eq!(weights_of(&changed, &arns()), Ok([190, 10]));
        let oidc = changed[0].authenticate_oidc_config().unwrap();
        assert_eq!((oidc.issuer(), oidc.use_existing_client_secret()), (Some("i"), Some(true)));
        let sticky = changed[1].forward_config().unwrap().target_group_stickiness_config();
        assert_eq!(sticky.unwrap().duration_seconds(), Some(60));
        // A command for a shell has no place for a login.
        assert_eq!(command_of(&changed), None);
        let command = command_of(&changed[1..]).unwrap().to_string();
        assert!(command.contains(r#""Weight":190"#) && command.contains("Stickiness"), "{command}");
    }

    #[test]
    fn what_is_not_one_forward_to_both_is_refused() {
        let redirect = Action::builder().r#type(ActionTypeEnum::Redirect).build();
        let plain = Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn("arn:blue");
        for (actions, word) in [
            (vec![], "something else"),
            (vec![redirect], "something else"),
            (vec![plain.build()], "list both"),
            (vec![forward(&[("arn:blue", 1)])], "does not forward to arn:green"),
            (vec![forward(&[("arn:blue", 1), ("arn:green", 1), ("arn:red", 0)])], "arn:red"),
            (vec![forward(&[("arn:blue", 1), ("arn:green", -1)])], "below 0"),
        ] {
            let said = weights_of(&actions, &arns()).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }
}
