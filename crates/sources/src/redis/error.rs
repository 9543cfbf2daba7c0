//! What can go wrong with a Redis server, and what its reader should do about it. Passwords never appear.

use mainstay_domain::Failure;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("cannot connect to {target}: {reason}")]
    Connect { target: String, reason: String, hint: Option<String> },
    /// The server's own words.
    #[error("the server refused {command}: {message}")]
    Refused { command: String, message: String },
    #[error("the connection to the Redis server was lost")]
    Lost(#[source] io::Error),
    #[error("the Redis server sent what is not its protocol: {0}")]
    Protocol(String),
}

impl RedisError {
    /// Whether the server will never do this for us, as managed services and access rules have it.
    pub(super) fn is_forbidden(&self) -> bool {
        let RedisError::Refused { message, .. } = self else { return false };
        let lower = message.to_ascii_lowercase();
        message.starts_with("NOPERM")
            || ["unknown command", "unknown subcommand", "not allowed", "not supported", "disabled"]
                .iter()
                .any(|words| lower.contains(words))
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        let text = error.to_string();
        match error {
            RedisError::Connect { hint: Some(hint), .. } => Failure::preflight(text).hint(hint),
            RedisError::Connect { hint: None, .. } => Failure::preflight(text),
            RedisError::Refused { command, message } => match advice(&command, &message) {
                Some(hint) => Failure::preflight(text).hint(hint),
                None => Failure::failed(text),
            },
            RedisError::Lost(source) => {
                Failure::failed(text).hint("Look into the server's log for the reason.").caused_by(source)
            }
            RedisError::Protocol(_) => Failure::failed(text)
                .hint("Is it a Redis or Valkey server that listens there, and is TLS (rediss://) right?"),
        }
    }
}

/// What to do about the refusals that users meet.
fn advice(command: &str, message: &str) -> Option<String> {
    let begins = |word: &str| message.starts_with(word);
    Some(if begins("WRONGPASS") || message.contains("invalid password") {
        "Correct user and password in the address.".to_owned()
    } else if begins("NOAUTH") {
        "The server wants a password: redis://user:password@host.".to_owned()
    } else if begins("NOPERM") {
        format!("Allow the user of the backup to use {command}: doc/guide/redis.md lists what it needs.")
    } else if begins("NOMASTERLINK") {
        "It is a replica that has lost its master: repair the link, or back the master up.".to_owned()
    } else if begins("LOADING") || begins("BUSY") {
        "Try again when the server is ready.".to_owned()
    } else if message.contains("payload version or checksum") {
        "The server is older than what was captured: restore into the same version or a newer one.".to_owned()
    } else if begins("BUSYKEY") {
        "A key of that name is there already, and a restore overwrites nothing: name a prefix or an empty database."
            .to_owned()
    } else if begins("OOM") {
        "The server has no room (maxmemory) for what is restored.".to_owned()
    } else {
        return None;
    })
}
