//! The socket.

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
    let served = listen(folder.path(), router, 0o600).unwrap();
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
