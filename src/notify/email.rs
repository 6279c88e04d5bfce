//! Telling by e-mail, over SMTP: with TLS, unless the server is on loopback.

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::target::{Error, wrong};
use crate::http;
use crate::spec::fleet::Email;

/// Longest subject.
const SUBJECT_MAX: usize = 200;

/// Sends one message.
pub(super) async fn send(email: &Email, subject: &str, text: &str) -> Result<(), Error> {
    let refused = |what: String| Error::Refused(what);
    let from = email.from.parse().map_err(|_| refused("`from` is no address".to_owned()))?;
    let subject: String = subject.chars().filter(|c| !c.is_control()).take(SUBJECT_MAX).collect();
    let mut message = Message::builder().from(from).subject(format!("Tidegate: {subject}"));
    for to in &email.to {
        message = message.to(to.parse().map_err(|_| refused("`to` is no address".to_owned()))?);
    }
    let message = message
        .header(ContentType::TEXT_PLAIN)
        .body(text.to_owned())
        .map_err(|error| refused(error.to_string()))?;
    let loopback = email.server == "localhost"
        || email.server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let mut transport = if loopback {
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.server)
    } else if email.port == 465 {
        AsyncSmtpTransport::<Tokio1Executor>::relay(&email.server).map_err(wrong)?
    } else {
        AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(&email.server).map_err(wrong)?
    };
    transport = transport.port(email.port).timeout(Some(std::time::Duration::from_secs(10)));
    if let Some((name, password)) = &email.login {
        let password = http::secret(password).map_err(wrong)?;
        transport = transport.credentials(Credentials::new(name.clone(), password));
    }
    match transport.build().send(message).await {
        Ok(_) => Ok(()),
        // What the server says may repeat addresses; its kind is enough.
        Err(error) if error.is_permanent() => Err(refused("the mail server refuses it".to_owned())),
        Err(error) if error.is_timeout() => Err(Error::Later("no answer in time".to_owned())),
        Err(_) => Err(Error::Later("the mail server does not take it now".to_owned())),
    }
}
