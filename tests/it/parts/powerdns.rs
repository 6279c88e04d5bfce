//! A real PowerDNS with a database of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::free_address;

/// The key of its API.
pub const KEY: &str = "only-for-tests";

/// One with the zone `example.test`, which is empty; killed with this value.
pub struct PowerDns {
    child: Option<Child>,
    /// Where names are asked for, over UDP and TCP.
    pub names: SocketAddr,
    pub api: SocketAddr,
    /// A file that holds the key.
    pub key: PathBuf,
    folder: tempfile::TempDir,
}

impl PowerDns {
    /// Starts it, and waits until it answers.
    pub fn start() -> Self {
        Self::with("yes")
    }

    /// `weighted`: whether it knows weighted records, `yes` or `no`.
    pub fn with(weighted: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (names, api) = (free_address(), free_address());
        let path = folder.path().display();
        let config = format!(
            "launch=gsqlite3\ngsqlite3-database={path}/db\nsocket-dir={path}\nlocal-address={}\nlocal-port={}\n\
             api=yes\napi-key={KEY}\nwebserver=yes\nwebserver-address={}\nwebserver-port={}\n\
             enable-lua-records={weighted}\nsecurity-poll-suffix=\nguardian=no\ndaemon=no\n",
            names.ip(),
            names.port(),
            api.ip(),
            api.port(),
        );
        std::fs::write(folder.path().join("pdns.conf"), config).unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, KEY).unwrap();
        let schema = "/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql";
        let schema = std::fs::File::open(schema).expect("apt-get install -y pdns-backend-sqlite3");
        let made =
            Command::new("sqlite3").arg(folder.path().join("db")).stdin(schema).status().unwrap();
        assert!(made.success());
        let mut own = Self { child: None, names, api, key, folder };
        own.control("pdnsutil", &["create-zone", "example.test", "ns1.example.test"]);
        own.restart();
        own
    }

    /// Kills it and starts it again with its database.
    pub fn restart(&mut self) {
        self.kill();
        let child = Command::new("pdns_server")
            .arg(format!("--config-dir={}", self.folder.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pdns_server: apt-get install -y pdns-server");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(self.api).is_err()
            || std::net::TcpStream::connect(self.names).is_err()
        {
            assert!(Instant::now() < deadline, "PowerDNS does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Forgets what it keeps in memory, and looks for its zones again.
    pub fn reload(&self) {
        self.control("pdns_control", &["purge"]);
        self.control("pdns_control", &["rediscover"]);
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What a person does with another client: replaces sets of records, with those that are empty deleted.
    pub async fn edit(&self, name: &str, sets: &[(&str, &[&str])]) {
        let sets = sets.iter().map(|(kind, records)| {
            let records = records.iter().map(|content| serde_json::json!({"content": content, "disabled": false}));
            let change = if records.len() == 0 { "DELETE" } else { "REPLACE" };
            serde_json::json!({"name": name, "type": kind, "ttl": 1, "changetype": change, "records": records.collect::<Vec<_>>()})
        });
        let body = serde_json::json!({"rrsets": sets.collect::<Vec<_>>()});
        let url = format!("http://{}/api/v1/servers/localhost/zones/example.test.", self.api);
        let request = reqwest::Client::new().patch(url).header("x-api-key", KEY).json(&body);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    fn control(&self, program: &str, words: &[&str]) {
        let folder = format!("--config-dir={}", self.folder.path().display());
        let said = Command::new(program).arg(folder).args(words).output().unwrap();
        assert!(said.status.success(), "{said:?}");
    }
}

impl Drop for PowerDns {
    fn drop(&mut self) {
        self.kill();
    }
}
