//! The log of the real daemon, while hostile requests come.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::binary_xds::process::Running;

#[test]
fn row_34_every_line_of_the_log_is_one_record_whatever_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let fleet =
        super::world::FLEET.replace("regions:\n  eu_west_1", "state: state\nregions:\n  eu_west_1");
    std::fs::write(folder.path().join("tidegate.yaml"), fleet).unwrap();
    std::fs::write(folder.path().join("w.yaml"), "name: w\n").unwrap();
    let serve = ["--log", "debug", "--log-format", "json", "serve"];
    let daemon = Running::start(folder.path(), &serve);
    daemon.until_said("serving on");
    let send = |request: &str| {
        let mut stream = UnixStream::connect(folder.path().join("state/tidegate.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 64];
        let _ = stream.read(&mut answer);
    };
    let forged = "{\\\"level\\\":\\\"ERROR\\\"}\\n{\\\"forged\\\": true}";
    let body = format!("{{\"reason\": \"x\\n{forged}\"}}");
    for path in ["/v1/services/web/freeze", "/v1/services/web%0a%7b%22forged%22:1%7d/freeze"] {
        send(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
    send(
        "GET /v1/fleet HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer tg_{\"forged\":1}\r\n\r\n",
    );
    let said = daemon.terminate().errors;
    let mut records = 0;
    for line in said.lines() {
        // What is said to people besides begins with no brace.
        if line.starts_with('{') {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(record["timestamp"].is_string() && record["level"].is_string(), "{line}");
            assert!(record.get("forged").is_none(), "{line}");
            records += 1;
        }
    }
    assert!(records > 0, "{said}");
}
