//! What can go wrong on a connection, and what its reader should do about it.
//!
//! A [`WireError`] keeps the server's own words (SQLSTATE, detail, hint, place). At the crate's seam it becomes a
//! `Failure` whose hint says what to change. Passwords never appear in either.

use mainstay_domain::{Failure, Kind};
use std::{fmt, io};

/// An error or a notice, as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `WARNING` … (never translated).
    pub severity: String,
    /// SQLSTATE: five characters.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// The call stack of the server's functions, or the line of a COPY.
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub constraint: Option<String>,
    /// Characters into the statement, from 1.
    pub position: Option<u32>,
}

impl ServerMessage {
    /// Reads the fields of an ErrorResponse or NoticeResponse (PostgreSQL manual, *Error and Notice Message Fields*).
    pub(super) fn parse(body: &[u8]) -> ServerMessage {
        let mut message = ServerMessage::default();
        let mut severity_translated = None;
        for field in body.split(|b| *b == 0) {
            let Some((tag, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match tag {
                b'S' => severity_translated = Some(text),
                b'V' => message.severity = text,
                b'C' => message.code = text,
                b'M' => message.message = text,
                b'D' => message.detail = Some(text),
                b'H' => message.hint = Some(text),
                b'W' => message.context = Some(text),
                b's' => message.schema = Some(text),
                b't' => message.table = Some(text),
                b'c' => message.column = Some(text),
                b'n' => message.constraint = Some(text),
                b'P' => message.position = text.parse().ok(),
                _ => {}
            }
        }
        if let (true, Some(text)) = (message.severity.is_empty(), severity_translated) {
            message.severity = text;
        }
        message
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(context) = self.context.as_ref().and_then(|c| c.lines().next()) {
            write!(f, "; {context}")?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No connection could be made. `target` is the address without secrets.
    #[error("cannot connect to {target}: {reason}")]
    Connect { target: String, reason: String, hint: Option<String> },
    /// The server refused the session.
    #[error("{target} refused the connection: {message}")]
    Refused { target: String, message: Box<ServerMessage>, hint: Option<String> },
    /// A statement failed; the session goes on.
    #[error("{0}")]
    Server(Box<ServerMessage>),
    /// The connection broke.
    #[error("the connection to the database was lost")]
    Lost(#[source] io::Error),
    /// The peer does not speak the protocol, or not as expected here.
    #[error("unexpected answer from the database server: {0}")]
    Protocol(String),
    /// Several sessions were asked for where a pooler shares them out.
    #[error("{0}")]
    Pooler(String),
    /// The caller stopped a transfer half way; the connection is of no further use.
    #[error(transparent)]
    Caller(Failure),
}

impl WireError {
    /// The server's SQLSTATE, where the server spoke.
    pub fn code(&self) -> Option<&str> {
        match self {
            WireError::Server(message) | WireError::Refused { message, .. } => Some(&message.code),
            _ => None,
        }
    }

    /// Whether the server answered with this SQLSTATE.
    pub fn is(&self, code: &str) -> bool {
        self.code() == Some(code)
    }

    pub(super) fn protocol(text: impl Into<String>) -> WireError {
        WireError::Protocol(text.into())
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Failure {
        let text = error.to_string();
        match error {
            WireError::Caller(failure) => failure,
            WireError::Connect { hint, .. } | WireError::Refused { hint, .. } => {
                let failure = Failure::new(Kind::Preflight, text);
                match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
            WireError::Pooler(_) => Failure::preflight(text).hint(POOLER_HINT),
            WireError::Server(message) => {
                let failure = Failure::failed(text);
                match (grant_hint(&message), message.hint) {
                    (None, Some(hint)) => failure.hint(format!("The server says: {hint}")),
                    (Some(hint), _) => failure.hint(hint),
                    (None, None) => failure,
                }
            }
            WireError::Lost(source) => Failure::failed(text)
                .hint("See the server's log: it may have been restarted, or the session ended.")
                .caused_by(source),
            WireError::Protocol(_) => Failure::failed(text)
                .hint("Check that the address is that of a PostgreSQL server (9.6 or newer)."),
        }
    }
}

const POOLER_HINT: &str = "Give the address of the server itself, or of a pool in session mode (with Supabase: port 5432 \
     in place of 6543; with PgBouncer: pool_mode = session, or the server's own port).";

/// What to type when a statement was refused for want of a right, by SQLSTATE and text. The server names no schema.
fn grant_hint(message: &ServerMessage) -> Option<String> {
    let refused = message.message.strip_prefix("permission denied ").filter(|_| message.code == "42501")?;
    let what = match refused.split_once(' ').map(|(word, rest)| (word, rest.split_once(' '))) {
        Some(("to", _)) if refused == "to create database" => {
            return Some(
                "Let a superuser allow it: ALTER ROLE user CREATEDB, with the user of the url.".to_owned(),
            );
        }
        Some(("for", Some(("table" | "view" | "relation", name)))) => format!("GRANT SELECT ON {name}"),
        Some(("for", Some(("materialized", name)))) => {
            format!("GRANT SELECT ON {}", name.strip_prefix("view ").unwrap_or(name))
        }
        Some(("for", Some(("sequence", name)))) => format!("GRANT SELECT ON SEQUENCE {name}"),
        Some(("for", Some(("schema", name)))) => {
            format!("GRANT USAGE ON SCHEMA {name} (to restore into it, USAGE, CREATE)")
        }
        Some(("for", Some(("function", name)))) => format!("GRANT EXECUTE ON FUNCTION {name}"),
        Some(("for", Some(("database", name)))) => format!("GRANT CONNECT, CREATE ON DATABASE {name}"),
        _ => return None,
    };
    Some(format!("Let its owner or a superuser allow it: {what} TO user, with the user of the url."))
}

/// What to do when the server refuses a session, by SQLSTATE and text.
pub(super) fn refusal_hint(message: &ServerMessage, tls: bool) -> Option<String> {
    let text = &message.message;
    let hint = match message.code.as_str() {
        "28P01" => "The password (or the user name) is wrong: check the url, PGPASSWORD or the password file.".to_owned(),
        "28000" if text.contains("pg_hba.conf") && !tls => {
            "No line of the server's pg_hba.conf admits this user from here without encryption: try sslmode=require, \
             or add a line and reload the server."
                .to_owned()
        }
        "28000" if text.contains("pg_hba.conf") => {
            "No line of the server's pg_hba.conf admits this user, database and address: add one and reload the server."
                .to_owned()
        }
        "28000" => "The server does not know this user, or does not let it in this way.".to_owned(),
        "3D000" => "There is no database of this name on the server: check the end of the url.".to_owned(),
        "55000" if text.contains("not currently accepting connections") => {
            "Somebody closed it (ALLOW_CONNECTIONS false). If a `mainstay restore APP --replace` broke off, begin it again: it opens \
             the database before it asks anything. Otherwise: ALTER DATABASE … WITH ALLOW_CONNECTIONS true."
                .to_owned()
        }
        "53300" => "All connections of the server are taken: raise max_connections or lower `parallel`.".to_owned(),
        "57P03" => "The server is starting up or shutting down: try again in a moment.".to_owned(),
        "08P01" if text.contains("startup parameter") => POOLER_HINT.to_owned(),
        _ => return message.hint.clone(),
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_do_something_is_told_what_to_type() {
        let hint = |message: &str| {
            let message =
                ServerMessage { code: "42501".into(), message: message.into(), ..ServerMessage::default() };
            Failure::from(WireError::Server(Box::new(message))).hint
        };
        for (message, typed) in [
            ("permission denied for table orders", "GRANT SELECT ON orders TO user"),
            ("permission denied for materialized view totals", "GRANT SELECT ON totals TO user"),
            (
                "permission denied for sequence orders_id_seq",
                "GRANT SELECT ON SEQUENCE orders_id_seq TO user",
            ),
            ("permission denied for schema private", "GRANT USAGE ON SCHEMA private"),
            ("permission denied to create database", "ALTER ROLE user CREATEDB"),
        ] {
            assert!(hint(message).is_some_and(|hint| hint.contains(typed)), "{message}");
        }
        assert_eq!(hint("must be owner of table orders"), None);
    }
}
