//! Ports for servers that take no port of the system's choice.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The lowest one given out.
const LOWEST: u32 = 10_000;

static GIVEN: AtomicU32 = AtomicU32::new(0);

/// An address on loopback that nobody has, given out once.
///
/// It lies below the ports that the system gives to connections, so none of those takes it before the server does, nor
/// while the server is down.
pub fn free_address() -> SocketAddr {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first = range.ok().and_then(|text| text.split_whitespace().next()?.parse::<u32>().ok());
    let count = first.unwrap_or(32_768) - LOWEST;
    // Another run of the tests begins elsewhere.
    let begin = std::process::id().wrapping_mul(2_654_435_761) % count;
    for _ in 0..count {
        let number = begin + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(LOWEST + number % count).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free");
}
