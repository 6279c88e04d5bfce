//! A real BIND, the primary of a zone that takes updates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::free_address;

/// The secret of its key `k`, and one that is not.
pub const SECRET: &str = "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHM=";
pub const WRONG: &str = "bm90LXRoaXMtb25lLW5vdC10aGlzLW9uZQ==";

/// One with the zone `example.test`, whose key `k` may change it and whose key `r` may not; killed with this value.
pub struct Bind {
    child: Option<Child>,
    /// Over UDP and TCP.
    pub address: SocketAddr,
    /// Files that hold the secret, and a wrong one.
    pub secret: PathBuf,
    pub wrong: PathBuf,
    folder: tempfile::TempDir,
}

impl Bind {
    /// Starts it, and waits until it answers. `records`: lines of the zone.
    pub fn start(records: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let path = folder.path().display();
        let config = format!(
            "options {{ directory \"{path}\"; pid-file \"{path}/pid\"; session-keyfile \"{path}/session.key\";\n\
             listen-on port {} {{ {}; }}; listen-on-v6 {{ none; }}; recursion no; notify no; }};\n\
             controls {{ }};\n\
             key \"k\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
             key \"r\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
             zone \"example.test\" {{ type primary; file \"zone\"; allow-update {{ key \"k\"; }}; }};\n",
            address.port(),
            address.ip(),
        );
        std::fs::write(folder.path().join("named.conf"), config).unwrap();
        let zone = format!(
            "$TTL 1\n@ SOA ns1 root 1 3600 600 86400 1\n@ NS ns1\nns1 A 127.0.0.1\n{records}\n"
        );
        std::fs::write(folder.path().join("zone"), zone).unwrap();
        let (secret, wrong) = (folder.path().join("secret"), folder.path().join("wrong"));
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::write(&wrong, WRONG).unwrap();
        let mut own = Self { child: None, address, secret, wrong, folder };
        own.restart();
        own
    }

    /// Kills it and starts it again with its zone and its journal.
    pub fn restart(&mut self) {
        self.kill();
        let child = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(self.folder.path().join("named.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("named: apt-get install -y bind9");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.dig(&["example.test", "SOA"]).contains("ns1") {
            assert!(Instant::now() < deadline, "BIND does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads its configuration again, as `systemctl reload` does.
    pub fn reload(&self) {
        let process = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        let process = rustix::process::Pid::from_raw(process).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What a person does with another client: lines of `nsupdate`.
    pub fn update(&self, lines: &[String]) {
        let (ip, port) = (self.address.ip(), self.address.port());
        let text = format!("server {ip} {port}\nzone example.test.\n{}\nsend\n", lines.join("\n"));
        let input = self.folder.path().join("update");
        std::fs::write(&input, text).unwrap();
        let key = format!("hmac-sha256:k:{SECRET}");
        let said = Command::new("nsupdate").args(["-y", &key]).arg(input).output().unwrap();
        assert!(said.status.success(), "{said:?}");
    }

    /// What `dig` says, in short; nothing while nobody answers.
    pub fn dig(&self, words: &[&str]) -> String {
        let (at, port) = (format!("@{}", self.address.ip()), self.address.port().to_string());
        let fixed = [at.as_str(), "-p", &port, "+short", "+time=1", "+tries=1"];
        let said = Command::new("dig").args(fixed).args(words).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        self.kill();
    }
}
