//! Record sets as PowerDNS's HTTP API shows and takes them.

use serde::{Deserialize, Serialize};

use crate::spec::fleet::Family;
use crate::units::Generation;

/// Whose comments are ours.
const ACCOUNT: &str = "tidegate";

/// A zone, as far as it was asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Zone {
    #[serde(default)]
    pub rrsets: Vec<RecordSet>,
}

/// All records of one name and type.
#[derive(Debug, Clone, Deserialize)]
pub struct RecordSet {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub ttl: u64,
    #[serde(default)]
    pub records: Vec<Record>,
    #[serde(default)]
    pub comments: Vec<Comment>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub content: String,
    #[serde(default)]
    pub disabled: bool,
}

/// What people, and we, wrote beside a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comment {
    pub content: String,
    #[serde(default)]
    pub account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<u64>,
}

impl Zone {
    /// The set of one name and type, where it has records. `name` ends with a dot.
    pub fn set(&self, name: &str, kind: &str) -> Option<&RecordSet> {
        let is_it = |set: &&RecordSet| set.name.eq_ignore_ascii_case(name) && set.kind == kind;
        self.rrsets.iter().filter(is_it).find(|set| set.enabled().next().is_some())
    }
}

impl RecordSet {
    /// Records that are answered with.
    pub fn enabled(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| !record.disabled)
    }

    /// The newest generation that was written beside it.
    pub fn generation(&self, family: Family) -> Option<Generation> {
        let beginning = beginning(family);
        let ours = self.comments.iter().filter(|comment| comment.account == ACCOUNT);
        ours.filter_map(|it| it.content.strip_prefix(&beginning)?.parse().ok().map(Generation))
            .max()
    }

    /// Comments of others, and of other families.
    pub fn foreign_comments(&self, family: Family) -> impl Iterator<Item = &Comment> {
        let beginning = beginning(family);
        let is_ours =
            move |it: &Comment| it.account == ACCOUNT && it.content.starts_with(&beginning);
        self.comments.iter().filter(move |comment| !is_ours(comment))
    }
}

impl Comment {
    /// The one that keeps a generation.
    pub fn of(family: Family, generation: Generation) -> Self {
        let content = format!("{}{}", beginning(family), generation.0);
        Self { content, account: ACCOUNT.to_owned(), modified_at: None }
    }
}

fn beginning(family: Family) -> String {
    format!("{} generation ", family.says())
}

/// Whether a weighted record is for this family; others live in the same set.
pub fn is_of(record: &Record, family: Family) -> bool {
    record.content.split_whitespace().next() == Some(family.says())
}
