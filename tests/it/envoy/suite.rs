//! Both Envoy modes in the suite that every adapter passes.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::file::route_file;
use super::{World as Pools, replace};
use crate::conformance::{self, Fault, Reason, World};
use crate::parts::backend::{Backend, Counts};
use crate::parts::envoy::{Envoy, Rds, rds_yaml, route_yaml};
use crate::parts::meddler::{Meddler, Mood};
use crate::parts::port::free_address;

/// One Envoy that watches a file; its admin port is asked through a meddler.
struct File {
    pools: Pools,
    envoy: Envoy,
    path: PathBuf,
    admin: Meddler,
    _folder: tempfile::TempDir,
}

#[async_trait]
impl World for File {
    fn target(&self) -> String {
        let (path, admin) = (self.path.display(), self.admin.address);
        format!(
            "envoy_file: {{route: web, path: {path}, clusters: {{blue: api-blue, green: api-green}}, admin: [\"http://{admin}\"]}}"
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |clusters: &str, admin: &str| {
            format!("envoy_file: {{route: web, path: /r, clusters: {clusters}, admin: {admin}}}")
        };
        vec![
            (with("{blue: a, green: b}", "[]"), "at least one admin address"),
            (with("{blue: a, green: a}", "[\"http://a:1\"]"), "two different names"),
            (with("{blue: a, green: b}", "[\"http://a:1/path\"]"), "admin"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(self.envoy.traffic().flow(move || more()).await)
    }

    fn had(&self) -> Option<u64> {
        self.pools.green.as_ref().map(Backend::loads)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let clusters = [("api-blue", 100 - canary_percent), ("api-green", canary_percent)];
        replace(&self.path, &rds_yaml("web", clusters));
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.envoy.restart().await,
            Fault::Reload => return Err("an Envoy has no reload"),
            Fault::Gone => self.envoy.kill(),
            Fault::Slow => self.admin.be(Mood::Slow),
            Fault::Refusing => replace(&self.path, "resources: ["),
            // It has the file before it and does nothing about it.
            Fault::Lying => self.envoy.stop(),
            Fault::Honest => {
                self.admin.be(Mood::Honest);
                self.envoy.go_on();
                if std::fs::read_to_string(&self.path).unwrap() == "resources: [" {
                    self.edit(5).await?;
                }
            }
            Fault::CanarySick => self.pools.green = None,
            Fault::CanaryWell => self.pools.green_again().await,
        }
        Ok(())
    }
}

/// One Envoy whose weights are overridden at its admin port, through a meddler.
struct Runtime {
    pools: Pools,
    envoy: Envoy,
    admin: Meddler,
}

#[async_trait]
impl World for Runtime {
    fn target(&self) -> String {
        let admin = self.admin.address;
        format!(
            "envoy_runtime: {{route: web, prefix: rollout.web, clusters: {{blue: api-blue, green: api-green}}, admin: [\"http://{admin}\"]}}"
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |prefix: &str, clusters: &str, admin: &str| {
            format!(
                "envoy_runtime: {{route: web, prefix: {prefix}, clusters: {clusters}, admin: {admin}}}"
            )
        };
        let (clusters, admin) = ("{blue: a, green: b}", "[\"http://a:1\"]");
        vec![
            (with("\"a&b=1\"", clusters, admin), "no runtime key"),
            (with("a", "{blue: \"a?\", green: b}", admin), "part of a runtime key"),
            (with("a", clusters, "[]"), "at least one admin address"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(self.envoy.traffic().flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let stable = 100 - canary_percent;
        let query = format!("rollout.web.api-blue={stable}&rollout.web.api-green={canary_percent}");
        let answer = self.envoy.post(&format!("/runtime_modify?{query}")).await;
        assert!(matches!(answer, Some((200, _))), "{answer:?}");
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.envoy.restart().await,
            Fault::Reload => return Err("an Envoy has no reload"),
            Fault::Gone => self.envoy.kill(),
            Fault::Slow => self.admin.be(Mood::Slow),
            Fault::Refusing => self.admin.be(Mood::Refusing),
            Fault::Lying => self.admin.be(Mood::Lying),
            Fault::Honest => self.admin.be(Mood::Honest),
            Fault::CanarySick => self.pools.green = None,
            Fault::CanaryWell => self.pools.green_again().await,
        }
        Ok(())
    }
}

/// An Envoy with a runtime, begun.
pub async fn overridden() -> Box<dyn World> {
    let pools = Pools::start().await;
    let envoy = Envoy::start(pools.checked("edge-1", Rds::Runtime("rollout.web"))).await;
    let admin = Meddler::start(envoy.admin).await;
    Box::new(Runtime { pools, envoy, admin })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_does_what_every_adapter_must() {
    conformance::hold("envoy_runtime", overridden().await).await;
}

/// One Envoy that fetches its routes from us.
struct Served {
    pools: Pools,
    envoy: Envoy,
    port: u16,
    route_file: PathBuf,
    _folder: tempfile::TempDir,
}

#[async_trait]
impl World for Served {
    fn target(&self) -> String {
        let (route_file, admin) = (self.route_file.display(), self.envoy.admin);
        format!(
            "envoy: {{route: web, route_file: {route_file}, clusters: {{blue: api-blue, green: api-green}}, admin: [\"http://{admin}\"]}}"
        )
    }

    fn fleet(&self) -> String {
        format!("xds: {{listen: \"127.0.0.1:{}\"}}\n", self.port)
    }

    fn serves(&self) -> bool {
        true
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |clusters: &str, route_file: &str| {
            format!("envoy: {{route: web, route_file: {route_file}, clusters: {clusters}}}")
        };
        vec![
            (with("{blue: a, green: b}", "/not/there.yaml"), "/not/there.yaml"),
            (with("{blue: a, green: b}", &self.route_file.display().to_string()), "`a`"),
            (with("{blue: a}", "/r.yaml"), "two different names"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(self.envoy.traffic().flow(move || more()).await)
    }

    fn had(&self) -> Option<u64> {
        self.pools.green.as_ref().map(Backend::loads)
    }

    async fn edit(&mut self, _: u32) -> Result<(), Reason> {
        Err("only Tidegate gives such an Envoy its routes")
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.envoy.restart().await,
            Fault::Reload => return Err("an Envoy has no reload"),
            Fault::Gone => self.envoy.kill(),
            Fault::Slow => self.envoy.stop(),
            Fault::Honest => self.envoy.go_on(),
            Fault::Refusing => return Err("its refusal (NACK) has a test of its own"),
            Fault::Lying => return Err("what counts is the Envoy's own acknowledgement"),
            Fault::CanarySick => self.pools.green = None,
            Fault::CanaryWell => self.pools.green_again().await,
        }
        Ok(())
    }
}

/// An Envoy that watches a file, begun.
pub async fn watched() -> Box<dyn World> {
    let (pools, folder) = (Pools::start().await, tempfile::tempdir().unwrap());
    let path = route_file(folder.path(), 0);
    let envoy = Envoy::start(pools.checked("edge-1", Rds::File(path.clone()))).await;
    let admin = Meddler::start(envoy.admin).await;
    let world = File { pools, envoy, path, admin, _folder: folder };
    Box::new(world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_file_does_what_every_adapter_must() {
    conformance::hold("envoy_file", watched().await).await;
}

/// An Envoy that waits for its routes, begun.
pub async fn served() -> Box<dyn World> {
    let (pools, folder) = (Pools::start().await, tempfile::tempdir().unwrap());
    let route_file = folder.path().join("route.yaml");
    std::fs::write(&route_file, route_yaml("web", [("api-blue", 100), ("api-green", 0)])).unwrap();
    let xds = free_address();
    let envoy = Envoy::spawn(pools.checked("edge-1", Rds::Grpc(xds)));
    let world = Served { pools, envoy, port: xds.port(), route_file, _folder: folder };
    Box::new(world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_routes_do_what_every_adapter_must() {
    conformance::hold("envoy", served().await).await;
}
