//! The record sets of a name at its primary: read with their TTL, and replaced only if they are as they were read.

use domain::base::iana::{Class, Opcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, MessageBuilder};
use domain::base::name::FlattenInto;
use domain::base::{Message, ParsedName, Rtype, Ttl, UnknownRecordData};
use domain::rdata::ZoneRecordData;

use super::super::dns::{Domain, number, question};
use super::records::Data;
use super::session::{Problem, Session};
use crate::ports::Outcome;

/// All records of one name and type; may be none.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSet {
    pub name: Domain,
    pub kind: Rtype,
    pub records: Vec<Data>,
    /// Of its records; the same for all.
    pub ttl: Option<u32>,
}

impl RecordSet {
    /// Asks the primary.
    pub async fn read(session: &mut Session, name: &Domain, kind: Rtype) -> Result<Self, Problem> {
        let failed = |what: String| Problem::new(what, Outcome::NotSent);
        let question = question(name, kind).map_err(failed)?;
        let answer = session.ask(question.additional(), Outcome::NotSent).await?;
        if !answer.header().aa() {
            let what = format!("it is not the authority for {name}");
            return Err(Problem::new(what, Outcome::Misconfigured));
        }
        Self::of(&answer, name, kind).ok_or_else(|| failed("an answer that is none".to_owned()))
    }

    fn of(answer: &Message<Vec<u8>>, name: &Domain, kind: Rtype) -> Option<Self> {
        let mut set = Self { name: name.clone(), kind, records: Vec::new(), ttl: None };
        for record in answer.answer().ok()?.limit_to::<ZoneRecordData<_, ParsedName<_>>>() {
            let record = record.ok()?;
            if record.owner() == name && record.rtype() == kind {
                set.ttl = Some(record.ttl().as_secs());
                set.records.push(record.into_data().flatten_into());
            }
        }
        Some(set)
    }

    /// Whether it says just this.
    pub fn says(&self, records: &[Data], ttl: u32) -> bool {
        self.records.len() == records.len()
            && records.iter().all(|record| self.records.contains(record))
            && (records.is_empty() || self.ttl == Some(ttl))
    }
}

/// Replaces sets, all or none; `false` when one of them is no longer as it was read.
pub async fn replace(
    session: &mut Session,
    zone: &Domain,
    changes: &[(&RecordSet, Vec<Data>)],
    ttl: u32,
) -> Result<bool, Problem> {
    let message = update(zone, changes, ttl)
        .ok_or_else(|| Problem::new("an update too long", Outcome::Misconfigured))?;
    let answer = session.ask(message, Outcome::Unknown).await?;
    Ok(answer.header().rcode() == Rcode::NOERROR)
}

/// Zone, prerequisites, updates: the sections of RFC 2136 in the places of question, answer and authority.
fn update(
    zone: &Domain,
    changes: &[(&RecordSet, Vec<Data>)],
    ttl: u32,
) -> Option<AdditionalBuilder<Vec<u8>>> {
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(number().ok()?);
    message.header_mut().set_opcode(Opcode::UPDATE);
    let mut message = message.question();
    message.push((zone, Rtype::SOA)).ok()?;
    let nothing = |kind| UnknownRecordData::from_octets(kind, []).ok();
    let mut message = message.answer();
    for (set, _) in changes {
        if set.records.is_empty() {
            message.push((&set.name, Class::NONE, Ttl::ZERO, nothing(set.kind)?)).ok()?;
        }
        for record in &set.records {
            message.push((&set.name, Class::IN, Ttl::ZERO, record)).ok()?;
        }
    }
    let mut message = message.authority();
    for (set, records) in changes {
        message.push((&set.name, Class::ANY, Ttl::ZERO, nothing(set.kind)?)).ok()?;
        for record in records {
            message.push((&set.name, Class::IN, Ttl::from_secs(ttl), record)).ok()?;
        }
    }
    Some(message.additional())
}
