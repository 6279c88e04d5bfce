//! One region's ledger: a file of lines, each with the hash of itself and of the one before.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::units::{RegionName, Timestamp};

/// The hash before the first record.
pub(super) const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Records between two checkpoints.
const CHECKPOINT_EVERY: u64 = 100;
/// And bytes: the newest checkpoint always lies within the tail that is read at the start.
const CHECKPOINT_BYTES: usize = 2 * 1024 * 1024;
/// Bytes at the end of a ledger in which there is always a checkpoint, once there is one.
const TAIL_BYTES: u64 = 8 * 1024 * 1024;
/// Longest line; what is longer is no record of ours.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why the audit cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("the audit at {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record is not one.
    #[error("the audit at {path}: {what}")]
    Broken {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

/// A ledger that is open for appending.
pub(super) struct Ledger {
    region: RegionName,
    path: PathBuf,
    file: File,
    seq: u64,
    head: String,
    since_checkpoint: u64,
    bytes_since: usize,
    cursors: BTreeMap<String, u64>,
}

/// A line and what it says of itself.
pub(super) struct Line {
    pub(super) value: Value,
    pub(super) hash: String,
    /// The hash of the line's own bytes.
    pub(super) own: String,
}

/// Splits a line into what is hashed and the hash.
pub(super) fn parse(text: &str) -> Option<Line> {
    let (body, hash) = text.strip_suffix("\"}")?.rsplit_once(",\"hash\":\"")?;
    let own = hex(&Sha256::digest(format!("{body}}}").as_bytes()));
    let value = serde_json::from_str(text).ok()?;
    Some(Line { value, hash: hash.to_owned(), own })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a checkpoint signs.
pub(super) fn signed(region: &RegionName, seq: u64, head: &str) -> String {
    format!("tidegate audit\n{region}\n{seq}\n{head}\n")
}

impl Ledger {
    pub(super) fn open(folder: &Path, region: &RegionName) -> Result<Self, Error> {
        let path = folder.join(format!("{region}.jsonl"));
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(&path).map_err(at(&path))?;
        let lines = tail(&mut file, &path)?;
        let mut ledger = Self {
            region: region.clone(),
            file,
            seq: 0,
            head: FIRST.to_owned(),
            since_checkpoint: 0,
            bytes_since: 0,
            cursors: BTreeMap::new(),
            path,
        };
        for text in &lines {
            let broken = || Error::Broken {
                path: ledger.path.clone(),
                what: "a record that is not one; see `tidegate audit verify`".to_owned(),
            };
            let Line { value, hash, .. } = parse(text).ok_or_else(broken)?;
            ledger.seq = value["seq"].as_u64().ok_or_else(broken)?;
            ledger.head = hash;
            ledger.bytes_since += text.len();
            ledger.take(&value);
        }
        Ok(ledger)
    }

    fn take(&mut self, value: &Value) {
        self.since_checkpoint += 1;
        if let Some(cursors) = value["cursors"].as_object() {
            (self.since_checkpoint, self.bytes_since) = (0, 0);
            for (service, seq) in cursors {
                self.cursors.insert(service.clone(), seq.as_u64().unwrap_or_default());
            }
        }
        if let (Some(service), Some(seq)) = (value["service"].as_str(), value["stream"].as_u64()) {
            self.cursors.insert(service.to_owned(), seq);
        }
    }

    pub(super) fn cursor(&self, service: &str) -> u64 {
        self.cursors.get(service).copied().unwrap_or_default()
    }

    /// Appends one record, and a checkpoint after every so many.
    pub(super) fn append(
        &mut self,
        at_time: Timestamp,
        what: &Value,
        key: &Ed25519KeyPair,
        sync: bool,
    ) -> Result<(), Error> {
        self.write(at_time, what)?;
        if self.since_checkpoint >= CHECKPOINT_EVERY || self.bytes_since >= CHECKPOINT_BYTES {
            self.checkpoint(at_time, key)?;
        }
        if sync { self.file.sync_data().map_err(at(&self.path)) } else { Ok(()) }
    }

    fn write(&mut self, at_time: Timestamp, what: &Value) -> Result<(), Error> {
        let mut record = Map::new();
        record.insert("seq".to_owned(), json!(self.seq + 1));
        record.insert("at".to_owned(), json!(at_time));
        record.insert("prev".to_owned(), json!(self.head));
        record.extend(what.as_object().cloned().unwrap_or_default());
        let body = Value::Object(record).to_string();
        let hash = hex(&Sha256::digest(body.as_bytes()));
        let open = body.strip_suffix('}').unwrap_or(&body);
        let line = format!("{open},\"hash\":\"{hash}\"}}\n");
        let before = self.file.metadata().map_err(at(&self.path))?.len();
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Half a line would be the end of all later ones.
            let _ = self.file.set_len(before);
            return Err(at(&self.path)(error));
        }
        (self.seq, self.head) = (self.seq + 1, hash);
        self.bytes_since += line.len();
        self.take(what);
        Ok(())
    }

    fn checkpoint(&mut self, at_time: Timestamp, key: &Ed25519KeyPair) -> Result<(), Error> {
        let signature = key.sign(signed(&self.region, self.seq, &self.head).as_bytes());
        let head = json!({
            "kind": "checkpoint", "upto": self.seq, "head": self.head, "cursors": self.cursors,
            "key": hex(key.public_key().as_ref()), "signature": BASE64_STANDARD.encode(signature),
        });
        self.write(at_time, &head)?;
        self.file.sync_data().map_err(at(&self.path))?;
        let path = self.path.with_extension("head");
        let beside = self.path.with_extension("head.new");
        let text = json!({"upto": head["upto"], "head": head["head"], "key": head["key"], "signature": head["signature"]});
        fs::write(&beside, text.to_string()).map_err(at(&beside))?;
        fs::rename(&beside, &path).map_err(at(&path))
    }

    /// A last checkpoint over what came since.
    pub(super) fn close(&mut self, key: &Ed25519KeyPair) -> Result<(), Error> {
        if self.since_checkpoint == 0 {
            return Ok(());
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
        self.checkpoint(Timestamp(now), key)
    }
}

/// The lines from the last checkpoint in the tail on, or all; half a line at the end is cut off.
fn tail(file: &mut File, path: &Path) -> Result<Vec<String>, Error> {
    let length = file.metadata().map_err(at(path))?.len();
    let from = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from)).map_err(at(path))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).map_err(at(path))?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        file.set_len(from + whole as u64).map_err(at(path))?;
        bytes.truncate(whole);
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if from > 0 && !lines.is_empty() {
        lines.remove(0);
    }
    let last = lines.iter().rposition(|line| line.contains("\"kind\":\"checkpoint\""));
    Ok(lines[last.unwrap_or(0)..].iter().map(|line| (*line).to_owned()).collect())
}

pub(super) fn make_folder(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))
}

/// The regions that have a ledger.
pub(super) fn regions(folder: &Path) -> Result<Vec<RegionName>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(folder))?,
    };
    let mut regions = Vec::new();
    for entry in entries {
        let name = entry.map_err(at(folder))?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        regions.extend(stem.and_then(|stem| stem.parse().ok()));
    }
    regions.sort();
    Ok(regions)
}

/// The key that signs; made where there is none.
pub(super) fn key(folder: &Path) -> Result<Ed25519KeyPair, Error> {
    let path = folder.join("key");
    let broken = || Error::Broken { path: path.clone(), what: "not an Ed25519 key".to_owned() };
    match fs::read(&path) {
        Ok(bytes) => Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| broken()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made =
                Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| broken())?;
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(&path).map_err(at(&path))?;
            file.write_all(made.as_ref()).and_then(|()| file.sync_all()).map_err(at(&path))?;
            Ed25519KeyPair::from_pkcs8(made.as_ref()).map_err(|_| broken())
        }
        Err(error) => Err(at(&path)(error)),
    }
}

/// Every line of a ledger, one after the other.
pub(super) fn lines(
    folder: &Path,
    region: &RegionName,
) -> Result<impl Iterator<Item = io::Result<String>>, Error> {
    let path = folder.join(format!("{region}.jsonl"));
    let mut reader = BufReader::new(File::open(&path).map_err(at(&path))?);
    Ok(std::iter::from_fn(move || {
        let mut line = String::new();
        match reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(line.trim_end_matches('\n').to_owned())),
            Err(error) => Some(Err(error)),
        }
    }))
}

/// At most `limit` records after `after`.
pub(super) fn read(
    folder: &Path,
    region: &RegionName,
    after: u64,
    limit: usize,
) -> Result<Vec<Value>, Error> {
    let path = folder.join(format!("{region}.jsonl"));
    let mut records = Vec::new();
    for line in lines(folder, region)? {
        let Some(line) = parse(&line.map_err(at(&path))?) else { break };
        if line.value["seq"].as_u64().is_some_and(|seq| seq > after) {
            records.push(line.value);
        }
        if records.len() >= limit {
            break;
        }
    }
    Ok(records)
}
