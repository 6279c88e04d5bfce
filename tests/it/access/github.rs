//! Tokens of GitHub Actions, signed by an issuer of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::world::{FLEET, World};

/// An issuer on loopback.
struct Issuer {
    url: String,
    key: Arc<RsaKeyPair>,
    fetched: Arc<AtomicU32>,
}

impl Issuer {
    async fn start() -> Self {
        let key =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/access/issuer.pk8"));
        let key = Arc::new(RsaKeyPair::from_pkcs8(&key.unwrap()).unwrap());
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
        let (n, e) = (part(&public.n), part(&public.e));
        let keys = json!({"keys": [
            {"kty": "EC", "kid": "other", "crv": "P-256", "x": "", "y": ""},
            {"kty": "RSA", "kid": "own", "alg": "RS256", "use": "sig", "n": n, "e": e}
        ]})
        .to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fetched = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&fetched);
        let own = Self { url, key, fetched };
        let tokens = Self { url: own.url.clone(), key: Arc::clone(&own.key), fetched: counted };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut read = [0; 4096];
                let length = stream.read(&mut read).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&read[..length]).into_owned();
                let body = if request.starts_with("GET /token?job=1&audience=tidegate ") {
                    json!({"value": tokens.token(|_| {})}).to_string()
                } else {
                    tokens.fetched.fetch_add(1, Ordering::Relaxed);
                    keys.clone()
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        own
    }

    fn fleet(&self) -> String {
        let url = &self.url;
        format!(
            "{FLEET}api:\n  listen: \"127.0.0.1:0\"\n  github: {{issuer: \"{url}\", audience: tidegate}}\n"
        )
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        self.key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn claims(&self) -> Value {
        let now = crate::binary_xds::fleet::now_ms() / 1_000;
        json!({
            "iss": self.url, "aud": "tidegate", "exp": now + 300, "nbf": now - 5, "iat": now - 5,
            "repository": "org/repo", "repository_id": "4711", "environment": "production",
            "job_workflow_ref": "org/repo/.github/workflows/release.yml@refs/heads/main",
        })
    }

    fn token(&self, change: impl Fn(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.sign(&json!({"alg": "RS256", "typ": "JWT", "kid": "own"}), &claims)
    }
}

async fn status(world: &World, token: &str) -> u16 {
    world.api.forgive("127.0.0.1".parse().unwrap());
    world.send(world.reading("/v1/fleet").bearer_auth(token)).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_09_tokens_that_are_not_what_they_say_do_not_count() {
    let issuer = Issuer::start().await;
    let world = World::with(&issuer.fleet()).await;
    assert_eq!(status(&world, &issuer.token(|_| {})).await, 200);
    let now = crate::binary_xds::fleet::now_ms() / 1_000;
    let changes: [(&str, Value); 9] = [
        ("aud", json!("sts.amazonaws.com")),
        ("aud", json!(["a", "b"])),
        ("iss", json!("https://token.actions.githubusercontent.com")),
        ("exp", json!(now - 3_600)),
        ("exp", json!("never")),
        ("nbf", json!(now + 3_600)),
        ("nbf", json!("no number")),
        ("iat", json!(now + 3_600)),
        ("exp", Value::Null),
    ];
    for (claim, value) in changes {
        let token = issuer.token(|claims| claims[claim] = value.clone());
        assert_eq!(status(&world, &token).await, 401, "{claim}: {value}");
    }
    // What clocks differ by is forgiven.
    let token = issuer.token(|claims| claims["nbf"] = json!(now + 30));
    assert_eq!(status(&world, &token).await, 200);

    let claims = issuer.claims();
    for header in [
        json!({"alg": "none", "kid": "own"}),
        json!({"alg": "HS256", "kid": "own"}),
        json!({"alg": "RS512", "kid": "own"}),
        json!({"alg": "RS256", "kid": "other"}),
        json!({"alg": "RS256"}),
    ] {
        assert_eq!(status(&world, &issuer.sign(&header, &claims)).await, 401, "{header}");
    }
    let token = issuer.token(|_| {});
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(status(&world, &format!("{signed}.")).await, 401);
    let (head, rest) = token.split_once('.').unwrap();
    let body = URL_SAFE_NO_PAD.encode(claims.to_string().replace("production", "productiom"));
    let signature = rest.rsplit_once('.').unwrap().1;
    assert_eq!(status(&world, &format!("{head}.{body}.{signature}")).await, 401);

    // However many unknown keys are named, the issuer is not asked for each.
    let before = issuer.fetched.load(Ordering::Relaxed);
    for number in 0..50 {
        let header = json!({"alg": "RS256", "kid": format!("flood-{number}")});
        assert_eq!(status(&world, &issuer.sign(&header, &claims)).await, 401);
    }
    let fetched = issuer.fetched.load(Ordering::Relaxed);
    assert!(before <= 2 && fetched <= before + 1, "{before} {fetched}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_another_repository_workflow_or_environment_may_not_come_in() {
    let issuer = Issuer::start().await;
    let world = World::with(&issuer.fleet()).await;
    let changes = [
        ("repository_id", "4712"),
        ("environment", "staging"),
        ("environment", ""),
        ("job_workflow_ref", "org/repo/.github/workflows/release.yml@refs/pull/1/merge"),
        ("job_workflow_ref", "fork/repo/.github/workflows/release.yml@refs/heads/main"),
    ];
    for (claim, value) in changes {
        let token = issuer.token(|claims| claims[claim] = json!(value));
        let answer = world.send(world.reading("/v1/fleet").bearer_auth(token)).await;
        assert_eq!((answer.status, answer.title()), (403, "not_allowed"), "{claim} {answer:?}");
        // Which claim it was is for the audit only.
        assert!(!answer.body.to_string().contains(claim), "{answer:?}");
        let kept = world.refused.0.lock().unwrap().clone();
        assert!(kept.last().unwrap().2.contains(claim), "{claim}: {kept:?}");
    }
    // A renamed repository keeps its number.
    let renamed = issuer.token(|claims| claims["repository"] = json!("org/renamed"));
    let answer = world.send(world.reading("/v1/fleet").bearer_auth(renamed)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_comes_with_its_own_token_begins_a_version_and_hands_over_at_the_approvals() {
    let issuer = Issuer::start().await;
    let world = World::with(&issuer.fleet()).await;
    let folder = tempfile::tempdir().unwrap();
    let files = super::world::start("web");
    for file in [&files["pipeline"], &files["analyses"][0]] {
        let path = folder.path().join(file["name"].as_str().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file["text"].as_str().unwrap()).unwrap();
    }
    let (outputs, summary) = (folder.path().join("outputs"), folder.path().join("summary"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .arg("action")
        .current_dir(folder.path())
        .env("TIDEGATE_ACTION_COMMAND", "start")
        .env("TIDEGATE_ACTION_PIPELINE", "pipelines/p.yaml")
        .env("TIDEGATE_ACTION_SERVICE", "web")
        .env("TIDEGATE_ACTION_VERSION", "v2")
        .env("TIDEGATE_ACTION_SERVER", world.url("").trim_end_matches('/'))
        .env("TIDEGATE_TOKEN", "")
        .env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/token?job=1", issuer.url))
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job")
        .env("GITHUB_OUTPUT", &outputs)
        .env("GITHUB_STEP_SUMMARY", &summary)
        .stdin(std::process::Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    let told = std::fs::read_to_string(outputs).unwrap();
    assert!(told.contains("web-1") && told.contains("waiting"), "{told} {errors}");
    let summary = std::fs::read_to_string(summary).unwrap();
    assert!(summary.contains("| canary |") || summary.contains("canary"), "{summary}");
    let view = world.get("ana", "/v1/rollouts/web-1").await;
    assert_eq!(view.body["rollout"]["started_by"], "bot", "{view:?}");
    assert!(!format!("{told}{summary}{errors}").contains("of-the-job"));
}
