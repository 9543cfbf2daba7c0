//! What can be backed up: each source can probe, capture, restore and compare, and knows nothing of repositories.

pub mod command;
pub mod configuration;
pub mod files;
pub mod postgres;
pub mod redis;
