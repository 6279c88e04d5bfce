//! Mode `envoy_file`.

use std::path::{Path, PathBuf};

use tidegate::load_balancer::envoy::file::FileBalancer;
use tidegate::ports::{Backends, LoadBalancer, Outcome};
use tidegate::spec::fleet::EnvoyFile;
use tidegate::units::Generation;

use super::{World, clusters, replace, subject};
use crate::parts::envoy::{Envoy, Rds, rds_yaml};

pub fn route_file(directory: &Path, green: u32) -> PathBuf {
    let path = directory.join("rds.yaml");
    replace(&path, &rds_yaml("web", [("api-blue", 100 - green), ("api-green", green)]));
    path
}

fn balancer(path: &Path, envoys: &[&Envoy]) -> FileBalancer {
    let admin = envoys.iter().map(|envoy| envoy.admin_address()).collect();
    let target = EnvoyFile {
        route: "web".to_owned(),
        path: path.to_owned(),
        clusters: clusters(),
        admin,
        affinity: None,
    };
    FileBalancer::new("web us_east_1 edge".to_owned(), &target).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_survive_both_and_a_restart_is_seen() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let path = route_file(directory.path(), 0);
    let mut envoy = Envoy::start(world.config("edge-1", Rds::File(path.clone()))).await;
    let first = balancer(&path, &[&envoy]);
    let adopted = first.read().await.unwrap();
    assert!(adopted.settled && adopted.generation.is_none(), "{adopted:?}");
    let before = subject(&first).set(25.0).await;
    let pools = before.backends.clone().unwrap();
    assert_eq!(pools[&"green".parse().unwrap()], Backends { healthy: 1, total: 1 });
    assert_eq!(before.instances[0].name, "edge-1");

    envoy.kill();
    let gone = first.read().await.unwrap_err();
    assert_eq!(gone.outcome, Outcome::NotSent, "{gone}");
    let unknown = first.set(&before.split, Generation(2)).await.unwrap_err();
    assert_eq!(unknown.outcome, Outcome::Unknown, "{unknown}");

    envoy.restart().await;
    // A new process of Tidegate finds what the file has kept.
    let second = balancer(&path, &[&envoy]);
    let after = second.read().await.unwrap();
    assert!(after.settled, "{after:?}");
    assert_eq!((after.split, after.generation), (before.split, Some(Generation(2))));
    assert!(after.restart_marker.is_some() && after.restart_marker != before.restart_marker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_edit_is_seen_whether_envoy_takes_it_or_not() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let path = route_file(directory.path(), 0);
    let envoy = Envoy::start(world.config("edge-1", Rds::File(path.clone()))).await;
    let balancer = balancer(&path, &[&envoy]);
    let mut subject = subject(&balancer);
    subject.set(5.0).await;

    // In place: Envoy does not look. The weights in force are still ours, the file's are named.
    let text = std::fs::read_to_string(&path).unwrap();
    let edited = text.replace("9500", "5000").replace("weight: 500\n", "weight: 5000\n");
    assert_ne!(text, edited);
    std::fs::write(&path, &edited).unwrap();
    let latent = balancer.read().await.unwrap();
    assert!(!latent.settled && latent.note.is_some(), "{latent:?}");
    assert_eq!(latent.split, subject.split(5.0));

    // By rename: Envoy follows.
    replace(&path, &edited);
    let wanted = subject.split(50.0);
    let followed = subject.read_until(|reading| reading.settled && reading.split == wanted).await;
    assert_eq!(followed.generation, Some(Generation(1)));

    // A file that Envoy refuses changes nothing in force.
    replace(&path, "resources: [");
    let refused = balancer.read().await.unwrap();
    assert_eq!(refused.split, wanted);
    assert!(!refused.settled, "{refused:?}");
    let error = balancer.set(&subject.split(1.0), Generation(9)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_out_of_reach_is_named() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let path = route_file(directory.path(), 0);
    let one = Envoy::start(world.config("edge-1", Rds::File(path.clone()))).await;
    let mut two = Envoy::start(world.config("edge-2", Rds::File(path.clone()))).await;
    let balancer = balancer(&path, &[&one, &two]);
    let mut subject = subject(&balancer);
    assert_eq!(subject.set(5.0).await.instances.len(), 2);
    two.kill();
    let reading = balancer.set(&subject.split(0.0), Generation(2)).await.unwrap();
    assert!(!reading.settled);
    assert_eq!(reading.split, subject.split(0.0));
    assert_eq!(reading.note.as_deref(), Some("edge-2 does not answer"));
    two.restart().await;
    subject
        .read_until(|reading| reading.settled && reading.generation == Some(Generation(2)))
        .await;
}
