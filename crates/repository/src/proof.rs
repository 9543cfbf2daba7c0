//! Proofs: signed reports of real restores, sealed to the data key (`doc/format.md` §10).

use crate::{
    envelope::{Envelope, HEADER, KeyRole},
    error::{RepositoryError, Result},
    repository::Repository,
    session::create_settled,
    trust::Roles,
};
use mainstay_domain::Time;

const ENVELOPE: Envelope = Envelope {
    magic: b"MSTYPRF1",
    info: b"mainstay v1 proof",
    signature: "mainstay v1 proof\0",
    hashed: false,
    signers: Roles::VERIFY.and(Roles::ADMIN),
};

/// Stores a report (JSON text) and returns the object's name.
pub fn store(repository: &Repository, report: &str, at: Time) -> Result<String> {
    let writer = repository.writer();
    let mut bytes = ENVELOPE.header(&[0; 16], &writer);
    ENVELOPE.seal_section(&mut bytes, KeyRole::Data, ENVELOPE.info, report.as_bytes(), &writer);
    ENVELOPE.sign(&mut bytes, &writer.signer);
    let hash = blake3::hash(&bytes).to_hex();
    let name = format!("proofs/{}/{:020}-{}", writer.signer.host(), at.0.max(0), &hash[..16]);
    create_settled(&**repository.store(), &name, &bytes)?;
    Ok(name)
}

/// Checks that a report is there, is the one that its name promises, and was signed by who may sign proofs. What it says stays
/// sealed: a host that adds and cannot read checks as much.
pub fn check(repository: &Repository, name: &str) -> Result<()> {
    let bytes = fetch(repository, name)?;
    ENVELOPE.verify(&bytes, &repository.unsealer(), name).map(|_| ())
}

/// The bytes, if the name is theirs: the signature alone would let an older report pass for a newer one.
fn fetch(repository: &Repository, name: &str) -> Result<Vec<u8>> {
    let bytes = repository.store().read(name)?;
    let hash = blake3::hash(&bytes).to_hex();
    if !name.ends_with(&format!("-{}", &hash[..16])) {
        return Err(RepositoryError::damaged(name, "its bytes are not those that its name promises"));
    }
    Ok(bytes)
}

/// Reads a report and checks its signature.
pub fn read(repository: &Repository, name: &str) -> Result<String> {
    let bytes = fetch(repository, name)?;
    let unsealer = repository.unsealer();
    let verified = ENVELOPE.verify(&bytes, &unsealer, name)?;
    let (report, _) = verified.section(HEADER, KeyRole::Data, ENVELOPE.info, &unsealer)?;
    String::from_utf8(report).map_err(|_| RepositoryError::damaged(name, "it is not text"))
}
