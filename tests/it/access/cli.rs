//! The command line over the network: what people type, with the exit codes that they get.

use std::process::Command;

use super::world::World;

/// A call of the binary by a person of the fleet.
struct Typed<'a> {
    world: &'a World,
    folder: tempfile::TempDir,
}

impl Typed<'_> {
    async fn says(&self, who: &str, arguments: &[&str], code: i32) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TIDEGATE_SERVER", self.world.url(""))
            .env("TIDEGATE_TOKEN", &self.world.tokens[who])
            .env_remove("TIDEGATE_FLEET")
            .env_remove("TIDEGATE_STATE")
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned()
            + &String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{who} {arguments:?}: {said}");
        assert!(!said.contains(self.world.tokens[who].as_str()), "{said}");
        said
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_say_over_the_network_what_they_may() {
    let world = World::start().await;
    world.begin("web").await;
    let typed = Typed { world: &world, folder: tempfile::tempdir().unwrap() };
    let listed = typed.says("rob", &["list"], 0).await;
    assert!(listed.contains("web-1") && listed.contains("0 of 2 approvals"), "{listed}");
    let status = typed.says("rob", &["status", "-o", "json"], 0).await.replace(' ', "");
    assert!(status.contains("\"phase\":\"gated\""), "{status}");
    assert!(typed.says("rob", &["why"], 0).await.contains("approvals"));
    assert!(typed.says("rob", &["history", "web"], 0).await.contains("v1 -> v2"));
    let last = typed.says("rob", &["history", "web", "--limit", "1"], 0).await;
    assert!(last.contains("web-1") && last.lines().count() == 1, "{last}");
    let refused = typed.says("rob", &["approve", "web-1"], 3).await;
    assert!(refused.contains("rob may not `approve` web in us_east_1"), "{refused}");
    assert!(typed.says("ana", &["approve", "web-1"], 0).await.contains("1 of 2"));
    assert!(typed.says("ana", &["approve", "web-1"], 1).await.contains("somebody else has to"));
    typed.says("ben", &["approve", "web", "--plan-digest", "00"], 1).await;
    typed.says("rob", &["auth", "can-i", "pause", "--service", "web"], 3).await;
    typed
        .says("ana", &["auth", "can-i", "pause", "--service", "web", "--region", "us_east_1"], 0)
        .await;
    typed.says("ana", &["freeze", "web", "--reason", "end of the quarter"], 0).await;
    assert!(typed.says("ana", &["resume", "web"], 0).await.contains("done"));
    typed.says("ana", &["thaw", "web"], 0).await;
    let secret = tidegate::access::glass::Glass::of(world.folder.path())
        .create(&"us_east_1".parse().unwrap(), tidegate::units::Timestamp(1))
        .unwrap();
    std::fs::write(typed.folder.path().join("secret"), format!("{secret}\n")).unwrap();
    let emergency =
        ["break-glass", "rollback", "web", "--region", "us_east_1", "--reason", "users cannot pay"];
    typed.says("rob", &emergency, 2).await;
    typed.says("rob", &[&emergency[..], &["--secret-file", "secret"]].concat(), 0).await;
    world.until("web-1", "rolled_back").await;
    assert!(
        typed.says("ana", &["review", "web", "--reason", "was right"], 0).await.contains("done")
    );
    assert!(typed.says("rita", &["retry", "web"], 0).await.contains("web-2 is under way"));
    // Wrong doors, each with its own answer.
    typed.says("ana", &["pause", "shop"], 2).await;
    typed.says("eve", &["pause", "web"], 2).await;
    let plain = ["list", "--server", "http://tidegate.example.org"];
    assert!(typed.says("ana", &plain, 2).await.contains("https only"));
    let nobody = ["list", "--server", "http://127.0.0.1:9"];
    assert!(typed.says("ana", &nobody, 3).await.contains("no answer from"));
    std::fs::write(typed.folder.path().join("wrong"), "tg_000000000000_00\n").unwrap();
    let unknown = typed.says("ana", &["list", "--token-file", "wrong"], 3).await;
    assert!(unknown.contains("TIDEGATE_TOKEN"), "{unknown}");
}
