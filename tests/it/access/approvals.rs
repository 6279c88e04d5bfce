//! People who say yes, over the API.

use serde_json::json;

use super::world::{FLEET, World, start};

fn nothing() -> serde_json::Value {
    json!({})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_nobody_approves_their_own_and_one_person_counts_once_however_they_come() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let approve = format!("/v1/rollouts/{id}/approve");
    // Rita may not approve at all; with a role that may, she is still the one who started it.
    let denied = world.post("rita", &approve, nothing()).await;
    assert_eq!((denied.status, denied.title()), (403, "not_allowed"), "{denied:?}");
    let mut world = world;
    let may = FLEET.replace("allow: [read, start, adopt, undo]", "allow: [read, start, approve]");
    world.reload(&may.replace("releaser: [read, start, undo]", "releaser: [read]")).await;
    let own = world.post("rita", &approve, nothing()).await;
    assert_eq!((own.status, own.title()), (409, "requester_cannot_approve"), "{own:?}");
    let first = world.post("ana", &approve, nothing()).await;
    assert!(first.body["reason"].as_str().unwrap().contains("1 of 2"), "{first:?}");
    // Another token of the same person is the same person.
    let other = world.token("ana", &[tidegate::spec::access::Permission::Approve]);
    let again = world.send(world.request(&approve).bearer_auth(other).json(&nothing())).await;
    assert_eq!((again.status, again.title()), (409, "same_identity"), "{again:?}");
    let done = world.post("ben", &approve, nothing()).await;
    assert_eq!(done.status, 200, "{done:?}");
    world.until(&id, "baking").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_06_another_plan_than_the_one_looked_at_is_refused() {
    let world = World::start().await;
    let mut changed = start("web");
    changed["plan_digest"] = json!("0123");
    let refused = world.post("rita", "/v1/rollouts", changed.clone()).await;
    assert_eq!((refused.status, refused.title()), (409, "plan_digest_changed"), "{refused:?}");
    let mut check = start("web");
    check.as_object_mut().unwrap().remove("version");
    let plan = world.post("rita", "/v1/pipelines/plan", check).await;
    assert_eq!(plan.body["stages"][0]["approvals"], 2, "{plan:?}");
    changed["plan_digest"] = plan.body["plan_digest"].clone();
    let begun = world.post("rita", "/v1/rollouts", changed).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let id = begun.body["rollout"].as_str().unwrap().to_owned();
    world.until(&id, "gated").await;
    let other = json!({"plan_digest": "4567"});
    let vote = world.post("ana", &format!("/v1/rollouts/{id}/approve"), other).await;
    assert_eq!((vote.status, vote.title()), (409, "plan_digest_changed"), "{vote:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_07_an_approval_that_comes_twice_counts_once() {
    let world = World::start().await;
    let id = world.begin("web").await;
    let path = format!("/v1/rollouts/{id}/approve");
    let vote = || {
        let request = world.request(&path).bearer_auth(&world.tokens["ana"]).json(&nothing());
        request.header("idempotency-key", "vote-1")
    };
    let first = world.send(vote()).await;
    let second = world.send(vote()).await;
    assert_eq!((first.status, second.status), (200, 200), "{second:?}");
    assert_eq!(
        (&first.body, second.headers["idempotent-replayed"].as_bytes()),
        (&second.body, &b"true"[..])
    );
    let why = world.get("rob", &format!("/v1/rollouts/{id}/why")).await;
    assert!(why.body["text"][0].as_str().unwrap().contains("1 of 2 approvals"), "{why:?}");
    // The same without a key is a second vote of one person.
    let third = world.post("ana", &path, nothing()).await;
    assert_eq!((third.status, third.title()), (409, "same_identity"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_08_who_lost_the_role_does_not_count_when_it_matters() {
    let mut world = World::start().await;
    let id = world.begin("web").await;
    let path = format!("/v1/rollouts/{id}/approve");
    assert_eq!(world.post("ana", &path, nothing()).await.status, 200);
    world.reload(&FLEET.replace("ana: {roles: [operator]", "ana: {roles: [reader]")).await;
    let second = world.post("ben", &path, nothing()).await;
    let said = second.body["reason"].as_str().unwrap();
    assert!(said.contains("1 of 2"), "{second:?}");
    world.until(&id, "gated").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s47_a_rollback_that_two_people_ask_for_stands_still_first_and_goes_back_then() {
    let world = World::start().await;
    let id = world.begin("api-gateway").await;
    for who in ["ana", "ben"] {
        let vote = world.post(who, &format!("/v1/rollouts/{id}/approve"), nothing()).await;
        assert_eq!(vote.status, 200, "{vote:?}");
    }
    world.until(&id, "baking").await;
    let back = format!("/v1/rollouts/{id}/rollback");
    let reason = json!({"reason": "checkout fails"});
    let asked = world.post("ben", &back, reason.clone()).await;
    assert!(asked.body["reason"].as_str().unwrap().contains("1 of 2"), "{asked:?}");
    let view = world.get("ana", &format!("/v1/rollouts/{id}")).await;
    assert_eq!(view.body["rollout"]["paused"]["by"], "ben", "{view:?}");
    assert_eq!(world.post("ben", &back, reason.clone()).await.title(), "same_identity");
    let resume = world.post("ana", &format!("/v1/rollouts/{id}/resume"), nothing()).await;
    assert_eq!((resume.status, resume.title()), (409, "refused"), "{resume:?}");
    assert_eq!(world.post("ana", &back, reason).await.status, 200);
    world.until(&id, "rolled_back").await;
    let view = world.get("ana", &format!("/v1/rollouts/{id}")).await;
    let asked = &view.body["rollout"]["cause"]["asked"];
    assert_eq!(
        (&asked["by"]["name"], &asked["by"]["note"]),
        (&json!("ben"), &json!("approved by ana"))
    );
    let told = world.told.0.lock().unwrap().clone();
    let pages: Vec<_> = told.iter().filter(|it| it.page).map(|it| it.text.as_str()).collect();
    assert!(pages.iter().any(|it| it.contains("ben asks to roll back")), "{pages:?}");
    // The same version once more: another rollout with evidence of its own.
    let retry = world.post("rita", "/v1/services/api-gateway/retry", nothing()).await;
    assert_eq!(retry.body["rollout"], "api-gateway-2", "{retry:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_and_s48_in_an_emergency_one_person_stops_and_goes_back_and_never_forward() {
    use tidegate::access::glass::Glass;
    use tidegate::units::Timestamp;
    let world = World::start().await;
    let id = world.begin("api-gateway").await;
    let secret = |region: &str| {
        Glass::of(world.folder.path()).create(&region.parse().unwrap(), Timestamp(1)).unwrap()
    };
    let path = "/v1/services/api-gateway/break-glass";
    let ask = |action: &str, region: &str, secret: &str| json!({"action": action, "region": region, "reason": "users cannot pay", "secret": secret});
    let (eu, us) = (secret("eu_west_1"), secret("us_east_1"));
    let forward = world.post("rob", path, ask("promote", "eu_west_1", &eu)).await;
    assert_eq!((forward.status, forward.title()), (403, "not_allowed"), "{forward:?}");
    assert!(forward.body["detail"].as_str().unwrap().contains("no way forward"));
    // The refused try did not use it up; another region's secret opens nothing.
    let other = world.post("rob", path, ask("pause", "us_east_1", &eu)).await;
    assert_eq!(other.status, 403, "{other:?}");
    let silent = json!({"action": "pause", "region": "eu_west_1", "reason": " ", "secret": eu});
    assert_eq!(world.post("rob", path, silent).await.status, 422);
    assert_eq!(world.post("rob", path, ask("freeze", "eu_west_1", &eu)).await.status, 200);
    assert_eq!(world.post("rob", path, ask("freeze", "eu_west_1", &eu)).await.status, 403);
    assert_eq!(world.post("rob", path, ask("rollback", "us_east_1", &us)).await.status, 200);
    world.until(&id, "rolled_back").await;
    let told = world.told.0.lock().unwrap().clone();
    assert!(told.iter().any(|it| it.page && it.text.contains("rob broke the glass")), "{told:?}");
    // Frozen: nothing begins. Reviewed by somebody else only.
    let start = world.post("rita", "/v1/rollouts", start("api-gateway")).await;
    assert_eq!((start.status, start.title()), (409, "frozen"), "{start:?}");
    let mut world = world;
    world.reload(&FLEET.replace("rob: {roles: [reader]}", "rob: {roles: [operator]}")).await;
    let review = "/v1/services/api-gateway/review";
    let own = world.post("rob", review, json!({"reason": "I was right"})).await;
    assert_eq!((own.status, own.title()), (409, "requester_cannot_approve"), "{own:?}");
    assert_eq!(world.post("ana", review, json!({"reason": "was right"})).await.status, 200);
    let nothing_left = world.post("ben", review, nothing()).await;
    assert_eq!(nothing_left.body["changed"], false, "{nothing_left:?}");
    assert_eq!(world.post("ana", "/v1/services/api-gateway/thaw", nothing()).await.status, 200);
    assert_eq!(world.post("rita", "/v1/services/api-gateway/retry", nothing()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_the_stable_version_declared_again_takes_the_canary_back() {
    let mut world = World::start().await;
    let id = world.begin("web").await;
    let mut again = start("web");
    again["version"] = json!("v1");
    // It is a way back: who may not ask for one does not get it by this door.
    let denied = world.post("rita", "/v1/rollouts", again.clone()).await;
    assert_eq!((denied.status, denied.title()), (403, "not_allowed"), "{denied:?}");
    let may = FLEET.replace("allow: [read, start, adopt, undo]", "allow: [read, start, rollback]");
    world.reload(&may.replace("releaser: [read, start, undo]", "releaser: [read, rollback]")).await;
    let asked = world.post("rita", "/v1/rollouts", again).await;
    assert_eq!((asked.status, &asked.body["cancels"]), (200, &json!(id)), "{asked:?}");
    assert_eq!(
        world.post("ana", &format!("/v1/rollouts/{id}/rollback"), nothing()).await.status,
        200
    );
    world.until(&id, "rolled_back").await;
    let view = world.get("ana", &format!("/v1/rollouts/{id}")).await;
    assert_eq!(view.body["rollout"]["cause"]["asked"]["reason"], "v1 was declared again");
    world.until_told("after it was asked for (15m at most)").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_and_s10_a_rollout_keeps_its_plan_and_what_is_stable_starts_nothing() {
    let world = World::start().await;
    let mut same = start("web");
    same["version"] = json!("v1");
    let nothing_new = world.post("rita", "/v1/rollouts", same).await;
    assert_eq!(
        (nothing_new.status, &nothing_new.body["changed"]),
        (200, &json!(false)),
        "{nothing_new:?}"
    );
    let id = world.begin("web").await;
    let path = format!("/v1/rollouts/{id}");
    let before = world.get("rob", &path).await.body["rollout"]["plan"].clone();
    // The same version with an edited file: it is under way already, under the plan that it has.
    let mut edited = start("web");
    let text = edited["pipeline"]["text"].as_str().unwrap().replace("duration: 1h", "duration: 2h");
    edited["pipeline"]["text"] = json!(text);
    let refused = world.post("rita", "/v1/rollouts", edited).await;
    assert_eq!((refused.status, refused.title()), (409, "under_way"), "{refused:?}");
    assert_eq!(world.get("rob", &path).await.body["rollout"]["plan"], before);
    assert_eq!(before["digest"].as_str().unwrap().len(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_load_balancer_that_never_answers_delays_nobody_else() {
    let world = World::start().await;
    world.hang("api-gateway", "eu_west_1");
    let stuck = world.post("rita", "/v1/rollouts", start("api-gateway")).await;
    assert_eq!(stuck.status, 200, "{stuck:?}");
    let begun = std::time::Instant::now();
    let id = world.begin("web").await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    for who in ["ana", "ben"] {
        world.post(who, &format!("/v1/rollouts/{id}/approve"), nothing()).await;
    }
    world.until(&id, "baking").await;
    let view = world.get("ana", "/v1/rollouts/api-gateway-1").await;
    assert_eq!(view.body["rollout"]["phase"], "preparing", "{view:?}");
    // Also the stuck one is taken back as far as it can be, and says where it is not.
    world.post("ana", "/v1/rollouts/api-gateway-1/rollback", nothing()).await;
    world.post("ben", "/v1/rollouts/api-gateway-1/rollback", nothing()).await;
    let why = world.get("ana", "/v1/rollouts/api-gateway-1/why").await.body["text"].to_string();
    assert!(why.contains("rolling back") && why.contains("eu_west_1"), "{why}");
}
