//! Where load balancers fetch what they need from Tidegate, as the fleet file says it.

use super::codes;
use super::decode::Decoder;
use super::file::Node;
use super::fleet::{MutualTls, Served};
use super::fleet_file::decode_secret;

/// The code is that of a port that anybody could reach.
pub fn decode(decoder: &mut Decoder, node: &Node, open: &'static str) -> Option<Served> {
    let mut fields = decoder.fields(node)?;
    let parse = |text: &str| text.parse::<std::net::SocketAddr>();
    let help = "write an IP address and a port such as 127.0.0.1:18000";
    let listen = fields.require(decoder, "listen", |decoder, node| {
        decoder.parsed(node, codes::INVALID_VALUE, help, parse)
    });
    let tls = fields.get(decoder, "tls", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let certificate = fields.require(decoder, "certificate", Decoder::text);
        let key = fields.require(decoder, "key", decode_secret);
        let client_ca = fields.require(decoder, "client_ca", Decoder::text);
        fields.finish(decoder);
        Some(MutualTls {
            certificate: certificate?.into(),
            key: key?,
            client_ca: client_ca?.into(),
        })
    });
    if let Some(listen) = listen
        && !listen.ip().is_loopback()
        && fields.key_span("tls").is_none()
    {
        let help = "add `tls: {certificate, key, client_ca}`, or listen on 127.0.0.1";
        decoder.error(open, fields.span, "beyond loopback this port needs mutual TLS", help);
    }
    fields.finish(decoder);
    Some(Served { listen: listen?, tls })
}
