//! Signed messages to a name server over TCP, one after the other: questions and updates, and what a failure means.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::base::Message;
use domain::base::iana::Rcode;
use domain::base::message_builder::AdditionalBuilder;
use domain::rdata::tsig::Time48;
use domain::tsig::{Algorithm, ClientTransaction, Key, KeyName, ValidationError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http;
use crate::ports::Outcome;
use crate::spec::fleet::TsigKey;

/// Longest time for a connection, and for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What went wrong, for people, and what that means for the effect.
#[derive(Debug, Clone)]
pub struct Problem {
    pub what: String,
    pub outcome: Outcome,
}

impl Problem {
    pub fn new(what: impl Into<String>, outcome: Outcome) -> Self {
        Self { what: what.into(), outcome }
    }
}

/// A connection and the key that signs what goes over it.
pub struct Session {
    stream: TcpStream,
    key: Key,
}

impl Session {
    /// Connects; the secret is read now.
    pub async fn open(server: &str, key: &TsigKey) -> Result<Self, Problem> {
        let key = signing_key(key)?;
        let connected = tokio::time::timeout(ANSWER_MAX, TcpStream::connect(server)).await;
        let no_way = || Problem::new("no connection", Outcome::NotSent);
        let stream = connected.map_err(|_| no_way())?.map_err(|_| no_way())?;
        Ok(Self { stream, key })
    }

    /// Signs a message, sends it and returns its answer, whose signature held. `lost`: what is known of the effect without
    /// one. Refusals are problems; what an answer to a question or a prerequisite may say is not.
    pub async fn ask(
        &mut self,
        mut message: AdditionalBuilder<Vec<u8>>,
        lost: Outcome,
    ) -> Result<Message<Vec<u8>>, Problem> {
        let number = message.as_builder().header().id();
        let signed = ClientTransaction::request(self.key.clone(), &mut message, Time48::now());
        let too_long = || Problem::new("a message too long", Outcome::Misconfigured);
        let signed = signed.map_err(|_| too_long())?;
        let message = message.finish();
        let length = u16::try_from(message.len()).map_err(|_| too_long())?;
        let exchanged = async {
            // One write is one packet, where it fits.
            let framed = [&length.to_be_bytes()[..], &message].concat();
            self.stream.write_all(&framed).await?;
            let mut bytes = vec![0; usize::from(self.stream.read_u16().await?)];
            self.stream.read_exact(&mut bytes).await?;
            std::io::Result::Ok(bytes)
        };
        let bytes = tokio::time::timeout(ANSWER_MAX, exchanged).await;
        let bytes = bytes
            .map_err(|_| Problem::new("no answer in time", lost))?
            .map_err(|_| Problem::new("the connection broke", lost))?;
        let answer = Message::from_octets(bytes).ok();
        let ours =
            |answer: &Message<Vec<u8>>| answer.header().qr() && answer.header().id() == number;
        let mut answer =
            answer.filter(ours).ok_or_else(|| Problem::new("an answer to something else", lost))?;
        if let Err(error) = signed.answer(&mut answer, Time48::now()) {
            return Err(self.unsigned(error, answer.header().rcode(), lost));
        }
        self.refusal(answer.header().rcode(), lost).map_or(Ok(answer), Err)
    }

    fn unsigned(&self, error: ValidationError, code: Rcode, lost: Outcome) -> Problem {
        let name = self.key.name();
        let what = match error {
            ValidationError::ServerBadKey => format!("it does not know the key `{name}`"),
            ValidationError::ServerBadSig => format!("its secret of the key `{name}` is another"),
            ValidationError::ServerBadTime { .. } | ValidationError::BadTime => {
                "its clock and ours differ by more than 5 minutes".to_owned()
            }
            // A no that nobody has signed is a no still; a yes is not.
            ValidationError::ServerUnsigned => {
                let unsigned = format!("its answer is not signed with the key `{name}`");
                return self.refusal(code, lost).unwrap_or(Problem::new(unsigned, lost));
            }
            other => return Problem::new(format!("its answer's signature: {other}"), lost),
        };
        Problem::new(what, Outcome::Misconfigured)
    }

    fn refusal(&self, code: Rcode, lost: Outcome) -> Option<Problem> {
        let name = self.key.name();
        let what = match code {
            Rcode::NOERROR | Rcode::NXDOMAIN => return None,
            Rcode::YXDOMAIN | Rcode::YXRRSET | Rcode::NXRRSET => return None,
            Rcode::SERVFAIL => return Some(Problem::new("it answers SERVFAIL", lost)),
            Rcode::REFUSED => format!("it answers REFUSED: may the key `{name}` do this?"),
            Rcode::NOTAUTH => format!(
                "it answers NOTAUTH: is it the zone's primary, and does it know the key `{name}`?"
            ),
            other => format!("it answers {other}"),
        };
        Some(Problem::new(what, Outcome::Misconfigured))
    }
}

fn signing_key(key: &TsigKey) -> Result<Key, Problem> {
    let wrong = |what: String| Problem::new(what, Outcome::Misconfigured);
    let text = http::secret(&key.secret).map_err(|error| wrong(error.to_string()))?;
    let secret = BASE64_STANDARD.decode(text);
    let secret = secret.map_err(|_| wrong(format!("the secret of `{}` is no base64", key.name)))?;
    let name: KeyName =
        key.name.parse().map_err(|_| wrong(format!("`{}` is no name of a key", key.name)))?;
    Key::new(Algorithm::Sha256, &secret, name, None, None)
        .map_err(|_| wrong(format!("the key `{}` cannot be used", key.name)))
}
