//! Attacks over the API, each with its answer; the numbers are those of the table in docs/access.md.

use serde_json::{Value, json};
use tidegate::spec::access::Permission;

use super::world::{FLEET, World, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_01_without_a_token_that_counts_every_route_answers_the_same() {
    let world = World::start().await;
    world.begin("web").await;
    let document = world.get("rob", "/v1/openapi.json").await;
    let mut seen = 0;
    let mut bodies = std::collections::BTreeSet::new();
    for (path, methods) in document.body["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "web-1").replace("{service}", "web");
        let path = path.replace("{region}", "us_east_1");
        for method in methods.as_object().unwrap().keys() {
            for token in [None, Some(""), Some("nothing"), Some("tg_000000000000_00")] {
                let request = match method.as_str() {
                    "get" => world.reading(&path),
                    _ => world.request(&path).json(&json!({})),
                };
                let request = match token {
                    Some(token) => request.bearer_auth(token),
                    None => request,
                };
                // Each from a source of its own would be; here the wait of one who guesses is taken off.
                let answer = world.send(request).await;
                if answer.status == 429 {
                    world.api.forgive("127.0.0.1".parse().unwrap());
                    continue;
                }
                assert_eq!(answer.status, 401, "{method} {path} {token:?}: {answer:?}");
                assert_eq!(answer.headers["content-type"], "application/problem+json");
                bodies.insert(answer.body.to_string());
                seen += 1;
            }
        }
    }
    assert!(seen > 60 && bodies.len() == 1, "{seen} {bodies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_02_a_reader_promotes_nothing_and_the_refusal_is_kept() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let refused = world.post("rob", &format!("/v1/rollouts/{id}/promote"), json!({})).await;
    assert_eq!((refused.status, refused.title()), (403, "not_allowed"), "{refused:?}");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("`promote`") && detail.contains("us_east_1"), "{detail}");
    let kept = world.refused.0.lock().unwrap().clone();
    assert!(
        kept.iter().any(|(regions, by, what)| {
            regions == &["us_east_1"] && by.starts_with("rob (token ") && what.contains("`promote`")
        }),
        "{kept:?}"
    );
    // A token may be limited to less than its person may.
    let limited = world.token("ana", &[Permission::Read]);
    let request = world.request(&format!("/v1/rollouts/{id}/pause")).bearer_auth(limited);
    assert_eq!(world.send(request.json(&json!({}))).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_03_another_regions_rollout_is_not_there_and_a_shared_one_is_no_data() {
    let world = World::start().await;
    let (us, both) = (world.begin("web").await, world.begin("api-gateway").await);
    for path in ["", "/why", "/evidence", "/events"] {
        let unseen = world.get("eve", &format!("/v1/rollouts/{us}{path}")).await;
        let missing = world.get("eve", &format!("/v1/rollouts/web-99{path}")).await;
        assert_eq!((unseen.status, &unseen.body), (404, &missing.body), "{path}");
        let seen = world.get("eve", &format!("/v1/rollouts/{both}{path}")).await;
        assert_eq!((seen.status, seen.title()), (403, "not_allowed"), "{path} {seen:?}");
        assert!(seen.body["detail"].as_str().unwrap().contains("us_east_1"));
    }
    for path in ["pause", "rollback"] {
        let unseen = world.post("eve", &format!("/v1/rollouts/{us}/{path}"), json!({})).await;
        assert_eq!(unseen.status, 404);
        let seen = world.post("eve", &format!("/v1/rollouts/{both}/{path}"), json!({})).await;
        assert_eq!(seen.status, 403, "a grant in each region is needed");
    }
    assert_eq!(world.get("eve", "/v1/rollouts").await.body["items"], json!([]));
    let fleet = world.get("eve", "/v1/fleet").await.body;
    assert!(fleet["services"].get("web").is_none(), "{fleet}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_tells_of_a_service_who_may_audit_it() {
    let narrow = FLEET.replace(
        "pause, rollback, audit], regions: [eu_west_1]}",
        "pause, rollback, audit], regions: [eu_west_1], services: [web]}",
    );
    let world = World::with(&narrow).await;
    let all = world.get("ana", "/v1/audit/eu_west_1").await.body;
    assert_eq!((all["items"].as_array().unwrap().len(), &all["next"]), (2, &json!(2)));
    assert_eq!(world.get("ana", "/v1/audit/eu_west_1?after=1").await.body["items"][0]["seq"], 2);
    let own = world.get("eve", "/v1/audit/eu_west_1").await.body;
    assert_eq!(
        (own["items"].as_array().unwrap().len(), &own["items"][0]["service"]),
        (1, &json!("web"))
    );
    assert_eq!(world.get("eve", "/v1/audit/us_east_1").await.status, 403);
    assert_eq!(world.get("rob", "/v1/audit/eu_west_1").await.status, 403);
    assert_eq!(world.get("ana", "/v1/audit/mars").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_04_a_body_with_more_than_is_asked_for_is_refused() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let path = format!("/v1/rollouts/{id}/approve");
    for body in [json!({"status": "approved"}), json!({"approvals": ["ben", "eve"]})] {
        let refused = world.post("ana", &path, body).await;
        assert_eq!((refused.status, refused.title()), (422, "invalid_body"), "{refused:?}");
        assert!(refused.body["detail"].as_str().unwrap().contains("unknown field"));
    }
    let mut start = start("api-gateway");
    start["by"] = json!("ana");
    assert_eq!(world.post("rita", "/v1/rollouts", start).await.status, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_who_guesses_has_to_wait_and_people_are_told() {
    let world = World::start().await;
    let guess = || world.reading("/v1/fleet").bearer_auth("tg_0123456789ab_00");
    let mut answers = Vec::new();
    for _ in 0..14 {
        answers.push(world.send(guess()).await);
    }
    let statuses: Vec<_> = answers.iter().map(|it| it.status).collect();
    assert!(statuses[..10].iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(statuses[13], 429, "{statuses:?}");
    assert!(answers[13].headers.contains_key("retry-after"));
    // The right token waits as well: it is the source that has to.
    assert_eq!(world.get("ana", "/v1/fleet").await.status, 429);
    world.until_told("one wrong token after the other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_13_pages_and_forms_of_others_get_nothing() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let path = format!("/v1/rollouts/{id}/pause");
    let ask = || world.request(&path).bearer_auth(&world.tokens["ana"]);
    let page = world.send(ask().header("origin", "https://evil.example").json(&json!({}))).await;
    assert_eq!((page.status, page.title()), (403, "cross_origin"), "{page:?}");
    let kind = "application/x-www-form-urlencoded";
    let form = world.send(ask().header("content-type", kind).body("reason=x")).await;
    assert_eq!((form.status, form.title()), (415, "not_json"), "{form:?}");
    let other = ask().header("host", "evil.example").json(&json!({}));
    assert_eq!(world.send(other).await.status, 421);
    let view = world.get("ana", &format!("/v1/rollouts/{id}")).await;
    assert_eq!(view.body["rollout"]["paused"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_14_names_are_names_and_nothing_is_a_page() {
    let world = World::start().await;
    let mut hostile = start("web");
    hostile["service"] = json!("<script>alert(1)</script>");
    let refused = world.post("rita", "/v1/rollouts", hostile).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(!refused.body.to_string().contains("<script>"), "{refused:?}");
    assert_eq!(refused.headers["x-content-type-options"], "nosniff");
    assert!(refused.headers["content-security-policy"].to_str().unwrap().contains("'none'"));
    assert_eq!(refused.body["pointer"], "service");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_15_what_a_daemon_says_moves_no_terminal() {
    let body = json!({"title": "x", "status": 409, "detail": "\u{1b}[31mred\u{202e}drawkcab"});
    let server = super::transport::answering(409, &body.to_string()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{server}");
    let ended = tokio::task::spawn_blocking(move || {
        crate::binary_xds::process::call(folder.path(), &["list", "--server", &url])
    });
    let ended = ended.await.unwrap().expect(1);
    assert!(ended.errors.contains("\\u{1b}[31mred\\u{202e}drawkcab"), "{ended:?}");
    assert!(!ended.errors.contains('\u{1b}') && !ended.errors.contains('\u{202e}'), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_17_compressed_bodies_are_not_taken() {
    let world = World::start().await;
    let request = world.request("/v1/rollouts").bearer_auth(&world.tokens["rita"]);
    let request =
        request.header("content-encoding", "gzip").header("content-type", "application/json");
    let answer = world.send(request.body(vec![0x1f, 0x8b, 8, 0])).await;
    assert_eq!((answer.status, answer.title()), (415, "encoded"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_18_broken_json_is_refused_with_its_place() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let path = format!("/v1/rollouts/{id}/pause");
    let deep = format!("{{\"reason\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        (deep.as_str(), 422),
        ("{\"reason\": 1e400}", 400),
        ("{\"reason\": \"a\", \"reason\": \"b\"}", 422),
        ("{\"reason\": \"\\ud800\"}", 400),
        ("{\"reason\": 5}", 422),
        ("{\"reason\": \"a\"} more", 400),
        ("", 400),
        ("{", 400),
    ];
    for (text, status) in cases {
        let request = world.request(&path).bearer_auth(&world.tokens["ana"]);
        let request = request.header("content-type", "application/json").body(text.to_owned());
        let answer = world.send(request).await;
        let short: String = text.chars().take(40).collect();
        assert_eq!(answer.status, status, "{short}: {answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().len() < 200, "{answer:?}");
    }
    let typed = world.post("ana", &path, json!({"reason": 5})).await;
    assert_eq!(typed.body["pointer"], "reason", "{typed:?}");
}

/// What `check` says of a pipeline file.
async fn problems(world: &World, text: &str) -> String {
    let mut body = start("web");
    body.as_object_mut().unwrap().remove("version");
    body["pipeline"]["text"] = json!(text);
    let answer = world.post("rita", "/v1/pipelines/check", body.clone()).await;
    assert_eq!((answer.status, &answer.body["valid"]), (200, &json!(false)), "{answer:?}");
    body["version"] = json!("v2");
    let begun = world.post("rita", "/v1/rollouts", body).await;
    assert_eq!((begun.status, begun.title()), (422, "invalid_files"), "{begun:?}");
    answer.body["problems"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_19_and_20_hostile_yaml_is_refused_with_line_and_column() {
    let world = World::start().await;
    let bomb = "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
    let huge = format!("deployment_pipeline: {{name: \"{}\"}}\n", "x".repeat(2 << 20));
    let many = format!("deployment_pipeline: [{}]\n", "1,".repeat(60_000));
    let deep = format!("deployment_pipeline: {}{}\n", "[".repeat(5_000), "]".repeat(5_000));
    for (text, code) in [
        (bomb, "file::unsupported_yaml"),
        ("a: 1\n---\nb: 2\n", "file::unsupported_yaml"),
        ("a: {<<: {b: 1}}\n", "file::"),
        ("a: !!python/object:os.system x\n", "file::unsupported_yaml"),
        (huge.as_str(), "file::too_large"),
        (many.as_str(), "file::too_large"),
        (deep.as_str(), "file::too_large"),
    ] {
        let said = problems(&world, text).await;
        let short: String = text.chars().take(30).collect();
        assert!(said.contains(code), "{short}: {said}");
        assert!(said.contains("pipelines/p.yaml:"), "{short}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_21_to_24_values_that_cannot_be_are_refused_with_a_hint() {
    let world = World::start().await;
    let good = start("web")["pipeline"]["text"].as_str().unwrap().to_owned();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let weight = |text: &str| with("traffic_percentage: 5", &format!("traffic_percentage: {text}"));
    let weights = ["-1", "101", "33.333", "NaN", "\"5 %\"", ".inf", "0"];
    for text in weights.map(weight) {
        let said = problems(&world, &text).await;
        assert!(said.contains("quantity::weight"), "{said}");
    }
    for (text, word) in [
        (with("duration: 1h", "duration: 0s"), "bake"),
        (with("duration: 1h", "duration: 999999999d"), "duration"),
        (with("regions: [us_east_1]", "regions: []"), "region"),
        (with("regions: [us_east_1]", "regions: [us_east_1, us_east_1]"), "region"),
        (with("regions: [us_east_1]", "regions: [mars]"), "mars"),
        (with("error_rate > 50%", "error_rate > 0.5%"), ""),
    ] {
        if word.is_empty() {
            continue;
        }
        let said = problems(&world, &text).await;
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_a_secret_in_an_address_is_refused() {
    let world = World::start().await;
    let token = &world.tokens["ana"];
    for query in [format!("token={token}"), format!("access_token={token}"), format!("x={token}")] {
        let answer = world.get("ana", &format!("/v1/fleet?{query}")).await;
        assert_eq!((answer.status, answer.title()), (400, "secret_in_query"), "{answer:?}");
        assert!(!answer.body.to_string().contains(token.as_str()));
    }
    // A name may speak of tokens.
    let named = "/v1/access/can-i?permission=read&service=token-secret";
    assert_eq!(world.get("ana", named).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_32_a_planted_secret_is_in_no_answer_and_in_no_record() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let planted = "hunter2-planted";
    let bodies = [
        json!({"action": "pause", "region": "us_east_1", "reason": "x", "secret": planted}),
        json!({"action": "pause", "region": "us_east_1", "reason": 5, "secret": planted}),
        json!({"secret": [planted]}),
    ];
    for body in bodies {
        let answer = world.post("ana", "/v1/services/web/break-glass", body).await;
        assert!(answer.status >= 400 && !answer.body.to_string().contains(planted), "{answer:?}");
    }
    let kept = format!("{:?} {:?}", world.refused.0.lock().unwrap(), world.told.0.lock().unwrap());
    assert!(!kept.contains(planted), "{kept}");
    let view = world.get("ana", &format!("/v1/rollouts/{id}")).await.body.to_string();
    assert!(world.tokens.values().all(|token| !view.contains(token.as_str())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_36_one_token_that_asks_too_much_waits_and_too_many_listeners_are_told() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    for _ in 0..150 {
        let answer = world.post("rita", "/v1/rollouts", start("web")).await;
        *statuses.entry(answer.status).or_default() += 1;
    }
    assert!(statuses.get(&409).is_some_and(|count| *count >= 40), "{statuses:?}");
    assert!(statuses.get(&429).is_some_and(|count| *count >= 20), "{statuses:?}");
    assert_eq!(world.get("rita", &format!("/v1/rollouts/{id}")).await.status, 200);

    let mut open = Vec::new();
    let listen = || {
        let request = world.reading(&format!("/v1/rollouts/{id}/events"));
        request.bearer_auth(&world.tokens["rob"]).send()
    };
    for _ in 0..200 {
        let answer = listen().await.unwrap();
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
    assert_eq!(listen().await.unwrap().status(), 503);
    drop(open.drain(..100));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while listen().await.unwrap().status() == 503 {
        assert!(std::time::Instant::now() < deadline, "who left still takes a place");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_37_pages_have_a_limit_and_cursors_are_ours() {
    let world = World::start().await;
    world.begin("web").await;
    world.begin("api-gateway").await;
    let first = world.get("rob", "/v1/rollouts?limit=1").await.body;
    assert_eq!(first["items"][0]["rollout"], "api-gateway-1");
    let cursor = first["next"].as_str().unwrap();
    let second = world.get("rob", &format!("/v1/rollouts?limit=1&cursor={cursor}")).await.body;
    assert_eq!((&second["items"][0]["rollout"], &second["next"]), (&json!("web-1"), &Value::Null));
    assert_eq!(world.get("rob", "/v1/rollouts?limit=1000000000").await.status, 200);
    for cursor in ["web", "web.00000000", "..%2f", "%00", "api-gateway.ffffffff"] {
        let forged = world.get("rob", &format!("/v1/rollouts?cursor={cursor}")).await;
        assert_eq!((forged.status, forged.title()), (400, "invalid_cursor"), "{forged:?}");
    }
    assert_eq!(world.get("rob", "/v1/rollouts?limit=-1").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_38_and_39_a_key_with_another_body_and_an_old_tag_are_refused() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let path = format!("/v1/rollouts/{id}/pause");
    let ask = |key: &str, reason: &str| {
        let request = world.request(&path).bearer_auth(&world.tokens["ana"]);
        request.header("idempotency-key", key).json(&json!({"reason": reason}))
    };
    assert_eq!(world.send(ask("k", "one")).await.status, 200);
    let other = world.send(ask("k", "two")).await;
    assert_eq!((other.status, other.title()), (422, "idempotency_mismatch"), "{other:?}");
    assert_eq!(world.send(ask(&"k".repeat(500), "x")).await.status, 400);

    let view = world.get("ana", &format!("/v1/rollouts/{id}")).await;
    let tag = view.headers["etag"].to_str().unwrap().to_owned();
    let resume = |tag: &str| {
        let request = world.request(&format!("/v1/rollouts/{id}/resume"));
        request.bearer_auth(&world.tokens["ana"]).header("if-match", tag).json(&json!({}))
    };
    let stale = world.send(resume("\"1\"")).await;
    assert_eq!((stale.status, stale.title()), (412, "changed_meanwhile"), "{stale:?}");
    assert!(stale.body["detail"].as_str().unwrap().contains(&tag), "{stale:?}");
    assert_eq!(world.send(resume(&tag)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_30_names_in_paths_lead_nowhere_else() {
    let world = World::start().await;
    for path in [
        "/v1/rollouts/..%2f..%2fetc%2fpasswd",
        "/v1/rollouts/web-1%00",
        "/v1/services/..%2ftokens",
        "/v1/audit/..%2f..%2fetc",
        "/v1/audit/%00",
    ] {
        let answer = world.get("ana", path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    let body =
        json!({"action": "freeze", "region": "../../x", "reason": "x", "secret": "bg_../../x"});
    assert_eq!(world.post("ana", "/v1/services/web/break-glass", body).await.status, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_44_a_token_made_an_hour_ahead_of_this_clock_does_not_count_yet() {
    use tidegate::access::token::Tokens;
    use tidegate::driver::clock::SystemClock;
    use tidegate::ports::Clock;
    let world = World::start().await;
    let now = SystemClock::new().now();
    let at = |ms: u64| {
        Tokens::of(world.folder.path())
            .create("rob", None, super::world::DAY, tidegate::units::Timestamp(ms))
            .unwrap()
            .1
    };
    let (ahead, little) = (at(now.0 + 3_600_000), at(now.0 + 30_000));
    let ask =
        async |token: &str| world.send(world.reading("/v1/fleet").bearer_auth(token)).await.status;
    assert_eq!((ask(&ahead).await, ask(&little).await), (401, 200));
}

#[test]
fn the_fleet_file_names_each_way_in_once() {
    let twice = FLEET.replace(
        "ben: {roles: [operator]}",
        "ben: {roles: [operator], certificate: ana.ops.internal}",
    );
    let (fleet, problems) = tidegate::spec::fleet_from_text("tidegate.yaml", &twice);
    assert!(fleet.is_none() && problems.to_string().contains("count twice"), "{problems}");
    for (from, to, word) in [
        ("roles: [reader]}", "roles: [raeder]}", "did you mean `reader`"),
        ("regions: [eu_west_1]}", "regions: [eu_west_2]}", "did you mean `eu_west_1`"),
        ("allow: [read]}", "allow: [red]}", "read"),
        ("rob: {", "\"Rob Roy\": {", "cannot be a name"),
        ("rob: {", "tidegate: {", "cannot be a name"),
    ] {
        let (fleet, problems) =
            tidegate::spec::fleet_from_text("tidegate.yaml", &FLEET.replacen(from, to, 1));
        assert!(fleet.is_none() && problems.to_string().contains(word), "{to}: {problems}");
    }
    let open = format!("{FLEET}api: {{listen: \"0.0.0.0:7443\"}}\n");
    let (fleet, problems) = tidegate::spec::fleet_from_text("tidegate.yaml", &open);
    assert!(fleet.is_none() && problems.to_string().contains("fleet::access"), "{problems}");
}
