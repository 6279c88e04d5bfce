//! A real HAProxy.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::free_address;

/// One with the backend `be`, whose servers `blue` and `green` begin at 100 and 0; killed with this value.
pub struct Haproxy {
    child: Option<Child>,
    pub listener: SocketAddr,
    /// Its runtime API with all rights, and one with none.
    pub socket: PathBuf,
    pub weak_socket: PathBuf,
    /// The runtime API over TCP.
    pub tcp: SocketAddr,
    folder: tempfile::TempDir,
}

impl Haproxy {
    /// Starts it in front of two servers, and waits until it answers.
    pub fn start(blue: SocketAddr, green: SocketAddr) -> Self {
        Self::start_with(blue, green, "", "")
    }

    /// The same with rules of the frontend, and sections of its own after all others.
    pub fn start_with(blue: SocketAddr, green: SocketAddr, rules: &str, sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listener, tcp) = (free_address(), free_address());
        let (socket, weak) = (folder.path().join("admin.sock"), folder.path().join("user.sock"));
        let config = format!(
            "global\n  stats socket {} mode 600 level admin\n  stats socket {} mode 600 level user\n  \
             stats socket ipv4@{tcp} level admin\n  nbthread 1\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
             frontend web\n  bind {listener}\n{rules}  default_backend be\n{}{sections}",
            socket.display(),
            weak.display(),
            Self::backend("be", blue, green),
        );
        std::fs::write(folder.path().join("haproxy.cfg"), config).unwrap();
        let mut own = Self { child: None, listener, socket, weak_socket: weak, tcp, folder };
        own.restart();
        own
    }

    /// A backend whose servers `blue` and `green` begin at 100 and 0.
    pub fn backend(name: &str, blue: SocketAddr, green: SocketAddr) -> String {
        format!(
            "backend {name}\n  balance roundrobin\n  server blue {blue} weight 100 check inter 200ms\n  \
             server green {green} weight 0 check inter 200ms\n"
        )
    }

    /// Kills it and starts it again with its configuration.
    pub fn restart(&mut self) {
        self.kill();
        let child = Command::new("haproxy")
            .args(["-W", "-db", "-S"])
            .arg(self.folder.path().join("master.sock"))
            .arg("-f")
            .arg(self.folder.path().join("haproxy.cfg"))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.path().join("log")).unwrap())
            .spawn()
            .expect("haproxy: apt-get install -y haproxy");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.say("show info").is_none_or(|answer| !answer.contains("Pid:")) {
            assert!(Instant::now() < deadline, "HAProxy does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes its configuration again in a new worker, as `systemctl reload` does.
    pub async fn reload(&mut self) {
        let old = self.say("show info");
        let deadline = Instant::now() + Duration::from_secs(20);
        // The master listens to nobody for a moment after its start, and a signal would be lost then.
        while Self::told(&self.folder.path().join("master.sock"), "reload").is_none() {
            assert!(Instant::now() < deadline, "HAProxy's master does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let worker = |answer: &Option<String>| {
            let answer = answer.as_ref()?;
            answer.lines().find(|line| line.starts_with("Pid:")).map(str::to_owned)
        };
        loop {
            let new = worker(&self.say("show info"));
            if new.is_some() && new != worker(&old) {
                return;
            }
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "HAProxy does not reload: {new:?} {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }

    /// What somebody types at its socket; none while nobody answers.
    pub fn say(&self, line: &str) -> Option<String> {
        Self::told(&self.socket, line)
    }

    fn told(socket: &Path, line: &str) -> Option<String> {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        // A master that takes a reload breaks off: what came until then is its answer.
        let _ = stream.read_to_string(&mut answer);
        Some(answer)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// A master and its workers; they may be gone already.
fn end(master: &mut Child) {
    if let Some(group) = i32::try_from(master.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = master.wait();
}
