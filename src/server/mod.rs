//! The local API: what `status`, `why`, `promote` and the like say to whoever drives rollouts, over a unix socket. And what
//! a supervisor and Prometheus ask of the daemon over TCP.
//!
//! Only the user who runs Tidegate may connect to the socket; the kernel says who it is. The TCP port only tells.

mod health;
mod metrics;
pub mod routes;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::driver::controller::Rollouts;

pub use health::{BEAT, Health, serve_health};

/// Name of the socket within the state directory.
pub const SOCKET: &str = "tidegate.sock";

/// Longest wait for answers that are under way when serving ends.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Why there is no local API.
#[derive(Debug, thiserror::Error)]
#[error("no socket at {path}")]
pub struct Error {
    /// Where.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// The kernel's word on who connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|peer| peer.uid()) }
    }
}

/// A socket that is being served. It ends, and its file goes, when this is dropped.
#[derive(Debug)]
pub struct Served {
    path: PathBuf,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Served {
    /// Takes no new connection and lets the answers under way go out, for a second at most. Who asked for what ends
    /// this process has to hear that it was done.
    pub async fn close(mut self) {
        drop(self.stop.take());
        // Who did not get an answer by now sees a closed connection.
        let _ = tokio::time::timeout(CLOSE_MAX, &mut self.task).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        // It may be gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who drives rollouts now: another one after the fleet was read again.
pub type Current = tokio::sync::watch::Receiver<Arc<dyn Rollouts>>;

/// Serves rollouts in a state directory that this process holds the lock of.
///
/// # Errors
/// The socket cannot be made there.
pub fn serve(state: &Path, rollouts: Current) -> Result<Served, Error> {
    listen(state, routes::router(rollouts))
}

fn listen(state: &Path, router: Router) -> Result<Served, Error> {
    let path = state.join(SOCKET);
    let failed = |source| Error { path: path.clone(), source };
    // The lock is ours, so a socket that is there was left by a process that is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let app = router.into_make_service_with_connect_info::<Peer>();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        // An error of one connection does not end it.
        let _ = axum::serve(listener, app).with_graceful_shutdown(stopped).await;
    });
    Ok(Served { path, task, stop: Some(stop) })
}

/// Login name of the user who runs this, for the record; `uid <number>` where the environment has none.
#[must_use]
pub fn user() -> String {
    let named = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    match named {
        Ok(name) if !name.is_empty() => crate::units::shown(&name),
        _ => format!("uid {}", rustix::process::geteuid().as_raw()),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn an_answer_under_way_goes_out_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (asked, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (handler_asked, handler_release) = (asked.clone(), release.clone());
        let router = Router::new().route(
            "/",
            get(async move || {
                handler_asked.notify_one();
                handler_release.notified().await;
                "done"
            }),
        );
        let served = listen(folder.path(), router).unwrap();
        let mut client = tokio::net::UnixStream::connect(folder.path().join(SOCKET)).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: tidegate\r\n\r\n").await.unwrap();
        asked.notified().await;
        let closing = tokio::spawn(served.close());
        tokio::task::yield_now().await;
        release.notify_one();
        closing.await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        assert!(!folder.path().join(SOCKET).exists());
    }
}
