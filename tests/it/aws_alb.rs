//! The adapter for AWS's application load balancer, on moto: its API is real, what stands behind it is not there.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2 as elb;
use elb::types::{
    Action, ActionTypeEnum, ForwardActionConfig, Tag, TargetGroupStickinessConfig, TargetGroupTuple,
};
use tidegate::load_balancer::aws::AlbBalancer;
use tidegate::ports::{Backends, LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::{AlbPlace, AwsAccess, AwsAlb, AwsCredentials, Secret};
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::Counts;
use crate::parts::meddler::{Meddler, Mood, Protocol};
use crate::parts::moto::{Balancer, Moto, client};

/// Everything is a POST with the action's name in its body.
pub const QUERY: Protocol = Protocol {
    changes: |_, body| !String::from_utf8_lossy(body).starts_with("Action=Describe"),
    taken: |body| {
        let body = String::from_utf8_lossy(body);
        let action = body.split('&').find_map(|part| part.strip_prefix("Action=")).unwrap_or("");
        format!(
            "<{action}Response xmlns=\"http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/\">\
             <{action}Result></{action}Result><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>\
             </{action}Response>"
        )
    },
};

struct World {
    moto: Moto,
    meddler: Meddler,
    own: Balancer,
}

impl World {
    async fn start() -> Self {
        let moto = Moto::start().await;
        let own = moto.balancer().await;
        let meddler = Meddler::speaking(QUERY, moto.address).await;
        Self { moto, meddler, own }
    }

    fn settings(&self, place: AlbPlace) -> AwsAlb {
        self.moto.credentials();
        let folder = self.moto.folder();
        let secret = |name: &str| Secret::File(folder.join(name));
        let credentials = AwsCredentials {
            access_key: secret("id"),
            secret_key: secret("key"),
            session_token: None,
        };
        let access = AwsAccess {
            region: "us-east-1".to_owned(),
            endpoint: Some(format!("http://{}", self.meddler.address)),
            profile: None,
            credentials: Some(credentials),
        };
        let groups = [("blue", &self.own.blue), ("green", &self.own.green)];
        let groups = groups.map(|(slot, arn)| (slot.parse().unwrap(), arn.clone()));
        AwsAlb { access, place, target_groups: groups.into() }
    }

    fn balancer(&self, settings: &AwsAlb) -> AlbBalancer {
        AlbBalancer::new("web us_east_1 edge".to_owned(), settings).unwrap()
    }

    fn rule(&self) -> AlbBalancer {
        self.balancer(&self.settings(AlbPlace::Rule(self.own.rule.clone())))
    }

    fn client(&self) -> elb::Client {
        elb::Client::new(&self.moto.config())
    }

    /// What somebody does in the console.
    async fn edit(&self, actions: Vec<Action>) {
        let call = self.client().modify_rule().rule_arn(&self.own.rule);
        call.set_actions(Some(actions)).send().await.unwrap();
    }

    async fn tags(&self) -> Vec<(String, String)> {
        let told = self.client().describe_tags().resource_arns(&self.own.rule).send().await;
        let told = told.unwrap().tag_descriptions().to_vec();
        let text = |it: Option<&str>| it.unwrap().to_owned();
        told[0].tags().iter().map(|tag| (text(tag.key()), text(tag.value()))).collect()
    }

    async fn actions(&self) -> Vec<Action> {
        let told = self.client().describe_rules().rule_arns(&self.own.rule).send().await.unwrap();
        told.rules()[0].actions().to_vec()
    }
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let Balancer { rule, blue, green, .. } = &self.own;
        let (endpoint, credentials) = (self.meddler.address, self.moto.credentials());
        format!(
            "aws_alb: {{region: us-east-1, rule: \"{rule}\", endpoint: \"http://{endpoint}\", \
             credentials: {credentials}, target_groups: {{blue: \"{blue}\", green: \"{green}\"}}}}"
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let Balancer { rule, listener, blue, green } = &self.own;
        let with = |place: &str, blue: &str, more: &str| {
            format!(
                "aws_alb: {{region: us-east-1, {place}, {more} \
                 target_groups: {{blue: \"{blue}\", green: \"{green}\"}}}}"
            )
        };
        let right = format!("rule: \"{rule}\"");
        let away = rule.replace("us-east-1", "eu-west-1");
        vec![
            (with(&format!("rule: \"{away}\""), blue, ""), "region `eu-west-1`, not of us-east-1"),
            (with(&format!("rule: \"{listener}\""), blue, ""), "does not name a listener-rule"),
            (with(&format!("listener: \"{rule}\""), blue, ""), "does not name a listener of"),
            (with(&format!("{right}, listener: \"{listener}\""), blue, ""), "exactly one of"),
            (with("profile: x", blue, ""), "exactly one of"),
            (with(&right, "arn:aws:iam::123456789012:role/x", ""), "is of `iam`"),
            (with(&right, rule, ""), "does not name a targetgroup"),
            (with(&right, green, ""), "two different names"),
            (with(&right, blue, "endpoint: \"http://10.0.0.1\","), "leaves this machine"),
            (
                with(&right, blue, "credentials: {access_key: AKIA, secret_key: {env: K}},"),
                "secret",
            ),
            (
                with(
                    &right,
                    blue,
                    "profile: x, credentials: {access_key: {env: I}, secret_key: {env: K}},",
                ),
                "both",
            ),
            (with(&right, blue, "regoin: x,"), "did you mean `region`?"),
        ]
    }

    async fn load(&self, _: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Err("the emulator has no data plane")
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let canary = i32::try_from(canary_percent).unwrap();
        World::edit(self, vec![self.own.forward([100 - canary, canary])]).await;
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart => {
                return Err(
                    "AWS's balancer is not restarted by anybody, and the emulator forgets all",
                );
            }
            Fault::Reload => return Err("it has no configuration to read again"),
            Fault::Gone => self.moto.kill(),
            Fault::Back => {
                self.moto.restart().await;
                assert_eq!(self.moto.balancer().await, self.own, "other names after a restart");
            }
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.meddler.be(Mood::Refusing),
            Fault::Lying => self.meddler.be(Mood::Lying),
            Fault::Honest => self.meddler.be(Mood::Honest),
            Fault::CanarySick => self.moto.registered(&self.own.green, false).await,
            Fault::CanaryWell => self.moto.registered(&self.own.green, true).await,
        }
        Ok(())
    }
}

/// A world of its own for the suite.
pub async fn world() -> Box<dyn conformance::World> {
    Box::new(World::start().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_alb_does_what_every_adapter_must() {
    conformance::hold("aws_alb", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_alb_keeps_all_but_the_weights() {
    let world = World::start().await;
    let balancer = world.rule();
    let group = |arn: &str, weight| {
        TargetGroupTuple::builder().target_group_arn(arn).weight(weight).build()
    };
    let sticky = TargetGroupStickinessConfig::builder().enabled(true).duration_seconds(300).build();
    let config = ForwardActionConfig::builder()
        .target_groups(group(&world.own.green, 0))
        .target_groups(group(&world.own.blue, 7))
        .target_group_stickiness_config(sticky);
    let forward = Action::builder().r#type(ActionTypeEnum::Forward).order(2);
    let forward = forward.forward_config(config.build()).build();
    let oidc = elb::types::AuthenticateOidcActionConfig::builder()
        .issuer("https://i")
        .authorization_endpoint("https://i/a")
        .token_endpoint("https://i/t")
        .user_info_endpoint("https://i/u")
        .client_id("web")
        .client_secret("kept by AWS");
    let login = Action::builder().r#type(ActionTypeEnum::AuthenticateOidc).order(1);
    let login = login.authenticate_oidc_config(oidc.build()).build();
    world.edit(vec![login, forward]).await;

    let reading = balancer.set(&split(5.0), Generation(3)).await.unwrap();
    assert_eq!((&reading.split, reading.generation), (&split(5.0), Some(Generation(3))));
    let pools = reading.backends.unwrap();
    assert_eq!(pools[&"green".parse().unwrap()], Backends { healthy: 1, total: 1 });
    let actions = world.actions().await;
    let oidc = actions[0].authenticate_oidc_config().unwrap();
    assert_eq!((oidc.client_id(), oidc.use_existing_client_secret()), (Some("web"), Some(true)));
    let kept = actions[1].forward_config().unwrap();
    assert_eq!(kept.target_group_stickiness_config().unwrap().duration_seconds(), Some(300));
    let weights: Vec<_> = kept.target_groups().iter().map(|it| it.weight().unwrap()).collect();
    assert_eq!(weights, [10, 190], "in the order that was read");
    // A login cannot be carried by a command.
    assert!(balancer.by_hand(&split(0.0), Generation(9)).await.unwrap().is_empty());

    // One mark stays, however many changes there were; tags of others are nobody's business.
    let tag = Tag::builder().key("team").value("web").build();
    world.client().add_tags().resource_arns(&world.own.rule).tags(tag).send().await.unwrap();
    for generation in 4..20 {
        balancer.set(&split(50.0), Generation(generation)).await.unwrap();
    }
    let mut tags = world.tags().await;
    tags.sort();
    let mark = ("tidegate:generation:19".to_owned(), "blue=100 green=100".to_owned());
    assert_eq!(tags, [("team".to_owned(), "web".to_owned()), mark]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_alb_weighs_a_listeners_default_action() {
    let world = World::start().await;
    let listener = world.own.listener.clone();
    let balancer = world.balancer(&world.settings(AlbPlace::Listener(listener.clone())));
    let reading = balancer.set(&split(25.0), Generation(1)).await.unwrap();
    assert!(reading.settled && reading.generation == Some(Generation(1)), "{reading:?}");
    assert_eq!(reading.split, split(25.0));
    // The rule is another place.
    assert_eq!(world.rule().read().await.unwrap().split, split(0.0));
    let typed = balancer.by_hand(&split(0.0), Generation(9)).await.unwrap().remove(0);
    assert!(typed.contains("modify-listener --listener-arn arn:aws:"), "{typed}");
    assert!(typed.contains(r#""Weight":200"#) && !typed.contains("kept-quiet"), "{typed}");
}

/// The emulator checks no range, so that nothing out of range may reach it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_alb_sends_nothing_that_aws_would_not_take() {
    let world = World::start().await;
    world.edit(vec![world.own.forward([1_000, 0])]).await;
    assert_eq!(world.rule().read().await.unwrap().split, split(0.0), "moto takes weight 1000");
    for hundredth in 0..=1_000 {
        let share = split(f64::from(hundredth) / 10.0);
        let steps = world.rule().capabilities().steps;
        let pair = steps.pair(share[&"green".parse().unwrap()]).unwrap();
        assert!(pair.iter().all(|weight| *weight <= 999), "{pair:?}");
    }

    // A group that is not there: found out before anything is written.
    let mut settings = world.settings(AlbPlace::Rule(world.own.rule.clone()));
    let missing = format!("{}0", world.own.green.strip_suffix(|_: char| true).unwrap());
    settings.target_groups.insert("green".parse().unwrap(), missing);
    let refused = world.balancer(&settings).set(&split(5.0), Generation(1)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
    assert!(refused.what.contains("TargetGroupNotFound"), "{refused}");

    // One that the action does not list, and an action that does something else.
    let single =
        |arn: &str| Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(arn).build();
    world.edit(vec![single(&world.own.blue)]).await;
    let refused = world.rule().set(&split(5.0), Generation(1)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
    assert!(refused.what.contains("list both target groups"), "{refused}");
    assert!(world.tags().await.is_empty(), "a mark without a need");
    let rule = world.own.rule.replace("listener-rule/app/web", "listener-rule/app/other");
    let refused = world.balancer(&world.settings(AlbPlace::Rule(rule))).read().await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_alb_gives_way_to_a_newer_one_that_came_in_between() {
    let world = World::start().await;
    let balancer = world.rule();
    balancer.set(&split(5.0), Generation(1)).await.unwrap();
    // A newer one has announced itself and died before its weights.
    let mark = Tag::builder().key("tidegate:generation:7").value("blue=0 green=200").build();
    world.client().add_tags().resource_arns(&world.own.rule).tags(mark).send().await.unwrap();
    let seen = balancer.read().await.unwrap();
    assert_eq!((&seen.split, seen.generation), (&split(5.0), Some(Generation(7))));
    let refused = balancer.set(&split(0.0), Generation(6)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Superseded, "{refused}");
    assert_eq!(balancer.read().await.unwrap().split, split(5.0));
    // The newer one comes back, and finishes.
    let done = world.rule().set(&split(100.0), Generation(7)).await.unwrap();
    assert_eq!((&done.split, done.generation), (&split(100.0), Some(Generation(7))));
}

/// The older one has looked for marks and found none; the newer one does all of its work; then the older one's weights come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_alb_puts_back_what_it_overwrote_of_a_newer_one() {
    let world = World::start().await;
    let (behind, newer) = (world.moto.address, Arc::new(world.rule()));
    let done = Arc::new(tokio::sync::OnceCell::new());
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (newer, done) = (Arc::clone(&newer), Arc::clone(&done));
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            if body.starts_with(b"Action=ModifyRule") {
                let set = || async { newer.set(&split(100.0), Generation(9)).await.unwrap() };
                done.get_or_init(set).await;
            }
            let asked = client().post(format!("http://{behind}/")).headers(head.headers);
            let answer = asked.body(body).send().await.unwrap();
            (answer.status(), answer.bytes().await.unwrap())
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = world.settings(AlbPlace::Rule(world.own.rule.clone()));
    settings.access.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let serves = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let refused = world.balancer(&settings).set(&split(5.0), Generation(8)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Superseded, "{refused}");
    let seen = world.rule().read().await.unwrap();
    assert_eq!((&seen.split, seen.generation), (&split(100.0), Some(Generation(9))));
    serves.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_alb_says_whose_fault_it_is() {
    let mut world = World::start().await;
    world.edit(vec![world.own.forward([0, 0])]).await;
    let nobody = world.rule().read().await.unwrap();
    assert!(!nobody.settled && nobody.note.is_some(), "{nobody:?}");

    // Keys that are not where they should be; the message names the place.
    let mut settings = world.settings(AlbPlace::Rule(world.own.rule.clone()));
    settings.access.credentials.as_mut().unwrap().secret_key =
        Secret::Env("TIDEGATE_NO_SUCH_KEY".to_owned());
    let error = world.balancer(&settings).read().await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
    assert!(error.what.contains("variable TIDEGATE_NO_SUCH_KEY"), "{error}");
    assert!(!format!("{error:?}{:?}", world.rule().describe()).contains("kept-quiet"), "{error:?}");

    world.meddler.be(Mood::Slow);
    let begin = std::time::Instant::now();
    let error = world.rule().read().await.unwrap_err();
    assert_eq!((error.outcome, error.what.as_str()), (Outcome::NotSent, "no answer in time"));
    assert!(begin.elapsed() < std::time::Duration::from_secs(6), "{:?}", begin.elapsed());
    world.meddler.be(Mood::Honest);

    // Nobody listens at all.
    world.moto.kill();
    let mut settings = world.settings(AlbPlace::Rule(world.own.rule.clone()));
    settings.access.endpoint = Some(format!("http://{}", world.moto.address));
    let error = world.balancer(&settings).set(&split(1.0), Generation(3)).await.unwrap_err();
    assert_eq!((error.outcome, error.what.as_str()), (Outcome::NotSent, "no connection"));
}
