//! A secret that opens a repository: a raw key or a passphrase. Wiped when dropped, never shown.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub enum Secret {
    /// 32 random bytes.
    Key([u8; 32]),
    /// What a person remembers.
    Passphrase(Vec<u8>),
}

impl Secret {
    /// A new random key.
    pub fn generate() -> Secret {
        Secret::Key(crate::random())
    }

    /// The key in this text: 64 hexadecimal digits, or 32 bytes in base64 (either alphabet, with or without padding).
    pub fn parse_key(text: &str) -> Option<Secret> {
        let mut key = Zeroizing::new([0; 32]);
        // As it is printed on paper: in groups.
        let text: Zeroizing<String> = Zeroizing::new(text.chars().filter(|c| *c != ' ').collect());
        let text = text.as_str();
        if hex::decode_to_slice(text, &mut *key).is_ok() {
            return Some(Secret::Key(*key));
        }
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        [alphabet::STANDARD, alphabet::URL_SAFE].iter().find_map(|alphabet| {
            // The decoder wants room for its estimate, which is a few bytes more than it writes.
            let mut bytes = Zeroizing::new([0; 36]);
            let length = GeneralPurpose::new(alphabet, config).decode_slice(text, &mut *bytes).ok()?;
            (length == 32).then(|| {
                key.copy_from_slice(&bytes[..32]);
                Secret::Key(*key)
            })
        })
    }

    /// The key as 64 hexadecimal digits, for the places where a user asked to see it; `None` for a passphrase.
    pub fn key_text(&self) -> Option<Zeroizing<String>> {
        match self {
            Secret::Key(key) => Some(Zeroizing::new(hex::encode(key))),
            Secret::Passphrase(_) => None,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Secret::Key(_) => "Secret::Key(…)",
            Secret::Passphrase(_) => "Secret::Passphrase(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<[u8; 32]> {
        match Secret::parse_key(text)? {
            Secret::Key(key) => Some(key),
            Secret::Passphrase(_) => None,
        }
    }

    #[test]
    fn a_key_is_read_as_hexadecimal_or_base64() {
        let expected = std::array::from_fn(|i| (i as u8).wrapping_mul(97).wrapping_add(251));
        for text in [
            hex::encode(expected),
            hex::encode_upper(expected),
            "+1y9Hn/gQaIDZMUmh+hJqgtszS6P8FGyE3TVNpf4Wbo=".to_owned(),
            "+1y9Hn/gQaIDZMUmh+hJqgtszS6P8FGyE3TVNpf4Wbo".to_owned(),
            "-1y9Hn_gQaIDZMUmh-hJqgtszS6P8FGyE3TVNpf4Wbo=".to_owned(),
        ] {
            assert_eq!(key(&text), Some(expected), "{text}");
        }
        assert_eq!(key(Secret::Key(expected).key_text().unwrap().as_str()), Some(expected));
    }

    #[test]
    fn what_has_another_length_or_other_characters_is_no_key() {
        for text in [
            String::new(),
            "ab".repeat(31),
            "ab".repeat(33),
            "g".repeat(64),
            "=".repeat(44),
            "A".repeat(42),
            "A".repeat(48),
        ] {
            assert_eq!(key(&text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        for secret in [Secret::Key([0x41; 32]), Secret::Passphrase(b"AAAA".to_vec())] {
            let shown = format!("{secret:?} {secret:#?}");
            assert!(!shown.contains("41") && !shown.contains("65") && !shown.contains("AAAA"), "{shown}");
        }
    }
}
