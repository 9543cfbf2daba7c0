//! The engine from outside: write, read back, check, collect, over stores that fail.

#![allow(clippy::unwrap_used)]

mod archive;
mod caches;
mod calls;
mod crash;
mod damage;
mod history;
mod init;
mod loss;
mod matrix;
mod neighbours;
mod newer;
mod reliance;
mod rollback;
mod round_trip;
mod stopped;
mod support;
