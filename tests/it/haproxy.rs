//! The adapter for HAProxy, on a real one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::load_balancer::haproxy::HaproxyBalancer;
use tidegate::ports::{Backends, LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::{Haproxy as Settings, HaproxySocket};
use tidegate::units::{Generation, Weight};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::haproxy::Haproxy;
use crate::parts::meddler::Mood;

struct World {
    haproxy: Haproxy,
    green: Option<Backend>,
    green_address: SocketAddr,
    _blue: Backend,
}

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let haproxy = Haproxy::start(blue.address, green.address);
        Self { haproxy, green_address: green.address, green: Some(green), _blue: blue }
    }

    fn balancer(&self, socket: HaproxySocket) -> HaproxyBalancer {
        let servers = ["blue", "green"].map(|slot| (slot.parse().unwrap(), slot.to_owned()));
        let settings = Settings { socket, backend: "be".to_owned(), servers: servers.into() };
        HaproxyBalancer::new("web us_east_1 edge".to_owned(), &settings).unwrap()
    }

    fn unix(&self) -> HaproxyBalancer {
        self.balancer(HaproxySocket::Unix(self.haproxy.socket.clone()))
    }
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

/// The suite's world: the runtime API over TCP, through a relay that can misbehave.
struct Suite {
    inner: World,
    relay: Relay,
}

#[async_trait]
impl conformance::World for Suite {
    fn target(&self) -> String {
        let socket = self.relay.address;
        format!(
            "haproxy: {{socket: \"{socket}\", backend: be, servers: {{blue: blue, green: green}}}}"
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |socket: &str, backend: &str, servers: &str| {
            format!("haproxy: {{socket: {socket}, backend: {backend}, servers: {servers}}}")
        };
        vec![
            (with("/s", "\"be;shutdown\"", "{blue: a, green: b}"), "no name of a backend"),
            (with("/s", "be", "{blue: a, green: a}"), "two different names"),
            (with("/s", "be", "{blue: a, red: b}"), "blue: ..., green: ..."),
            ("haproxy: {backend: be, servers: {blue: a, green: b}}".to_owned(), "socket"),
            ("haproxi: {}".to_owned(), "did you mean `haproxy`?"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.inner.haproxy.listener).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let stable = 100 - canary_percent;
        let line = format!("set weight be/green {canary_percent}; set weight be/blue {stable}");
        self.inner.haproxy.say(&line).unwrap();
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.inner.haproxy.restart(),
            // Without a state file it forgets its weights, as after a restart.
            Fault::Reload => self.inner.haproxy.reload().await,
            Fault::Gone => self.inner.haproxy.kill(),
            Fault::Slow => self.relay.be(Mood::Slow),
            Fault::Refusing => self.relay.be(Mood::Refusing),
            Fault::Lying => self.relay.be(Mood::Lying),
            Fault::Honest => self.relay.be(Mood::Honest),
            Fault::CanarySick => self.inner.green = None,
            Fault::CanaryWell => {
                self.inner.green = Some(Backend::at("green", self.inner.green_address).await);
            }
        }
        Ok(())
    }
}

/// A relay from TCP to the runtime API's unix socket; gone with this value.
struct Relay {
    address: SocketAddr,
    mood: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Relay {
    async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(AtomicU8::new(Mood::Honest as u8));
        let shared = Arc::clone(&mood);
        let task = tokio::spawn(async move {
            while let Ok((front, _)) = listener.accept().await {
                let (socket, mood) = (socket.clone(), shared.load(Ordering::SeqCst));
                // Who asked may be gone by the time of the answer.
                tokio::spawn(async move { drop(Self::exchange(front, &socket, mood).await) });
            }
        });
        Self { address, mood, task }
    }

    async fn exchange(mut front: TcpStream, socket: &Path, mood: u8) -> std::io::Result<()> {
        let mut line = String::new();
        BufReader::new(&mut front).read_line(&mut line).await?;
        let changes = line.contains("set weight");
        if mood == Mood::Slow as u8 {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        if changes && mood == Mood::Refusing as u8 {
            return front.write_all(b"Permission denied.\n").await;
        }
        if changes && mood == Mood::Lying as u8 {
            return front.write_all(b"\n\n").await;
        }
        let mut back = UnixStream::connect(socket).await?;
        back.write_all(line.as_bytes()).await?;
        let mut answer = Vec::new();
        back.read_to_end(&mut answer).await?;
        front.write_all(&answer).await
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

/// The suite's world, begun.
pub async fn world() -> Box<dyn conformance::World> {
    let inner = World::start().await;
    let relay = Relay::start(inner.haproxy.socket.clone()).await;
    Box::new(Suite { inner, relay })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_does_what_every_adapter_must() {
    conformance::hold("haproxy", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_over_tcp_shows_hand_edits_restarts_and_sick_backends() {
    let mut world = World::start().await;
    let balancer = world.balancer(HaproxySocket::Tcp(world.haproxy.tcp));
    let before = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    assert_eq!((&before.split, before.generation), (&split(5.0), None));
    let pools = before.backends.clone().unwrap();
    assert_eq!(pools[&"green".parse().unwrap()], Backends { healthy: 1, total: 1 });

    // Somebody types at its socket.
    world.haproxy.say("set weight be/green 190").unwrap();
    let edited = balancer.read().await.unwrap();
    assert_eq!((&edited.split, &edited.restart_marker), (&split(50.0), &before.restart_marker));

    // Both at nothing: no share can be said, and nothing is settled.
    world.haproxy.say("set weight be/green 0; set weight be/blue 0").unwrap();
    let nobody = balancer.read().await.unwrap();
    assert!(!nobody.settled && nobody.note.is_some(), "{nobody:?}");
    balancer.set(&split(25.0), Generation(2)).await.unwrap();

    world.green = None;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let reading = balancer.read().await.unwrap();
        if reading.backends.unwrap()[&"green".parse().unwrap()].healthy == 0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never sick");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // Gone: nothing was sent. Back: another process, with the weights of its configuration.
    world.haproxy.kill();
    assert_eq!(balancer.read().await.unwrap_err().outcome, Outcome::NotSent);
    assert_eq!(
        balancer.set(&split(1.0), Generation(3)).await.unwrap_err().outcome,
        Outcome::NotSent
    );
    world.haproxy.restart();
    let after = balancer.read().await.unwrap();
    assert_eq!(after.split, split(0.0));
    assert!(after.restart_marker.is_some() && after.restart_marker != before.restart_marker);
    assert!(!balancer.capabilities().weights_survive_restart);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_says_whose_fault_it_is() {
    let world = World::start().await;
    let weak = world.balancer(HaproxySocket::Unix(world.haproxy.weak_socket.clone()));
    let refused = weak.set(&split(5.0), Generation(1)).await.unwrap_err();
    assert!(matches!(refused.outcome, Outcome::Refused | Outcome::Misconfigured), "{refused}");
    assert_eq!(world.unix().read().await.unwrap().split, split(0.0));

    let servers = [("blue", "blue"), ("green", "violet")];
    let servers = servers.map(|(slot, name)| (slot.parse().unwrap(), name.to_owned()));
    let socket = HaproxySocket::Unix(world.haproxy.socket.clone());
    let settings = Settings { socket, backend: "be".to_owned(), servers: servers.into() };
    let strange = HaproxyBalancer::new("web".to_owned(), &settings).unwrap();
    let error = strange.read().await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Misconfigured);
    assert!(error.what.contains("no server `violet`"), "{error}");
    let settings = Settings { backend: "nowhere".to_owned(), ..settings };
    let error =
        HaproxyBalancer::new("web".to_owned(), &settings).unwrap().read().await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
    // Finer than its steps: it is said before anything is sent.
    let error = world.unix().set(&split(0.01), Generation(1)).await.unwrap_err();
    assert!(
        error.outcome == Outcome::Misconfigured && error.what.contains("do not fit"),
        "{error}"
    );
    let typed = world.unix().by_hand(&split(0.0), Generation(9)).await.unwrap();
    assert!(
        typed[0].starts_with("echo 'set weight be/blue 200;set weight be/green 0' | socat"),
        "{typed:?}"
    );
}
