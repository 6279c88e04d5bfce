//! Where a Traefik has its weights from nobody else: `adopt`, and back without a daemon.

use std::collections::BTreeSet;

use serde_json::Value;

use super::process::call;
use crate::parts::backend::{Backend, Traffic};
use crate::parts::port::free_address;
use crate::parts::traefik::Traefik;

async fn answered(traefik: &Traefik) -> BTreeSet<String> {
    Traffic::to(traefik.listener).send(200).await.into_keys().collect()
}

fn stable(adopted: &Value) -> &str {
    adopted["regions"]["us_east_1"]["stable"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_that_fetches_is_adopted_and_goes_back_without_a_daemon() {
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let (ours, folder) = (free_address(), tempfile::tempdir().unwrap());
    let told = format!("endpoint: \"http://{ours}/web/us_east_1/edge\", pollInterval: 100ms");
    let traefik = Traefik::fetching(blue.address, green.address, &told).await;
    let fleet = format!(
        "state: state\ntraefik_provider: {{listen: \"{ours}\"}}\n\
         regions: {{us_east_1: {{share: 100%, prometheus: {{url: \"http://127.0.0.1:9\"}}}}}}\n\
         services:\n  web:\n    authority: full\n    slots: [blue, green]\n    targets:\n      us_east_1:\n        \
         - name: edge\n          traefik_http: {{service: web, services: {{blue: blue@file, green: green@file}}, \
         api: \"http://{}\", begin: green}}\n",
        traefik.api
    );
    std::fs::write(folder.path().join("tidegate.yaml"), fleet).unwrap();
    let adopt = ["adopt", "web", "--version", "v1", "-o", "json"];
    let adopted = call(folder.path(), &adopt).expect(0).json();
    assert_eq!(stable(&adopted), "green", "{adopted}");
    assert_eq!(answered(&traefik).await, BTreeSet::from(["green".to_owned()]));

    let back = ["rollback", "--offline", "--service", "web", "--stable-slot", "blue"];
    let printed = call(folder.path(), &[&back[..], &["--print"]].concat()).expect(0);
    assert!(printed.out.contains("has its weights from Tidegate alone"), "{printed:?}");
    assert_eq!(answered(&traefik).await, BTreeSet::from(["green".to_owned()]));
    let went = call(folder.path(), &[&back[..], &["-o", "json"]].concat()).expect(0).json();
    assert_eq!(went["targets"][0]["back"], true, "{went}");
    assert_eq!(answered(&traefik).await, BTreeSet::from(["blue".to_owned()]));

    // What is recorded is lost: what it runs is believed, not what the fleet file would begin with.
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let adopted = call(folder.path(), &adopt).expect(0).json();
    assert_eq!(stable(&adopted), "blue", "{adopted}");
    assert_eq!(answered(&traefik).await, BTreeSet::from(["blue".to_owned()]));
}
