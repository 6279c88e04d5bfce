//! An API server of our own, as no real one can be had here: what Tidegate asks of one, with its real semantics.
//!
//! Every write gets a new resource version, changes of the specification a new generation, and a write for an older version
//! is refused. A controller of the mock takes objects after a while, says so in their status, and gives their weights to
//! the gateway, and what is to be copied. Nothing can be watched.

mod definition;
mod gateway;
mod managed;
mod patch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use definition::Shares;
use gateway::Gateway;
use managed::Managed;

/// The collections that tests use.
pub const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes";
pub const SERVICES: &str = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices";
const RULES: &str = "/apis/networking.istio.io/v1/namespaces/shop/destinationrules";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
const PODS: &str = "/api/v1/namespaces/shop/pods";

/// How fast the mock's controller is.
const TAKEN_AFTER: Duration = Duration::from_millis(30);

/// A server and a gateway; gone with this value.
pub struct Cluster {
    pub address: SocketAddr,
    pub gateway: Gateway,
    inside: Arc<Inside>,
    serving: Option<JoinHandle<()>>,
    controlling: JoinHandle<()>,
}

struct Inside {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Value, Managed)>,
    version: u64,
    /// Those that are let in.
    tokens: BTreeSet<String>,
    /// Parts of paths that nobody may ask for.
    forbidden: Vec<&'static str>,
    /// The controller does not take anything.
    lags: bool,
    /// Its istiod writes statuses.
    says: bool,
    /// Its HTTPRoutes are defined as before copies had a share.
    is_old: bool,
    /// Patches so far, by how they ended.
    patches: Vec<u16>,
    /// Writes that somebody else makes just before the next patches.
    in_between: u32,
}

type Answer = (StatusCode, Value);

impl Cluster {
    /// With a namespace `shop` in which `web` splits its traffic over two pools, first all to `blue`.
    pub async fn start(pools: [SocketAddr; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, gateway) = (listener.local_addr().unwrap(), Gateway::start(pools).await);
        let inside = Arc::new(Inside { state: Mutex::default(), written: Notify::new() });
        let plane = Arc::clone(&gateway.plane);
        let controlling = tokio::spawn(control(Arc::clone(&inside), plane));
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&inside))));
        let own = Self { address, gateway, inside, serving, controlling };
        own.with(|state| state.tokens.insert("first-token".to_owned()));
        for (slot, pool) in ["blue", "green"].into_iter().zip(pools) {
            own.pods(slot, pool);
        }
        own
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.inside.state.lock().unwrap());
        self.inside.written.notify_one();
        changed
    }

    /// One pod of a slot, its Service's slice, and its labels.
    fn pods(&self, slot: &str, pool: SocketAddr) {
        let pod = format!("web-{slot}-1");
        let labels = json!({"app": "web", "version": slot});
        self.put(PODS, json!({"metadata": {"name": pod, "labels": labels}}));
        let endpoint = json!({
            "addresses": [pool.ip().to_string()], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod},
        });
        // A Service of its own for routes, and one for both in a mesh; a pod with two addresses stands in two slices.
        for (service, family) in
            [(format!("web-{slot}"), "v4"), (format!("web-{slot}"), "v6"), ("web".to_owned(), "v4")]
        {
            let labels = json!({"kubernetes.io/service-name": service});
            let name = format!("{service}-{slot}-{family}");
            self.put(
                SLICES,
                json!({"metadata": {"name": name, "labels": labels}, "endpoints": [endpoint]}),
            );
        }
    }

    /// Whether a slot's pod is ready.
    pub fn ready(&self, slot: &str, is_ready: bool) {
        let paths: Vec<_> = self.with(|state| state.objects.keys().cloned().collect());
        for path in paths
            .iter()
            .filter(|path| path.starts_with(SLICES) && path.contains(&format!("-{slot}-")))
        {
            let mut slice = self.object(path);
            slice["endpoints"][0]["conditions"]["ready"] = is_ready.into();
            self.put(SLICES, slice);
        }
    }

    /// As in `kubectl create` or `kubectl replace`: an object of a file, by a person.
    pub fn put(&self, collection: &str, object: Value) {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
        self.with(|state| {
            let (status, said) = state.store(&path, object, "kubectl-create");
            assert!(status.is_success(), "{said}");
        });
    }

    /// An HTTPRoute as the tests use it; `more` rules come after the first.
    pub fn put_route(&self, weights: [u64; 2], more: &[Value]) {
        let rules = [&[rule(weights)][..], more].concat();
        let spec = json!({"parentRefs": [{"name": "edge"}], "rules": rules});
        self.put(ROUTES, json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}));
    }

    /// A VirtualService and its DestinationRule as the tests use them.
    pub fn put_service(&self, weights: [u64; 2]) {
        let subset = |slot| json!({"name": slot, "labels": {"app": "web", "version": slot}});
        let spec = json!({"host": "web", "subsets": [subset("blue"), subset("green")]});
        self.put(RULES, json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}));
        let entry = |slot, weight: u64| json!({"destination": {"host": "web", "subset": slot}, "weight": weight});
        let http = json!([{"name": "main", "route": [entry("blue", weights[0]), entry("green", weights[1])]}]);
        let spec = json!({"hosts": ["web"], "http": http});
        self.put(SERVICES, json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}));
    }

    /// An object as it is.
    pub fn object(&self, path: &str) -> Value {
        self.with(|state| state.shown(path).unwrap())
    }

    pub fn delete(&self, path: &str) {
        self.with(|state| state.objects.remove(path).unwrap());
    }

    /// As a client of the API: `content` is what the patch is.
    pub fn patch(&self, path: &str, content: &str, query: &str, body: &Value) -> Answer {
        self.with(|state| state.patch(path, content, query, body))
    }

    /// Sets weights as `kubectl edit` does, and returns once the gateway follows.
    pub async fn edit(&self, path: &str, weights: [u64; 2]) {
        let mut object = self.object(path);
        let pointer = if path.starts_with(ROUTES) {
            "/spec/rules/0/backendRefs"
        } else {
            "/spec/http/0/route"
        };
        for (entry, weight) in
            object.pointer_mut(pointer).unwrap().as_array_mut().unwrap().iter_mut().zip(weights)
        {
            entry["weight"] = weight.into();
        }
        self.with(|state| {
            let (status, said) = state.store(path, object, "kubectl-edit");
            assert!(status.is_success(), "{said}");
        });
        self.taken(path).await;
    }

    /// Waits until the controller has taken an object (10 s at most).
    pub async fn taken(&self, path: &str) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let is_taken = || {
            self.with(|state| {
                state.objects[path].0["mock"] == state.objects[path].0["metadata"]["generation"]
            })
        };
        while !is_taken() {
            assert!(std::time::Instant::now() < deadline, "never taken");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the controller takes objects.
    pub fn lags(&self, lags: bool) {
        self.with(|state| state.lags = lags);
    }

    /// Whether its istiod writes statuses.
    pub fn says(&self, says: bool) {
        self.with(|state| state.says = says);
    }

    /// Whether HTTPRoutes are defined as before copies had a share.
    pub fn is_old(&self, is_old: bool) {
        self.with(|state| state.is_old = is_old);
    }

    pub fn forbid(&self, parts: &[&'static str]) {
        self.with(|state| state.forbidden = parts.to_vec());
    }

    /// Only who has this token is let in from now on.
    pub fn let_in(&self, token: &str) {
        self.with(|state| state.tokens = BTreeSet::from([token.to_owned()]));
    }

    /// How often a patch ended with this status.
    pub fn patches(&self, status: u16) -> usize {
        self.with(|state| state.patches.iter().filter(|it| **it == status).count())
    }

    /// Lets somebody else write just before each of the next patches.
    pub fn come_between(&self, times: u32) {
        self.with(|state| state.in_between = times);
    }

    /// Ends the server and its connections; what it stores stays.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Starts the server again where it was.
    pub async fn start_again(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.inside))));
    }

    /// A kubeconfig for the server at `address`.
    pub fn kubeconfig(folder: &Path, address: SocketAddr, token: &str) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "shop",
            "clusters": [{"name": "mock", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "tidegate", "user": {"token": token}}],
            "contexts": [{"name": "shop", "context": {"cluster": "mock", "user": "tidegate"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.controlling.abort();
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

/// A rule of an HTTPRoute for both Services.
pub fn rule(weights: [u64; 2]) -> Value {
    let entry = |slot, weight| json!({"name": format!("web-{slot}"), "port": 80, "weight": weight});
    json!({"backendRefs": [entry("blue", weights[0]), entry("green", weights[1])]})
}

/// Connections end with this task.
async fn serve(listener: TcpListener, inside: Arc<Inside>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let inside = Arc::clone(&inside);
        connections.spawn(async move {
            let service =
                hyper::service::service_fn(move |request| answer(Arc::clone(&inside), request));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    inside: Arc<Inside>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
    let answer = inside.state.lock().unwrap().answer(&head.method, &head.uri, &head.headers, &body);
    inside.written.notify_one();
    let (status, body) = answer;
    // A kind that is not served is said in plain text.
    let body = if body.is_null() { "404 page not found\n".to_owned() } else { body.to_string() };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    Ok(response)
}

fn failure(status: StatusCode, reason: &str, message: &str) -> Answer {
    let code = status.as_u16();
    (
        status,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}),
    )
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

impl State {
    fn answer(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Answer {
        let header = |name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let token = header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if !self.tokens.contains(token) {
            return failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
        }
        let path = uri.path();
        if self.forbidden.iter().any(|part| path.contains(part) || *part == method.as_str()) {
            let message = format!("{path} is forbidden: User \"tidegate\" cannot {method} it");
            return failure(StatusCode::FORBIDDEN, "Forbidden", &message);
        }
        if ![ROUTES, SERVICES, RULES, SLICES, PODS].iter().any(|known| path.starts_with(known)) {
            return (StatusCode::NOT_FOUND, Value::Null);
        }
        match *method {
            Method::GET if [SLICES, PODS].contains(&path) => self.list(path, &query(uri)),
            Method::GET => {
                self.shown(path).map_or_else(|| missing(path), |object| (StatusCode::OK, object))
            }
            Method::PATCH => {
                let body = serde_json::from_slice(body).unwrap_or_default();
                let answer = self.patch(
                    path,
                    header("content-type"),
                    uri.query().unwrap_or_default(),
                    &body,
                );
                self.patches.push(answer.0.as_u16());
                answer
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "not here"),
        }
    }

    fn shown(&self, path: &str) -> Option<Value> {
        let (object, managed) = self.objects.get(path)?;
        let mut shown = object.clone();
        shown.as_object_mut()?.remove("mock");
        shown["metadata"]["managedFields"] = managed.shown();
        Some(shown)
    }

    /// A page of a list: one object each, so that there are always several; an old token is gone.
    fn list(&self, path: &str, query: &BTreeMap<String, String>) -> Answer {
        let labels = query.get("labelSelector").map_or("", String::as_str);
        let fits = |object: &Value| {
            labels.split(',').all(|pair| {
                pair.split_once('=')
                    .is_none_or(|(key, value)| object["metadata"]["labels"][key] == value)
            })
        };
        let all = self.objects.iter().filter(|(key, _)| key.starts_with(path));
        let all: Vec<_> =
            all.map(|(_, (object, _))| object).filter(|object| fits(object)).collect();
        let Ok(from) = query.get("continue").map_or(Ok(0), |token| token.parse::<usize>()) else {
            return failure(
                StatusCode::GONE,
                "Expired",
                "The provided continue parameter is too old",
            );
        };
        let more = if from + 1 < all.len() { (from + 1).to_string() } else { String::new() };
        let items: Vec<_> = all.into_iter().skip(from).take(1).collect();
        (StatusCode::OK, json!({"kind": "List", "metadata": {"continue": more}, "items": items}))
    }

    fn patch(&mut self, path: &str, content: &str, query: &str, body: &Value) -> Answer {
        if self.in_between > 0 {
            self.in_between -= 1;
            self.touch(path);
        }
        let Some((live, managed)) = self.objects.get(path).cloned() else { return missing(path) };
        let query: BTreeMap<_, _> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let manager = query.get("fieldManager").map_or("unknown", String::as_str);
        let mut after = live.clone();
        match content {
            "application/json-patch+json" => match patch::json(&live, body) {
                Ok(patched) => after = patched,
                Err(said) => return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &said),
            },
            "application/merge-patch+json" => patch::merge(&mut after, body),
            "application/apply-patch+yaml" => {
                return self.apply(
                    path,
                    manager,
                    query.contains_key("force"),
                    body,
                    &live,
                    managed,
                );
            }
            _ => {
                return failure(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "UnsupportedMediaType",
                    content,
                );
            }
        }
        if self.is_old && path.starts_with(ROUTES) {
            let whole = after.to_string();
            let unknown = definition::prune(&mut after);
            let is_strict = query.get("fieldValidation").is_some_and(|how| how == "Strict");
            if let Some(field) = unknown.first().filter(|_| is_strict) {
                let said = format!(
                    " \"\" is invalid: patch: Invalid value: {whole:?}: strict decoding error: unknown field \"{field}\""
                );
                return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &said);
            }
        }
        if query.get("dryRun").is_some_and(|mode| mode == "All") {
            // All that a write does, on a copy.
            let kept = (self.objects.clone(), self.version);
            let answer = self.store(path, after, manager);
            (self.objects, self.version) = kept;
            return answer;
        }
        self.store(path, after, manager)
    }

    fn apply(
        &mut self,
        path: &str,
        manager: &str,
        force: bool,
        body: &Value,
        live: &Value,
        mut managed: Managed,
    ) -> Answer {
        let version = &body["metadata"]["resourceVersion"];
        if !version.is_null() && *version != live["metadata"]["resourceVersion"] {
            return stale(path);
        }
        match managed.applied(manager, &now(self.version), live, body, force) {
            Ok(after) => self.commit(path, after, managed),
            Err(conflicts) => {
                let causes: Vec<_> = conflicts.iter().map(|(manager, field)| {
                    json!({"reason": "FieldManagerConflict", "message": format!("conflict with \"{manager}\""), "field": format!(".{}", field.join("."))})
                }).collect();
                let (status, mut said) =
                    failure(StatusCode::CONFLICT, "Conflict", "Apply failed with conflicts");
                said["details"]["causes"] = causes.into();
                (status, said)
            }
        }
    }

    /// A write as `Update`.
    fn store(&mut self, path: &str, mut after: Value, manager: &str) -> Answer {
        let (before, mut managed) = self.objects.get(path).cloned().unwrap_or_default();
        let (old, new) =
            (&before["metadata"]["resourceVersion"], &after["metadata"]["resourceVersion"]);
        if !new.is_null() && old != new {
            return stale(path);
        }
        if let Some(metadata) = after["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        managed.updated(manager, &now(self.version), &before, &after);
        self.commit(path, after, managed)
    }

    fn commit(&mut self, path: &str, mut after: Value, managed: Managed) -> Answer {
        if let Some(said) = definition::refusal(&after) {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &said);
        }
        let before = self.objects.get(path).map(|(object, _)| object.clone()).unwrap_or_default();
        self.version += 1;
        let is_other = before["spec"] != after["spec"];
        let metadata = &mut after["metadata"];
        let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
        metadata["resourceVersion"] = self.version.to_string().into();
        metadata["uid"] = before["metadata"]["uid"]
            .as_str()
            .map_or_else(|| format!("uid-{}", self.version), str::to_owned)
            .into();
        metadata["generation"] = (generation + u64::from(is_other || generation == 0)).into();
        for own in ["status", "mock"] {
            after[own] = before[own].clone();
        }
        self.objects.insert(path.to_owned(), (after, managed));
        (StatusCode::OK, self.shown(path).unwrap())
    }

    /// A write that changes nothing that matters: its version is another one.
    fn touch(&mut self, path: &str) {
        self.version += 1;
        let version = self.version.to_string();
        if let Some((object, _)) = self.objects.get_mut(path) {
            object["metadata"]["resourceVersion"] = version.into();
        }
    }

    /// What the controller has not taken: path, generation and what it asks for.
    fn untaken(&self) -> Vec<(String, u64, Shares)> {
        let of = |(path, (object, _)): (&String, &(Value, Managed))| {
            let generation = object["metadata"]["generation"].as_u64()?;
            let shares = definition::shares(object)?;
            (object["mock"] != generation).then(|| (path.clone(), generation, shares))
        };
        self.objects.iter().filter_map(of).collect()
    }

    fn take(&mut self, path: &str, generation: u64) {
        let says = self.says;
        self.touch(path);
        let Some((object, _)) = self.objects.get_mut(path) else { return };
        object["mock"] = generation.into();
        if path.starts_with(ROUTES) {
            let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": kind, "observedGeneration": generation});
            let conditions = json!([condition("Accepted"), condition("ResolvedRefs")]);
            let parents = object["spec"]["parentRefs"].as_array().cloned().unwrap_or_default();
            let said = parents.into_iter().map(|mut parent| {
                // As the API's defaults have it.
                parent["kind"] = "Gateway".into();
                json!({"parentRef": parent, "controllerName": "mock", "conditions": conditions})
            });
            object["status"] = json!({"parents": said.collect::<Vec<_>>()});
        } else if says {
            object["status"] = json!({"observedGeneration": generation.to_string()});
        }
    }
}

fn stale(path: &str) -> Answer {
    let said = format!("Operation cannot be fulfilled on {path}: the object has been modified");
    failure(StatusCode::CONFLICT, "Conflict", &said)
}

fn missing(path: &str) -> Answer {
    let name = path.rsplit('/').next().unwrap_or_default();
    failure(StatusCode::NOT_FOUND, "NotFound", &format!("\"{name}\" not found"))
}

/// A time that rises with every write.
fn now(version: u64) -> String {
    format!("2026-01-01T00:{:02}:{:02}Z", version / 60 % 60, version % 60)
}

/// The controller: takes what was written a while ago, tells the gateway, and says so.
async fn control(inside: Arc<Inside>, plane: Arc<gateway::Plane>) {
    loop {
        inside.written.notified().await;
        tokio::time::sleep(TAKEN_AFTER).await;
        let mut state = inside.state.lock().unwrap();
        if state.lags {
            continue;
        }
        for (path, generation, shares) in state.untaken() {
            plane.be(shares);
            state.take(&path, generation);
        }
    }
}
