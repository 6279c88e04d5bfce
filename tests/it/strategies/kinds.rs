//! Cohorts on the other balancers that see requests, configured as docs/load-balancers.md says: a header and a cookie lead to
//! a weighted pair of their own, and neither pair moves the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::load_balancer;
use tidegate::ports::{LoadBalancer, Split};
use tidegate::spec;
use tidegate::units::{Generation, Weight};

use super::cohorts::{near, shares_at};
use crate::parts::backend::Backend;
use crate::parts::caddy::Caddy;
use crate::parts::envoy::{Envoy, EnvoyConfig, Rds};
use crate::parts::nginx::Nginx;
use crate::parts::port::free_address;
use crate::parts::traefik::Traefik;

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    [("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())].into()
}

/// Sets the weight, and waits until it is read back.
async fn set(balancer: &Arc<dyn LoadBalancer>, green: f64, generation: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut reading = balancer.set(&split(green), Generation(generation)).await.unwrap();
    while !reading.settled || reading.split != split(green) {
        assert!(Instant::now() < deadline, "{reading:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        reading = balancer.read().await.unwrap();
    }
}

/// A region's target and its cohort's, on one balancer; `more` is what else the fleet file needs.
async fn hold(listener: SocketAddr, whole: &str, cohort: &str, more: &str) {
    let text = format!(
        "regions:\n  us: {{share: 100%, labels: {{pool: web}}, scrape: {{endpoints: [\"http://127.0.0.1:9/metrics\"]}}}}\n  \
         us_testers: {{cohort_of: us, labels: {{pool: testers}}}}\nservices:\n  web:\n    slots: [blue, green]\n    \
         targets:\n      us: [{{name: edge, {whole}}}]\n      us_testers: [{{name: edge, {cohort}}}]\n{more}"
    );
    let (fleet, problems) = spec::fleet_from_text("tidegate.yaml", &text);
    let fleet = fleet.unwrap_or_else(|| panic!("{problems}"));
    let connected = load_balancer::connect(&fleet, None, &BTreeMap::new()).await.unwrap();
    let of = |region: &str| {
        let found = connected.targets.iter().find(|(key, _)| key.region.as_str() == region);
        Arc::clone(found.unwrap().1)
    };
    let (whole, cohort) = (of("us"), of("us_testers"));
    let steps = [(0.0, 0.0), (0.0, 50.0), (0.0, 100.0), (20.0, 100.0), (100.0, 100.0), (0.0, 0.0)];
    for (generation, (everybody, testers)) in (1..).zip(steps) {
        set(&whole, everybody, generation).await;
        set(&cohort, testers, generation).await;
        near(shares_at(listener).await, [everybody, testers, testers]);
    }
}

/// Testers first, by a header or a cookie, and everybody else.
fn route_configuration() -> String {
    let testers = "{weighted_clusters: {clusters: [{name: testers-blue, weight: 100}, {name: testers-green, weight: 0}]}}";
    format!(
        "name: web\nvirtual_hosts:\n- name: all\n  domains: ['*']\n  routes:\n  \
         - match: {{prefix: /, headers: [{{name: x-testers, present_match: true}}]}}\n    route: {testers}\n  \
         - match: {{prefix: /, headers: [{{name: cookie, string_match: {{safe_regex: {{regex: '(.*; )?testers=yes(;.*)?'}}}}}}]}}\n    route: {testers}\n  \
         - match: {{prefix: /}}\n    route: {{weighted_clusters: {{clusters: [{{name: api-blue, weight: 100}}, {{name: api-green, weight: 0}}]}}}}\n"
    )
}

fn envoy_config(blue: &Backend, green: &Backend, rds: Rds) -> EnvoyConfig {
    let pools = [("blue", blue.address), ("green", green.address)];
    let clusters = ["api", "testers"]
        .iter()
        .flat_map(|name| pools.map(|(pool, address)| (format!("{name}-{pool}"), vec![address])));
    EnvoyConfig {
        node_id: "edge-1".to_owned(),
        node_cluster: "us".to_owned(),
        route: "web".to_owned(),
        backends: clusters.collect(),
        rds,
        health_checks: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_sends_a_cohort_by_a_route_in_front_of_all_others() {
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yaml");
    let indented = route_configuration().replace('\n', "\n  ");
    let routes = format!(
        "version_info: operator\nresources:\n- '@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  {}\n",
        indented.trim_end()
    );
    std::fs::write(&path, routes).unwrap();
    let envoy = Envoy::start(envoy_config(&blue, &green, Rds::File(path.clone()))).await;
    let target = |name: &str| {
        format!(
            "envoy_file: {{route: web, path: {}, clusters: {{blue: {name}-blue, green: {name}-green}}, admin: [\"http://{}\"]}}",
            path.display(),
            envoy.admin
        )
    };
    hold(envoy.listener, &target("api"), &target("testers"), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_is_served_sends_a_cohort_by_the_same_route() {
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yaml");
    std::fs::write(&path, route_configuration()).unwrap();
    let xds = free_address();
    let envoy = Envoy::spawn(envoy_config(&blue, &green, Rds::Grpc(xds)));
    let target = |name: &str| {
        let clusters = format!("{{blue: {name}-blue, green: {name}-green}}");
        format!("envoy: {{route: web, route_file: {}, clusters: {clusters}}}", path.display())
    };
    let more = format!("xds: {{listen: \"{xds}\"}}\n");
    hold(envoy.listener, &target("api"), &target("testers"), &more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_sends_a_cohort_by_a_map() {
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let nginx = Nginx::start(blue.address, green.address).await;
    let include = nginx.include.with_file_name("testers.conf");
    let first = std::fs::read_to_string(&nginx.include).unwrap();
    std::fs::write(&include, first.replace("web", "testers")).unwrap();
    let maps = format!(
        "include {};\n  map \"$http_x_testers|$cookie_testers\" $pool {{\n    default $web_pool;\n    \"~^[^|]\" $testers_pool;\n    \
         \"~[|]yes$\" $testers_pool;\n  }}\n  server {{ listen",
        include.display()
    );
    nginx.configure(|text| {
        let text = text.replacen("server { listen", &maps, 1).replace("http://$web_pool", "http://$pool");
        text.replace(
            "location = /tidegate/web {",
            "location = /tidegate/testers { return 200 \"$testers_pool_state $testers_pool\\n\"; }\n  location = /tidegate/web {",
        )
    });
    let (test, reload) = (nginx.test_command(), nginx.reload_command());
    let target = |name: &str, include: &std::path::Path| {
        format!(
            "nginx: {{include: {}, variable: ${name}_pool, upstreams: {{blue: blue, green: green}}, status: \"http://{}/tidegate/{name}\", test: {test:?}, reload: {reload:?}}}",
            include.display(),
            nginx.status,
        )
    };
    hold(nginx.listener, &target("web", &nginx.include), &target("testers", &include), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_sends_a_cohort_by_a_router() {
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let traefik = Traefik::start(blue.address, green.address).await;
    traefik.put("testers-routes.yaml", &format!(
        "http:\n  routers:\n    testers:\n      rule: \"HeaderRegexp(`x-testers`, `.`) || HeaderRegexp(`cookie`, `(^|; )testers=yes(;|$)`)\"\n      \
         priority: 100\n      entryPoints: [web]\n      service: testers\n  services:\n    \
         testers-blue: {{loadBalancer: {{servers: [{{url: \"http://{}\"}}]}}}}\n    \
         testers-green: {{loadBalancer: {{servers: [{{url: \"http://{}\"}}]}}}}\n",
        blue.address, green.address
    ));
    traefik.put("testers.yaml", "http:\n  services:\n    testers:\n      weighted:\n        services:\n          - {name: testers-blue, weight: 100}\n          - {name: testers-green, weight: 0}\n");
    let target = |name: &str, pools: &str| {
        format!(
            "traefik: {{path: {}, service: {name}, services: {{blue: {pools}blue, green: {pools}green}}, api: \"http://{}\"}}",
            traefik.path.with_file_name(format!("{name}.yaml")).display(),
            traefik.api
        )
    };
    hold(traefik.listener, &target("web", ""), &target("testers", "testers-"), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_sends_a_cohort_by_a_matcher() {
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let admin = crate::parts::port::free_address();
    let caddy = Caddy::start(blue.address, green.address, admin, admin).await;
    let route = json!({
        "match": [
            {"header": {"X-Testers": ["*"]}},
            {"header_regexp": {"Cookie": {"pattern": "(^|; )testers=yes(;|$)"}}},
        ],
        "handle": [{
            "@id": "testers",
            "handler": "reverse_proxy",
            "upstreams": [{"dial": blue.address}, {"dial": green.address}],
            "load_balancing": {"selection_policy": {"policy": "weighted_round_robin", "weights": [1, 0]}},
        }],
    });
    // In front of the route for everybody.
    let path = "config/apps/http/servers/web/routes/0";
    caddy.change(reqwest::Method::PUT, path, route).await;
    let target = |id: &str| {
        format!(
            "caddy: {{admin: \"http://{admin}\", id: {id}, upstreams: {{blue: \"{}\", green: \"{}\"}}, persisted: true}}",
            blue.address, green.address
        )
    };
    hold(caddy.listener, &target("web"), &target("testers"), "").await;
}
