//! Reads connection strings, the PG* environment and password files, by libpq's rules.

use super::spec::{ConnectSpec, Environment, Host, TlsMode};
use mainstay_domain::Failure;
use std::{path::PathBuf, time::Duration};
use zeroize::Zeroizing;

/// The parameters by name, as found so far.
#[derive(Default)]
pub(super) struct Parts {
    values: Vec<(String, Zeroizing<String>)>,
}

impl Parts {
    /// Parameters that would protect, and do not here. Others that are not known are for other programs that share the url.
    fn refuse_unsupported(&self) -> Result<(), Failure> {
        const UNSUPPORTED: [&str; 7] =
            ["sslcrl", "sslcrldir", "require_auth", "requirepeer", "service", "sslpassword", "krbsrvname"];
        match UNSUPPORTED.iter().find(|name| self.values.iter().any(|(known, _)| known == *name)) {
            Some(name) => {
                Err(Failure::usage(format!("the database url's parameter {name} is not supported"))
                    .hint("Leave it out, if you can do without its protection."))
            }
            None => self.refuse_misspelt(),
        }
    }

    /// A parameter that was meant to protect and is misspelt would protect nobody.
    fn refuse_misspelt(&self) -> Result<(), Failure> {
        const PROTECTING: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding"];
        const OTHERS: [&str; 6] =
            ["ssl", "sslcompression", "sslsni", "sslnegotiation", "sslcertmode", "sslkeylogfile"];
        let known = |name: &str| PROTECTING.contains(&name) || OTHERS.contains(&name);
        for (name, _) in self.values.iter().filter(|(name, _)| !known(name)) {
            let lower = name.to_lowercase();
            let near = |candidate: &&&str| strsim::jaro_winkler(&lower, candidate) > 0.93;
            let meant =
                PROTECTING.iter().find(near).or_else(|| lower.starts_with("ssl").then_some(&"sslmode"));
            if let Some(meant) = meant {
                return Err(Failure::usage(format!("the database url's parameter {name} is not known"))
                    .hint(format!(
                        "Did you mean {meant}? Without it the connection might not be encrypted."
                    )));
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) {
        self.values.retain(|(known, _)| known != name);
        self.values.push((name.to_owned(), Zeroizing::new(value)));
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.values.iter().position(|(known, _)| known == name)?;
        Some(self.values.swap_remove(at).1.to_string()).filter(|value| !value.is_empty())
    }

    /// After the scheme: `user:password@host:port/database?parameters`, each part percent-encoded.
    pub fn read_url(&mut self, rest: &str) -> Result<(), Failure> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (login, place),
            None => ("", authority),
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        // A password with such a character moves what follows into other parts, which messages show.
        let misread = login.contains('@') || database.contains(['@', '/']) || user.contains('/');
        if misread
            || query
                .split('&')
                .any(|pair| pair.split('=').next().is_some_and(|n| n.contains(['@', ':', '/'])))
        {
            return Err(Failure::usage("the database url holds a character that has to be percent-encoded")
                .hint("In a user or a password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25."));
        }
        if place.contains(',') {
            return Err(several_hosts());
        }
        let (host, port) = match place.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((v6, port)) => (v6, port.strip_prefix(':').unwrap_or("")),
            None => place.split_once(':').unwrap_or((place, "")),
        };
        for (name, value) in
            [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", database)]
        {
            if !value.is_empty() {
                self.set(name, percent_decode(value)?);
            }
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Failure::usage("a parameter of the database url has no value")
                    .hint("Write ?sslmode=verify-full; in a password write ? as %3F and & as %26.")
            })?;
            let name = percent_decode(name)?;
            self.set(
                if name == "ssl" { "sslmode" } else { &name },
                match (name.as_str(), value) {
                    ("ssl", "true") => "require".to_owned(),
                    _ => percent_decode(value)?,
                },
            );
        }
        Ok(())
    }

    /// `host=/run/postgresql dbname='my db'`, with libpq's quoting.
    pub fn read_pairs(&mut self, text: &str) -> Result<(), Failure> {
        let mut chars = text.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            if chars.peek().is_none() {
                return Ok(());
            }
            let mut name = String::new();
            while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
                name.push(c);
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            if chars.next() != Some('=') {
                return Err(Failure::usage("a part of the connection string has no value"));
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            let quoted = chars.next_if_eq(&'\'').is_some();
            let mut value = String::new();
            loop {
                match chars.next() {
                    Some('\\') => value.extend(chars.next()),
                    Some('\'') if quoted => break,
                    Some(c) if !quoted && c.is_whitespace() => break,
                    Some(c) => value.push(c),
                    None if quoted => {
                        return Err(Failure::usage("a quote in the connection string is not closed"));
                    }
                    None => break,
                }
            }
            self.set(&name, value);
        }
    }

    /// Adds what the environment says and libpq's defaults.
    pub fn complete(mut self, environment: Environment<'_>) -> Result<ConnectSpec, Failure> {
        self.refuse_unsupported()?;
        let mut part = |name: &str, variable: &str| {
            self.take(name).or_else(|| environment(variable)).filter(|v| !v.is_empty())
        };
        let home = environment("HOME").map(PathBuf::from);
        let dotfile =
            |name: &str| home.as_ref().map(|h| h.join(".postgresql").join(name)).filter(|path| path.exists());

        let address = part("hostaddr", "PGHOSTADDR");
        let host = match part("host", "PGHOST").or_else(|| address.clone()) {
            Some(host) if host.contains(',') => return Err(several_hosts()),
            Some(host) if host.starts_with('/') => Host::Socket(host.into()),
            Some(host) => Host::Tcp(host),
            None => ["/var/run/postgresql", "/tmp"]
                .iter()
                .map(PathBuf::from)
                .find(|dir| dir.exists())
                .map_or_else(|| Host::Tcp("localhost".to_owned()), Host::Socket),
        };
        let port = match part("port", "PGPORT") {
            Some(text) => {
                text.parse().map_err(|_| {
                    Failure::usage("the port in the database url is no number")
                        .hint("Write postgres://user:password@host:5432/database; in a password write : as %3A, / as %2F.")
                })?
            }
            None => 5432,
        };
        let user = part("user", "PGUSER")
            .or_else(|| environment("USER"))
            .or_else(|| environment("LOGNAME"))
            .ok_or_else(|| {
                Failure::usage("the database url names no user").hint("Write postgres://USER@host/database.")
            })?;
        let database = part("dbname", "PGDATABASE").unwrap_or_else(|| user.clone());
        let named_roots = part("sslrootcert", "PGSSLROOTCERT");
        let system_roots = named_roots.as_deref() == Some("system");
        let tls = match part("sslmode", "PGSSLMODE") {
            Some(text) => text.parse()?,
            None if system_roots => TlsMode::VerifyFull,
            None => TlsMode::default(),
        };
        // Anybody can have a certificate from an authority that the whole world trusts: without the name it says nothing.
        if system_roots && tls < TlsMode::VerifyFull {
            return Err(Failure::usage(format!(
                "sslmode={} is too weak for sslrootcert=system",
                tls.as_str()
            ))
            .hint("Use sslmode=verify-full, or leave sslmode out."));
        }
        let root_cert = match named_roots {
            Some(_) if system_roots => None,
            Some(path) => Some(PathBuf::from(path)),
            None => dotfile("root.crt"),
        };
        let client_cert =
            part("sslcert", "PGSSLCERT").map(PathBuf::from).or_else(|| dotfile("postgresql.crt"));
        let client_key = part("sslkey", "PGSSLKEY").map(PathBuf::from).or_else(|| dotfile("postgresql.key"));
        let connect_timeout = match part("connect_timeout", "PGCONNECT_TIMEOUT") {
            Some(text) => Duration::from_secs(
                text.parse::<u64>()
                    .map_err(|_| Failure::usage("connect_timeout is no number of seconds"))?
                    .max(1),
            ),
            None => Duration::from_secs(10),
        };
        let application_name = part("application_name", "PGAPPNAME").unwrap_or_else(|| "mainstay".to_owned());
        let options = part("options", "PGOPTIONS");
        let require_binding = part("channel_binding", "PGCHANNELBINDING").as_deref() == Some("require");
        let mut password = part("password", "PGPASSWORD").map(Zeroizing::new);
        if password.is_none() {
            let explicit = part("passfile", "PGPASSFILE").map(PathBuf::from);
            let file = explicit.or_else(|| home.as_ref().map(|h| h.join(".pgpass")));
            let shown_host = match &host {
                Host::Tcp(name) => name.clone(),
                Host::Socket(_) => "localhost".to_owned(),
            };
            password = file.and_then(|path| std::fs::read_to_string(path).ok()).and_then(|text| {
                password_from_file(&Zeroizing::new(text), &[&shown_host, &port.to_string(), &database, &user])
            });
        }
        Ok(ConnectSpec {
            host,
            address,
            port,
            user,
            database,
            password,
            tls,
            root_cert,
            client_cert,
            client_key,
            application_name,
            connect_timeout,
            options,
            replication: None,
            require_binding,
        })
    }
}

fn several_hosts() -> Failure {
    Failure::usage("the database url names several hosts")
        .hint("Name one server; to back up whichever is the standby, make one source for each.")
}

pub(crate) fn percent_decode(text: &str) -> Result<String, Failure> {
    let malformed =
        || Failure::usage("the database url has a malformed %-sequence").hint("Write % itself as %25.");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let digits = rest.get(..2).ok_or_else(malformed)?;
            bytes.extend(hex::decode(digits).map_err(|_| malformed())?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// The first line of a password file that fits `wanted` (host, port, database, user); `*` fits everything.
fn password_from_file(text: &str, wanted: &[&str; 4]) -> Option<Zeroizing<String>> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = vec![String::new()];
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            let at = fields.len() - 1;
            match c {
                '\\' => fields[at].extend(chars.next()),
                ':' if at < 4 => fields.push(String::new()),
                c => fields[at].push(c),
            }
        }
        let fits = fields.len() == 5
            && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| Zeroizing::new(fields.swap_remove(4)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_url_is_read_as_libpq_reads_it() {
        let spec = ConnectSpec::parse(
            "postgres://al%40ice:p%2Fw%3A1@db.example.com:6543/shop?sslmode=verify-full&sslrootcert=/ca.pem",
            &nothing,
        )
        .unwrap();
        assert_eq!(spec.user, "al@ice");
        assert_eq!(spec.password.as_ref().unwrap().as_str(), "p/w:1");
        assert_eq!(spec.host, Host::Tcp("db.example.com".into()));
        assert_eq!((spec.port, spec.database.as_str(), spec.tls), (6543, "shop", TlsMode::VerifyFull));
        assert_eq!(spec.root_cert.as_deref(), Some(Path::new("/ca.pem")));
        let spec = ConnectSpec::parse("postgresql://bob@/x?host=/run/pg&port=7", &nothing).unwrap();
        assert_eq!((spec.host, spec.port), (Host::Socket("/run/pg".into()), 7));
        let spec = ConnectSpec::parse("postgres://bob@[::1]:99", &nothing).unwrap();
        assert_eq!((spec.host, spec.port, spec.database.as_str()), (Host::Tcp("::1".into()), 99, "bob"));
        let spec = ConnectSpec::parse(r"host = /tmp dbname='my \'db' user=x", &nothing).unwrap();
        assert_eq!(spec.database, "my 'db");
    }

    #[test]
    fn what_the_url_leaves_open_comes_from_the_environment() {
        let environment = |name: &str| {
            Some(match name {
                "PGUSER" => "eve".to_owned(),
                "PGPASSWORD" => "secret".to_owned(),
                "PGSSLMODE" => "require".to_owned(),
                _ => return None,
            })
        };
        let spec = ConnectSpec::parse("postgres://h/d", &environment).unwrap();
        assert_eq!((spec.user.as_str(), spec.tls), ("eve", TlsMode::Require));
        assert_eq!(spec.password.unwrap().as_str(), "secret");
    }

    #[test]
    fn parameters_of_other_programs_are_left_alone_and_unkept_promises_refused() {
        let parse = |query: &str| ConnectSpec::parse(&format!("postgres://u@h/d?{query}"), &nothing);
        assert!(parse("schema=public&pgbouncer=true&connection_limit=5").is_ok());
        assert!(parse("channel_binding=require").unwrap().require_binding);
        assert!(parse("sslcrl=/x").unwrap_err().message.contains("sslcrl"));
        for misspelt in ["sslmod=require", "ssl_mode=require", "SSLMODE=require", "sslrootcer=/x", "sslfoo=1"]
        {
            let failure = parse(misspelt).unwrap_err();
            assert!(failure.hint.unwrap().starts_with("Did you mean ssl"), "{misspelt}");
        }
        assert!(parse("sslcompression=0&sslsni=1&statement_cache_size=0").is_ok());
        assert!(parse("sslmode=no-verify").unwrap_err().hint.unwrap().contains("verify-full"));
    }

    #[test]
    fn the_password_file_is_matched_line_by_line() {
        let text = "# c\nother:*:*:*:no\n*:5432:sh\\:op:*:p\\:w\n*:*:*:*:last";
        let found = |database: &str| password_from_file(text, &["h", "5432", database, "u"]).unwrap();
        assert_eq!(found("sh:op").as_str(), "p:w");
        assert_eq!(found("x").as_str(), "last");
    }

    #[test]
    fn no_text_about_a_spec_shows_its_password() {
        let spec = ConnectSpec::parse("postgres://u:hunter2@h/d", &nothing).unwrap();
        assert!(!format!("{spec:?} {}", spec.describe()).contains("hunter2"));
        for wrong in [
            "postgres://u:hunter2%zz@h/d",
            "postgres://u:hunter2@a,b/d",
            "u:hunter2@h",
            "host=a hunter2",
            "postgres://u:a@hunter2@h/d",
            "postgres://u:p/hunter2@h:1/d",
            "postgres://u:p@ss/w#hunter2@h:1/d",
            "postgres://u:p?hunter2@h/d",
            "postgres://u:p?a=b&hunter2=@h/d",
            "postgres://u:hunter2?x@h/d?sslmode=require",
        ] {
            let error = ConnectSpec::parse(wrong, &nothing).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_connection_or_an_error(
            text in "(postgres(ql)?://)?([a-z@:/?=&%,\\[\\]' \\\\é]|%[0-9a-fz]{0,2}|host=|port=|hostaddr=|sslmode=|password=|[0-9]{1,6}){0,24}",
        ) {
            if let Ok(spec) = ConnectSpec::parse(&text, &nothing) {
                let _ = (spec.describe(), format!("{spec:?}"));
            }
        }

        #[test]
        fn any_password_file_gives_a_password_or_none(text in "([a-z:*#\\\\é]|\n){0,40}") {
            let _ = password_from_file(&text, &["h", "5432", "d", "u"]);
        }
    }
}
