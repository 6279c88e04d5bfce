//! Any bytes as what `tidegate::fuzzing::TARGETS` calls `pipeline`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((_, run)) = tidegate::fuzzing::TARGETS.iter().find(|(name, _)| *name == "pipeline") {
        run(bytes);
    }
});
