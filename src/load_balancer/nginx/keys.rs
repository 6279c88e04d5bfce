//! Keys that nginx sends to a given place of its range, so that asking about one shows where the border lies.
//!
//! `split_clients` hashes a key to 32 bits with MurmurHash2 (Austin Appleby) and gives the first so many of them to the
//! first upstream. A key whose hash lies amid one hundredth of a percent tells to whom that hundredth goes, whatever
//! becomes of roundings at its ends.

/// Hundredths of a percent in all.
pub const CELLS: u16 = 10_000;

/// A key amid the given hundredth of a percent, counted from 0.
pub fn amid(cell: u16) -> String {
    let cell = u64::from(cell.min(CELLS - 1));
    let fits = |key: &String| {
        let quarters = (u64::from(hash(key.as_bytes())) * u64::from(CELLS) * 4) >> 32;
        // The two inner quarters.
        quarters / 4 == cell && matches!(quarters % 4, 1 | 2)
    };
    // One of 20,000 fits.
    (0_u64..).map(|number| format!("k{number}")).find(fits).expect("the hash reaches every place")
}

/// MurmurHash2 with the seed that nginx uses: the length.
fn hash(key: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let (words, rest) = key.as_chunks::<4>();
    let mixed = |word: u32| {
        let word = word.wrapping_mul(MULTIPLIER);
        (word ^ (word >> 24)).wrapping_mul(MULTIPLIER)
    };
    // Keys are short.
    let seed = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = words
        .iter()
        .fold(seed, |hash, word| hash.wrapping_mul(MULTIPLIER) ^ mixed(u32::from_le_bytes(*word)));
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_nginx_has() {
        // From an implementation of its own; the tests on the real nginx would not pass with another.
        for (key, wanted) in REFERENCES {
            assert_eq!(hash(key.as_bytes()), *wanted, "{key}");
        }
    }

    const REFERENCES: &[(&str, u32)] =
        &[("", 0), ("a", 2_456_313_694), ("abc", 324_500_635), ("tidegate", 3_730_173_790)];

    #[test]
    fn a_key_lies_amid_its_hundredth() {
        for cell in [0, 1, 499, 500, 9_999] {
            let place = f64::from(hash(amid(cell).as_bytes())) / 4_294_967_296.0 * 10_000.0;
            assert!((place - f64::from(cell) - 0.5).abs() <= 0.25, "{cell} {place}");
        }
    }
}
