//! From an address to a session that is ready for its first statement: socket, encryption, authentication.

use super::{
    error::{ServerMessage, WireError, refusal_hint},
    spec::{ConnectSpec, Host, TlsMode},
    stream::{Stream, Wire},
    tls,
};
use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
};
use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    time::Duration,
};

/// What the server says of itself before it is ready.
pub(super) struct Session {
    pub wire: Wire,
    pub parameters: Vec<(String, String)>,
    pub process_id: i32,
    pub secret_key: Vec<u8>,
    pub encrypted: bool,
}

/// Opens a session as `spec` says, trying the ways that its `sslmode` allows.
pub(super) fn open(spec: &ConnectSpec) -> Result<Session, WireError> {
    let first = matches!(spec.host, Host::Tcp(_)) && spec.tls >= TlsMode::Prefer;
    match (session(spec, first), spec.tls) {
        // The second way: without what the server could not do, or with what it insisted on.
        (Err(WireError::Connect { .. }), TlsMode::Prefer) if first => session(spec, false),
        (Err(WireError::Refused { message, .. }), TlsMode::Prefer) if first && message.code == "28000" => {
            session(spec, false)
        }
        (Err(WireError::Refused { message, .. }), TlsMode::Allow)
            if message.code == "28000" && matches!(spec.host, Host::Tcp(_)) =>
        {
            session(spec, true)
        }
        (outcome, _) => outcome,
    }
}

/// A socket to the server, encrypted if asked for and agreed.
pub(super) fn channel(spec: &ConnectSpec, encrypt: bool) -> Result<Stream, WireError> {
    let target = spec.describe();
    let stream = socket(spec)?;
    stream.set_timeout(Some(spec.connect_timeout)).map_err(WireError::Lost)?;
    if !encrypt {
        return Ok(stream);
    }
    let mut wire = Wire::new(stream);
    wire.send(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])?; // SSLRequest
    match (wire.byte()?, wire.into_stream()?) {
        (b'S', Stream::Tcp(socket)) => match tls::handshake(spec, socket) {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(failure) => Err(WireError::Connect { target, reason: failure.reason, hint: failure.hint }),
        },
        (b'N', stream) if spec.tls <= TlsMode::Prefer => Ok(stream),
        (b'N', _) => Err(WireError::Connect {
            target,
            reason: "the server does not offer TLS".to_owned(),
            hint: Some(
                "Set ssl = on at the server, or, in a network you trust, sslmode=prefer here.".to_owned(),
            ),
        }),
        _ => Err(WireError::protocol("no answer to the request for encryption")),
    }
}

fn socket(spec: &ConnectSpec) -> Result<Stream, WireError> {
    let failed = |error: &io::Error, hint: Option<&str>| WireError::Connect {
        target: spec.describe(),
        reason: error.to_string(),
        hint: hint.map(str::to_owned),
    };
    match &spec.host {
        Host::Socket(directory) => {
            UnixStream::connect(spec.socket_path(directory)).map(Stream::Unix).map_err(|e| {
                failed(
                    &e,
                    match e.kind() {
                        io::ErrorKind::NotFound => Some(
                            "No server has this socket: is it running, and are directory and port right?",
                        ),
                        io::ErrorKind::ConnectionRefused => {
                            Some("The socket is there and nobody listens: the server is down.")
                        }
                        io::ErrorKind::PermissionDenied => Some("This user may not open the socket."),
                        _ => None,
                    },
                )
            })
        }
        Host::Tcp(name) => {
            let host = spec.address.as_ref().unwrap_or(name);
            let addresses = (host.as_str(), spec.port).to_socket_addrs().map_err(|e| {
                failed(&e, Some("The host name cannot be resolved: check its spelling and the DNS."))
            })?;
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            for address in addresses {
                match TcpStream::connect_timeout(&address, spec.connect_timeout) {
                    Ok(socket) => {
                        // An improvement, not a need: a connection without it works.
                        let _ = socket.set_nodelay(true);
                        notice_when_dead(&socket);
                        return Ok(Stream::Tcp(socket));
                    }
                    Err(e) => last = e,
                }
            }
            Err(failed(
                &last,
                match last.kind() {
                    io::ErrorKind::ConnectionRefused => Some(
                        "Nobody listens there: is the server running, does listen_addresses cover this address, is the port right?",
                    ),
                    io::ErrorKind::TimedOut => {
                        Some("No answer: a firewall may be in the way, or the host is down.")
                    }
                    _ => None,
                },
            ))
        }
    }
}

/// Lets a connection whose server or network is gone end after two minutes. The kernel's own two hours of silence would pass for
/// a long statement. Where an option is unknown, the others still help.
fn notice_when_dead(socket: &TcpStream) {
    use rustix::net::sockopt::{
        set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout,
    };
    const IDLE: Duration = Duration::from_secs(60);
    const BETWEEN: Duration = Duration::from_secs(10);
    const PROBES: u32 = 6;
    let _ = set_socket_keepalive(socket, true);
    let _ = set_tcp_keepidle(socket, IDLE);
    let _ = set_tcp_keepintvl(socket, BETWEEN);
    let _ = set_tcp_keepcnt(socket, PROBES);
    #[cfg(target_os = "linux")]
    let _ = set_tcp_user_timeout(socket, (IDLE + BETWEEN * PROBES).as_millis() as u32);
}

fn session(spec: &ConnectSpec, encrypt: bool) -> Result<Session, WireError> {
    let stream = channel(spec, encrypt)?;
    let encrypted = matches!(stream, Stream::Tls(_));
    let mut wire = Wire::new(stream);
    let mut body = vec![0, 3, 0, 0]; // protocol 3.0
    let mut parameters = vec![
        ("user", spec.user.as_str()),
        ("database", &spec.database),
        ("application_name", &spec.application_name),
    ];
    parameters.extend(spec.options.as_deref().map(|options| ("options", options)));
    parameters.extend(spec.replication.as_deref().map(|kind| ("replication", kind)));
    for (name, value) in parameters {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let mut message = frame_length(body.len());
    message.extend(body);
    wire.send(&message)?;

    let mut session =
        Session { wire, parameters: Vec::new(), process_id: 0, secret_key: Vec::new(), encrypted };
    authenticate(spec, &mut session)?;
    loop {
        let (tag, body) = next(spec, &mut session)?;
        match tag {
            b'Z' => break,
            b'K' if body.len() >= 8 => {
                session.process_id = i32::from_be_bytes([body[0], body[1], body[2], body[3]]);
                session.secret_key = body[4..].to_vec();
            }
            b'S' => {
                let mut texts = body.split(|b| *b == 0).map(|t| String::from_utf8_lossy(t).into_owned());
                if let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                    session.parameters.push((name, value));
                }
            }
            b'N' | b'v' => {}
            tag => {
                return Err(WireError::protocol(format!(
                    "message {:?} before the session is ready",
                    tag as char
                )));
            }
        }
    }
    session.wire.stream.set_timeout(None).map_err(WireError::Lost)?;
    Ok(session)
}

fn frame_length(body: usize) -> Vec<u8> {
    u32::try_from(body + 4).expect("messages of a handshake are short").to_be_bytes().to_vec()
}

/// The next message of the handshake; a refusal becomes an error with its hint.
fn next(spec: &ConnectSpec, session: &mut Session) -> Result<(u8, Vec<u8>), WireError> {
    let (tag, length) = session.wire.header()?;
    if length > 1 << 20 {
        // A web server's "HTTP/1.1 400" read as a frame, for example.
        return Err(WireError::protocol("a message of the handshake is too long"));
    }
    let range = session.wire.take(length)?;
    let body = session.wire.body(range).to_vec();
    if tag == b'E' {
        let message = Box::new(ServerMessage::parse(&body));
        let hint = refusal_hint(&message, session.encrypted);
        return Err(WireError::Refused { target: spec.describe(), message, hint });
    }
    Ok((tag, body))
}

fn reply(session: &mut Session, body: &[u8]) -> Result<(), WireError> {
    let mut message = vec![b'p'];
    message.extend(frame_length(body.len()));
    message.extend_from_slice(body);
    session.wire.send(&message)
}

/// One authentication message: its code and data.
fn challenge(spec: &ConnectSpec, session: &mut Session) -> Result<(u32, Vec<u8>), WireError> {
    let (tag, mut body) = next(spec, session)?;
    if tag != b'R' || body.len() < 4 {
        return Err(WireError::protocol("no word about authentication"));
    }
    let data = body.split_off(4);
    Ok((u32::from_be_bytes([body[0], body[1], body[2], body[3]]), data))
}

fn authenticate(spec: &ConnectSpec, session: &mut Session) -> Result<(), WireError> {
    let refuse = |reason: &str, hint: &str| WireError::Connect {
        target: spec.describe(),
        reason: reason.to_owned(),
        hint: Some(hint.to_owned()),
    };
    let password = || {
        spec.password.as_ref().map(|p| p.as_bytes()).ok_or_else(|| {
            refuse(
                "the server asks for a password and there is none",
                "Put it in the url, PGPASSWORD or a password file.",
            )
        })
    };
    let mut bound = false;
    loop {
        let (code, data) = challenge(spec, session)?;
        if spec.require_binding && !bound && code != 10 {
            return Err(refuse(
                "channel binding is required, and the server does not ask for SCRAM",
                "Use scram-sha-256 for this user, or leave out channel_binding=require.",
            ));
        }
        match code {
            0 => return Ok(()),
            3 => {
                let local = matches!(spec.host, Host::Socket(_));
                if !session.encrypted && !local && spec.tls != TlsMode::Disable {
                    return Err(refuse(
                        "the server asks for the password in clear text over an unencrypted connection",
                        "Use sslmode=require; or, in a network you trust, say sslmode=disable.",
                    ));
                }
                let mut answer = password()?.to_vec();
                answer.push(0);
                reply(session, &answer)?;
            }
            5 => {
                let salt: [u8; 4] =
                    data.try_into().map_err(|_| WireError::protocol("a salt that is not four bytes long"))?;
                let mut answer = md5_hash(spec.user.as_bytes(), password()?, salt).into_bytes();
                answer.push(0);
                reply(session, &answer)?;
            }
            10 => bound = scram(spec, session, &data, password()?)?,
            7 | 9 => {
                return Err(refuse(
                    "the server asks for GSSAPI or SSPI, which is not supported",
                    "Use scram-sha-256 or a client certificate for this user in pg_hba.conf.",
                ));
            }
            code => return Err(WireError::protocol(format!("authentication method {code}"))),
        }
    }
}

/// SCRAM-SHA-256 (RFC 7677), bound to the TLS channel where both sides can. Says whether it was.
fn scram(
    spec: &ConnectSpec,
    session: &mut Session,
    offered: &[u8],
    password: &[u8],
) -> Result<bool, WireError> {
    let offers = |name: &str| offered.split(|b| *b == 0).any(|mechanism| mechanism == name.as_bytes());
    let end_point = match &session.wire.stream {
        Stream::Tls(stream) => tls::end_point(&stream.conn),
        _ => None,
    };
    let (mechanism, binding) = match end_point {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash))
        }
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    if !offers(mechanism) {
        return Err(WireError::protocol("the server offers no SCRAM mechanism that is known here"));
    }
    if spec.require_binding && mechanism != SCRAM_SHA_256_PLUS {
        return Err(WireError::Connect {
            target: spec.describe(),
            reason: "channel binding is required, and this connection cannot have it".to_owned(),
            hint: Some(
                "It needs TLS up to the server itself: sslmode=require or more, and no proxy between."
                    .to_owned(),
            ),
        });
    }
    let failed = |e: io::Error| WireError::protocol(format!("SCRAM: {e}"));
    let mut scram = ScramSha256::new(password, binding);
    let mut initial = mechanism.as_bytes().to_vec();
    initial.push(0);
    initial.extend(u32::try_from(scram.message().len()).expect("SCRAM messages are short").to_be_bytes());
    initial.extend_from_slice(scram.message());
    reply(session, &initial)?;
    let (code, data) = challenge(spec, session)?;
    if code != 11 {
        return Err(WireError::protocol("SCRAM broke off"));
    }
    scram.update(&data).map_err(failed)?;
    reply(session, scram.message())?;
    let (code, data) = challenge(spec, session)?;
    if code != 12 {
        return Err(WireError::protocol("SCRAM broke off"));
    }
    scram.finish(&data).map_err(failed)?;
    Ok(mechanism == SCRAM_SHA_256_PLUS)
}
