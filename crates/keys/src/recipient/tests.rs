//! Who can open a repository, and who cannot.

use super::*;
use proptest::prelude::*;

fn root() -> Signer {
    Signer::from_seed(&[5; 32])
}

fn repository() -> RepositoryId {
    RepositoryId(*blake3::hash(&root().verify_key()).as_bytes())
}

fn bundle() -> Bundle {
    Bundle {
        epoch: 1,
        data_private: [1; 32],
        index_private: [2; 32],
        domain_secret: [3; 32],
        signer_seed: [4; 32],
        root_seed: Some([5; 32]),
    }
}

fn key() -> Secret {
    Secret::Key(std::array::from_fn(|i| i as u8))
}

fn passphrase() -> Secret {
    Secret::Passphrase(b"correct horse battery staple".to_vec())
}

fn wrapped(secret: &Secret) -> Vec<u8> {
    let fresh = Fresh { id: [6; 16], nonce: [7; 12], salt: [8; 16] };
    wrap_with(&bundle(), secret, repository(), "operations", Time(1_700_000_000_000_000_000), &root(), fresh)
        .unwrap()
        .1
}

fn parsed(bytes: &[u8]) -> Recipient {
    parse(bytes, &root().verify_key()).unwrap()
}

/// Parses and signs again what a writer with the root key could have made.
fn altered(secret: &Secret, alter: impl Fn(&mut Recipient)) -> Recipient {
    let mut recipient = parsed(&wrapped(secret));
    alter(&mut recipient);
    parsed(&recipient.encode(&root()))
}

#[test]
fn whoever_has_the_secret_gets_the_keys() {
    for secret in [key(), passphrase()] {
        let (name, bytes) = wrap(&bundle(), &secret, repository(), "ops", Time(9), &root()).unwrap();
        let recipient = parsed(&bytes);
        assert_eq!((recipient.name(), recipient.epoch(), recipient.label()), (name.clone(), 1, "ops"));
        assert_eq!(recipient.created(), Time(9));
        assert_eq!(name, format!("keys/0000000001/{}", recipient.id()));
        assert_eq!(recipient.unwrap_with(&secret).unwrap(), bundle());
    }
}

#[test]
fn whoever_has_another_secret_gets_nothing() {
    let others = [
        Secret::Key([0; 32]),
        Secret::Passphrase(b"correct horse battery stapl".to_vec()),
        Secret::Passphrase(vec![]),
    ];
    for secret in [key(), passphrase()] {
        let recipient = parsed(&wrapped(&secret));
        for other in &others {
            assert_eq!(recipient.unwrap_with(other).unwrap_err(), RecipientError::WrongKey);
        }
    }
    // The same bytes as a key and as a passphrase are two different secrets.
    let Secret::Key(bytes) = &key() else { unreachable!() };
    let twin = Secret::Passphrase(bytes.to_vec());
    assert_eq!(parsed(&wrapped(&key())).unwrap_with(&twin).unwrap_err(), RecipientError::WrongKey);
}

#[test]
fn two_recipients_of_one_secret_have_nothing_in_common() {
    let make = || parsed(&wrap(&bundle(), &key(), repository(), "", Time(0), &root()).unwrap().1);
    let (one, other) = (make(), make());
    assert_ne!(one.id, other.id);
    assert_ne!(one.nonce, other.nonce);
    assert_ne!(one.wrapped, other.wrapped);
}

#[test]
fn any_changed_cut_or_added_byte_is_noticed() {
    let whole = wrapped(&key());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert!(parse(&damaged, &root().verify_key()).is_err(), "byte {at}");
        assert!(parse(&whole[..at], &root().verify_key()).is_err(), "cut to {at}");
    }
    assert!(parse(&[&whole[..], b"x"].concat(), &root().verify_key()).is_err());
}

#[test]
fn only_the_root_key_adds_recipients() {
    let stranger = Signer::from_seed(&[66; 32]);
    let bytes = parsed(&wrapped(&key())).encode(&stranger);
    assert_eq!(parse(&bytes, &root().verify_key()), Err(RecipientError::Unsigned));
    // One of another repository does not become ours by its own root's signature.
    assert!(matches!(parse(&bytes, &stranger.verify_key()), Err(RecipientError::Damaged(_))));
}

#[test]
fn what_the_wrapping_is_bound_to_cannot_be_exchanged() {
    let alterations: [fn(&mut Recipient); 4] =
        [|r| r.epoch = 2, |r| r.id[0] ^= 1, |r| r.nonce[0] ^= 1, |r| r.wrapped[0] ^= 1];
    for alter in alterations {
        assert_eq!(altered(&key(), alter).unwrap_with(&key()).unwrap_err(), RecipientError::WrongKey);
    }
    for (kind, derivation) in [
        (RecipientKind::Passphrase, None),
        (RecipientKind::PublicKey, None),
        (RecipientKind::Kms, None),
        (RecipientKind::Key, Some(Derivation::new([8; 16], (64, 1, 1)))),
    ] {
        let recipient = altered(&key(), |r| (r.kind, r.derivation) = (kind, derivation.clone()));
        assert_eq!(recipient.unwrap_with(&key()).unwrap_err(), RecipientError::WrongKey, "{kind}");
    }
}

#[test]
fn a_bundle_of_another_epoch_is_not_taken() {
    let fresh = Fresh { id: [6; 16], nonce: [7; 12], salt: [8; 16] };
    let mut recipient =
        parsed(&wrap_with(&bundle(), &key(), repository(), "", Time(0), &root(), fresh).unwrap().1);
    recipient.epoch = 2;
    let mut plain = minicbor::to_vec(bundle()).unwrap();
    recipient.wrapping_key(&key()).unwrap().seal(recipient.nonce, &recipient.aad(), &mut plain, 0);
    recipient.wrapped = plain;
    assert!(matches!(recipient.unwrap_with(&key()), Err(RecipientError::Damaged(_))));
}

#[test]
fn a_hostile_cost_is_refused_before_it_is_paid() {
    for costs in [
        (MAX_MEMORY_KIB + 1, 1, 1),
        (u32::MAX, 1, 1),
        (7, 1, 1),
        (64, 0, 1),
        (64, MAX_ITERATIONS + 1, 1),
        (64, u32::MAX, 1),
        (64, 1, 0),
        (1024, 1, MAX_LANES + 1),
        (8, 1, 8),
    ] {
        let recipient = altered(&passphrase(), |r| r.derivation = Some(Derivation::new([8; 16], costs)));
        assert!(matches!(recipient.unwrap_with(&passphrase()), Err(RecipientError::Damaged(_))), "{costs:?}");
    }
}

#[test]
fn a_label_is_one_short_line() {
    for label in ["a\nb", "\u{1b}[31m", &"x".repeat(201)] {
        let error = wrap(&bundle(), &key(), repository(), label, Time(0), &root()).unwrap_err();
        assert!(matches!(error, RecipientError::BadLabel(_)), "{label:?}");
    }
}

#[test]
fn a_wrong_key_has_its_own_exit_code() {
    let failure = Failure::from(RecipientError::WrongKey);
    assert_eq!(failure.kind, Kind::WrongKey);
    assert_eq!(Failure::from(RecipientError::Unsigned).kind, Kind::Verification);
}

/// The objects in `tests/vectors` were also opened by an independent program (Python: cryptography, argon2-cffi, blake3, cbor2)
/// written from `doc/format.md` alone.
#[test]
fn the_bytes_are_those_of_the_format() {
    assert_eq!(
        hex::encode(minicbor::to_vec(bundle()).unwrap()),
        include_str!("../../tests/vectors/bundle.hex").trim()
    );
    for (secret, vector) in [
        (key(), include_str!("../../tests/vectors/recipient-key.hex")),
        (passphrase(), include_str!("../../tests/vectors/recipient-passphrase.hex")),
    ] {
        assert_eq!(hex::encode(wrapped(&secret)), vector.trim());
        let stored = hex::decode(vector.trim()).unwrap();
        assert_eq!(parsed(&stored).unwrap_with(&secret).unwrap(), bundle());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..500) {
        let whole = wrapped(&key());
        let mixed = [&whole[..keep.min(whole.len())], &bytes[..]].concat();
        prop_assert!(parse(&bytes, &root().verify_key()).is_err());
        prop_assert!(mixed == whole || parse(&mixed, &root().verify_key()).is_err());
        // What the root key signed may still be anything.
        let mut body = [&MAGIC[..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat();
        let signature = root().sign(&[CONTEXT, &body].concat());
        body.extend_from_slice(&signature);
        prop_assert!(parse(&body, &root().verify_key()).is_err());
    }
}
