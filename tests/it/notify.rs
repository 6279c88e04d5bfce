//! Telling people, also those who cannot be reached for a while.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tidegate::notify::target::signature;

use crate::binary_xds::process::{Running, call};
use crate::binary_xds::story::{fleet, run};
use crate::parts::port::free_address;

type Received = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// Takes what is posted, and answers with an error now and then.
async fn listen(address: SocketAddr) -> Received {
    let received = Received::default();
    let take = async |State(received): State<Received>, headers: HeaderMap, body: String| {
        let mut received = received.lock().unwrap();
        received.push((headers, body));
        // The first try of each second one fails after it was taken: it comes again, with the same key.
        if received.len() % 3 == 2 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    received
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_42_who_could_not_be_told_is_told_later_in_order_and_once_by_key() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    let address = free_address();
    fleet.write("key", "a secret\n");
    fleet.write("tell.sh", "echo \"$1\" >> told\n");
    let path = folder.join("tidegate.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let notify = format!(
        "notify:\n  chat: {{webhook: {{url: \"http://{address}/hook\", secret: {{file: key}}}}}}\n  \
         oncall: {{command: [sh, tell.sh, \"{{text}}\"], pages_only: true}}\n"
    );
    std::fs::write(&path, text + &notify).unwrap();
    let tested = call(folder, &["notify", "test", "-o", "json"]).expect(1).json();
    assert_eq!((&tested[0]["told"], &tested[1]["told"]), (&false.into(), &false.into()));

    let mut running = Running::start(folder, &run("pipelines/long.yaml", "v2"));
    running.until_baking(0);
    call(folder, &["rollback", "--reason", "slow"]).expect(0);
    running.ended(20).expect(5);
    let told = std::fs::read_to_string(folder.join("told")).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("api-gateway-1: rolling back: asked by ada: slow"), "{told}");
    let waiting = || std::fs::read_dir(folder.join("state/outbox/chat")).unwrap().count();
    assert!(waiting() >= 2, "{}", waiting());

    // It is there again: the next process tells it everything.
    let received = listen(address).await;
    let daemon = Running::start(folder, &["serve"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while waiting() > 0 {
        assert!(Instant::now() < deadline, "{} wait", waiting());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.terminate().expect(128 + 15);
    let received = received.lock().unwrap().clone();
    let mut keys: Vec<String> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    for (headers, body) in &received {
        let event: Value = serde_json::from_str(body).unwrap();
        let at = event["data"]["at"].as_u64().unwrap();
        let signed = headers["tidegate-signature"].to_str().unwrap();
        assert_eq!(signed, signature("a secret", at, body).unwrap());
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        if keys.last() != Some(&key) {
            assert!(!keys.contains(&key), "{key} came again out of order");
            keys.push(key);
            texts.push(event["data"]["text"].as_str().unwrap().to_owned());
        }
    }
    assert!(received.len() > keys.len(), "one of them came twice");
    assert!(texts[0].contains("rolling back: asked by ada: slow"), "{texts:?}");
    assert!(texts[1].contains("rolled back; every region was read back at 0 %"), "{texts:?}");
    let secret = received.iter().any(|(_, body)| body.contains("a secret"));
    assert!(!secret);
    let tested = call(folder, &["notify", "test", "--page", "-o", "json"]);
    assert_eq!(tested.json()[1]["told"], true);
}
