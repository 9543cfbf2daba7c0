//! What the sources promise, on real servers of every version that is installed.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test that cannot go on fails; what it must leave out, it says

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/clusters.rs"]
mod clusters;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/restoring.rs"]
mod restoring;
#[path = "support/postgres.rs"]
mod support;
#[path = "support/zoo.rs"]
mod zoo;

mod cluster;
mod cluster_increment;
mod cluster_remote;
mod cluster_trouble;
mod command;
mod configuration;
mod decoders;
mod hostile;
mod pg_restore_diff;
mod pg_restore_parts;
mod pg_restore_replace;
mod pg_restore_trouble;
mod pg_restore_zoo;
mod pg_swap;
mod postgres_capture;
mod postgres_capture_rules;
mod postgres_capture_trouble;
mod postgres_connect;
mod postgres_inspect;
mod postgres_mask;
mod postgres_sandbox;
mod postgres_versions;
mod postgres_wire;
mod redis;
mod wal;
