//! Many Envoys, as far as an xDS server can tell: streams that ask for a route and acknowledge each one they get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use tidegate::load_balancer::{self, Connected};
use tidegate::ports::{LoadBalancer, Split};
use tidegate::spec;
use tidegate::units::{Generation, Weight};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::parts::envoy::route_yaml;
use crate::parts::port::free_address;

const TYPE_URL: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// Prints how long a change takes to reach the last of `count` streams, and to be acknowledged by all.
pub async fn run(count: usize, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let route_file = folder.path().join("route.yaml");
    std::fs::write(&route_file, route_yaml("web", [("api-blue", 100), ("api-green", 0)])).unwrap();
    let listen = free_address();
    let fleet = format!(
        "regions: {{a: {{share: 100%, prometheus: {{url: \"http://127.0.0.1:9\"}}}}}}\nxds: {{listen: \"{listen}\"}}\nservices:\n  web:\n    \
         slots: [blue, green]\n    targets:\n      a: [{{name: edge, envoy: {{route: web, route_file: {}, min_instances: {count}, \
         clusters: {{blue: api-blue, green: api-green}}}}}}]\n",
        route_file.display()
    );
    let (fleet, problems) = spec::fleet_from_text("tidegate.yaml", &fleet);
    let fleet = fleet.unwrap_or_else(|| panic!("{problems}"));
    let connected: Connected =
        load_balancer::connect(&fleet, None, &std::collections::BTreeMap::new()).await.unwrap();
    let balancer = Arc::clone(connected.targets.values().next().unwrap());
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    for number in 0..count {
        tokio::spawn(stream(format!("http://{listen}"), number, arrived.clone()));
    }
    // They connect while this waits for them.
    while !set(balancer.as_ref(), 0.0, 1).await {}
    let (mut sent, mut confirmed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        while arrivals.try_recv().is_ok() {}
        let generation = 2 + round;
        let percent = if round % 2 == 0 { 50.0 } else { 5.0 };
        let begin = Instant::now();
        let last = async {
            for _ in 0..count {
                arrivals.recv().await.unwrap();
            }
            begin.elapsed()
        };
        let all = async {
            assert!(set(balancer.as_ref(), percent, generation).await, "not acknowledged in time");
            begin.elapsed()
        };
        let (last, all) = tokio::join!(last, all);
        sent.push(last);
        confirmed.push(all);
    }
    println!(
        "xDS to {count} streams: the last one has it after {} ms, all have acknowledged after {} ms",
        crate::both(&sent),
        crate::both(&confirmed)
    );
}

/// Whether it was read back everywhere.
async fn set(balancer: &dyn LoadBalancer, green_percent: f64, generation: u64) -> bool {
    let green = Weight::from_percent(green_percent).unwrap();
    let split: Split =
        [("blue".parse().unwrap(), green.complement()), ("green".parse().unwrap(), green)].into();
    let reading = balancer.set(&split, Generation(generation)).await;
    reading.is_ok_and(|reading| reading.settled && reading.split == split)
}

/// One Envoy: asks for `web`, acknowledges whatever comes, and tells when it came.
async fn stream(server: String, number: usize, arrived: mpsc::UnboundedSender<Duration>) {
    let mut client = RouteDiscoveryServiceClient::connect(server).await.unwrap();
    let (requests, receiver) = mpsc::channel(4);
    let node = Node { id: format!("edge-{number}"), cluster: "a".to_owned(), ..Node::default() };
    let mut request = DiscoveryRequest {
        node: Some(node),
        resource_names: vec!["web".to_owned()],
        type_url: TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    };
    requests.send(request.clone()).await.unwrap();
    let answers = client.stream_routes(ReceiverStream::new(receiver)).await;
    let mut answers = answers.unwrap().into_inner();
    let begin = Instant::now();
    // Ends with the server.
    while let Ok(Some(answer)) = answers.message().await {
        if arrived.send(begin.elapsed()).is_err() {
            return;
        }
        request.version_info = answer.version_info;
        request.response_nonce = answer.nonce;
        if requests.send(request.clone()).await.is_err() {
            return;
        }
    }
}
