//! libFuzzer over [`fuzz_targets::bundle`].
#![no_main]
#![expect(
    clippy::disallowed_methods,
    reason = "the macro of libFuzzer writes a file of its own when asked to"
)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::bundle(data));
