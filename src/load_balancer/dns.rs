//! Questions to name servers, over UDP: which addresses a name has now.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::message_builder::{MessageBuilder, QuestionBuilder};
use domain::base::{Message, Name, Rtype};
use domain::rdata::{A, Aaaa};
use tokio::net::UdpSocket;

use super::Unusable;
use crate::spec::fleet::Family;

/// Longest wait for one answer, and how often a question is sent: busy name servers drop those that have waited.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 3;
/// Longest answer over UDP that is read.
const ANSWER_BYTES_MAX: usize = 4_096;

/// A domain name.
pub(super) type Domain = Name<Vec<u8>>;

/// From text.
pub(super) fn domain(text: &str) -> Result<Domain, Unusable> {
    text.parse().map_err(|_| Unusable(format!("`{text}` is no domain name")))
}

/// The type of records that hold addresses of this family.
pub(super) fn record_type(family: Family) -> Rtype {
    match family {
        Family::A => Rtype::A,
        Family::Aaaa => Rtype::AAAA,
    }
}

/// One question in a message of its own, with a number that nobody guesses.
pub(super) fn question(name: &Domain, kind: Rtype) -> Result<QuestionBuilder<Vec<u8>>, String> {
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(number()?);
    let mut message = message.question();
    message.push((name, kind)).map_err(|_| "a question too long".to_owned())?;
    Ok(message)
}

/// Two bytes of chance.
pub(super) fn number() -> Result<u16, String> {
    let mut bytes = [0; 2];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    filled.map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(u16::from_be_bytes(bytes))
}

/// The addresses in one answer of a name server; empty where it says that there are none.
pub(super) async fn addresses(
    server: SocketAddr,
    name: &Domain,
    family: Family,
) -> Result<BTreeSet<IpAddr>, String> {
    let mut question = question(name, record_type(family))?;
    question.as_builder_mut().header_mut().set_rd(true);
    let question = question.into_message();
    let broken = |error: std::io::Error| error.kind().to_string();
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await.map_err(broken)?;
    socket.connect(server).await.map_err(broken)?;
    for _ in 0..ATTEMPTS {
        socket.send(question.as_slice()).await.map_err(broken)?;
        let answered = async {
            let mut bytes = vec![0; ANSWER_BYTES_MAX];
            loop {
                let length = socket.recv(&mut bytes).await.map_err(broken)?;
                let Ok(answer) = Message::from_octets(&bytes[..length]) else { continue };
                // What answers another question is nobody's, or somebody's who guesses.
                if answer.is_answer(&question) {
                    return addresses_of(&answer);
                }
            }
        };
        if let Ok(answer) = tokio::time::timeout(ANSWER_MAX, answered).await {
            return answer;
        }
    }
    Err("no answer in time".to_owned())
}

fn addresses_of(answer: &Message<&[u8]>) -> Result<BTreeSet<IpAddr>, String> {
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Ok(BTreeSet::new()),
        other => return Err(format!("answers {other}")),
    }
    let section = answer.answer().map_err(|_| "an answer that is none".to_owned())?;
    let mut found = BTreeSet::new();
    for record in section.limit_to::<A>().flatten() {
        found.insert(IpAddr::V4(record.data().addr()));
    }
    for record in section.limit_to::<Aaaa>().flatten() {
        found.insert(IpAddr::V6(record.data().addr()));
    }
    Ok(found)
}
