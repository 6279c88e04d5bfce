//! Users who stay on the arm that they met first, by what they bring along, on real servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use tidegate::load_balancer::{self, Connected};
use tidegate::ports::LoadBalancer;
use tidegate::spec;

use super::file::route_file;
use super::{World, subject};
use crate::parts::backend::Traffic;
use crate::parts::envoy::{Envoy, Rds, route_yaml};
use crate::parts::port::free_address;

const USERS: usize = 400;

pub fn fleet(by: &str, target: &str, more: &str) -> spec::fleet::Fleet {
    let text = format!(
        "regions: {{us_east_1: {{share: 100%, prometheus: {{url: \"http://127.0.0.1:9\"}}}}}}\n{more}\
         services:\n  web:\n    slots: [blue, green]\n    affinity: {{{by}, requests_per_user: 50}}\n    \
         targets:\n      us_east_1:\n      - {{name: edge, {target}}}\n"
    );
    let (fleet, problems) = spec::fleet_from_text("tidegate.yaml", &text);
    fleet.unwrap_or_else(|| panic!("{problems}"))
}

pub async fn connected(fleet: &spec::fleet::Fleet) -> Connected {
    load_balancer::connect(fleet, None, &BTreeMap::new()).await.unwrap()
}

/// Who answers each user now, whose line names them.
async fn arms(address: SocketAddr, line: &str) -> Vec<String> {
    let mut arms = Vec::with_capacity(USERS);
    for user in 0..USERS {
        let line = format!("{line}user-{user}");
        arms.push(Traffic::saying(address, &[&line]).once().await);
    }
    arms
}

fn green(arms: &[String]) -> Vec<usize> {
    let green = |(user, arm): (usize, &String)| (arm == "green").then_some(user);
    arms.iter().enumerate().filter_map(green).collect()
}

/// A raise only moves users to the canary, a rollback all of them back; who brings nothing along is drawn anew.
pub async fn users_stay(balancer: &dyn LoadBalancer, address: SocketAddr, line: &str) {
    let mut subject = subject(balancer);
    let mut before: Vec<usize> = Vec::new();
    for percent in [10.0, 25.0, 60.0] {
        subject.set(percent).await;
        let first = arms(address, line).await;
        assert_eq!(first, arms(address, line).await, "{percent} %: a user has moved");
        let now = green(&first);
        assert!(before.iter().all(|user| now.contains(user)), "{percent} %: somebody went back");
        let (share, wanted) = (now.len() as f64 / USERS as f64, percent / 100.0);
        let allowed = 4.42 * (wanted * (1.0 - wanted) / USERS as f64).sqrt();
        assert!((share - wanted).abs() <= allowed, "{percent} %: {share} of the users");
        before = now;
    }
    let strangers = Traffic::to(address).send(USERS as u64).await;
    let drawn = strangers.get("green").copied().unwrap_or_default() as f64 / USERS as f64;
    assert!((0.4..0.8).contains(&drawn), "{strangers:?}");
    subject.set(0.0).await;
    let left = green(&arms(address, line).await);
    assert_eq!(left, Vec::<usize>::new(), "a rollback leaves nobody behind");
}

fn file_target(path: &Path, envoy: &Envoy) -> String {
    let (path, admin) = (path.display(), envoy.admin);
    format!(
        "envoy_file: {{route: web, path: {path}, clusters: {{blue: api-blue, green: api-green}}, admin: [\"http://{admin}\"]}}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_watched_file_stay_and_a_rollback_takes_them_back() {
    let (world, folder) = (World::start().await, tempfile::tempdir().unwrap());
    let path = route_file(folder.path(), 0);
    let envoy = Envoy::start(world.config("edge-1", Rds::File(path.clone()))).await;
    let connected = connected(&fleet("cookie: session", &file_target(&path, &envoy), "")).await;
    let balancer = connected.targets.values().next().unwrap().as_ref();
    users_stay(balancer, envoy.listener, "cookie: a=b; session=").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_served_routes_stay_and_a_rollback_takes_them_back() {
    let (world, folder) = (World::start().await, tempfile::tempdir().unwrap());
    let route_file = folder.path().join("route.yaml");
    std::fs::write(&route_file, route_yaml("web", [("api-blue", 100), ("api-green", 0)])).unwrap();
    let xds = free_address();
    let mut envoy = Envoy::spawn(world.config("edge-1", Rds::Grpc(xds)));
    let target = format!(
        "envoy: {{route: web, route_file: {}, clusters: {{blue: api-blue, green: api-green}}, admin: [\"http://{}\"]}}",
        route_file.display(),
        envoy.admin
    );
    let connected =
        connected(&fleet("header: x-user", &target, &format!("xds: {{listen: \"{xds}\"}}\n")))
            .await;
    let balancer = connected.targets.values().next().unwrap();
    // The Envoy is ready once it has its first routes.
    let first = subject(balancer.as_ref()).split(0.0);
    let (begun, ()) =
        tokio::join!(balancer.set(&first, tidegate::units::Generation(0)), envoy.ready());
    begun.unwrap();
    users_stay(balancer.as_ref(), envoy.listener, "x-user: ").await;
}
