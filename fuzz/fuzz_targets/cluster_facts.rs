//! `cluster_facts` of crates/sources/tests/sources/decoders.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mainstay_fuzz::cluster_facts(bytes));
