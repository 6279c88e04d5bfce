//! Telling people, also those who cannot be reached for a while.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tidegate::notify::Outbox;
use tidegate::notify::target::signature;
use tidegate::ports::{Notice, Notifier};

use crate::binary_xds::process::{Running, call};
use crate::binary_xds::story::{fleet, run};
use crate::parts::alertmanager::Alertmanager;
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
    let event: Value = serde_json::from_str(&received[0].1).unwrap();
    let lines: Vec<_> =
        event["data"]["lines"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    for begin in [
        "canary weights as read back: us_east_1 25 %",
        "why: asked by ada: slow",
        "Tidegate takes",
        "you may: tidegate",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(begin)), "{begin}: {lines:?}");
    }
    let secret = received.iter().any(|(_, body)| body.contains("a secret"));
    assert!(!secret);
    let tested = call(folder, &["notify", "test", "--page", "-o", "json"]);
    assert_eq!(tested.json()[1]["told"], true);
}

/// A mail server that takes everything; what it was sent, message by message.
async fn mail_server() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mails = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&mails);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mails = Arc::clone(&taken);
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                let (mut mail, mut inside) = (String::new(), false);
                write.write_all(b"220 test ESMTP\r\n").await.unwrap();
                while let Ok(Some(line)) = lines.next_line().await {
                    let answer: &[u8] = match line.to_ascii_uppercase() {
                        _ if inside && line == "." => {
                            inside = false;
                            mails.lock().unwrap().push(std::mem::take(&mut mail));
                            b"250 taken\r\n"
                        }
                        _ if inside => {
                            mail.push_str(&line);
                            mail.push('\n');
                            continue;
                        }
                        command if command.starts_with("EHLO") => b"250-test\r\n250 8BITMIME\r\n",
                        command if command == "DATA" => {
                            inside = true;
                            b"354 go on\r\n"
                        }
                        command if command == "QUIT" => {
                            let _ = write.write_all(b"221 bye\r\n").await;
                            return;
                        }
                        _ => b"250 ok\r\n",
                    };
                    write.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, mails)
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_up_level_by_level_over_a_restart_until_somebody_acknowledges_it() {
    let (mail, mails) = mail_server().await;
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let tell = |name: &str| {
        format!("{{command: [sh, -c, 'echo \"{name}: $0\" >> {}', \"{{text}}\"]}}", told.display())
    };
    let text = format!(
        "{}notify:\n  ops: {}\n  ops-eu: {}\n  platform: {{email: {{server: 127.0.0.1, port: {}, from: tidegate@example.org, to: [platform@example.org]}}}}\n  crisis: {}\n\
         escalation:\n  - {{notify: [ops], regions: {{eu_west_1: [ops-eu]}}}}\n  - {{after: 1s, notify: [platform]}}\n  - {{after: 1h, notify: [crisis]}}\n",
        crate::access::FLEET,
        tell("ops"),
        tell("ops-eu"),
        mail.port(),
        tell("crisis"),
    );
    std::fs::write(folder.path().join("tidegate.yaml"), &text).unwrap();
    let (fleet, problems) = tidegate::spec::fleet_from_text("tidegate.yaml", &text);
    let fleet = fleet.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(fleet.escalation[0].name, "regional_operations");
    let state = folder.path().join("state");
    let open = || Outbox::open(&state.join("outbox"), &fleet.notify, &fleet.escalation).unwrap();
    let mut notice = Notice::new("web-1/7".to_owned(), true, "web-1: rolling back".to_owned());
    notice.lines = vec!["you may: tidegate why".to_owned()];
    notice.regions = vec!["eu_west_1".parse().unwrap()];
    {
        let outbox = open();
        outbox.notify(&notice).await;
        until("the region's own people are told", || told.exists()).await;
    }
    // The process is gone while nobody acknowledges it.
    let outbox = open();
    until("the platform is told", || !mails.lock().unwrap().is_empty()).await;
    let said = std::fs::read_to_string(&told).unwrap();
    assert_eq!(said, "ops-eu: [level 1, regional_operations] web-1: rolling back\n");
    let mail = mails.lock().unwrap()[0].clone();
    assert!(
        mail.contains("Subject: Tidegate: [level 2, global_platform] web-1: rolling back"),
        "{mail}"
    );
    assert!(mail.contains("you may: tidegate why"), "{mail}");
    let state = state.display().to_string();
    let listed =
        call(folder.path(), &["notify", "open", "--state", &state, "-o", "json"]).expect(0);
    assert_eq!(listed.json()[0]["told"], 2, "{listed:?}");
    call(folder.path(), &["notify", "ack", "web-1/7/level-2", "--state", &state]).expect(0);
    let listed =
        call(folder.path(), &["notify", "open", "--state", &state, "-o", "json"]).expect(0);
    assert_eq!(listed.json(), serde_json::json!([]));
    call(folder.path(), &["notify", "ack", "web-1/7", "--state", &state]).expect(2);
    // What is no page goes to everybody, by no level.
    outbox.notify(&Notice::new("web-1/9".to_owned(), false, "rolled back".to_owned())).await;
    until("everybody is told", || mails.lock().unwrap().len() == 2).await;
    until("also the others", || std::fs::read_to_string(&told).unwrap().lines().count() == 4).await;
    let tested = call(folder.path(), &["notify", "test", "--level", "2", "-o", "json"]).expect(0);
    assert_eq!(tested.json().as_array().unwrap().len(), 1, "{tested:?}");
    until("the test has come", || mails.lock().unwrap().len() == 3).await;
    call(folder.path(), &["notify", "test", "--level", "4"]).expect(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alertmanager_is_told_once_by_key_who_is_affected_and_what_to_do() {
    let alertmanager = Alertmanager::start().await;
    let text = format!(
        "{}notify:\n  am: {{alertmanager: {{url: \"{}\"}}}}\n",
        crate::access::FLEET,
        alertmanager.url
    );
    let (fleet, problems) = tidegate::spec::fleet_from_text("tidegate.yaml", &text);
    let fleet = fleet.unwrap_or_else(|| panic!("{problems}"));
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path(), &fleet.notify, &fleet.escalation).unwrap();
    let mut notice = Notice::new("web-1/7".to_owned(), true, "web-1: rolling back".to_owned());
    notice.lines = vec!["you may: tidegate why".to_owned()];
    outbox.notify(&notice).await;
    outbox.notify(&notice).await;
    outbox.drain(Duration::from_secs(10)).await;
    let alerts = alertmanager.alerts().await.unwrap();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let (labels, annotations) = (&alerts[0]["labels"], &alerts[0]["annotations"]);
    assert_eq!((&labels["alertname"], &labels["severity"]), (&"Tidegate".into(), &"page".into()));
    assert_eq!(annotations["summary"], "web-1: rolling back");
    assert_eq!(annotations["description"], "you may: tidegate why");
}
