//! A host that is known writes only what its roles allow: the signature alone is not enough.

use mainstay_domain::{EpochId, ObjectId, PointId, RepositoryId, SessionId, Time, point::State};
use mainstay_keys::{bundle::Bundle, sign::Signer};
use mainstay_repository::{
    RepositoryError,
    envelope::{Unsealer, Writer},
    index::{Segment, open_segment, seal_segment},
    keyring::Keyring,
    manifest::{self, Reach},
    trust::{Roles, Trust, TrustedHost},
};

const REPOSITORY: RepositoryId = RepositoryId([1; 32]);

/// Whether a manifest and an index segment are accepted from a host with these roles.
fn accepted(bundle: &Bundle, roles: Roles) -> [bool; 2] {
    let signer = || Signer::from_seed(&[8; 32]);
    let writer = Writer {
        repository: REPOSITORY,
        epoch: EpochId(bundle.epoch),
        data_public: bundle.data_public(),
        index_public: bundle.index_public(),
        signer: signer(),
    };
    let host = TrustedHost { verify_key: signer().verify_key(), name: "it".into(), roles, domain: None };
    let trust = Trust::first(REPOSITORY, Time(0), host);
    let unsealer = Unsealer { repository: REPOSITORY, keys: &Keyring::new(bundle.clone()), signers: &trust };

    let point = mainstay_domain::point::Point {
        summary: crate::sample::summary(1, State::Complete, Vec::new()),
        sources: Vec::new(),
        previous: None,
        supersedes: None,
        tool: String::new(),
    };
    let (point, bytes): (PointId, _) =
        manifest::seal(&Reach::default(), &point, &SessionId([2; 16]), &writer);
    let opened = manifest::open(&point, &bytes, &unsealer).map(drop);
    let reach = manifest::open_reach(&point, &bytes, &unsealer).map(drop);
    assert_eq!(opened.is_ok(), reach.is_ok());
    let (segment, bytes): (ObjectId, _) = seal_segment(&Segment::default(), bundle.domain_id(), &writer);
    [opened, open_segment(&segment, &bytes, &unsealer).map(drop)].map(|result| match result {
        Ok(()) => true,
        Err(RepositoryError::Untrusted { .. }) => false,
        Err(other) => panic!("{other}"),
    })
}

#[test]
fn a_host_without_the_role_writes_neither_recovery_points_nor_index() {
    let bundle = Bundle::generate(1);
    for (roles, expected) in [
        (Roles::BACKUP, [true, true]),
        (Roles::ADMIN, [true, true]),
        (Roles::PRUNE, [false, true]),
        (Roles::VERIFY, [false, false]),
        (Roles(0), [false, false]),
        (Roles(16), [false, false]),
        (Roles::ALL, [true, true]),
    ] {
        assert_eq!(accepted(&bundle, roles), expected, "{roles:?}");
    }
}
