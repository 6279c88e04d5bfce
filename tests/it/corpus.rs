//! The fuzzers' corpus as plain tests: every file as it is, and many times spoiled.

use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate::fuzzing::TARGETS;

/// Spoiled variations of each file.
const VARIATIONS: u64 = 150;
/// Bytes of a file that is spoiled; longer ones are tried as they are.
const SPOILED_BYTES_MAX: usize = 20_000;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().display().to_string(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Bytes with one to four of the usual damages.
fn spoiled(bytes: &[u8], others: &[(String, Vec<u8>)], random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len().min(at + 40));
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let words: [&[u8]; 8] =
                    [b"\"", b"{", b"]", b"-1", b"1e400", b"\xFF", b"\0", "\u{202e}".as_bytes()];
                let word = words[random.random_range(0..words.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => {
                let other = &others[random.random_range(0..others.len())].1;
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len().min(from + 60));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn every_file_of_the_corpus_and_its_spoiled_variations_are_read_or_refused() {
    for (name, run) in TARGETS {
        let files = corpus(name);
        assert!(files.len() >= 5, "{name} has {} files", files.len());
        for (file, bytes) in &files {
            run(bytes);
            if bytes.len() > SPOILED_BYTES_MAX {
                continue;
            }
            for seed in 0..VARIATIONS {
                let mut random = Pcg64Mcg::seed_from_u64(seed);
                let variation = spoiled(bytes, &files, &mut random);
                let tried = std::panic::catch_unwind(|| run(&variation));
                assert!(
                    tried.is_ok(),
                    "{name}/{file}, seed {seed}: {}",
                    String::from_utf8_lossy(&variation)
                );
            }
        }
    }
}

#[test]
fn every_target_is_one_of_the_fuzzers() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
