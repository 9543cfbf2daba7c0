//! The primitives against published vectors and against an independent implementation, and their refusals.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use mainstay_keys::{Tampered, aead::AeadKey, bundle::Bundle, derive, hpke, random, sign};

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
fn aes_256_gcm_matches_its_published_vector() {
    // Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation".
    let key = AeadKey::new(&unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"));
    let nonce = unhex("cafebabefacedbaddecaf888");
    let aad = hex::decode("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
    let plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
    let sealed = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662";
    let tag = "76fc6ece0f4e1768cddf8853bb2d551b";
    let mut buffer = [b"head".to_vec(), hex::decode(plain).unwrap()].concat();
    key.seal(nonce, &aad, &mut buffer, 4);
    assert_eq!(&buffer[..4], b"head", "what lies before is left alone");
    assert_eq!(hex::encode(&buffer[4..]), format!("{sealed}{tag}"));
    assert_eq!(hex::encode(key.open(nonce, &aad, &mut buffer[4..]).unwrap()), plain);
}

#[test]
fn a_changed_byte_nonce_or_context_does_not_open() {
    let key = AeadKey::new(&[1; 32]);
    let mut sealed = b"secret".to_vec();
    key.seal([2; 12], b"aad", &mut sealed, 0);
    assert_eq!(sealed.len(), 6 + 16);
    let open =
        |nonce, aad: &[u8], mut bytes: Vec<u8>| key.open(nonce, aad, &mut bytes).map(|plain| plain.to_vec());
    assert_eq!(open([2; 12], b"aad", sealed.clone()).unwrap(), b"secret");
    assert_eq!(open([3; 12], b"aad", sealed.clone()), Err(Tampered));
    assert_eq!(open([2; 12], b"aae", sealed.clone()), Err(Tampered));
    for length in 0..sealed.len() {
        assert_eq!(open([2; 12], b"aad", sealed[..length].to_vec()), Err(Tampered));
    }
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(open([2; 12], b"aad", changed), Err(Tampered));
    }
}

#[test]
fn hpke_opens_what_another_implementation_sealed() {
    // Made by pyhpke 0.6 for the private key 09 09 …
    let private = [9; 32];
    let enc = unhex("a1f491dce1e1255c368815471af405be1e4a56e1f47152945f7027ab67317d0d");
    let ciphertext = hex::decode("5298eb283f1c7be3239052d35c4412fc892b04a09c6ce386dc").unwrap();
    let public = unhex("57db4b359f23ae5e146e4e2512056704722506348c150c14753d0c933d04d421");
    assert_eq!(hpke::public_of(&private), public);
    assert_eq!(hpke::open(&private, &enc, b"info", b"aad", &ciphertext).unwrap(), b"plaintext");
}

#[test]
fn hpke_opens_only_for_the_right_key_and_context() {
    let (private, public) = hpke::generate();
    assert_eq!(hpke::public_of(&private), public);
    let sealed = hpke::seal(&public, b"info", b"aad", b"plain");
    assert_eq!(sealed.ciphertext.len(), 5 + 16);
    let open = |private: &[u8; 32], enc: &[u8; 32], info: &[u8], aad: &[u8]| {
        hpke::open(private, enc, info, aad, &sealed.ciphertext)
    };
    assert_eq!(open(&private, &sealed.enc, b"info", b"aad").unwrap(), b"plain");
    assert_eq!(open(&hpke::generate().0, &sealed.enc, b"info", b"aad"), Err(Tampered));
    assert_eq!(open(&private, &sealed.enc, b"other", b"aad"), Err(Tampered));
    assert_eq!(open(&private, &sealed.enc, b"info", b"other"), Err(Tampered));
    assert_eq!(open(&private, &[0; 32], b"info", b"aad"), Err(Tampered), "a point of small order");
    assert_eq!(hpke::open(&private, &sealed.enc, b"info", b"aad", b"short"), Err(Tampered));
    assert_ne!(hpke::seal(&public, b"info", b"aad", b"plain"), sealed, "each sealing has a key of its own");
}

#[test]
fn ed25519_matches_its_published_vector() {
    // RFC 8032, section 7.1, test 3.
    let signer =
        sign::Signer::from_seed(&unhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"));
    assert_eq!(
        signer.verify_key(),
        unhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    );
    let signature = unhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    );
    assert_eq!(signer.sign(&[0xaf, 0x82]), signature);
    assert_eq!(sign::verify(&signer.verify_key(), &[0xaf, 0x82], &signature), Ok(()));
    assert_eq!(sign::verify(&signer.verify_key(), &[0xaf, 0x83], &signature), Err(Tampered));
    assert_eq!(sign::verify(&[0; 32], &[0xaf, 0x82], &signature), Err(Tampered));
    assert_eq!(signer.host(), sign::host_of(&signer.verify_key()));
}

#[test]
fn key_derivation_matches_its_published_vector() {
    // test_vectors.json of the BLAKE3 reference implementation, input of no bytes.
    let derived = derive("BLAKE3 2019-12-27 16:29:52 test vectors context", b"");
    assert_eq!(hex::encode(derived), "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d");
}

#[test]
fn random_bytes_differ() {
    assert_ne!(random::<32>(), random::<32>());
}

#[test]
fn the_keys_of_a_bundle_are_apart_from_one_another() {
    let bundle = Bundle::generate(1);
    let keys = [
        bundle.data_private,
        bundle.index_private,
        bundle.domain_secret,
        bundle.signer_seed,
        bundle.root_seed.unwrap(),
        bundle.chunk_id_key(),
    ];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[at + 1..].contains(key));
    }
    assert_ne!(bundle.row_key(), bundle.domain_id().0);
    assert_ne!(bundle.chunker_seed(), Bundle::generate(1).chunker_seed());
    assert_eq!(
        bundle.root().unwrap().verify_key(),
        sign::Signer::from_seed(&bundle.root_seed.unwrap()).verify_key()
    );
}

#[test]
fn nothing_secret_is_shown_for_debugging() {
    let bundle = Bundle {
        epoch: 7,
        data_private: [0xd1; 32],
        index_private: [0xd1; 32],
        domain_secret: [0xd1; 32],
        signer_seed: [0xd1; 32],
        root_seed: Some([0xd1; 32]),
    };
    let shown = format!(
        "{bundle:?} {bundle:#?} {:?} {:?}",
        AeadKey::new(&[0xd1; 32]),
        sign::Signer::from_seed(&[0xd1; 32])
    );
    assert!(!shown.contains("209") && !shown.contains("d1d1"), "{shown}");
    assert!(shown.starts_with("Bundle(epoch 7)"));
}
