//! Where a server is: `redis://`, `rediss://` (TLS), `unix://`. Its `Debug` and its texts carry no password.

use crate::postgres::wire::{ConnectSpec, Host, TlsMode, percent_decode};
use mainstay_domain::Failure;
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};
use zeroize::Zeroizing;

const PORT: u16 = 6379;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Socket(PathBuf),
}

/// A server, who we are there, and which of its databases is meant.
#[derive(Clone)]
pub struct Address {
    pub(super) place: Place,
    pub(super) user: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
    /// The number at the address's end, if it has one.
    pub database: Option<u32>,
    /// `None`: not encrypted.
    pub(super) tls: Option<TlsMode>,
    pub(super) root_cert: Option<PathBuf>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
}

impl Address {
    /// A server on a Unix socket that lets everybody in who can reach it.
    pub fn socket(path: &Path) -> Address {
        Address {
            place: Place::Socket(path.to_owned()),
            user: None,
            password: None,
            database: None,
            tls: None,
            root_cert: None,
            client_cert: None,
            client_key: None,
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// Reads `redis://user:password@host:port/database`, `rediss://…`, `unix://user:password@/path?db=N`. Parameters of TLS are
    /// named as in a database's url: `sslmode` (verify-full unless given), `sslrootcert`, `sslcert`, `sslkey`. Others are for
    /// the programs that share the url.
    ///
    /// # Errors
    /// `Usage`, without the password, even when the text is malformed.
    pub fn parse(text: &str) -> Result<Address, Failure> {
        let wrong = |what: &str| {
            Failure::usage(format!("the address of the Redis server {what}")).hint(
                "Write it as redis://user:password@host:6379/0, rediss://… for TLS, or unix:///run/redis/redis.sock.",
            )
        };
        let decode = |part: &str| percent_decode(part).map_err(|_| wrong("has a malformed %-sequence"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut address = Address::socket(Path::new(""));
        let (login, place) =
            rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
        if let Some(login) = login {
            // A password alone belongs to the user `default`, whether a colon stands before it or not is the habit of others.
            let (user, password) = login.split_once(':').unwrap_or(("", login));
            address.user = Some(decode(user)?).filter(|user| !user.is_empty());
            address.password = Some(Zeroizing::new(decode(password)?)).filter(|word| !word.is_empty());
        }
        match scheme {
            "redis" | "rediss" | "valkey" | "valkeys" => {
                let (authority, database) = place.split_once('/').unwrap_or((place, ""));
                let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
                    Some((v6, port)) => (v6, port.strip_prefix(':').unwrap_or("")),
                    None => authority.split_once(':').unwrap_or((authority, "")),
                };
                let host = if host.is_empty() { "localhost".to_owned() } else { decode(host)? };
                let port = match port {
                    "" => PORT,
                    port => port.parse().map_err(|_| wrong("has a port that is no number"))?,
                };
                address.place = Place::Tcp { host, port };
                address.database = number(database).map_err(wrong)?;
                if scheme.ends_with("ss") || scheme == "valkeys" {
                    address.tls = Some(TlsMode::VerifyFull);
                }
            }
            "unix" | "redis+unix" | "redis+socket" if place.starts_with('/') => {
                address.place = Place::Socket(decode(place)?.into());
            }
            "unix" | "redis+unix" | "redis+socket" => {
                return Err(wrong("names no absolute path of a socket"));
            }
            _ => return Err(wrong("has a scheme that is not known")),
        }
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = decode(value)?;
            match name {
                "db" => address.database = number(&value).map_err(wrong)?,
                "sslmode" if address.tls.is_some() => address.tls = Some(value.parse()?),
                "ssl_cert_reqs"
                    if address.tls.is_some() && matches!(value.as_str(), "none" | "CERT_NONE") =>
                {
                    address.tls = Some(TlsMode::Require);
                }
                "sslrootcert" | "ssl_ca_certs" => address.root_cert = Some(value.into()),
                "sslcert" | "ssl_certfile" => address.client_cert = Some(value.into()),
                "sslkey" | "ssl_keyfile" => address.client_key = Some(value.into()),
                _ => {}
            }
        }
        if matches!(address.tls, Some(TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer)) {
            return Err(wrong("begins with rediss:// and asks for no encryption")
                .hint("Write redis:// where there is none, or sslmode=require, verify-ca or verify-full."));
        }
        Ok(address)
    }

    /// The same, as messages name it: no password.
    pub fn describe(&self) -> String {
        let user = self.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        match &self.place {
            Place::Tcp { host, port } => {
                let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
                format!("{scheme}://{user}{host}:{port}")
            }
            Place::Socket(path) => format!("unix://{user}{}", path.display()),
        }
    }

    /// What the handshake of the other client, which we share, needs to know.
    pub(super) fn tls_spec(&self, host: &str, mode: TlsMode) -> ConnectSpec {
        ConnectSpec {
            host: Host::Tcp(host.to_owned()),
            tls: mode,
            root_cert: self.root_cert.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            ..ConnectSpec::socket(Path::new(""), PORT, "", "")
        }
    }
}

fn number(text: &str) -> Result<Option<u32>, &'static str> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "has a database that is no number"),
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_some() { "password hidden" } else { "no password" };
        write!(f, "Address({}, {password})", self.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_its_usual_forms_and_never_shows_its_password() {
        for (text, described, database, password) in [
            ("redis://localhost", "redis://localhost:6379", None, None),
            ("redis://:pa%40ss@cache:7000/3", "redis://cache:7000", Some(3), Some("pa@ss")),
            ("redis://secretword@cache", "redis://cache:6379", None, Some("secretword")),
            ("rediss://app:hunter2@[::1]:1/0", "rediss://app@::1:1", Some(0), Some("hunter2")),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock", Some(2), None),
            ("unix://app:hunter2@/run/redis.sock", "unix://app@/run/redis.sock", None, Some("hunter2")),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.describe(), described);
            assert_eq!(address.database, database, "{text}");
            assert_eq!(address.password.as_ref().map(|word| word.as_str()), password, "{text}");
            let shown = format!("{address:?}");
            assert!(password.is_none_or(|word| !shown.contains(word)), "{shown}");
        }
    }

    #[test]
    fn a_malformed_address_is_refused_without_its_password() {
        for text in [
            "localhost:6379",
            "http://:hunter2@h",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h/db",
            "redis://:hunter2%4@h",
            "unix://hunter2@relative",
            "rediss://:hunter2@h?sslmode=disable",
        ] {
            let failure = Address::parse(text).unwrap_err();
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }
}
