//! One record's place in the journal file: magic, length, sequence, chain, checksum, payload. Pure.
//!
//! ```text
//! offset  0   magic, 3 bytes            0xFF never occurs in a payload (it is JSON, thus UTF-8)
//!         3   format version
//!         4   length of the payload     u32, big-endian like all numbers here
//!         8   sequence                  u64, 1 for the first record
//!        16   first of the same write   u64, the sequence of the first record that shared this record's sync
//!        24   SHA-256 of the previous frame, zeros before the first
//!        56   CRC-32 of everything but itself
//!        60   payload
//! ```
//!
//! A frame that is broken at the end of the file was never acknowledged and is cut. "End" means that no later frame
//! can be read, except those of the same write: a power loss may keep a write's end and lose its middle.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::units::Seq;

/// Bytes that every frame starts with.
const MAGIC: [u8; 3] = [0xFF, b'T', b'G'];
/// Layout of the frame that this code writes and reads.
const FORMAT: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 60;
/// Where the checksum stands.
const CRC_AT: usize = 56;
/// Longest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest single write, in bytes: what a power loss can tear at most.
pub const WRITE_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// SHA-256 of a frame.
pub type Hash = [u8; 32];

/// A place in the chain: the newest record and its hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the newest record; 0 before the first.
    pub seq: Seq,
    /// Hash of its frame; zeros before the first.
    pub hash: Hash,
}

/// One record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// This record's place in the chain.
    pub head: Head,
    /// The record.
    pub payload: Vec<u8>,
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something inside the journal is not what was written.
    #[error("record {seq} at byte {offset} is damaged: {what}")]
    Damaged {
        /// The record that should stand there.
        seq: Seq,
        /// Where it starts, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another layout.
    #[error(
        "record {seq} at byte {offset} has format {format}, and this program reads format {FORMAT}"
    )]
    Format {
        /// The record.
        seq: Seq,
        /// Where it starts, in bytes.
        offset: u64,
        /// What its header says.
        format: u8,
    },
    /// The file could not be read.
    #[error("could not be read")]
    Read(#[source] io::Error),
}

/// Puts one record after `head` and appends its bytes to `buffer`; returns the new head.
///
/// `first` is the sequence of the first record of the same write. `None` when the payload is longer than
/// [`PAYLOAD_BYTES_MAX`]; then `buffer` is unchanged.
#[must_use]
pub fn encode(buffer: &mut Vec<u8>, head: &Head, first: Seq, payload: &[u8]) -> Option<Head> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let length = u32::try_from(payload.len()).ok()?;
    let (start, seq) = (buffer.len(), head.seq.next());
    buffer.extend_from_slice(&MAGIC);
    buffer.push(FORMAT);
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(&seq.0.to_be_bytes());
    buffer.extend_from_slice(&first.0.to_be_bytes());
    buffer.extend_from_slice(&head.hash);
    let crc = checksum(&buffer[start..], payload);
    buffer.extend_from_slice(&crc.to_be_bytes());
    buffer.extend_from_slice(payload);
    Some(Head { seq, hash: Sha256::digest(&buffer[start..]).into() })
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// What a header says; nothing in it is checked but its magic, format and length.
struct Header {
    length: usize,
    seq: Seq,
    first: Seq,
    previous: Hash,
    crc: u32,
}

enum HeaderError {
    Format(u8),
    Broken(&'static str),
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        // No format is 0: that is a torn write filled up with zeros.
        if bytes[..3] != MAGIC || bytes[3] == 0 {
            return Err(HeaderError::Broken("it does not start like a record"));
        }
        if bytes[3] != FORMAT {
            return Err(HeaderError::Format(bytes[3]));
        }
        let length = u64::from(u32::from_be_bytes(part(bytes, 4)));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > PAYLOAD_BYTES_MAX {
            return Err(HeaderError::Broken("its length is beyond the limit"));
        }
        Ok(Self {
            length,
            seq: Seq(u64::from_be_bytes(part(bytes, 8))),
            first: Seq(u64::from_be_bytes(part(bytes, 16))),
            previous: part(bytes, 24),
            crc: u32::from_be_bytes(part(bytes, CRC_AT)),
        })
    }
}

/// `N` bytes of a header from `at`; every caller asks for bytes within it.
fn part<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

/// Whether an undamaged frame starts `bytes`: its sequence and the first sequence of its write.
fn frame_at(bytes: &[u8]) -> Option<(Seq, Seq)> {
    let header = Header::parse(bytes.first_chunk()?).ok()?;
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.length)?;
    (checksum(&bytes[..CRC_AT], payload) == header.crc).then_some((header.seq, header.first))
}

/// Reads records one after the other, with at most two in memory.
///
/// After it has returned `None`, [`Frames::valid_bytes`] says where the journal ends and [`Frames::torn_bytes`] what
/// is to be cut after it.
pub struct Frames<R> {
    reader: R,
    head: Head,
    valid_bytes: u64,
    torn_bytes: u64,
    ended: bool,
}

impl<R: Read> Frames<R> {
    /// Reads a journal from its first byte.
    pub fn new(reader: R) -> Self {
        Self::after(reader, Head::default())
    }

    /// Reads on behind the record `head`; bytes are counted from there.
    pub fn after(reader: R, head: Head) -> Self {
        Self { reader, head, valid_bytes: 0, torn_bytes: 0, ended: false }
    }

    /// The newest record that was read.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Bytes up to the end of the newest record that was read.
    pub fn valid_bytes(&self) -> u64 {
        self.valid_bytes
    }

    /// Bytes after that which are a torn write.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// The next record; `None` at the end, or where a torn write begins. Errors end the reading.
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        if self.ended {
            return Ok(None);
        }
        let result = self.read();
        self.ended = !matches!(result, Ok(Some(_)));
        result
    }

    fn read(&mut self) -> Result<Option<Frame>, Error> {
        let mut bytes = Vec::new();
        self.fill(&mut bytes, HEADER_BYTES)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(header) = bytes.first_chunk().map(Header::parse) else {
            return self.broken(bytes, "its header is incomplete");
        };
        let header = match header {
            Ok(header) => header,
            Err(HeaderError::Broken(what)) => return self.broken(bytes, what),
            Err(HeaderError::Format(format)) => {
                return Err(Error::Format {
                    seq: self.expected(),
                    offset: self.valid_bytes,
                    format,
                });
            }
        };
        self.fill(&mut bytes, HEADER_BYTES + header.length)?;
        if bytes.len() < HEADER_BYTES + header.length {
            return self.broken(bytes, "it is incomplete");
        }
        if checksum(&bytes[..CRC_AT], &bytes[HEADER_BYTES..]) != header.crc {
            return self.broken(bytes, "its checksum does not fit");
        }
        if header.seq != self.expected() || header.previous != self.head.hash {
            return Err(self.damaged("it does not follow the record before it"));
        }
        self.valid_bytes += bytes.len() as u64;
        self.head = Head { seq: header.seq, hash: Sha256::digest(&bytes).into() };
        Ok(Some(Frame { head: self.head, payload: bytes.split_off(HEADER_BYTES) }))
    }

    /// Reads until `bytes` holds `length` or the file ends.
    fn fill(&mut self, bytes: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        let missing = length.saturating_sub(bytes.len()) as u64;
        self.reader.by_ref().take(missing).read_to_end(bytes).map(|_| ()).map_err(Error::Read)
    }

    /// Decides what a broken record is: a torn write at the end, or damage.
    fn broken(&mut self, mut bytes: Vec<u8>, what: &'static str) -> Result<Option<Frame>, Error> {
        self.fill(&mut bytes, WRITE_BYTES_MAX + 1)?;
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(self.damaged(what));
        }
        let starts = (1..bytes.len()).filter(|&at| bytes[at..].starts_with(&MAGIC));
        let mut later = starts.filter_map(|at| frame_at(&bytes[at..]));
        // A record of a later write proves that this one was synced whole.
        if later.any(|(_, first)| first > self.expected()) {
            return Err(self.damaged(what));
        }
        self.torn_bytes = bytes.len() as u64;
        Ok(None)
    }

    fn expected(&self) -> Seq {
        self.head.seq.next()
    }

    fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged { seq: self.expected(), offset: self.valid_bytes, what }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A journal of one write per inner list, and where each frame starts.
    fn journal(writes: &[&[&str]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts, mut head) = (Vec::new(), Vec::new(), Head::default());
        for payloads in writes {
            let first = head.seq.next();
            for payload in *payloads {
                starts.push(bytes.len());
                head = encode(&mut bytes, &head, first, payload.as_bytes()).unwrap();
            }
        }
        (bytes, starts)
    }

    /// Payloads read, and bytes to be cut.
    fn scan(bytes: &[u8]) -> Result<(Vec<String>, u64), Error> {
        let mut frames = Frames::new(bytes);
        let mut payloads = Vec::new();
        while let Some(frame) = frames.next()? {
            payloads.push(String::from_utf8(frame.payload).unwrap());
        }
        assert_eq!(frames.valid_bytes() + frames.torn_bytes(), bytes.len() as u64);
        Ok((payloads, frames.torn_bytes()))
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, _) = journal(&[&["one", ""], &["three"]]);
        let (payloads, torn) = scan(&bytes).unwrap();
        assert_eq!((payloads, torn), (vec!["one".into(), String::new(), "three".into()], 0));
        assert_eq!(scan(&[]).unwrap(), (vec![], 0));
    }

    #[test]
    fn a_payload_beyond_the_limit_is_not_written() {
        let mut bytes = vec![7];
        let payload = vec![b' '; PAYLOAD_BYTES_MAX + 1];
        assert_eq!(encode(&mut bytes, &Head::default(), Seq(1), &payload), None);
        assert_eq!(bytes, [7]);
    }

    #[test]
    fn the_last_frame_cut_anywhere_is_cut_and_nothing_else_is_lost() {
        let (bytes, starts) = journal(&[&["one"], &["two"], &["three"]]);
        for end in starts[2]..bytes.len() {
            let (payloads, torn) = scan(&bytes[..end]).unwrap();
            assert_eq!((payloads.len(), torn), (2, (end - starts[2]) as u64), "cut at {end}");
            let zeros: Vec<u8> = bytes[..end].iter().copied().chain([0; 90]).collect();
            assert_eq!(scan(&zeros).unwrap().0.len(), 2, "zeros after {end}");
        }
    }

    #[test]
    fn any_bit_flipped_before_the_last_write_is_refused_by_sequence() {
        let (bytes, starts) = journal(&[&["one"], &["two"], &["three"]]);
        for (at, bit) in (0..starts[2]).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let expected = if at < starts[1] { Seq(1) } else { Seq(2) };
            match scan(&flipped) {
                Err(Error::Damaged { seq, offset, .. } | Error::Format { seq, offset, .. }) => {
                    assert_eq!((seq, offset), (expected, starts[expected.0 as usize - 1] as u64));
                }
                other => panic!("bit {bit} of byte {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_write_whose_middle_is_lost_is_cut_whole() {
        let (mut bytes, starts) = journal(&[&["one"], &["two", "three", "four"]]);
        bytes[starts[2] + HEADER_BYTES] ^= 1;
        let (payloads, torn) = scan(&bytes).unwrap();
        assert_eq!(payloads, ["one", "two"]);
        assert_eq!(torn, (bytes.len() - starts[2]) as u64);
    }

    #[test]
    fn a_record_taken_out_or_swapped_is_refused() {
        let (bytes, starts) = journal(&[&["one"], &["two"], &["six"], &["four"]]);
        let without = [&bytes[..starts[1]], &bytes[starts[2]..]].concat();
        let swapped = [
            &bytes[..starts[1]],
            &bytes[starts[2]..starts[3]],
            &bytes[starts[1]..starts[2]],
            &bytes[starts[3]..],
        ];
        for bytes in [without, swapped.concat()] {
            assert!(matches!(scan(&bytes), Err(Error::Damaged { seq: Seq(2), .. })));
        }
    }

    #[test]
    fn another_format_is_named_and_nothing_is_cut() {
        let (mut bytes, starts) = journal(&[&["one"], &["two"]]);
        bytes[starts[1] + 3] = 9;
        assert!(matches!(scan(&bytes), Err(Error::Format { seq: Seq(2), format: 9, .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = scan(&bytes);
        }

        #[test]
        fn arbitrary_damage_loses_nothing_before_it(
            at in 0usize..190, noise in prop::collection::vec(any::<u8>(), 1..80),
        ) {
            let (mut bytes, starts) = journal(&[&["one"], &["two"], &["three"]]);
            let at = at.min(bytes.len() - 1);
            for (byte, noise) in bytes[at..].iter_mut().zip(&noise) {
                *byte = *noise;
            }
            if let Ok((payloads, _)) = scan(&bytes) {
                let whole = starts.iter().skip(1).filter(|&&start| start <= at).count();
                prop_assert!(payloads.len() >= whole);
                prop_assert_eq!(&["one", "two", "three"][..payloads.len()], &payloads[..]);
            }
        }
    }
}
