//! Ways into a server: passwords, certificates, and what stands in the way.

use crate::{certificates, memory, support};
use certificates::Certificates;
use mainstay_domain::{Clock, Failure, Kind, SystemClock, point::State};
use mainstay_sources::postgres::{
    config::PostgresConfig,
    replication::{Message, Session, Status, Streamed},
    sandbox::{Sandbox, SandboxOptions},
    tools,
    wire::{ConnectSpec, Connection, Host, TlsMode, WireError},
};
use memory::Memory;
use std::{
    net::TcpListener,
    os::{
        fd::AsFd,
        unix::{
            fs::{PermissionsExt, chown},
            net::UnixStream,
        },
    },
    path::Path,
    process::{Command, Stdio},
};
use support::capture;

fn no_environment(_: &str) -> Option<String> {
    None
}

fn failure(spec: &ConnectSpec) -> Failure {
    Connection::connect(spec).map(|_| ()).unwrap_err().into()
}

/// A server that asks for passwords.
fn with_passwords() -> Sandbox {
    let hba = "local all postgres trust\nlocal all md5er md5\nlocal all clear password\nlocal all all scram-sha-256\n\
               host all md5er 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\nhost nobody nobody 127.0.0.1/32 trust\n\
               host all scrammer 127.0.0.1/32 scram-sha-256\n";
    let options = SandboxOptions { tcp: true, hba: Some(hba.to_owned()), ..support::options() };
    let sandbox = Sandbox::start(&options).unwrap();
    sandbox
        .connect("postgres")
        .unwrap()
        .execute(
            "SET password_encryption = 'md5'; CREATE ROLE md5er LOGIN PASSWORD 'mmm'; SET password_encryption = 'scram-sha-256';
             CREATE ROLE scrammer LOGIN PASSWORD 'sésame 1'; CREATE ROLE clear LOGIN PASSWORD 'ccc'",
        )
        .unwrap();
    sandbox
}

fn login(sandbox: &Sandbox, tcp: bool, user: &str, password: Option<&str>) -> ConnectSpec {
    let base = if tcp { sandbox.tcp_spec("postgres") } else { sandbox.spec("postgres") };
    ConnectSpec {
        user: user.to_owned(),
        password: password.map(|p| p.to_owned().into()),
        tls: if tcp { TlsMode::Prefer } else { TlsMode::Disable },
        ..base
    }
}

#[test]
fn every_kind_of_password_is_understood() {
    let sandbox = with_passwords();
    for tcp in [false, true] {
        for (user, password) in [("md5er", "mmm"), ("scrammer", "sésame 1")] {
            let mut db = Connection::connect(&login(&sandbox, tcp, user, Some(password))).unwrap();
            assert_eq!(db.query_text("SELECT current_user").unwrap().as_deref(), Some(user));
            assert!(!db.encrypted());
        }
    }
    assert!(Connection::connect(&login(&sandbox, false, "clear", Some("ccc"))).is_ok());
    let refused = failure(&login(&sandbox, true, "clear", Some("ccc")));
    assert!(refused.message.contains("clear text over an unencrypted connection"), "{refused}");
    let said_so = ConnectSpec { tls: TlsMode::Disable, ..login(&sandbox, true, "clear", Some("ccc")) };
    assert!(Connection::connect(&said_so).is_ok());
}

#[test]
fn a_refusal_says_what_to_change_and_never_the_password() {
    let sandbox = with_passwords();
    let cases = [
        (
            login(&sandbox, false, "scrammer", Some("hunter2")),
            "password authentication failed",
            "password (or the user name) is wrong",
        ),
        (
            login(&sandbox, false, "md5er", Some("hunter2")),
            "password authentication failed",
            "password (or the user name) is wrong",
        ),
        (login(&sandbox, false, "scrammer", None), "asks for a password and there is none", "PGPASSWORD"),
        (login(&sandbox, true, "nobody", None), "no pg_hba.conf entry", "sslmode=require"),
        (sandbox.spec("missing"), "database \"missing\" does not exist", "no database of this name"),
        (ConnectSpec { port: 1, ..sandbox.tcp_spec("x") }, "Connection refused", "listen_addresses"),
        (ConnectSpec { port: 1, ..sandbox.spec("x") }, "No such file", "No server has this socket"),
        (
            ConnectSpec { host: Host::Tcp("no-such-host.invalid".into()), ..sandbox.spec("x") },
            "lookup",
            "cannot be resolved",
        ),
    ];
    for (spec, message, hint) in cases {
        let failure = failure(&spec);
        assert_eq!(failure.kind, Kind::Preflight, "{failure}");
        assert!(failure.message.contains(message), "{failure}");
        assert!(failure.hint.as_ref().is_some_and(|h| h.contains(hint)), "{failure}: {:?}", failure.hint);
        assert!(!format!("{failure:?}").contains("hunter2"));
    }
}

#[test]
fn something_that_is_no_postgresql_is_said_to_be_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            std::io::Read::read_exact(&mut socket, &mut request).unwrap();
            std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        }
    });
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
    let failure = failure(&ConnectSpec::parse(&url, &no_environment).unwrap());
    assert!(failure.message.contains("unexpected answer"), "{failure}");
}

/// A server with these certificates that lets nobody in without TLS.
fn server_with(certificates: &Certificates) -> Sandbox {
    if let Some((uid, _)) = mainstay_sources::postgres::sandbox::server_user() {
        chown(certificates.path("server.key"), Some(uid), None).unwrap();
    }
    std::fs::set_permissions(certificates.path("server.key"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    let hba = "local all,replication all trust\nhostssl all certified 127.0.0.1/32 cert\nhostssl all,replication all 127.0.0.1/32 scram-sha-256\n";
    let mut options =
        SandboxOptions { tcp: true, hba: Some(hba.to_owned()), ..support::options() }.setting("ssl", "on");
    for (setting, file) in
        [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")]
    {
        options = options.setting(setting, certificates.path(file).to_str().unwrap());
    }
    let sandbox = Sandbox::start(&options).unwrap();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute("CREATE ROLE secret SUPERUSER LOGIN PASSWORD 'hunter2'; CREATE ROLE certified LOGIN; CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
        .unwrap();
    sandbox
}

fn url(certificates: &Certificates, sandbox: &Sandbox, host: &str, mode: &str, ca: Option<&str>) -> String {
    let ca = ca.map(|ca| format!("&sslrootcert={}", certificates.path(ca).display())).unwrap_or_default();
    format!(
        "postgres://secret:hunter2@{host}:{}/postgres?hostaddr=127.0.0.1&sslmode={mode}{ca}",
        sandbox.port()
    )
}

#[test]
fn tls_protects_as_far_as_sslmode_says() {
    let certificates = Certificates::make();
    let sandbox = server_with(&certificates);
    let connect = |host: &str, mode: &str, ca: Option<&str>| {
        let spec =
            ConnectSpec::parse(&url(&certificates, &sandbox, host, mode, ca), &no_environment).unwrap();
        Connection::connect(&spec).map_err(Failure::from)
    };
    for (mode, ca) in [
        ("verify-full", Some("ca.crt")),
        ("verify-ca", Some("ca.crt")),
        ("require", None),
        ("prefer", None),
        ("allow", None),
    ] {
        let mut db = connect("db.test", mode, ca).unwrap_or_else(|e| panic!("{mode}: {e}"));
        assert!(db.encrypted(), "{mode}");
        let bound = db.query_text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").unwrap();
        assert_eq!(bound.as_deref(), Some("t"));
    }
    assert!(
        connect("elsewhere.test", "verify-ca", Some("ca.crt")).is_ok(),
        "the name is verify-full's business"
    );
    // The server's own certificate as the trusted one.
    assert!(connect("db.test", "verify-full", Some("server.crt")).is_ok());

    let refused = |host: &str, mode: &str, ca: Option<&str>, hint: &str| {
        let failure = connect(host, mode, ca).unwrap_err();
        assert!(failure.hint.as_ref().is_some_and(|h| h.contains(hint)), "{failure}: {:?}", failure.hint);
    };
    refused("elsewhere.test", "verify-full", Some("ca.crt"), "for another host");
    refused("elsewhere.test", "verify-full", Some("server.crt"), "for another host");
    refused("db.test", "verify-full", Some("other.crt"), "is not in");
    refused("db.test", "verify-ca", Some("other.crt"), "is not in");
    refused("db.test", "require", Some("other.crt"), "is not in");
    refused("db.test", "verify-full", None, "sslrootcert=FILE");
    refused("db.test", "disable", None, "sslmode=require");
    refused("db.test", "verify-full", Some("missing.crt"), "PEM");
}

#[test]
fn the_log_streams_over_tls_as_it_does_without() {
    let certificates = Certificates::make();
    let sandbox = server_with(&certificates);
    let url = url(&certificates, &sandbox, "db.test", "verify-full", Some("ca.crt"));
    let encrypted = ConnectSpec::parse(&url, &no_environment).unwrap();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute("SET synchronous_commit = on").unwrap();
    for (slot, spec) in [("plain", sandbox.spec("postgres")), ("encrypted", encrypted)] {
        let mut session = Session::open(&spec, "streamer").unwrap();
        let identity = session.identify().unwrap();
        assert!(session.create_slot(slot).unwrap() && !session.create_slot(slot).unwrap());
        let size = session.segment_size().unwrap();
        let segment = mainstay_domain::wal::Segment::holding(identity.timeline, identity.flushed, size);
        let Streamed::Log(mut log) = session.stream(slot, segment.start(size), segment.timeline).unwrap()
        else {
            panic!("{slot}: there is log")
        };
        let (wake, _waker) = UnixStream::pair().unwrap();
        let (mut received, mut answered) = (Vec::new(), false);
        let mut wanted = u64::MAX;
        let patience = std::time::Duration::from_secs(10);
        let deadline = std::time::Instant::now() + 3 * patience;
        while !answered || (received.len() as u64) < wanted {
            assert!(
                std::time::Instant::now() < deadline,
                "{slot}: {} of {wanted} bytes came",
                received.len()
            );
            match log.next(wake.as_fd(), patience).unwrap() {
                Message::Log { start, bytes, .. } => {
                    assert_eq!(start.0, segment.start(size).0 + received.len() as u64, "{slot}");
                    received.extend_from_slice(bytes);
                    if wanted == u64::MAX {
                        // Much at once, then a word of ours that is answered.
                        db.execute("INSERT INTO t SELECT generate_series(1, 30000)").unwrap();
                        let end = db.query_text("SELECT pg_current_wal_flush_lsn() - '0/0'").unwrap();
                        let end: u64 = end.unwrap().parse().unwrap();
                        wanted = end.min(segment.end(size).0) - segment.start(size).0;
                        let status =
                            Status { durable: segment.start(size), now: SystemClock.now(), reply: true };
                        log.tell(&status).unwrap();
                    }
                }
                Message::Alive { .. } => answered = true,
                // Half a record came: there is nothing to hand out yet.
                Message::Quiet => {}
                other => panic!("{slot}: {other:?}"),
            }
        }
        assert_eq!(log.finish().unwrap(), None, "{slot}");
        assert_eq!(session.identify().unwrap().system, identity.system, "{slot}: the session goes on");
        let theirs =
            std::fs::read(sandbox.data_directory().join("pg_wal").join(segment.to_string())).unwrap();
        let length = wanted as usize;
        assert!(received[..length] == theirs[..length], "{slot}");
    }
}

#[test]
fn the_systems_authorities_are_asked_for_in_earnest() {
    let certificates = Certificates::make();
    let sandbox = server_with(&certificates);
    let url = |more: &str| {
        format!(
            "postgres://secret:hunter2@db.test:{}/postgres?hostaddr=127.0.0.1&sslrootcert=system{more}",
            sandbox.port()
        )
    };
    for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
        let failure = ConnectSpec::parse(&url(&format!("&sslmode={mode}")), &no_environment).unwrap_err();
        assert_eq!(failure.message, format!("sslmode={mode} is too weak for sslrootcert=system"));
    }
    for more in ["", "&sslmode=verify-full"] {
        let spec = ConnectSpec::parse(&url(more), &no_environment).unwrap();
        assert_eq!(spec.tls, TlsMode::VerifyFull);
        // The server's authority is our own, which no system knows.
        let failure = failure(&spec);
        assert!(failure.hint.as_ref().unwrap().contains("is not one of the system's"), "{failure}");
        // And no child goes where we do not.
        let mut command = tools::command(&sandbox.tools().program("pg_dump"), Some(&spec));
        let output = command.arg("--schema-only").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("certificate verify failed"), "{said}");
    }
}

#[test]
fn channel_binding_is_had_over_tls_and_refused_without() {
    let certificates = Certificates::make();
    let sandbox = server_with(&certificates);
    let url =
        url(&certificates, &sandbox, "db.test", "verify-full", Some("ca.crt")) + "&channel_binding=require";
    let spec = ConnectSpec::parse(&url, &no_environment).unwrap();
    assert!(Connection::connect(&spec).unwrap().encrypted());
    let plain = with_passwords();
    for (user, password) in [("scrammer", "sésame 1"), ("md5er", "mmm")] {
        let spec = ConnectSpec { require_binding: true, ..login(&plain, true, user, Some(password)) };
        assert!(failure(&spec).message.contains("channel binding is required"), "{user}");
    }
}

#[test]
fn a_client_certificate_opens_the_door() {
    let certificates = Certificates::make();
    let sandbox = server_with(&certificates);
    let mut spec = ConnectSpec::parse(
        &url(&certificates, &sandbox, "db.test", "verify-full", Some("ca.crt")),
        &no_environment,
    )
    .unwrap();
    spec.user = "certified".to_owned();
    assert!(Connection::connect(&spec).is_err());
    spec.client_cert = Some(certificates.path("client.crt"));
    spec.client_key = Some(certificates.path("client.key"));
    let mut db = Connection::connect(&spec).unwrap();
    assert_eq!(db.query_text("SELECT current_user").unwrap().as_deref(), Some("certified"));
    // A statement is cancelled over TLS as well.
    let canceller = db.canceller();
    let pid = db.process_id();
    let mut observer = sandbox.connect("postgres").unwrap();
    let thread = std::thread::spawn(move || {
        let active = format!("SELECT state = 'active' FROM pg_stat_activity WHERE pid = {pid}");
        while observer.query_text(&active).unwrap().as_deref() != Some("t") {}
        canceller.cancel().unwrap();
    });
    assert!(db.query("SELECT pg_sleep(60)").unwrap_err().is("57014"));
    thread.join().unwrap();
}

#[test]
fn a_capture_and_its_children_go_over_verified_tls() {
    let certificates = Certificates::make();
    let sandbox = server_with(&certificates);
    let config = |url: String| PostgresConfig {
        bin_dir: Some(sandbox.tools().bin_dir.clone()),
        ..PostgresConfig::new(url.as_str().into())
    };
    let full = config(url(&certificates, &sandbox, "db.test", "verify-full", Some("ca.crt")));
    let record = capture(&full, &Memory::default()).unwrap();
    assert_eq!((record.state, record.items), (State::Complete, 1));
    let wrong = config(url(&certificates, &sandbox, "db.test", "verify-full", Some("other.crt")));
    assert_eq!(capture(&wrong, &Memory::default()).unwrap_err().kind, Kind::Preflight);
}

/// A PgBouncer in front of a sandbox; ended when dropped.
struct Bouncer {
    child: std::process::Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Bouncer {
    fn start(sandbox: &Sandbox, mode: &str) -> Bouncer {
        let directory = tempfile::Builder::new().prefix("pgb").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = 10\n",
            sandbox.socket_directory().display(),
            sandbox.port()
        );
        let text = text.replacen("* = ", "* = user=postgres ", 1);
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].iter().map(Path::new).find(|p| p.exists());
        let mut command = Command::new(program.expect("pgbouncer is installed (apt-get install pgbouncer)"));
        if rustix::process::geteuid().is_root() {
            command.arg("-u").arg("postgres");
        }
        let child = command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bouncer = Bouncer { child, directory, port };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(bouncer.directory.path().exists());
        }
        bouncer
    }

    fn config(&self, sandbox: &Sandbox) -> PostgresConfig {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port);
        PostgresConfig {
            bin_dir: Some(sandbox.tools().bin_dir.clone()),
            ..PostgresConfig::new(url.as_str().into())
        }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_transaction_pooler_is_refused_and_a_session_pool_is_not() {
    let sandbox = support::sandbox();
    sandbox.connect("postgres").unwrap().execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();
    for mode in ["transaction", "statement"] {
        let bouncer = Bouncer::start(&sandbox, mode);
        let failure = capture(&bouncer.config(&sandbox), &Memory::default()).unwrap_err();
        assert_eq!(failure.kind, Kind::Preflight, "{failure}");
        assert!(
            failure.message.contains("is a connection pooler that shares server sessions"),
            "{mode}: {failure}"
        );
        assert!(failure.hint.as_ref().unwrap().contains("pool_mode = session"));
    }
    let bouncer = Bouncer::start(&sandbox, "session");
    let record = capture(&bouncer.config(&sandbox), &Memory::default()).unwrap();
    assert_eq!((record.state, record.items), (State::Complete, 1), "{:?}", record.problems);
}

#[test]
fn a_pooler_that_refuses_startup_options_is_named() {
    let sandbox = support::sandbox();
    let bouncer = Bouncer::start(&sandbox, "transaction");
    let url = format!(
        "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable&options=-cjit%3Doff",
        bouncer.port
    );
    let spec = ConnectSpec::parse(&url, &no_environment).unwrap();
    let error = Connection::connect(&spec).unwrap_err();
    assert!(matches!(error, WireError::Refused { .. }), "{error:?}");
    assert!(Failure::from(error).hint.unwrap().contains("pool_mode = session"));
}
