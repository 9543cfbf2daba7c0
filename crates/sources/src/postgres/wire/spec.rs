//! Where a database is and how to reach it: URLs, `key=value` strings, the PG* environment, password files.
//!
//! The rules are libpq's (PostgreSQL manual, *Connection Strings*), so that what works for `psql` works here: what the
//! string leaves open comes from the environment, and then from libpq's defaults. The same spec is given to child
//! processes as environment variables, never as arguments. Its `Debug` and its texts carry no password.

use super::conninfo::Parts;
use mainstay_domain::Failure;
use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use zeroize::Zeroizing;

/// How far the connection must be protected. libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsMode {
    Disable,
    /// Encrypted only if the server insists.
    Allow,
    /// Encrypted if the server can.
    #[default]
    Prefer,
    /// Encrypted; the server's certificate is not looked at.
    Require,
    /// Encrypted; the certificate must come from a trusted authority.
    VerifyCa,
    /// Also issued for the host that was asked for.
    VerifyFull,
}

impl TlsMode {
    pub fn as_str(self) -> &'static str {
        match self {
            TlsMode::Disable => "disable",
            TlsMode::Allow => "allow",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }
}

impl FromStr for TlsMode {
    type Err = Failure;
    fn from_str(text: &str) -> Result<TlsMode, Failure> {
        [
            TlsMode::Disable,
            TlsMode::Allow,
            TlsMode::Prefer,
            TlsMode::Require,
            TlsMode::VerifyCa,
            TlsMode::VerifyFull,
        ]
        .into_iter()
        .find(|m| m.as_str() == text)
        .ok_or_else(|| {
            Failure::usage(format!("sslmode {text:?} is unknown"))
                .hint("It is one of disable, allow, prefer, require, verify-ca, verify-full.")
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an IP address.
    Tcp(String),
    /// The directory of a Unix socket.
    Socket(PathBuf),
}

/// A database and how to reach it.
#[derive(Clone)]
pub struct ConnectSpec {
    pub host: Host,
    /// The address to connect to where it is not the host's own (libpq's `hostaddr`); certificates are for the host.
    pub address: Option<String>,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<Zeroizing<String>>,
    pub tls: TlsMode,
    /// Trusted authorities (PEM). `None`: the system's.
    pub root_cert: Option<PathBuf>,
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub application_name: String,
    pub connect_timeout: Duration,
    /// `-c name=value …`, sent when the session begins. Poolers refuse it.
    pub options: Option<String>,
    /// `database` or `true`: a replication session.
    pub replication: Option<String>,
    /// Refuse a server that does not prove, by its password check, that nobody sits between (libpq's
    /// `channel_binding=require`).
    pub require_binding: bool,
}

/// Looks up an environment variable. Handed in, so that nothing here reads the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// This process's environment.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl ConnectSpec {
    /// A superuser on a Unix socket, for clusters of our own.
    pub fn socket(directory: &Path, port: u16, user: &str, database: &str) -> ConnectSpec {
        ConnectSpec {
            host: Host::Socket(directory.to_owned()),
            address: None,
            port,
            user: user.to_owned(),
            database: database.to_owned(),
            password: None,
            tls: TlsMode::Disable,
            root_cert: None,
            client_cert: None,
            client_key: None,
            application_name: "mainstay".to_owned(),
            connect_timeout: Duration::from_secs(10),
            options: None,
            replication: None,
            require_binding: false,
        }
    }

    /// Reads `postgres://…` or `host=… dbname=…`; what it leaves open comes from the environment (PGHOST, PGPASSWORD,
    /// PGPASSFILE, PGSSLMODE …) and from libpq's defaults.
    ///
    /// # Errors
    /// `Usage`, without the password, even when the text is malformed.
    pub fn parse(text: &str, environment: Environment<'_>) -> Result<ConnectSpec, Failure> {
        let mut parts = Parts::default();
        if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            parts.read_url(rest)?;
        } else if text.contains('=') || text.trim().is_empty() {
            parts.read_pairs(text)?;
        } else {
            return Err(Failure::usage("the database url does not begin with postgres://")
                .hint("Write it as postgres://user:password@host:5432/database?sslmode=verify-full."));
        }
        parts.complete(environment)
    }

    /// The same server and user, another database.
    pub fn with_database(&self, database: &str) -> ConnectSpec {
        ConnectSpec { database: database.to_owned(), ..self.clone() }
    }

    /// The address as messages name it: no password.
    pub fn describe(&self) -> String {
        match &self.host {
            Host::Tcp(name) => {
                format!("postgres://{}@{}:{}/{}", self.user, name, self.port, self.database)
            }
            Host::Socket(dir) => {
                format!("database {} as {} on {}", self.database, self.user, self.socket_path(dir).display())
            }
        }
    }

    pub(super) fn socket_path(&self, directory: &Path) -> PathBuf {
        directory.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The file of trusted authorities for child processes, which do not all know the system's own store (`system` came with
    /// PostgreSQL 16).
    fn root_cert_for_children(&self) -> Option<PathBuf> {
        const BUNDLES: [&str; 4] = [
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/ca-bundle.pem",
            "/etc/ssl/cert.pem",
        ];
        // Where our own connections look first.
        let named = process_environment("SSL_CERT_FILE").map(PathBuf::from);
        let mut bundles = named.into_iter().chain(BUNDLES.iter().map(PathBuf::from));
        self.root_cert.clone().or_else(|| bundles.find(|path| self.tls >= TlsMode::VerifyCa && path.exists()))
    }

    /// Whether child processes can check the server's certificate as we do.
    ///
    /// # Errors
    /// `Preflight`: they shall, and there is no file of authorities to give to them.
    pub fn children_can_verify(&self) -> Result<(), Failure> {
        if self.tls < TlsMode::VerifyCa || self.root_cert_for_children().is_some() {
            return Ok(());
        }
        Err(Failure::preflight("pg_dump has no file of trusted certificates to check the server with").hint(
            "Install the system's (apt-get install ca-certificates), or name one with sslrootcert=FILE.",
        ))
    }

    /// What libpq programs read instead of arguments. Everything else that begins with PG must be cleared beside it.
    pub fn child_environment(&self) -> Vec<(&'static str, OsString)> {
        let mut set: Vec<(&'static str, OsString)> = vec![
            (
                "PGHOST",
                match &self.host {
                    Host::Tcp(name) => name.into(),
                    Host::Socket(dir) => dir.into(),
                },
            ),
            ("PGPORT", self.port.to_string().into()),
            ("PGUSER", self.user.as_str().into()),
            ("PGDATABASE", self.database.as_str().into()),
            ("PGSSLMODE", self.tls.as_str().into()),
            ("PGAPPNAME", self.application_name.as_str().into()),
            ("PGCONNECT_TIMEOUT", self.connect_timeout.as_secs().max(2).to_string().into()),
            // Nobody is there to type a password, and no file may bring in another one.
            ("PGPASSFILE", "/nonexistent/pgpass".into()),
            ("PGGSSENCMODE", "disable".into()),
        ];
        if self.require_binding {
            set.push(("PGCHANNELBINDING", "require".into()));
        }
        if let Some(address) = &self.address {
            set.push(("PGHOSTADDR", address.into()));
        }
        if let Some(password) = &self.password {
            set.push(("PGPASSWORD", password.as_str().into()));
        }
        if let Some(options) = &self.options {
            set.push(("PGOPTIONS", options.into()));
        }
        for (name, path) in [
            ("PGSSLROOTCERT", self.root_cert_for_children()),
            ("PGSSLCERT", self.client_cert.clone()),
            ("PGSSLKEY", self.client_key.clone()),
        ] {
            if let Some(path) = path {
                set.push((name, path.into()));
            }
        }
        set
    }
}

impl fmt::Debug for ConnectSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectSpec({}, sslmode={}", self.describe(), self.tls.as_str())?;
        f.write_str(if self.password.is_some() { ", password hidden)" } else { ", no password)" })
    }
}
