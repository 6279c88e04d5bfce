//! The adapter for PowerDNS, on a real one.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidegate::load_balancer::powerdns::PowerDnsBalancer;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::{Family, PowerDns as Settings, Secret};
use tidegate::units::{Generation, Millis, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::Counts;
use crate::parts::dns::Questions;
use crate::parts::meddler::{Meddler, Mood};
use crate::parts::powerdns::{KEY, PowerDns};

const NAME: &str = "www.example.test";
const BLUE: [&str; 2] = ["127.0.1.1", "127.0.1.3"];
const GREEN: [&str; 1] = ["127.0.1.2"];

/// The suite's world: the API through a proxy that can misbehave, the name server itself for its users.
struct World {
    powerdns: PowerDns,
    meddler: Meddler,
}

impl World {
    fn questions(&self) -> Questions {
        let slots = [("127.0.1.1", "blue"), ("127.0.1.3", "blue"), ("127.0.1.2", "green")];
        Questions { server: self.powerdns.names, name: NAME, slots: slots.into(), services: false }
    }
}

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let (key, names) = (self.powerdns.key.display(), self.powerdns.names);
        format!(
            "powerdns: {{api: \"http://{}\", key: {{file: \"{key}\"}}, zone: example.test, name: {NAME}, ttl: 1s, \
             addresses: {{blue: [{}], green: [{}]}}, resolver: \"{names}\"}}",
            self.meddler.address,
            BLUE.join(", "),
            GREEN.join(", "),
        )
    }

    fn slips(&self) -> Option<Reason> {
        Some(
            "grade B: the API takes no condition, so between its look and its write an older one can be the last; the newer one reads it",
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |key: &str, name: &str, more: &str, blue: &str, green: &str| {
            format!(
                "powerdns: {{api: \"http://127.0.0.1:9\", key: {key}, zone: example.test, name: {name}, {more}addresses: {{blue: [{blue}], green: [{green}]}}}}"
            )
        };
        let key = "{env: K}";
        vec![
            (with("inline", NAME, "", "192.0.2.1", "192.0.2.2"), "a secret stands in this file"),
            (with(key, "www.example.org", "", "192.0.2.1", "192.0.2.2"), "is not in the zone"),
            (with(key, "\"w w.example.test\"", "", "192.0.2.1", "192.0.2.2"), "no domain name"),
            (with(key, NAME, "", "192.0.2.1", "192.0.2.1"), "stands here twice"),
            (with(key, NAME, "", "192.0.2.1", "2001:db8::1"), "no address of type A"),
            (
                with(key, NAME, "type: CNAME, ", "192.0.2.1", "192.0.2.2"),
                "expected one of: A, AAAA",
            ),
            (with(key, NAME, "ttl: 1500ms, ", "192.0.2.1", "192.0.2.2"), "no lifetime"),
            (with(key, NAME, "resolver: ns1, ", "192.0.2.1", "192.0.2.2"), "192.0.2.53:53"),
            (with(key, NAME, "server: \"a/b\", ", "192.0.2.1", "192.0.2.2"), "no server's name"),
            (with(key, NAME, "", "", "192.0.2.2"), "1 to 16 addresses"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(self.questions().flow(more).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let stable = 100 - canary_percent;
        let content = format!(
            "A \"pickwrandom({{{{{stable}, '{}'}}, {{{canary_percent}, '{}'}}}})\"",
            BLUE[0], GREEN[0]
        );
        self.powerdns.edit(&format!("{NAME}."), &[("LUA", &[&content])]).await;
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.powerdns.restart(),
            Fault::Reload => self.powerdns.reload(),
            Fault::Gone => self.powerdns.kill(),
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.meddler.be(Mood::Refusing),
            Fault::Lying => self.meddler.be(Mood::Lying),
            Fault::Honest => self.meddler.be(Mood::Honest),
            Fault::CanarySick | Fault::CanaryWell => return Err("a name server knows no backends"),
        }
        Ok(())
    }
}

/// The suite's world, begun.
pub async fn world() -> Box<dyn conformance::World> {
    let powerdns = PowerDns::start();
    let meddler = Meddler::start(powerdns.api).await;
    Box::new(World { powerdns, meddler })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns_does_what_every_adapter_must() {
    conformance::hold("powerdns", world().await).await;
}

fn settings(powerdns: &PowerDns) -> Settings {
    let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
    Settings {
        api: format!("http://{}", powerdns.api),
        key: Secret::File(powerdns.key.clone()),
        server: "localhost".to_owned(),
        zone: "example.test".to_owned(),
        name: NAME.to_owned(),
        family: Family::A,
        ttl: Millis::from_secs(1),
        addresses: BTreeMap::from([
            ("blue".parse().unwrap(), addresses(&BLUE)),
            ("green".parse().unwrap(), addresses(&GREEN)),
        ]),
        resolver: Some(powerdns.names),
    }
}

fn balancer(settings: &Settings) -> PowerDnsBalancer {
    PowerDnsBalancer::new("web us_east_1 edge".to_owned(), settings).unwrap()
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns_takes_plain_records_over_and_names_what_it_cannot_read() {
    let powerdns = PowerDns::start();
    let balancer = balancer(&settings(&powerdns));
    let name = format!("{NAME}.");
    let unsettled = async |word: &str| {
        let reading = balancer.read().await.unwrap();
        let note = reading.note.unwrap_or_default();
        assert!(!reading.settled && note.contains(word), "{word}: {note}");
    };
    unsettled("no A record").await;

    // As the name stood before Tidegate: plain addresses of one slot.
    powerdns.edit(&name, &[("A", &BLUE)]).await;
    let plain = balancer.survey().await.unwrap();
    assert!(plain.settled && plain.split == split(0.0) && plain.generation.is_none(), "{plain:?}");
    let other = "AAAA \"pickwrandom({{1,'2001:db8::1'}})\"";
    powerdns.edit(&name, &[("A", &BLUE), ("LUA", &[other])]).await;
    let reading = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    assert!(reading.settled && reading.split == split(5.0), "{reading:?}");
    assert_eq!(reading.generation, Some(Generation(1)));

    // A person's words, and what they do to users.
    let ours = "A \"pickwrandom({{1,'127.0.1.1'}})\"";
    powerdns.edit(&name, &[("LUA", &["A \"pickwrandom({{95,\\\"127.0.1.1\\\"}})\""])]).await;
    unsettled("not one `pickwrandom`").await;
    powerdns.edit(&name, &[("LUA", &["A \"pickwrandom({{1,'192.0.2.9'}})\""])]).await;
    unsettled("neither slot").await;
    powerdns.edit(&name, &[("LUA", &["A \"pickwrandom({{0,'127.0.1.1'}})\""])]).await;
    unsettled("all weights are 0").await;
    powerdns.edit(&name, &[("LUA", &[ours]), ("A", &GREEN)]).await;
    unsettled("stands beside").await;
    powerdns.edit(&name, &[("LUA", &[]), ("A", &["127.0.1.1", "127.0.1.2"])]).await;
    unsettled("both slots").await;

    // Set again, also by hand; the record of another family stays.
    powerdns.edit(&name, &[("LUA", &[other]), ("A", &[])]).await;
    balancer.set(&split(25.0), Generation(2)).await.unwrap();
    for command in balancer.by_hand(&split(75.0), Generation(3)).await.unwrap() {
        let said = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(said.status.success() && !command.contains(KEY), "{command}: {said:?}");
    }
    let typed = balancer.read().await.unwrap();
    assert!(typed.settled && typed.split == split(75.0), "{typed:?}");
    assert_eq!(typed.generation, Some(Generation(3)));
    let url = format!("http://{}/api/v1/servers/localhost/zones/example.test.", powerdns.api);
    let request = reqwest::Client::new().get(url).header("x-api-key", KEY);
    let zone = request.send().await.unwrap().text().await.unwrap();
    assert!(zone.contains("2001:db8::1"), "{zone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns_says_whose_fault_it_is() {
    let powerdns = PowerDns::with("no");
    let good = settings(&powerdns);
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), "not-this-one").unwrap();
    let key = Secret::File(wrong.path().to_owned());
    let cases = [
        (Settings { key, ..good.clone() }, "does not let us in"),
        (Settings { zone: "nowhere.test".to_owned(), ..good.clone() }, "no zone `nowhere.test`"),
        (Settings { server: "other".to_owned(), ..good.clone() }, "no zone"),
        (Settings { key: Secret::File("/nowhere/key".into()), ..good.clone() }, "cannot be read"),
    ];
    for (settings, word) in cases {
        let error = balancer(&settings).set(&split(5.0), Generation(1)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(word) && !text.contains("not-this-one"), "{word}: {text}");
    }
    // It takes what it does not serve; only its answers show it.
    let served = balancer(&good).set(&split(5.0), Generation(1)).await.unwrap();
    assert!(!served.settled && served.note.unwrap().contains("name server"));
    let blind = balancer(&Settings { resolver: None, ..good });
    assert!(blind.read().await.unwrap().settled);
}
