//! The adapter for dynamic updates, on a real BIND.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::load_balancer::rfc2136::Rfc2136Balancer;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::{NameRecords, Rfc2136 as Settings, Secret, SrvTarget, TsigKey};
use tidegate::units::{Generation, Millis, Weight};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::Counts;
use crate::parts::bind::{Bind, SECRET, WRONG};
use crate::parts::dns::Questions;
use crate::parts::meddler::Mood;

const SERVICE: &str = "_http._tcp.example.test";
const HOST: &str = "www.example.test";
/// The opcode of an update.
const UPDATE: u8 = 5;
const REFUSED: u8 = 5;

/// The suite's world: updates through a relay that can misbehave, the name server itself for its users.
struct World {
    bind: Bind,
    relay: Relay,
    services: bool,
}

impl World {
    async fn start(services: bool) -> Self {
        let bind = Bind::start("");
        let relay = Relay::start(bind.address).await;
        Self { bind, relay, services }
    }

    fn target_with(&self, server: &str, secret: &str, name: &str, records: &str) -> String {
        format!(
            "rfc2136: {{server: \"{server}\", zone: example.test, name: {name}, ttl: 1s, key: {{name: k, secret: {secret}}}, {records}}}"
        )
    }
}

const SRV: &str = "srv: {blue: {target: one.example.test, port: 80}, green: {target: two.example.test., port: 80}}";
const ADDRESS: &str = "address: {blue: [127.0.1.1, 127.0.1.3], green: [127.0.1.2]}";

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let server = self.relay.address.to_string();
        let secret = format!("{{file: \"{}\"}}", self.bind.secret.display());
        let (name, records) = if self.services { (SERVICE, SRV) } else { (HOST, ADDRESS) };
        self.target_with(&server, &secret, name, records)
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let key = "{env: K}";
        let with = |server, secret, name, records| self.target_with(server, secret, name, records);
        let same = "srv: {blue: {target: one.example.test, port: 80}, green: {target: One.example.test., port: 80}}";
        vec![
            (with("ns1:53", SECRET, HOST, ADDRESS), "a secret stands in this file"),
            (with("ns1", key, HOST, ADDRESS), "no host and port"),
            (with("ns1:53", key, "www.example.org", ADDRESS), "is not in the zone"),
            (with("ns1:53", key, HOST, "type: A"), "exactly one of `srv`"),
            (with("ns1:53", key, HOST, same), "both slots are the same service"),
            (with("ns1:53", key, HOST, &format!("{SRV}, {ADDRESS}")), "exactly one of `srv`"),
            (
                with(
                    "ns1:53",
                    key,
                    HOST,
                    "srv: {blue: {target: a, port: 0}, green: {target: b, port: 1}}",
                ),
                "from 1 to 65535",
            ),
            (
                with("ns1:53", key, HOST, "address: {blue: [192.0.2.1], green: [192.0.2.1]}"),
                "twice",
            ),
            (
                with("ns1:53", key, HOST, "address: {blue: [192.0.2.1], red: [192.0.2.2]}"),
                "green: ...",
            ),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        let (server, services) = (self.bind.address, self.services);
        let name = if services { SERVICE } else { HOST };
        let slots = BTreeMap::from([
            ("80 one.example.test", "blue"),
            ("80 two.example.test", "green"),
            ("127.0.1.1", "blue"),
            ("127.0.1.3", "blue"),
            ("127.0.1.2", "green"),
        ]);
        Ok(Questions { server, name, slots, services }.flow(more).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let mut lines = Vec::new();
        if self.services {
            lines.push(format!("update delete {SERVICE}. SRV"));
            for (weight, host) in [(100 - canary_percent, "one"), (canary_percent, "two")] {
                let line =
                    format!("update add {SERVICE}. 1 SRV 0 {weight} 80 {host}.example.test.");
                lines.extend((weight > 0).then_some(line));
            }
        } else {
            let address = if canary_percent == 0 { "127.0.1.1" } else { "127.0.1.2" };
            lines.push(format!("update delete {HOST}. A"));
            lines.push(format!("update add {HOST}. 1 A {address}"));
        }
        self.bind.update(&lines);
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.bind.restart(),
            Fault::Reload => self.bind.reload(),
            Fault::Gone => self.bind.kill(),
            Fault::Slow => self.relay.be(Mood::Slow),
            Fault::Refusing => self.relay.be(Mood::Refusing),
            Fault::Lying => self.relay.be(Mood::Lying),
            Fault::Honest => self.relay.be(Mood::Honest),
            Fault::CanarySick | Fault::CanaryWell => return Err("a name server knows no backends"),
        }
        Ok(())
    }
}

/// A relay in front of a name server's TCP; gone with this value.
struct Relay {
    address: SocketAddr,
    mood: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Relay {
    async fn start(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(AtomicU8::new(Mood::Honest as u8));
        let shared = Arc::clone(&mood);
        let task = tokio::spawn(async move {
            while let Ok((front, _)) = listener.accept().await {
                let mood = Arc::clone(&shared);
                // Who asked may be gone by the time of the answer.
                tokio::spawn(async move { drop(Self::exchanges(front, behind, &mood).await) });
            }
        });
        Self { address, mood, task }
    }

    async fn exchanges(
        mut front: TcpStream,
        behind: SocketAddr,
        mood: &AtomicU8,
    ) -> std::io::Result<()> {
        let mut back = TcpStream::connect(behind).await?;
        loop {
            let message = framed(&mut front).await?;
            let mood = mood.load(Ordering::SeqCst);
            let is_update = (message[2] >> 3) & 15 == UPDATE;
            let answer = if is_update && mood == Mood::Refusing as u8 {
                unsigned(&message, REFUSED)
            } else if is_update && mood == Mood::Lying as u8 {
                unsigned(&message, 0)
            } else {
                send(&mut back, &message).await?;
                framed(&mut back).await?
            };
            if mood == Mood::Slow as u8 {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            send(&mut front, &answer).await?;
        }
    }

    fn be(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}

/// An answer of a header alone.
fn unsigned(message: &[u8], code: u8) -> Vec<u8> {
    let mut header = vec![message[0], message[1], 0x80 | UPDATE << 3, code];
    header.resize(12, 0);
    header
}

/// The suite's world, begun.
pub async fn world() -> Box<dyn conformance::World> {
    Box::new(World::start(true).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_does_what_every_adapter_must() {
    conformance::hold("rfc2136", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_with_addresses_does_what_every_adapter_must() {
    conformance::hold("rfc2136_address", Box::new(World::start(false).await)).await;
}

fn settings(bind: &Bind, records: NameRecords) -> Settings {
    let name = if matches!(records, NameRecords::Srv(_)) { SERVICE } else { HOST };
    let secret = Secret::File(bind.secret.clone());
    Settings {
        server: bind.address.to_string(),
        zone: "example.test".to_owned(),
        name: name.to_owned(),
        ttl: Millis::from_secs(1),
        key: TsigKey { name: "k".to_owned(), secret },
        records,
    }
}

fn services() -> NameRecords {
    let service = |host: &str| SrvTarget { target: format!("{host}.example.test"), port: 80 };
    NameRecords::Srv(BTreeMap::from([
        ("blue".parse().unwrap(), service("one")),
        ("green".parse().unwrap(), service("two")),
    ]))
}

fn balancer(settings: &Settings) -> Rfc2136Balancer {
    Rfc2136Balancer::new("web us_east_1 edge".to_owned(), settings).unwrap()
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_takes_records_over_and_names_what_it_cannot_read() {
    let bind = Bind::start("_http._tcp SRV 0 0 80 one");
    let balancer = balancer(&settings(&bind, services()));
    // Alone, a record of weight 0 gets everything.
    let before = balancer.survey().await.unwrap();
    assert!(before.settled && before.split == split(0.0), "{before:?}");
    assert_eq!(before.generation, None);
    let set = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    assert!(set.settled && set.split == split(5.0), "{set:?}");
    let mut shown: Vec<_> = bind.dig(&[SERVICE, "SRV"]).lines().map(str::to_owned).collect();
    shown.sort();
    assert_eq!(shown, ["0 500 80 two.example.test.", "0 9500 80 one.example.test."]);
    let marker = format!("_tidegate.{SERVICE}");
    assert_eq!(bind.dig(&[&marker, "TXT"]).trim(), "\"generation=1\"");

    let record = |text: &str| format!("update add {SERVICE}. 1 SRV {text}");
    for (text, word) in [
        ("1 5 80 two.example.test.", "different priorities"),
        ("0 5 80 three.example.test.", "neither slot"),
        ("0 5 81 two.example.test.", "neither slot"),
        ("0 0 80 two.example.test.", "weight 0 still gets"),
    ] {
        let delete = format!("update delete {SERVICE}. SRV");
        bind.update(&[delete, record("0 95 80 one.example.test."), record(text)]);
        let note = balancer.read().await.unwrap();
        assert!(!note.settled && note.note.clone().unwrap().contains(word), "{word}: {note:?}");
    }
    bind.update(&[format!("update delete {SERVICE}. SRV")]);
    let nothing = balancer.read().await.unwrap();
    assert!(!nothing.settled && nothing.generation == Some(Generation(1)), "{nothing:?}");

    // By hand, without us.
    for command in balancer.by_hand(&split(75.0), Generation(2)).await.unwrap() {
        let said = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(said.status.success() && !command.contains(SECRET), "{command}: {said:?}");
    }
    let typed = balancer.read().await.unwrap();
    assert!(typed.settled && typed.split == split(75.0), "{typed:?}");
    assert_eq!(typed.generation, Some(Generation(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_moves_addresses_of_both_families_together() {
    let bind = Bind::start("");
    let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
    let records = NameRecords::Address(BTreeMap::from([
        ("blue".parse().unwrap(), addresses(&["192.0.2.1", "192.0.2.2", "2001:db8::1"])),
        ("green".parse().unwrap(), addresses(&["192.0.2.3", "2001:db8::3"])),
    ]));
    let balancer = balancer(&settings(&bind, records));
    balancer.set(&split(0.0), Generation(1)).await.unwrap();
    assert_eq!(bind.dig(&[HOST, "A"]).lines().count(), 2);
    let moved = balancer.set(&split(100.0), Generation(2)).await.unwrap();
    assert!(moved.settled && moved.split == split(100.0), "{moved:?}");
    assert_eq!(bind.dig(&[HOST, "A", HOST, "AAAA"]), "192.0.2.3\n2001:db8::3\n");
    // One family of each slot: no share at all.
    bind.update(&[
        format!("update delete {HOST}. AAAA"),
        format!("update add {HOST}. 1 AAAA 2001:db8::1"),
    ]);
    let mixed = balancer.read().await.unwrap();
    assert!(!mixed.settled && mixed.note.unwrap().contains("both slots"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_says_whose_fault_it_is_without_the_secret() {
    let bind = Bind::start("");
    let good = settings(&bind, services());
    let key = |name: &str, file: &std::path::Path| TsigKey {
        name: name.to_owned(),
        secret: Secret::File(file.to_owned()),
    };
    let garbled = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(garbled.path(), "no base64!").unwrap();
    let cases = [
        (Settings { key: key("k", &bind.wrong), ..good.clone() }, "is another"),
        (Settings { key: key("nobody", &bind.secret), ..good.clone() }, "does not know the key"),
        (Settings { key: key("r", &bind.secret), ..good.clone() }, "REFUSED: may the key `r`"),
        (Settings { key: key("k", garbled.path()), ..good.clone() }, "no base64"),
        (
            Settings {
                zone: "example.org".to_owned(),
                name: "www.example.org".to_owned(),
                ..good.clone()
            },
            "REFUSED",
        ),
    ];
    for (settings, word) in cases {
        let error = balancer(&settings).set(&split(5.0), Generation(1)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(word), "{word}: {text}");
        assert!(!text.contains(SECRET) && !text.contains(WRONG) && !text.contains("base64!"));
    }
    assert_eq!(bind.dig(&[SERVICE, "SRV"]), "");
}
