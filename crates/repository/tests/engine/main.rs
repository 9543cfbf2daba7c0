//! The engine from outside: write, read back, check, collect, over stores that fail.

#![allow(clippy::unwrap_used)]

mod calls;
mod crash;
mod damage;
mod history;
mod reliance;
mod round_trip;
mod stopped;
mod support;
