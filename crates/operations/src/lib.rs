//! The use cases: one file each, written so that it can be read like a list of steps. The only place where stores, keys, the
//! repository and the sources meet.
//!
//! The command line, the HTTP API and the scheduler call these same functions; none of them holds logic of its own. Nothing here
//! prints, asks or exits: progress goes through `domain::Monitor`, failures are `domain::Failure`, and whatever destroys
//! something is first a plan (a value) and then its execution.

pub mod access;
pub mod backup;
mod capture;
pub mod config;
#[cfg(test)]
mod crash_tests;
pub mod damage;
pub mod diff;
pub mod doctor;
pub mod hooks;
pub mod init;
pub mod keys;
pub mod kit;
pub mod manage;
pub mod pitr;
pub mod points;
pub mod prove;
pub mod prune;
pub mod recover;
pub mod release;
pub mod repair;
pub mod replace;
pub mod restore;
pub mod safety;
mod scratch;
mod scratch_folder;
pub mod skew;
pub mod staging;
pub mod status;
pub mod table_back;
#[cfg(test)]
mod testing;
pub mod verify;
pub mod wal;
