//! TLS to the server: libpq's `sslmode`s over rustls.
//!
//! `require` encrypts and checks nothing, as libpq's does; `verify-ca` checks the chain; `verify-full` also the name. A
//! server certificate that is itself in the file of trusted ones is trusted as it stands (self-made certificates are often
//! used so). SCRAM is bound to the channel by the certificate's hash (`tls-server-end-point`, RFC 5929).

use super::{
    error::WireError,
    spec::{ConnectSpec, Host, TlsMode},
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use std::{net::TcpStream, path::Path, sync::Arc};

/// Why no encrypted channel came about.
pub(crate) struct TlsFailure {
    pub reason: String,
    pub hint: Option<String>,
}

fn failure(reason: impl Into<String>, hint: &str) -> TlsFailure {
    TlsFailure { reason: reason.into(), hint: Some(hint.to_owned()) }
}

/// Shakes hands on `socket`, whose server has agreed to TLS.
pub(crate) fn handshake(
    spec: &ConnectSpec,
    mut socket: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, TlsFailure> {
    let Host::Tcp(host) = &spec.host else {
        return Err(failure("TLS on a Unix socket", "Use sslmode=disable for sockets."));
    };
    let name = ServerName::try_from(host.clone()).map_err(|_| {
        failure(format!("{host:?} is no host name"), "Give the server's DNS name or IP address.")
    })?;
    let config = config(spec)?;
    let mut connection = ClientConnection::new(Arc::new(config), name)
        .map_err(|e| failure(e.to_string(), "Check sslcert and sslkey."))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|e| {
            let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            TlsFailure { reason: format!("TLS: {e}"), hint: tls.and_then(|e| hint(e, spec)) }
        })?;
    }
    Ok(StreamOwned::new(connection, socket))
}

fn config(spec: &ConnectSpec) -> Result<ClientConfig, TlsFailure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier::new(spec, provider.clone())?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failure(e.to_string(), "This is a fault of this program."))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&spec.client_cert, &spec.client_key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| {
                failure(
                    format!("cannot read the key {}: {e}", key.display()),
                    "sslkey names a PEM file without passphrase.",
                )
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                failure(
                    e.to_string(),
                    "The certificate in sslcert and the key in sslkey must belong together.",
                )
            })
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFailure> {
    let unreadable = |e: &dyn std::fmt::Display| {
        failure(
            format!("cannot read the certificates in {}: {e}", path.display()),
            "The file must be in PEM format.",
        )
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|e| unreadable(&e))?
        .collect::<Result<_, _>>()
        .map_err(|e| unreadable(&e))?;
    if found.is_empty() { Err(unreadable(&"there are none")) } else { Ok(found) }
}

/// What to do about a handshake that failed.
fn hint(error: &Error, spec: &ConnectSpec) -> Option<String> {
    let Error::InvalidCertificate(reason) = error else {
        return match error {
            Error::AlertReceived(_) => {
                Some("The server ended the handshake: it may want a client certificate.".to_owned())
            }
            _ => None,
        };
    };
    Some(match reason {
        CertificateError::UnknownIssuer => match &spec.root_cert {
            Some(path) => format!("The authority that signed the server's certificate is not in {}.", path.display()),
            None => "The authority that signed the server's certificate is not one of the system's: name its certificate \
                     with sslrootcert=FILE."
                .to_owned(),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "The certificate is for another host (only subjectAltName counts): use the name it was issued for, or \
             sslmode=verify-ca."
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "The server's certificate has expired: renew it.".to_owned()
        }
        _ => return None,
    })
}

#[derive(Debug)]
struct Verifier {
    mode: TlsMode,
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The trusted certificates themselves.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(spec: &ConnectSpec, provider: Arc<CryptoProvider>) -> Result<Verifier, TlsFailure> {
        // As libpq does: `require` with a file of authorities that was named means `verify-ca`.
        let mode = match spec.tls {
            TlsMode::Require if spec.root_cert.is_some() => TlsMode::VerifyCa,
            mode => mode,
        };
        if mode < TlsMode::VerifyCa {
            return Ok(Verifier { mode, chain: None, pinned: Vec::new(), provider });
        }
        let pinned = match &spec.root_cert {
            Some(path) => certificates(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(pinned.iter().cloned());
        if usable == 0 {
            return Err(failure(
                "there are no trusted certificates",
                "Name the authority's certificate with sslrootcert=FILE.",
            ));
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|e| failure(e.to_string(), "Check the certificates in sslrootcert."))?;
        Ok(Verifier { mode, chain: Some(chain), pinned, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.pinned.iter().any(|known| known.as_ref() == end_entity.as_ref()) {
            if self.mode == TlsMode::VerifyFull {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is verified before the name.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.mode == TlsMode::VerifyCa => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The data that binds SCRAM to this channel: the hash of the server's certificate, by the hash of its signature (SHA-256
/// in place of MD5 and SHA-1). `None` for signatures without a hash of their own.
pub(super) fn end_point(connection: &ClientConnection) -> Option<Vec<u8>> {
    let certificate = connection.peer_certificates()?.first()?;
    let algorithm = match signature_oid(certificate)? {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => &aws_lc_digest::SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => &aws_lc_digest::SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => &aws_lc_digest::SHA512,
        _ => return None,
    };
    Some(aws_lc_digest::digest(algorithm, certificate).as_ref().to_vec())
}

use ::aws_lc_rs::digest as aws_lc_digest;

/// The object identifier of an X.509 certificate's signature: Certificate ::= SEQUENCE { tbs SEQUENCE, algorithm SEQUENCE
/// { OID, … }, signature }.
fn signature_oid(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(der, 0x30)?;
    let (_, after_tbs) = element(certificate, 0x30)?;
    let (algorithm, _) = element(after_tbs, 0x30)?;
    Some(element(algorithm, 0x06)?.0)
}

/// A DER element of this tag: its content, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}

impl From<TlsFailure> for WireError {
    fn from(failure: TlsFailure) -> WireError {
        WireError::Connect { target: String::new(), reason: failure.reason, hint: failure.hint }
    }
}
