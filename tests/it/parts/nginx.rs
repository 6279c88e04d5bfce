//! A real nginx.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::free_address;

/// One with two workers and the variable `$web_pool`, which begins at `blue` for all; killed with this value.
pub struct Nginx {
    child: Option<Child>,
    pub listener: SocketAddr,
    /// Where `/tidegate/web` shows what is in force.
    pub status: SocketAddr,
    /// The included file.
    pub include: PathBuf,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts it in front of two servers, and waits until it answers.
    pub async fn start(blue: SocketAddr, green: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listener, status) = (free_address(), free_address());
        let at = folder.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};"))
            .join(" ");
        let config = format!(
            "worker_processes 2; daemon off; pid {at}/nginx.pid; error_log {at}/error.log;\n\
             include {at}/more.conf;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n  access_log off; keepalive_requests 1000000; {temporary}\n  \
             upstream blue {{ server {blue}; keepalive 8; }}\n  \
             upstream green {{ server {green}; keepalive 8; }}\n  \
             include {at}/conf.d/web.conf;\n  \
             server {{ listen {listener}; location / {{\n    proxy_pass http://$web_pool; proxy_http_version 1.1; \
             proxy_set_header Connection \"\";\n  }} }}\n  \
             server {{ listen {status}; location = /tidegate/web {{ return 200 \"$web_pool_state $web_pool\\n\"; }} }}\n}}\n"
        );
        // As an operator writes it before Tidegate comes.
        let include = "map $uri $web_pool_key { default $request_id; /tidegate/web $arg_key; }\n\
             split_clients $web_pool_key $web_pool { * blue; }\n\
             map \"\" $web_pool_state { default generation=0; }\n";
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        std::fs::write(folder.path().join("more.conf"), "").unwrap();
        let path = folder.path().join("conf.d/web.conf");
        std::fs::write(&path, include).unwrap();
        let mut own = Self { child: None, listener, status, include: path, folder };
        own.script("reload", "");
        own.restart().await;
        own
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("nginx.conf")
    }

    /// A file `name` in its folder that reloads it, after these lines.
    fn script(&self, name: &str, first: &str) {
        use std::os::unix::fs::PermissionsExt;
        let config = self.config();
        let text = format!("#!/bin/sh\n{first}\nexec nginx -s reload -c '{}'\n", config.display());
        // Beside and renamed: a file that is being written cannot be run.
        let (path, beside) =
            (self.folder.path().join(name), self.folder.path().join(format!("{name}.new")));
        std::fs::write(&beside, text).unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }

    /// The operator's commands.
    pub fn test_command(&self) -> Vec<String> {
        ["nginx", "-t", "-q", "-c", self.config().to_str().unwrap()].map(str::to_owned).into()
    }

    pub fn reload_command(&self) -> Vec<String> {
        vec![self.folder.path().join("reload").to_str().unwrap().to_owned()]
    }

    /// From now on its reload says yes and does nothing, or is a reload again.
    pub fn lie(&self, lies: bool) {
        self.script("reload", if lies { "exit 0" } else { "" });
    }

    /// Its configuration cannot be loaded because of another file, or it can again.
    pub fn spoil(&self, spoilt: bool) {
        let text = if spoilt { "nonsense;\n" } else { "" };
        std::fs::write(self.folder.path().join("more.conf"), text).unwrap();
    }

    /// What a person with an editor does: writes a share into the include and reloads.
    pub fn edit(&self, green_percent: u32) {
        let text = std::fs::read_to_string(&self.include).unwrap();
        let (before, rest) = text.split_once("$web_pool {").unwrap();
        let (_, after) = rest.split_once('}').unwrap();
        let green = match green_percent {
            0 => String::new(),
            some => format!("{some}% green; "),
        };
        let text = format!("{before}$web_pool {{ {green}* blue; }}{after}");
        std::fs::write(&self.include, text).unwrap();
        self.reload();
    }

    /// Its configuration becomes what `change` makes of it.
    pub fn configure(&self, change: impl Fn(String) -> String) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), change(text)).unwrap();
        self.reload();
    }

    pub fn reload(&self) {
        let reload = Command::new(&self.reload_command()[0]).output().unwrap();
        assert!(reload.status.success(), "{reload:?}");
    }

    /// Kills it and starts it again with its configuration.
    pub async fn restart(&mut self) {
        self.kill();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(self.config())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx: scripts/parts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.shown().await.is_none() {
            assert!(Instant::now() < deadline, "nginx does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is in force; none while nobody answers.
    async fn shown(&self) -> Option<String> {
        let url = format!("http://{}/tidegate/web", self.status);
        super::client().get(url).send().await.ok()?.text().await.ok()
    }

    pub fn kill(&mut self) {
        if let Some(mut master) = self.child.take() {
            let group = i32::try_from(master.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(group) = group {
                // It may be gone already.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = master.wait();
            // Its next reload must reach nobody, also when the number has another owner by then.
            let _ = std::fs::remove_file(self.folder.path().join("nginx.pid"));
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}
