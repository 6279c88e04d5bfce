//! The adapter for Kubernetes, on an API server of our own whose objects a gateway follows.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tidegate::load_balancer::kubernetes::KubernetesBalancer;
use tidegate::ports::{Backends, LoadBalancer, LoadBalancerError, Outcome, Split};
use tidegate::spec::fleet::{HttpRoute, Kubernetes, KubernetesObject, VirtualService};
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::kubernetes::{Cluster, ROUTES, SERVICES, rule};
use crate::parts::meddler::{Meddler, Mood};

struct World {
    cluster: Cluster,
    folder: tempfile::TempDir,
    green: Option<Backend>,
    green_address: SocketAddr,
    _blue: Backend,
}

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let cluster = Cluster::start([blue.address, green.address]).await;
        let folder = tempfile::tempdir().unwrap();
        let green_address = green.address;
        Self { cluster, folder, green_address, green: Some(green), _blue: blue }
    }

    /// With an HTTPRoute.
    async fn with_route() -> Self {
        let world = Self::start().await;
        world.cluster.put_route([1, 0], &[]);
        world.cluster.taken(&route()).await;
        world
    }

    fn balancer(&self, object: KubernetesObject) -> KubernetesBalancer {
        let kubeconfig =
            Some(Cluster::kubeconfig(self.folder.path(), self.cluster.address, "first-token"));
        let field_manager = "tidegate".to_owned();
        let settings = Kubernetes { context: None, kubeconfig, field_manager, object };
        KubernetesBalancer::new("web us_east_1 edge".to_owned(), &settings).unwrap()
    }

    fn route(&self) -> KubernetesBalancer {
        self.balancer(KubernetesObject::HttpRoute(HttpRoute {
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            rule: None,
            backends: ["blue", "green"]
                .map(|slot| (slot.parse().unwrap(), format!("web-{slot}")))
                .into(),
        }))
    }

    fn service(&self) -> KubernetesBalancer {
        self.balancer(KubernetesObject::VirtualService(VirtualService {
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            destination_rule: Some("web".to_owned()),
            http: None,
            host: None,
            subsets: ["blue", "green"].map(|slot| (slot.parse().unwrap(), slot.to_owned())).into(),
        }))
    }
}

fn route() -> String {
    format!("{ROUTES}/web")
}

fn service() -> String {
    format!("{SERVICES}/web")
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

fn copies(green: f64) -> Split {
    split(0.0).with_copies("green".parse().unwrap(), Weight::from_percent(green).unwrap())
}

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The patch of a command that a person is given.
fn patch_in(command: &str) -> serde_json::Value {
    let patch = command.split(" -p '").nth(1).unwrap().trim_end_matches('\'');
    serde_json::from_str(patch).unwrap()
}

/// The suite's world, for one kind of object; the API is reached through a meddler.
struct Suite {
    inner: World,
    meddler: Meddler,
    path: String,
    shape: &'static str,
}

impl Suite {
    async fn start(inner: World, path: String, shape: &'static str) -> Box<Self> {
        let meddler = Meddler::start(inner.cluster.address).await;
        Cluster::kubeconfig(inner.folder.path(), meddler.address, "first-token");
        Box::new(Self { inner, meddler, path, shape })
    }
}

#[async_trait]
impl conformance::World for Suite {
    fn target(&self) -> String {
        let kubeconfig = self.inner.folder.path().join("kubeconfig");
        format!("kubernetes: {{kubeconfig: {}, {}}}", kubeconfig.display(), self.shape)
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |text: &str| format!("kubernetes: {{{text}}}");
        let route = |text: &str| with(&format!("http_route: {{name: web, {text}}}"));
        let both = "namespace: shop, backends: {blue: a, green: b}";
        vec![
            (with("context: prod"), "exactly one of http_route, virtual_service"),
            (route("namespace: shop, backends: {blue: a, green: a}"), "two different names"),
            (route("namespace: \"shop/../kube-system\", backends: {blue: a, green: b}"), "a name"),
            (route("namespace: shop, backends: {blue: a?b, green: b}"), "`a?b` cannot be a name"),
            (route(&format!("{both}, rule: 16")), "from 0 to 15"),
            (
                with(&format!(
                    "field_manager: \"a b\", virtual_service: {{name: w, {}}}",
                    "namespace: shop, subsets: {blue: a, green: b}"
                )),
                "letters, digits",
            ),
            (route(&format!("{both}, weights: {{}}")), "unknown key `weights`"),
        ]
    }

    /// What a gateway restarted, or an API server, is none of the object's business.
    fn marks_restarts(&self) -> bool {
        false
    }

    fn had(&self) -> Option<u64> {
        self.inner.green.as_ref().map(Backend::loads)
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.inner.cluster.gateway.address).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let weights = [100 - canary_percent, canary_percent].map(u64::from);
        self.inner.cluster.edit(&self.path, weights).await;
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        let cluster = &mut self.inner.cluster;
        match fault {
            Fault::Restart | Fault::Back => cluster.start_again().await,
            Fault::Reload => return Err("an object is not read again: the controller follows it"),
            Fault::Gone => cluster.stop().await,
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.meddler.be(Mood::Refusing),
            Fault::Lying => self.meddler.be(Mood::Lying),
            Fault::Honest => self.meddler.be(Mood::Honest),
            Fault::CanarySick => {
                self.inner.green = None;
                cluster.ready("green", false);
            }
            Fault::CanaryWell => {
                self.inner.green = Some(Backend::at("green", self.inner.green_address).await);
                cluster.ready("green", true);
            }
        }
        Ok(())
    }
}

/// The suite's world with an HTTPRoute, begun.
pub async fn world() -> Box<dyn conformance::World> {
    let inner = World::with_route().await;
    let shape =
        "http_route: {name: web, namespace: shop, backends: {blue: web-blue, green: web-green}}";
    Suite::start(inner, route(), shape).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_set_is_tried_by_the_server_and_changes_nothing() {
    let world = World::with_route().await;
    let balancer = world.route();
    let before = world.cluster.object(&route());
    balancer.dry_set(&split(5.0), Generation(1)).await.unwrap();
    assert_eq!(world.cluster.patches(200), 1, "the server was asked");
    assert_eq!(world.cluster.object(&route()), before);
    world.cluster.come_between(1);
    balancer.dry_set(&split(5.0), Generation(1)).await.unwrap();
    assert_eq!(world.cluster.patches(409), 1);
    assert_eq!(balancer.read().await.unwrap().split, split(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_in_kubernetes_does_what_every_adapter_must() {
    conformance::hold("kubernetes", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_service_does_what_every_adapter_must() {
    let inner = World::start().await;
    inner.cluster.says(true);
    inner.cluster.put_service([100, 0]);
    // An istiod that has not spoken yet is one that never does, as far as anybody can tell.
    inner.cluster.taken(&service()).await;
    let shape = "virtual_service: {name: web, namespace: shop, destination_rule: web, subsets: {blue: blue, green: green}}";
    conformance::hold("kubernetes_istio", Suite::start(inner, service(), shape).await).await;
}

/// Nothing but the weights and our annotation changes, and the object says whose they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_objects_keep_what_is_not_ours() {
    let world = World::start().await;
    let other = json!({"matches": [{"path": {"value": "/static"}}], "backendRefs": [{"name": "files", "port": 80}]});
    let mut third = rule([3, 1]);
    third["timeouts"] = json!({"request": "5s"});
    world.cluster.put_route([1, 0], &[other.clone(), third]);
    let balancer = world.route();

    // Rules that do not agree are not settled, and each is shown.
    let apart = balancer.read().await.unwrap();
    assert!(!apart.settled && apart.instances.len() == 2, "{apart:?}");
    let (green, quarter) = ("green".parse().unwrap(), Weight::from_percent(25.0).unwrap());
    assert_eq!(apart.instances[1].split.as_ref().unwrap()[&green], quarter);

    let before = world.cluster.object(&route());
    let reading = balancer.set(&split(12.34), Generation(7)).await.unwrap();
    assert!(reading.settled && reading.split == split(12.34), "{reading:?}");
    assert_eq!((reading.generation, &reading.note), (Some(Generation(7)), &None));
    let after = world.cluster.object(&route());
    assert_eq!(after["metadata"]["annotations"], json!({"tidegate.dev/generation": "7"}));
    assert_eq!(after["metadata"]["generation"], 2);
    let mut expected = before["spec"].clone();
    for (place, weights) in [(0, [8_766, 1_234]), (2, [8_766, 1_234])] {
        for (at, weight) in weights.into_iter().enumerate() {
            expected["rules"][place]["backendRefs"][at]["weight"] = weight.into();
        }
    }
    assert_eq!(after["spec"], expected);
    let entries = after["metadata"]["managedFields"].as_array().unwrap().clone();
    let ours = entries.iter().find(|entry| entry["manager"] == "tidegate").unwrap();
    assert_eq!(ours["fieldsV1"]["f:spec"], json!({"f:rules": {}}), "{entries:?}");

    // The same share in other numbers is left alone; a new generation is an annotation, and no new version of the rules.
    balancer.set(&split(12.34), Generation(8)).await.unwrap();
    assert_eq!(world.cluster.object(&route())["metadata"]["generation"], 2);
    let patches = world.cluster.patches(200);
    balancer.set(&split(12.34), Generation(8)).await.unwrap();
    assert_eq!(world.cluster.patches(200), patches, "nothing to say");
}

/// Who comes between reading and writing is met with a second look, not with force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_refuses_a_write_over_something_that_has_changed() {
    let world = World::with_route().await;
    let balancer = world.route();
    world.cluster.come_between(1);
    assert!(balancer.set(&split(5.0), Generation(1)).await.unwrap().settled);
    assert_eq!((world.cluster.patches(409), world.cluster.patches(200)), (1, 1));

    // Who never comes through says so; nothing was done.
    world.cluster.come_between(u32::MAX);
    let crowded = balancer.set(&split(6.0), Generation(1)).await.unwrap_err();
    assert!(crowded.outcome == Outcome::NotSent && crowded.what.contains("409"), "{crowded}");
    world.cluster.come_between(0);

    // A newer one came between: the second look sees its generation.
    let newer = json!({"metadata": {"annotations": {"tidegate.dev/generation": "9"}}});
    let merge = "application/merge-patch+json";
    world.cluster.patch(&route(), merge, "fieldManager=tidegate", &newer);
    let late = balancer.set(&split(50.0), Generation(2)).await.unwrap_err();
    assert_eq!(late.outcome, Outcome::Superseded, "{late}");
    assert_eq!(balancer.read().await.unwrap().split, split(5.0));

    // The server's own words: a stale merge patch and a stale apply are conflicts, too.
    let stale = json!({"metadata": {"resourceVersion": "1"}});
    assert_eq!(world.cluster.patch(&route(), merge, "", &stale).0, 409);
    let apply = "application/apply-patch+yaml";
    assert_eq!(world.cluster.patch(&route(), apply, "fieldManager=argocd", &stale).0, 409);
    let huge = json!({"spec": {"rules": [rule([2_000_000, 1])]}});
    let (status, said) = world.cluster.patch(&route(), merge, "", &huge);
    assert!(status == 422 && said["message"].as_str().unwrap().contains("2000000"), "{said}");
}

/// S64: another writer of the weights is seen by its name, whether it edits or applies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_names_who_else_wrote_the_weights() {
    let world = World::with_route().await;
    let balancer = world.route();
    let first = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    assert_eq!(first.note, None);
    world.cluster.edit(&route(), [50, 50]).await;
    let edited = balancer.read().await.unwrap();
    assert_eq!(edited.split, split(50.0));
    assert!(edited.note.unwrap().contains("`kubectl-edit`"));
    assert_eq!(balancer.set(&split(5.0), Generation(2)).await.unwrap().note, None);

    // Who applies the manifest of a repository meets us, unless it forces its way.
    let manifest = json!({"spec": {"parentRefs": [{"name": "edge"}], "rules": [rule([100, 0])]}});
    let apply = "application/apply-patch+yaml";
    let (status, said) = world.cluster.patch(&route(), apply, "fieldManager=argocd", &manifest);
    assert_eq!((status.as_u16(), said["reason"].as_str().unwrap()), (409, "Conflict"));
    let causes = &said["details"]["causes"];
    assert_eq!(causes[0]["field"], ".spec.rules", "{causes}");
    assert!(causes[0]["message"].as_str().unwrap().contains("tidegate"), "{causes}");
    world.cluster.patch(&route(), apply, "fieldManager=argocd&force=true", &manifest);
    world.cluster.taken(&route()).await;
    let reset = balancer.read().await.unwrap();
    assert!(reset.settled && reset.split == split(0.0), "{reset:?}");
    assert!(reset.note.unwrap().contains("`argocd`"));
    // The generation is not the manifest's, so it stays.
    assert_eq!(reset.generation, Some(Generation(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_weights_count_once_every_controller_has_taken_them() {
    let world = World::with_route().await;
    let balancer = world.route();
    let first = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    world.cluster.lags(true);
    let behind = balancer.set(&split(50.0), Generation(2)).await.unwrap();
    assert!(!behind.settled, "{behind:?}");
    assert!(behind.note.unwrap().contains("has seen version 2 of 3"));
    world.cluster.lags(false);
    world.cluster.taken(&route()).await;
    assert!(balancer.read().await.unwrap().settled);

    // A parent that nobody answers for, and one that does not take it.
    let merge = "application/merge-patch+json";
    let parents = json!({"spec": {"parentRefs": [{"name": "edge"}, {"name": "inner", "sectionName": "web"}]}});
    world.cluster.lags(true);
    world.cluster.patch(&route(), merge, "", &parents);
    let alone = balancer.read().await.unwrap();
    assert!(!alone.settled, "{alone:?}");
    world.cluster.lags(false);
    world.cluster.taken(&route()).await;
    assert!(balancer.read().await.unwrap().settled);

    // Deleted and made again from its manifest: another object, without our mark.
    world.cluster.delete(&route());
    let gone = balancer.read().await.unwrap_err();
    assert_eq!(gone.outcome, Outcome::Misconfigured, "{gone}");
    world.cluster.put_route([1, 0], &[]);
    let again = balancer.read().await.unwrap();
    assert_eq!((&again.split, again.generation), (&split(0.0), None));
    assert!(again.restart_marker.is_some() && again.restart_marker != first.restart_marker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_counts_pods_where_it_may_look() {
    let world = World::with_route().await;
    world.cluster.put_service([100, 0]);
    world.cluster.taken(&service()).await;
    for balancer in [world.route(), world.service()] {
        let green = "green".parse().unwrap();
        let pods = balancer.read().await.unwrap().backends.unwrap();
        assert_eq!(pods[&green], Backends { healthy: 1, total: 1 });
        world.cluster.ready("green", false);
        let pods = balancer.read().await.unwrap().backends.unwrap();
        assert_eq!(pods[&green], Backends { healthy: 0, total: 1 });
        world.cluster.ready("green", true);
        world.cluster.forbid(&["endpointslices"]);
        let reading = balancer.set(&split(5.0), Generation(1)).await.unwrap();
        assert!(reading.settled && reading.backends.is_none(), "{reading:?}");
        assert_eq!(balancer.read().await.unwrap().backends, None);
        world.cluster.forbid(&[]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_says_whose_fault_it_is() {
    let world = World::with_route().await;
    let balancer = world.route();
    let misconfigured = |error: LoadBalancerError, words: &str| {
        assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
        assert!(error.to_string().contains(words), "{error} (no `{words}`)");
        assert!(!format!("{error:?}").contains("-token"), "{error:?}");
    };
    balancer.set(&split(5.0), Generation(1)).await.unwrap();

    world.cluster.forbid(&["PATCH"]);
    misconfigured(balancer.set(&split(50.0), Generation(2)).await.unwrap_err(), "cannot PATCH");
    world.cluster.forbid(&[]);

    // A token that has run out, and the kubeconfig has no newer one; then it has.
    world.cluster.let_in("second-token");
    misconfigured(balancer.set(&split(50.0), Generation(2)).await.unwrap_err(), "401");
    Cluster::kubeconfig(world.folder.path(), world.cluster.address, "second-token");
    assert!(balancer.set(&split(50.0), Generation(2)).await.unwrap().settled);

    // A kubeconfig that is none does not end up in the words about it.
    let path = world.folder.path().join("kubeconfig");
    std::fs::write(&path, "users: [{name: a, user: {token: planted-token]").unwrap();
    world.cluster.let_in("third-token");
    misconfigured(balancer.read().await.unwrap_err(), "the kubeconfig cannot be used");
    std::fs::remove_file(&path).unwrap();
    misconfigured(balancer.read().await.unwrap_err(), "the kubeconfig cannot be read");

    // Weights that are not only ours, or not there.
    world.cluster.let_in("first-token");
    let balancer = world.route();
    let mut three = rule([1, 0]);
    three["backendRefs"].as_array_mut().unwrap().push(json!({"name": "web-old", "weight": 1}));
    world.cluster.put_route([1, 0], &[three]);
    misconfigured(balancer.read().await.unwrap_err(), "rule 1 gives weight to `web-old`, too");
    let other = json!({"spec": {"rules": [{"backendRefs": [{"name": "web-blue"}]}]}});
    world.cluster.patch(&route(), "application/merge-patch+json", "", &other);
    let error = balancer.set(&split(5.0), Generation(3)).await.unwrap_err();
    misconfigured(error, "no such rule with both `web-blue` and `web-green`");
    world.cluster.put_route([0, 0], &[]);
    let nobody = balancer.read().await.unwrap();
    assert!(!nobody.settled && nobody.note.unwrap().contains("no backend has any weight"));
}

/// Without a word of istiod's what is written is all that is known, and it is said; other subsets are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_service_is_believed_as_far_as_istiod_speaks() {
    let world = World::start().await;
    world.cluster.put_service([100, 0]);
    let balancer = world.service();
    let reading = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    assert!(reading.settled && reading.note.unwrap().contains("istiod does not say"));
    let route = &world.cluster.object(&service())["spec"]["http"][0]["route"];
    assert_eq!([&route[0]["weight"], &route[1]["weight"]], [95, 5]);
    world.cluster.taken(&service()).await;

    world.cluster.says(true);
    balancer.set(&split(50.0), Generation(2)).await.unwrap();
    world.cluster.taken(&service()).await;
    let said = balancer.read().await.unwrap();
    assert!(said.settled && said.note.is_none(), "{said:?}");
    world.cluster.lags(true);
    let behind = balancer.set(&split(5.0), Generation(3)).await.unwrap();
    assert!(!behind.settled && behind.note.unwrap().contains("has seen version 3 of 4"));

    let typed = balancer.by_hand(&split(0.0), Generation(4)).await.unwrap();
    let command = &typed[0];
    assert!(command.starts_with("kubectl --kubeconfig='"), "{command}");
    assert!(command.contains("-n shop patch virtualservices.networking.istio.io/web"), "{command}");
    // What it says is what the server takes.
    let (status, said) = world.cluster.patch(&service(), JSON_PATCH, "", &patch_in(command));
    assert!(status.is_success(), "{said}");
    world.cluster.lags(false);
    world.cluster.taken(&service()).await;
    let reading = balancer.read().await.unwrap();
    assert_eq!((reading.split, reading.generation), (split(0.0), Some(Generation(4))));
    assert!(reading.settled, "{:?}", reading.note);
}

/// Copies come and go without a trace beside what others copy, and the first weight ends them in the same change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_copies_begin_and_end_beside_those_of_others() {
    let world = World::with_route().await;
    world.cluster.says(true);
    world.cluster.put_service([100, 0]);
    let audit = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "audit", "port": 80}}});
    let filters = json!({"spec": {"rules": [{"filters": [audit], "backendRefs": rule([1, 0])["backendRefs"]}]}});
    world.cluster.patch(&route(), MERGE_PATCH, "", &filters);
    for (balancer, path) in [(world.route(), route()), (world.service(), service())] {
        world.cluster.taken(&path).await;
        balancer.set(&split(0.0), Generation(1)).await.unwrap();
        let before = world.cluster.object(&path)["spec"].clone();
        let reading = balancer.set(&copies(12.34), Generation(2)).await.unwrap();
        assert!(reading.settled && reading.split == copies(12.34), "{reading:?}");
        let copied = world.cluster.object(&path)["spec"].clone();
        let fraction = json!({"numerator": 1_234, "denominator": 10_000});
        if path == route() {
            let target = json!({"name": "web-green", "port": 80});
            let own = json!({"type": "RequestMirror", "requestMirror": {"backendRef": target, "fraction": fraction}});
            assert_eq!(copied["rules"][0]["filters"], json!([audit, own]));
        } else {
            assert_eq!(copied["http"][0]["mirror"], json!({"host": "web", "subset": "green"}));
            assert_eq!(copied["http"][0]["mirrorPercentage"], json!({"value": 12.34}));
        }

        // A person's way back, for a later version of the object; not when somebody else changed what is copied.
        let command = &balancer.by_hand(&split(0.0), Generation(3)).await.unwrap()[0];
        balancer.set(&copies(50.0), Generation(2)).await.unwrap();
        let (status, said) = world.cluster.patch(&path, JSON_PATCH, "", &patch_in(command));
        assert!(
            status == 422 && said["message"].as_str().unwrap().contains("test failed"),
            "{said}"
        );
        balancer.set(&copies(12.34), Generation(2)).await.unwrap();
        let (status, said) = world.cluster.patch(&path, JSON_PATCH, "", &patch_in(command));
        assert!(status.is_success(), "{said}");
        assert_eq!(world.cluster.object(&path)["spec"], before);
        let command = &balancer.by_hand(&copies(12.34), Generation(3)).await.unwrap()[0];
        assert!(world.cluster.patch(&path, JSON_PATCH, "", &patch_in(command)).0.is_success());
        assert_eq!(world.cluster.object(&path)["spec"], copied);

        world.cluster.taken(&path).await;
        let generation = world.cluster.object(&path)["metadata"]["generation"].as_u64().unwrap();
        let reading = balancer.set(&split(5.0), Generation(4)).await.unwrap();
        assert!(reading.settled && reading.split == split(5.0), "{reading:?}");
        let after = world.cluster.object(&path);
        assert_eq!(after["metadata"]["generation"], generation + 1, "one change");
        balancer.set(&split(0.0), Generation(5)).await.unwrap();
        let mut ended = world.cluster.object(&path)["spec"].clone();
        let [weights, old] = [&mut ended, &mut before.clone()].map(|spec| {
            let list = spec.pointer_mut("/rules/0/backendRefs").is_some();
            let pointer = if list { "/rules/0/backendRefs" } else { "/http/0/route" };
            let entries = spec.pointer_mut(pointer).unwrap().as_array_mut().unwrap();
            entries.iter_mut().for_each(|entry| entry["weight"] = json!(null));
            spec.clone()
        });
        assert_eq!(weights, old);
    }
}

/// HTTPRoutes of before copies had a share: dropped in silence, it would leave a filter that copies everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_definition_of_routes_takes_no_share_of_copies() {
    let world = World::with_route().await;
    let balancer = world.route();
    balancer.set(&split(0.0), Generation(1)).await.unwrap();
    world.cluster.is_old(true);
    let before = world.cluster.object(&route());
    let tried = balancer.dry_set(&copies(20.0), Generation(2)).await.unwrap_err();
    let refused = balancer.set(&copies(20.0), Generation(2)).await.unwrap_err();
    for error in [tried, refused] {
        assert_eq!(error.outcome, Outcome::Refused, "{error}");
        let field = "unknown field \"spec.rules[0].filters[0].requestMirror.fraction\"";
        assert!(error.what.ends_with(field), "{error}");
    }
    assert_eq!(world.cluster.object(&route()), before);
    let all = balancer.set(&copies(100.0), Generation(2)).await.unwrap();
    assert!(all.settled && all.split == copies(100.0), "{all:?}");
    assert!(balancer.set(&split(5.0), Generation(3)).await.unwrap().settled);

    // Who does not ask for it gets no refusal; what is there is what counts.
    let command = &balancer.by_hand(&copies(20.0), Generation(4)).await.unwrap()[0];
    assert!(world.cluster.patch(&route(), JSON_PATCH, "", &patch_in(command)).0.is_success());
    assert_eq!(balancer.read().await.unwrap().split, copies(100.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_refuses_copies_that_nobody_can_say_and_ends_them_all_the_same() {
    let world = World::with_route().await;
    world.cluster.put_service([100, 0]);
    world.cluster.taken(&service()).await;
    let misconfigured = |error: LoadBalancerError, words: &str| {
        assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
        assert!(error.what.contains(words), "{error} (no `{words}`)");
    };
    let balancer = world.route();
    balancer.set(&copies(20.0), Generation(1)).await.unwrap();
    let mut twice = world.cluster.object(&route())["spec"]["rules"].clone();
    let filter = twice[0]["filters"][0].clone();
    twice[0]["filters"] = json!([filter, filter]);
    let rules = json!({"spec": {"rules": twice}});
    world.cluster.patch(&route(), MERGE_PATCH, "", &rules);
    misconfigured(balancer.read().await.unwrap_err(), "rule 0: copies to `web-green` twice");
    let more = balancer.set(&copies(30.0), Generation(2)).await.unwrap_err();
    misconfigured(more, "rule 0: copies to `web-green` twice");
    assert_eq!(balancer.set(&split(0.0), Generation(2)).await.unwrap().split, split(0.0));

    // Rules that copy different shares are not settled, and each is shown.
    let mut second = rule([1, 0]);
    second["filters"] = json!([filter]);
    world.cluster.put_route([1, 0], &[second]);
    let apart = balancer.read().await.unwrap();
    assert!(!apart.settled && apart.note.unwrap().contains("different shares"));
    assert_eq!(apart.instances[1].split, Some(copies(20.0)));
    assert!(balancer.set(&copies(5.0), Generation(3)).await.unwrap().settled);
    assert_eq!(balancer.read().await.unwrap().split, copies(5.0));

    let mut taken = world.cluster.object(&service())["spec"]["http"].clone();
    taken[0]["mirror"] = json!({"host": "audit"});
    world.cluster.patch(&service(), MERGE_PATCH, "", &json!({"spec": {"http": taken}}));
    let balancer = world.service();
    let beside = balancer.set(&copies(20.0), Generation(1)).await.unwrap_err();
    misconfigured(beside, "rule 0: its `mirror` is `audit`: write that as an entry of `mirrors`");
    assert_eq!(balancer.set(&split(5.0), Generation(1)).await.unwrap().split, split(5.0));
    assert_eq!(world.cluster.object(&service())["spec"]["http"][0]["mirror"]["host"], "audit");
}
