//! The format as a promise: what older versions wrote is read, another program reads what this one writes, the vectors of
//! `doc/vectors.json` hold, and no bytes make a decoder panic.

#![allow(clippy::unwrap_used)]

mod golden;
mod hostile;
mod lists;
mod reader;
mod roles;
mod sample;
mod targets;
mod vectors;
