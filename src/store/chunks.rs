//! Values of any length in sled, whose own large values go to files that it never syncs.
//!
//! A value is cut into chunks under `key ‖ number of the chunk (u16, big-endian)`; the first chunk starts with how many
//! there are. A fingerprint over everything stored tells a sled that lost something from one that did not.

use sha2::{Digest, Sha256};
use sled::{Batch, Tree};

use super::Error;

/// Longest chunk: sled splits a leaf at 17 entries and spills leaves beyond 128 KiB to files.
const CHUNK_BYTES_MAX: usize = 6 * 1024;

/// What is to be written to one tree.
pub struct Writes<'a> {
    tree: &'a Tree,
    /// The changes.
    pub batch: Batch,
    /// To be combined with the fingerprint by exclusive or.
    pub fingerprint: u128,
}

impl<'a> Writes<'a> {
    /// Nothing yet.
    pub fn new(tree: &'a Tree) -> Self {
        Self { tree, batch: Batch::default(), fingerprint: 0 }
    }

    /// Replaces the value under `key`; `None` removes it. At most once per key.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        let chunks = value.map(cut).transpose()?.unwrap_or_default();
        let old = match self.tree.get(chunk_key(key, 0))? {
            Some(first) => count(&first)?,
            None => 0,
        };
        for index in 0..old.max(u16::try_from(chunks.len()).map_err(|_| too_long(value))?) {
            let chunk_key = chunk_key(key, index);
            if let Some(old) = self.tree.get(&chunk_key)? {
                self.fingerprint ^= fingerprint(self.tree, &chunk_key, &old);
            }
            match chunks.get(usize::from(index)) {
                Some(chunk) => {
                    self.fingerprint ^= fingerprint(self.tree, &chunk_key, chunk);
                    self.batch.insert(chunk_key, chunk.as_slice());
                }
                None => self.batch.remove(chunk_key),
            }
        }
        Ok(())
    }
}

fn too_long(value: Option<&[u8]>) -> Error {
    Error::TooLong { bytes: value.map_or(0, <[u8]>::len) }
}

fn cut(value: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut chunks: Vec<Vec<u8>> = value.chunks(CHUNK_BYTES_MAX).map(<[u8]>::to_vec).collect();
    if chunks.is_empty() {
        chunks.push(Vec::new());
    }
    let count = u16::try_from(chunks.len()).map_err(|_| too_long(Some(value)))?;
    chunks[0].splice(0..0, count.to_be_bytes());
    Ok(chunks)
}

fn count(first: &[u8]) -> Result<u16, Error> {
    let bytes =
        first.first_chunk().ok_or_else(|| Error::Broken("a value has no length".to_owned()))?;
    Ok(u16::from_be_bytes(*bytes))
}

fn chunk_key(key: &[u8], index: u16) -> Vec<u8> {
    [key, &index.to_be_bytes()].concat()
}

/// The value under `key`.
pub fn read(tree: &Tree, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let Some(first) = tree.get(chunk_key(key, 0))? else { return Ok(None) };
    let mut value = first.get(2..).unwrap_or_default().to_vec();
    for index in 1..count(&first)? {
        let chunk = tree.get(chunk_key(key, index))?;
        value.extend_from_slice(
            &chunk.ok_or_else(|| Error::Broken("a part of a value is missing".to_owned()))?,
        );
    }
    Ok(Some(value))
}

/// Every key that starts with `prefix`, in order.
pub fn keys(tree: &Tree, prefix: &[u8]) -> impl DoubleEndedIterator<Item = Result<Vec<u8>, Error>> {
    tree.scan_prefix(prefix).keys().filter_map(|key| match key {
        Ok(key) => {
            let (key, index) = key.split_at_checked(key.len().saturating_sub(2))?;
            (index == [0, 0]).then(|| Ok(key.to_vec()))
        }
        Err(error) => Some(Err(error.into())),
    })
}

/// The fingerprint of everything in a tree: independent of order, 0 when empty.
pub fn fingerprint_of(tree: &Tree) -> Result<u128, Error> {
    tree.iter().try_fold(0, |sum, entry| {
        let (key, value) = entry?;
        Ok(sum ^ fingerprint(tree, &key, &value))
    })
}

fn fingerprint(tree: &Tree, key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = Sha256::new();
    for part in [&tree.name()[..], key, value] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let hash: [u8; 32] = hasher.finalize().into();
    u128::from_be_bytes(std::array::from_fn(|index| hash[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length_come_back_and_leave_nothing_behind() {
        let database = sled::Config::new().temporary(true).open().unwrap();
        let tree = database.open_tree("values").unwrap();
        let mut fingerprint = 0;
        let lengths = [0, 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 300_000, 5];
        for length in lengths.iter().map(Some).chain([None]) {
            let value =
                length.map(|&length| (0..length).map(|byte| byte as u8).collect::<Vec<_>>());
            let mut writes = Writes::new(&tree);
            writes.put(b"key", value.as_deref()).unwrap();
            fingerprint ^= writes.fingerprint;
            tree.apply_batch(writes.batch).unwrap();
            assert_eq!(read(&tree, b"key").unwrap(), value);
            assert_eq!(fingerprint_of(&tree).unwrap(), fingerprint);
            assert_eq!(keys(&tree, b"k").count(), usize::from(value.is_some()));
        }
        assert_eq!((tree.len(), fingerprint), (0, 0));
    }

    #[test]
    fn sled_spills_nothing_to_files_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let database = sled::open(directory.path()).unwrap();
        let tree = database.open_tree("values").unwrap();
        for round in 0..4u8 {
            let mut writes = Writes::new(&tree);
            for key in 0..10u8 {
                writes.put(&[key], Some(&vec![key ^ round; 200_000])).unwrap();
            }
            tree.apply_batch(writes.batch).unwrap();
            database.flush().unwrap();
        }
        let blobs = std::fs::read_dir(directory.path().join("blobs")).unwrap();
        assert_eq!(blobs.count(), 0);
    }
}
