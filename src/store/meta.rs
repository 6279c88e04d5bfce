//! How far the state has come and what it should hold, as bytes. Pure.

use super::frame::Head;
use super::journal::Place;
use crate::units::Seq;

/// Layout of the whole state; another one is made anew from the journal.
const FORMAT: u8 = 3;
const BYTES: usize = 1 + 8 + 8 + 32 + 16 + 4;

/// How far the state has come and what it should hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// The newest record in the state.
    pub place: Place,
    /// Over everything the state holds.
    pub fingerprint: u128,
}

impl Meta {
    /// As bytes, with a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.place.generation.to_be_bytes());
        bytes.extend_from_slice(&self.place.head.seq.0.to_be_bytes());
        bytes.extend_from_slice(&self.place.head.hash);
        bytes.extend_from_slice(&self.fingerprint.to_be_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads it back; `None` for damage and for another format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (content, crc) = bytes.split_last_chunk()?;
        let (format, content) = content.split_first()?;
        let (generation, content) = content.split_first_chunk()?;
        let (seq, content) = content.split_first_chunk()?;
        let (hash, content) = content.split_first_chunk()?;
        let known =
            *format == FORMAT && crc32fast::hash(&bytes[..BYTES - 4]) == u32::from_be_bytes(*crc);
        known.then_some(Self {
            place: Place {
                generation: u64::from_be_bytes(*generation),
                head: Head { seq: Seq(u64::from_be_bytes(*seq)), hash: *hash },
            },
            fingerprint: u128::from_be_bytes(content.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_refuses_any_flipped_bit() {
        let head = Head { seq: Seq(7), hash: [3; 32] };
        let meta = Meta { place: Place { generation: 2, head }, fingerprint: 1 << 100 };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Meta::decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(Meta::decode(&bytes[1..]), None);
    }
}
