//! A TCP proxy in front of something, which a test lets fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Passes it on.
    Pass,
    /// Takes everything and passes nothing on.
    BlackHole,
    /// Passes questions on and loses the answers.
    LoseAnswers,
}

/// A proxy; gone with this value.
pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// In front of `behind`.
    pub async fn start(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(Mode::Pass as u8));
        let shared = Arc::clone(&mode);
        let task = tokio::spawn(async move {
            while let Ok((front, _)) = listener.accept().await {
                let Ok(back) = TcpStream::connect(behind).await else { continue };
                let ((front_read, front_write), (back_read, back_write)) =
                    (front.into_split(), back.into_split());
                let lost = [Mode::BlackHole as u8];
                tokio::spawn(pass(front_read, back_write, Arc::clone(&shared), lost.to_vec()));
                let lost = [Mode::BlackHole as u8, Mode::LoseAnswers as u8];
                tokio::spawn(pass(back_read, front_write, Arc::clone(&shared), lost.to_vec()));
            }
        });
        Self { address, mode, task }
    }

    /// From now on, also for connections that are open.
    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes on, and loses them while the mode is one of `lost`: a connection that lost some is of no use later.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: Arc<AtomicU8>, lost: Vec<u8>) {
    let (mut bytes, mut spoiled) = (vec![0; 16 * 1024], false);
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        spoiled |= lost.contains(&mode.load(Ordering::SeqCst));
        if !spoiled && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
