//! A TCP proxy in front of something, which a test lets fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

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
    /// Answers each question itself: too many requests, try later.
    Storm,
}

/// A proxy; gone with this value.
pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
    stormed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

const STORM: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl Proxy {
    /// In front of `behind`.
    pub async fn start(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(Mode::Pass as u8));
        let (shared, stormed) = (Arc::clone(&mode), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&stormed);
        let task = tokio::spawn(async move {
            while let Ok((mut front, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) == Mode::Storm as u8 {
                    counted.fetch_add(1, Ordering::SeqCst);
                    // Who asked may be gone.
                    let _ = front.read(&mut [0; 4_096]).await;
                    let _ = front.write_all(STORM).await;
                    continue;
                }
                let Ok(back) = TcpStream::connect(behind).await else { continue };
                let ((front_read, front_write), (back_read, back_write)) =
                    (front.into_split(), back.into_split());
                let lost = [Mode::BlackHole as u8, Mode::Storm as u8];
                tokio::spawn(pass(front_read, back_write, Arc::clone(&shared), lost.to_vec()));
                let lost = [Mode::BlackHole as u8, Mode::LoseAnswers as u8, Mode::Storm as u8];
                tokio::spawn(pass(back_read, front_write, Arc::clone(&shared), lost.to_vec()));
            }
        });
        Self { address, mode, stormed, task }
    }

    /// How many questions it answered itself.
    pub fn stormed(&self) -> usize {
        self.stormed.load(Ordering::SeqCst)
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
        let now = mode.load(Ordering::SeqCst);
        spoiled |= lost.contains(&now);
        if now == Mode::Storm as u8 {
            return;
        }
        if !spoiled && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
