//! HAProxy by its runtime API: absolute weights of two servers of a backend, over a unix or TCP socket.
//!
//! ```text
//! set:  `set weight BACKEND/SERVER N` for both, in one line, in the order that never leaves the range in between
//! read: `show servers state BACKEND` (weights and health as they are now) and `show info` (which process)
//! ```
//!
//! HAProxy has no place for a generation, so an older controller is refused by this process alone, and a reload without a
//! fresh state file brings other weights back: the process is another one then, and the weights are set again.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::fence::Fence;
use super::{Pair, Unusable};
use crate::ports::{
    Backends, Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split,
};
use crate::spec::fleet::{Haproxy, HaproxySocket};
use crate::units::{Generation, SlotName, Weight};

/// Longest time for one exchange, and longest answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Two servers of one backend.
pub struct HaproxyBalancer {
    label: String,
    settings: Haproxy,
    pair: Pair,
    fence: Fence,
}

/// What HAProxy says of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Server {
    weight: u32,
    is_up: bool,
}

impl HaproxyBalancer {
    /// For a target of the fleet; nothing is asked yet.
    pub fn new(label: String, settings: &Haproxy) -> Result<Self, Unusable> {
        let pair = Pair::new(&settings.servers).map_err(Unusable::new)?;
        Ok(Self { label, settings: settings.clone(), pair, fence: Fence::default() })
    }

    fn failure(&self, what: impl Into<String>, outcome: Outcome) -> LoadBalancerError {
        LoadBalancerError { target: self.describe(), what: what.into(), outcome }
    }

    /// One exchange; `lost` is what is known of the effect when its answer does not come.
    async fn ask(&self, line: &str, lost: Outcome) -> Result<String, LoadBalancerError> {
        let no_way = |_| self.failure("its socket does not take a connection", Outcome::NotSent);
        let asked = async {
            match &self.settings.socket {
                HaproxySocket::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(no_way)?;
                    self.exchange(stream, line, lost).await
                }
                HaproxySocket::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(no_way)?;
                    self.exchange(stream, line, lost).await
                }
            }
        };
        let late = |_| self.failure("no answer in time", lost);
        tokio::time::timeout(ANSWER_MAX, asked).await.map_err(late)?
    }

    async fn exchange(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        line: &str,
        lost: Outcome,
    ) -> Result<String, LoadBalancerError> {
        let broken = |_| self.failure("the connection broke", lost);
        stream.write_all(format!("{line}\n").as_bytes()).await.map_err(broken)?;
        let mut answer = String::new();
        let read = stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await;
        read.map_err(|_| self.failure("an answer that is not text", lost))?;
        // Even a silent success is a line.
        if answer.is_empty() { Err(self.failure("the connection broke", lost)) } else { Ok(answer) }
    }

    async fn servers(
        &self,
    ) -> Result<(BTreeMap<String, Server>, Option<String>), LoadBalancerError> {
        let backend = &self.settings.backend;
        let line = format!("show info;show servers state {backend}");
        let answer = self.ask(&line, Outcome::NotSent).await?;
        let servers = servers_of(&answer).ok_or_else(|| {
            self.failure(
                format!("no backend `{backend}`, or the socket may not say so (`level operator`)"),
                Outcome::Misconfigured,
            )
        })?;
        Ok((servers, process_of(&answer)))
    }

    fn of_slot(
        &self,
        servers: &BTreeMap<String, Server>,
        slot: &SlotName,
    ) -> Result<Server, LoadBalancerError> {
        let name = self.settings.servers.get(slot).map(String::as_str).unwrap_or_default();
        servers.get(name).copied().ok_or_else(|| {
            let what = format!("backend {} has no server `{name}`", self.settings.backend);
            self.failure(what, Outcome::Misconfigured)
        })
    }

    /// The weights of both servers, in the order of the slots.
    fn weights(&self, split: &Split) -> Result<[u32; 2], LoadBalancerError> {
        let wrong = |what: String| self.failure(what, Outcome::Misconfigured);
        let [one, other] = self.pair.weights(split).map_err(|error| wrong(error.to_string()))?;
        let steps = self.capabilities().steps;
        steps.pair(one).ok_or_else(|| {
            wrong(format!("{one} and {other} do not fit HAProxy's weights: {}", steps.says()))
        })
    }

    /// Both weights in one line, that of the slot at `first` first.
    fn line(&self, first: usize, wanted: [u32; 2]) -> String {
        let set = |place: usize| {
            let server = self.settings.servers.get(&self.pair.slots()[place]);
            let server = server.map(String::as_str).unwrap_or_default();
            format!("set weight {}/{server} {}", self.settings.backend, wanted[place])
        };
        [first, 1 - first].map(set).join(";")
    }
}

/// Whether setting the first one first keeps the share between what it is and what it is to be, and somebody served.
fn first_goes_first(now: [u32; 2], wanted: [u32; 2]) -> bool {
    if now == [0, 0] {
        return wanted[0] >= wanted[1];
    }
    let share = |[one, other]: [u32; 2]| f64::from(one) / f64::from(one + other);
    let (from, to) = (share(now), share(wanted));
    let off = |between: [u32; 2]| {
        if between == [0, 0] {
            return f64::INFINITY;
        }
        let at = share(between);
        (from.min(to) - at).max(at - from.max(to)).max(0.0)
    };
    off([wanted[0], now[1]]) <= off([now[0], wanted[1]])
}

/// By name, from `show servers state`: version line, header, a row per server.
fn servers_of(answer: &str) -> Option<BTreeMap<String, Server>> {
    let header = answer.lines().find_map(|line| line.strip_prefix("# be_id "))?;
    let column = |name: &str| header.split_whitespace().position(|it| it == name).map(|at| at + 1);
    let (name, weight) = (column("srv_name")?, column("srv_uweight")?);
    let (running, admin) = (column("srv_op_state")?, column("srv_admin_state")?);
    let rows = answer.lines().skip_while(|line| !line.starts_with("# be_id ")).skip(1);
    let mut servers = BTreeMap::new();
    for row in rows.take_while(|row| !row.trim().is_empty()) {
        let fields: Vec<_> = row.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
        // Bits of the first kind take a server out of service; what remains are notes about its address.
        let is_up = number(running)? == 2 && number(admin)? & 0x3f == 0;
        let server = Server { weight: number(weight)?, is_up };
        servers.insert((*fields.get(name)?).to_owned(), server);
    }
    Some(servers)
}

/// Which process answers: its number, and its start where HAProxy tells it.
fn process_of(answer: &str) -> Option<String> {
    let field = |name: &str| {
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let started = field("Start_time_sec").unwrap_or_default();
    field("Pid").map(|pid| format!("{pid} {started}").trim_end().to_owned())
}

#[async_trait]
impl LoadBalancer for HaproxyBalancer {
    fn describe(&self) -> String {
        format!("{} (haproxy {})", self.label, self.settings.backend)
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        let (servers, process) = self.servers().await?;
        let [first, second] = self.pair.slots();
        let (one, other) = (self.of_slot(&servers, first)?, self.of_slot(&servers, second)?);
        let share = Weight::from_ratio(u64::from(one.weight), u64::from(one.weight + other.weight));
        let note = share.is_none().then(|| "no server has any weight".to_owned());
        let share = share.unwrap_or_default();
        let health = |server: Server| Backends { healthy: u32::from(server.is_up), total: 1 };
        let backends = [(first.clone(), health(one)), (second.clone(), health(other))];
        Ok(Reading {
            split: [(first.clone(), share), (second.clone(), share.complement())].into(),
            settled: note.is_none(),
            generation: None,
            instances: Vec::new(),
            backends: Some(backends.into()),
            restart_marker: process,
            note,
        })
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let wanted = self.weights(split)?;
        let admitted = self.fence.admit(generation);
        admitted.map_err(|what| self.failure(what, Outcome::Superseded))?;
        let (servers, _) = self.servers().await?;
        let now = [
            self.of_slot(&servers, &self.pair.slots()[0])?,
            self.of_slot(&servers, &self.pair.slots()[1])?,
        ];
        let now = now.map(|server| server.weight);
        if now != wanted {
            let first = usize::from(!first_goes_first(now, wanted));
            let said = self.ask(&self.line(first, wanted), Outcome::Unknown).await?;
            let said = said.trim();
            if !said.is_empty() {
                let said = crate::units::shown(said);
                return Err(self.failure(format!("it refuses: {said}"), Outcome::Refused));
            }
        }
        self.read().await.map_err(|error| {
            self.failure(format!("set, not read back: {}", error.what), Outcome::Unknown)
        })
    }

    async fn by_hand(
        &self,
        split: &Split,
        _generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let wanted = self.weights(split)?;
        let to = match &self.settings.socket {
            HaproxySocket::Unix(path) => format!("UNIX-CONNECT:{}", path.display()),
            HaproxySocket::Tcp(address) => format!("TCP:{address}"),
        };
        // What it is now is not known here: the one that most go to is raised first.
        let first = usize::from(wanted[0] < wanted[1]);
        Ok(vec![format!("echo '{}' | socat - '{to}'", self.line(first, wanted))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Steps;

    #[test]
    fn in_between_the_share_stays_in_between_and_somebody_is_served() {
        let shares = [0.0, 0.5, 1.0, 5.0, 25.0, 50.0, 99.0, 100.0]
            .map(|it| Steps::Pairs(256).pair(Weight::from_percent(it).unwrap()).unwrap());
        for now in shares {
            for wanted in shares {
                let between = match first_goes_first(now, wanted) {
                    true => [wanted[0], now[1]],
                    false => [now[0], wanted[1]],
                };
                assert_ne!(between, [0, 0], "{now:?} {wanted:?}");
                let share = |it: [u32; 2]| f64::from(it[0]) / f64::from(it[0] + it[1]);
                let (low, high) = (share(now).min(share(wanted)), share(now).max(share(wanted)));
                assert!((low - 1e-9..=high + 1e-9).contains(&share(between)), "{now:?} {wanted:?}");
            }
        }
    }

    #[test]
    fn an_answer_is_read_by_its_header_and_nonsense_is_none() {
        let answer = "Name: HAProxy\nPid: 42\nStart_time_sec: 7\n\n1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n3 be 1 blue 127.0.0.1 2 0 190\n3 be 2 green 127.0.0.1 0 1 10\n\n";
        let servers = servers_of(answer).unwrap();
        assert_eq!(servers["blue"], Server { weight: 190, is_up: true });
        assert_eq!(servers["green"], Server { weight: 10, is_up: false });
        assert_eq!(process_of(answer).as_deref(), Some("42 7"));
        for nonsense in ["", "Unknown command", "# be_id\n", "# be_id srv_name\nx\n"] {
            assert_eq!(servers_of(nonsense), None, "{nonsense}");
        }
    }
}
