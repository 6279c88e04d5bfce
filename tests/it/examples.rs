//! The examples, walked as their pages say.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::parts::port::free_address;

/// A script and all that it started; ended with this value.
struct Walk(Child);

impl Drop for Walk {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // It may be gone already.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
            std::thread::sleep(Duration::from_millis(300));
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Runs `examples/<name>/walk` to its end, and returns what it said.
fn walk(name: &str) -> String {
    let ports: Vec<_> = (0..12).map(|_| free_address().port()).collect();
    walk_with(name, &ports, &[])
}

/// The same on these ports, with variables of its own.
fn walk_with(name: &str, ports: &[u16], variables: &[(&str, String)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parts = std::env::var("TIDEGATE_PARTS")
        .map_or_else(|_| root.join("target/parts"), std::path::PathBuf::from);
    let path = format!("{}:{}", parts.join("bin").display(), std::env::var("PATH").unwrap());
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let (out, errors) =
        (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let script = Command::new(root.join("examples").join(name).join("walk"))
        .env("PATH", path)
        .env("TIDEGATE", env!("CARGO_BIN_EXE_tidegate"))
        .env("EXAMPLE_PORTS", ports.join(" "))
        .env("USER", "owner")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env_remove("TIDEGATE_STATE")
        .env_remove("TIDEGATE_FLEET")
        .stdin(Stdio::null())
        .stdout(out.reopen().unwrap())
        .stderr(errors.reopen().unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut walk = Walk(script);
    let deadline = Instant::now() + Duration::from_secs(240);
    let code = loop {
        if let Some(status) = walk.0.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < deadline, "{}", said(out.path(), errors.path()));
        std::thread::sleep(Duration::from_millis(100));
    };
    let said = said(out.path(), errors.path());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("== done"), "{said}");
    said
}

#[test]
fn the_daemon_of_the_example_takes_two_people_to_go_back_and_walks_to_its_end() {
    let said = walk("daemon");
    for line in [
        "1 of 2 people agree",
        "may not `rollback` api-gateway",
        "ana has said yes already; somebody else has to",
        "api-gateway-2",
        "verdicts computed again",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

/// A fleet with one balancer: v2 is promoted, v3 goes back.
fn both_ways(name: &str) {
    goes_both_ways(&walk(name));
}

fn goes_both_ways(said: &str) {
    assert!(said.contains("promoted") && said.contains("rolled back"), "{said}");
}

#[test]
fn the_example_with_haproxy_goes_both_ways() {
    both_ways("haproxy");
}

#[test]
fn the_example_with_testers_gives_a_version_to_them_first() {
    let said = walk("cohort");
    goes_both_ways(&said);
    assert!(said.contains("us_east_1_testers: 50 % read back"), "{said}");
}

#[test]
fn the_example_with_a_program_goes_both_ways() {
    both_ways("exec");
}

#[test]
fn the_example_with_an_endpoint_goes_both_ways() {
    both_ways("http");
}

#[test]
fn the_example_with_envoys_goes_both_ways() {
    both_ways("envoy");
}

#[test]
fn the_example_with_a_watched_file_goes_both_ways() {
    both_ways("envoy_file");
}

#[test]
fn the_example_with_a_runtime_goes_both_ways() {
    both_ways("envoy_runtime");
}

#[test]
fn the_example_with_caddy_goes_both_ways() {
    both_ways("caddy");
}

#[test]
fn the_example_with_nginx_goes_both_ways() {
    both_ways("nginx");
}

#[test]
fn the_example_with_traefik_goes_both_ways() {
    both_ways("traefik");
}

/// No cluster can be had here: an API server and a gateway of our own follow the example's manifest.
#[cfg(feature = "kubernetes")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_kubernetes_goes_both_ways() {
    use crate::parts::kubernetes::{Cluster, ROUTES};
    use serde::Deserialize;

    let pools = [free_address(), free_address()];
    let cluster = Cluster::start(pools).await;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kubernetes/httproute.yaml");
    for document in serde_yaml::Deserializer::from_str(&std::fs::read_to_string(manifest).unwrap())
    {
        let object = serde_json::Value::deserialize(document).unwrap();
        if object["kind"] == "HTTPRoute" {
            cluster.put(ROUTES, object);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = Cluster::kubeconfig(folder.path(), cluster.address, "first-token");
    let variables = [
        ("KUBECONFIG", kubeconfig.display().to_string()),
        ("GATEWAY", cluster.gateway.address.to_string()),
    ];
    let ports = pools.map(|pool| pool.port());
    let walked = tokio::task::spawn_blocking(move || walk_with("kubernetes", &ports, &variables));
    let said = walked.await.unwrap();
    goes_both_ways(&said);
    let weights = &cluster.object(&format!("{ROUTES}/web"))["spec"]["rules"][0]["backendRefs"];
    assert_eq!([&weights[0]["weight"], &weights[1]["weight"]], [0, 10_000], "{said}");
}

#[cfg(feature = "aws")]
#[test]
fn the_example_with_aws_goes_both_ways() {
    both_ways("aws");
}

#[cfg(feature = "aws")]
#[test]
fn the_example_with_route53_goes_both_ways() {
    both_ways("route53");
}

#[test]
fn the_example_with_powerdns_goes_both_ways() {
    both_ways("powerdns");
}

#[test]
fn the_example_with_rfc2136_goes_both_ways() {
    both_ways("rfc2136");
}

fn said(out: &Path, errors: &Path) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    format!("{}\n{}", read(out), read(errors))
}
