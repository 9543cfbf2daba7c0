//! `page_patch` of crates/repository/tests/format/targets.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mainstay_fuzz::page_patch(bytes));
