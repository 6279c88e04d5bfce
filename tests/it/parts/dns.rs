//! Users of a name server: they ask it for a name, and go where it says.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Rtype};
use domain::rdata::{A, Srv};
use tokio::net::UdpSocket;

use super::backend::Counts;

/// Users, each with a socket of its own.
const USERS: u64 = 8;
/// After this time nobody answers, and a user asks again, as every client of DNS does: PowerDNS drops a question that has
/// waited for more than 1.5 s.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 4;

/// A name at a name server, and whose the answers are.
#[derive(Clone)]
pub struct Questions {
    pub server: SocketAddr,
    pub name: &'static str,
    /// Address, or `port target` of a service, to slot.
    pub slots: BTreeMap<&'static str, &'static str>,
    /// Asks for services, and picks one by its weight.
    pub services: bool,
}

impl Questions {
    /// Asks as long as `more` says so, with eight users; what is no answer is counted under `error`.
    pub async fn flow(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Counts {
        let users = (0..USERS).map(|number| {
            let (own, more) = (self.clone(), Arc::clone(&more));
            tokio::spawn(async move {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                socket.connect(own.server).await.unwrap();
                let (mut counts, mut dice) = (Counts::new(), Dice(number));
                while more() {
                    let slot = own.once(&socket, &mut dice).await.unwrap_or_else(|why| {
                        // Shown where the test fails.
                        eprintln!("{}: {why}", own.name);
                        "error"
                    });
                    *counts.entry(slot.to_owned()).or_default() += 1;
                }
                counts
            })
        });
        let mut all = Counts::new();
        for user in users.collect::<Vec<_>>() {
            for (slot, count) in user.await.unwrap() {
                *all.entry(slot).or_default() += count;
            }
        }
        all
    }

    async fn once(&self, socket: &UdpSocket, dice: &mut Dice) -> Result<&'static str, String> {
        let mut question = MessageBuilder::new_vec();
        question.header_mut().set_id(dice.roll() as u16);
        let mut question = question.question();
        let kind = if self.services { Rtype::SRV } else { Rtype::A };
        question.push((self.name.parse::<Name<Vec<u8>>>().unwrap(), kind)).unwrap();
        let question = question.into_message();
        let broken = |error: std::io::Error| error.to_string();
        let mut bytes = [0; 4096];
        let mut length = None;
        for _ in 0..ATTEMPTS {
            // A server that is gone refuses what is sent.
            socket.send(question.as_slice()).await.map_err(broken)?;
            let answered = async {
                loop {
                    let length = socket.recv(&mut bytes).await?;
                    if bytes[..2] == question.as_slice()[..2] {
                        return std::io::Result::Ok(length);
                    }
                }
            };
            if let Ok(answered) = tokio::time::timeout(ANSWER_MAX, answered).await {
                length = Some(answered.map_err(broken)?);
                break;
            }
        }
        let length = length.ok_or("no answer")?;
        let answer = Message::from_slice(&bytes[..length]).map_err(|it| it.to_string())?;
        let code = answer.header().rcode();
        if code != Rcode::NOERROR {
            return Err(code.to_string());
        }
        let place = if self.services { picked(answer, dice) } else { address(answer) };
        let slot = place.as_deref().and_then(|place| self.slots.get(place).copied());
        slot.ok_or_else(|| format!("answers {place:?}"))
    }
}

/// A user takes the first one.
fn address(answer: &Message<[u8]>) -> Option<String> {
    let record = answer.answer().ok()?.limit_to::<A>().next()?.ok()?;
    Some(record.data().addr().to_string())
}

/// By weight, as RFC 2782 says: those with weight 0 first, and a number from 0 to the sum, both included.
fn picked(answer: &Message<[u8]>, dice: &mut Dice) -> Option<String> {
    let records = answer.answer().ok()?.limit_to::<Srv<ParsedName<_>>>();
    let mut all: Vec<_> = records.flatten().collect();
    all.sort_by_key(|record| record.data().weight() > 0);
    let sum: u64 = all.iter().map(|record| u64::from(record.data().weight())).sum();
    let mut left = dice.roll() % (sum + 1);
    for record in all {
        let weight = u64::from(record.data().weight());
        if left <= weight {
            return Some(format!("{} {}", record.data().port(), record.data().target()));
        }
        left -= weight;
    }
    None
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
