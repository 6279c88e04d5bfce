//! What stands below HTTP's meaning: lengths, headers, slowness, two readings of one request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::world::World;

/// A server that gives every request this answer.
pub async fn answering(status: u16, body: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4096];
            let _ = stream.read(&mut read).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

/// Sends bytes as they are; all that comes back until the end, or until nothing comes for `patience`.
async fn raw(world: &World, request: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(world.listening.address).await.unwrap();
    // The other side may have closed it already.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(world: &World, line: &str, more: &str) -> String {
    let token = &world.tokens["ana"];
    format!("{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n{more}\r\n")
}

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_bodies_and_headers_without_end_are_cut_off() {
    let world = World::start().await;
    let line = "POST /v1/rollouts";
    let json = "content-type: application/json\r\n";
    let long = head(&world, line, &format!("{json}content-length: 5000000000\r\n"));
    let answer = raw(&world, long.as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut chunked =
        head(&world, line, &format!("{json}transfer-encoding: chunked\r\n")).into_bytes();
    for _ in 0..(9 << 20 >> 16) {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend(std::iter::repeat_n(b'x', 1 << 16));
        chunked.extend_from_slice(b"\r\n");
    }
    let answer = raw(&world, &chunked, PATIENCE).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");

    let many: String = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let answer = raw(&world, head(&world, line, &many).as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    // One byte after the other: it ends although something comes.
    let begun = Instant::now();
    let mut stream = TcpStream::connect(world.listening.address).await.unwrap();
    let slow = tokio::spawn(async move {
        for byte in
            b"GET /v1/fleet HTTP/1.1\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
                .iter()
                .cycle()
        {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    });
    tokio::time::timeout(Duration::from_secs(25), slow).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(world.get("ana", "/v1/fleet").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_41_a_request_that_reads_two_ways_is_none() {
    let world = World::start().await;
    let json = "content-type: application/json\r\n";
    let both = format!("{json}content-length: 4\r\ntransfer-encoding: chunked\r\n");
    let mut request = head(&world, "POST /v1/rollouts", &both);
    request.push_str("2\r\n{}\r\n0\r\n\r\nGET /v1/fleet HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let answer = raw(&world, request.as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");

    let two = format!("{json}content-length: 2\r\ncontent-length: 3\r\n");
    let answer =
        raw(&world, (head(&world, "POST /v1/rollouts", &two) + "{}x").as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    let absolute = head(&world, "GET http://evil.example/v1/fleet", "connection: close\r\n");
    let answer = raw(&world, absolute.as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");

    let hosts = head(&world, "GET /v1/fleet", "host: evil.example\r\nconnection: close\r\n");
    let answer = raw(&world, hosts.as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    // There is no HTTP/2 to reset rapidly.
    let answer = raw(&world, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PATIENCE).await;
    assert!(!answer.starts_with("HTTP/2") && !answer.contains("200 OK"), "{answer}");
}
