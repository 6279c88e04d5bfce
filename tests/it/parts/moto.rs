//! A moto server: AWS's APIs without what stands behind them. Nothing balances and nothing answers DNS.
//!
//! It checks no ranges, forgets everything when it ends, and makes the same names again after the same seed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_elasticloadbalancingv2 as elb;
use elb::types::{
    Action, ActionTypeEnum, ForwardActionConfig, ProtocolEnum, RuleCondition, TargetDescription,
    TargetGroupTuple, TargetTypeEnum,
};

use super::port::free_address;

/// One on loopback; killed with this value.
pub struct Moto {
    child: Option<Child>,
    pub address: SocketAddr,
    folder: tempfile::TempDir,
}

/// A balancer with a listener, a rule and two target groups of one target each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    pub listener: String,
    pub rule: String,
    pub blue: String,
    pub green: String,
}

/// The only target of a pool.
pub const TARGET: &str = "10.0.0.1";

/// Where `scripts/parts` installs.
pub fn parts() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parts");
    std::env::var_os("TIDEGATE_PARTS").map_or_else(own, PathBuf::from)
}

/// For plain requests on this machine.
pub fn client() -> reqwest::Client {
    // Fails only when one is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

impl Moto {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut own = Self { child: None, address: free_address(), folder };
        own.restart().await;
        own
    }

    /// Starts it again; it knows nothing.
    pub async fn restart(&mut self) {
        self.kill();
        let child = Command::new(parts().join("bin/python"))
            .args(["-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p"])
            .arg(self.address.port().to_string())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto: scripts/parts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.seeded(0).await {
            assert!(Instant::now() < deadline, "moto does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What it makes next has the same name as it had after this seed before; no, while it does not answer.
    pub async fn seeded(&self, seed: u32) -> bool {
        let asked = client().post(format!("http://{}/moto-api/seed?a={seed}", self.address));
        asked.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// For clients that talk to it past everybody else.
    pub fn config(&self) -> SdkConfig {
        let keys = Credentials::new("AKIATEST", "kept-quiet", None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://{}", self.address))
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build()
    }

    /// Its own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Files with the keys, and how a fleet says where they are.
    pub fn credentials(&self) -> String {
        let (id, key) = (self.folder.path().join("id"), self.folder.path().join("key"));
        std::fs::write(&id, "AKIATEST\n").unwrap();
        std::fs::write(&key, "kept-quiet\n").unwrap();
        let (id, key) = (id.display(), key.display());
        format!("{{access_key: {{file: {id}}}, secret_key: {{file: {key}}}}}")
    }

    /// The balancer; `blue` has all of the weight. Its names are always the same.
    pub async fn balancer(&self) -> Balancer {
        let client = elb::Client::new(&self.config());
        let (vpc, subnets) = self.network().await;
        self.seeded(1).await;
        let made = client.create_load_balancer().name("web").set_subnets(Some(subnets));
        let balancer = made.send().await.unwrap().load_balancers().to_vec().remove(0);
        let balancer = balancer.load_balancer_arn.unwrap();
        let mut groups = Vec::new();
        for (seed, name) in [(2, "blue"), (3, "green")] {
            self.seeded(seed).await;
            let made = client.create_target_group().name(name).vpc_id(&vpc).port(80);
            let made = made.protocol(ProtocolEnum::Http).target_type(TargetTypeEnum::Ip);
            let group = made.send().await.unwrap().target_groups().to_vec().remove(0);
            groups.push(group.target_group_arn.unwrap());
        }
        let [blue, green] = groups.try_into().unwrap();
        let mut own = Balancer { listener: String::new(), rule: String::new(), blue, green };
        self.seeded(4).await;
        let made = client.create_listener().load_balancer_arn(balancer).port(80);
        let made = made.protocol(ProtocolEnum::Http).default_actions(own.forward([1, 0]));
        let listener = made.send().await.unwrap().listeners().to_vec().remove(0);
        own.listener = listener.listener_arn.unwrap();
        self.seeded(5).await;
        let path = RuleCondition::builder().field("path-pattern").values("/*").build();
        let made = client.create_rule().listener_arn(&own.listener).priority(1).conditions(path);
        let rule = made.actions(own.forward([1, 0])).send().await.unwrap().rules().to_vec();
        own.rule = rule[0].rule_arn().unwrap().to_owned();
        for group in [&own.blue, &own.green] {
            self.registered(group, true).await;
        }
        own
    }

    /// Takes the only target of a group in, or out.
    pub async fn registered(&self, group: &str, is_in: bool) {
        let client = elb::Client::new(&self.config());
        let target = TargetDescription::builder().id(TARGET).port(80).build();
        if is_in {
            let call = client.register_targets().target_group_arn(group).targets(target);
            call.send().await.unwrap();
        } else {
            let call = client.deregister_targets().target_group_arn(group).targets(target);
            call.send().await.unwrap();
        }
    }

    /// A network and two of its subnets.
    async fn network(&self) -> (String, Vec<String>) {
        let http = client();
        let scope = "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/ec2/aws4_request, \
                     SignedHeaders=host, Signature=0";
        let asked = http.post(format!("http://{}/", self.address));
        let asked = asked.header("authorization", scope);
        let asked = asked.header("content-type", "application/x-www-form-urlencoded");
        let asked = asked.body("Action=DescribeSubnets&Version=2016-11-15").send().await.unwrap();
        let text = asked.text().await.unwrap();
        let of = |tag: &str| -> Vec<String> {
            let begin = format!("<{tag}>");
            let rest = text.split(&begin).skip(1);
            rest.filter_map(|rest| rest.split('<').next().map(str::to_owned)).collect()
        };
        (of("vpcId").remove(0), of("subnetId").into_iter().take(2).collect())
    }
}

impl Balancer {
    /// A forward to both groups, `blue` first.
    pub fn forward(&self, weights: [i32; 2]) -> Action {
        let group = |arn: &str, weight: i32| {
            TargetGroupTuple::builder().target_group_arn(arn).weight(weight).build()
        };
        let config = ForwardActionConfig::builder()
            .target_groups(group(&self.blue, weights[0]))
            .target_groups(group(&self.green, weights[1]))
            .build();
        Action::builder().r#type(ActionTypeEnum::Forward).order(1).forward_config(config).build()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.kill();
    }
}
