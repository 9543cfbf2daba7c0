//! Identifiers. Each is a fixed number of bytes, shown as lower-case hexadecimal, stored as a CBOR byte string.

use std::{fmt, str::FromStr};

/// The text is not the hexadecimal form of an id of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {article} (expected {digits} hexadecimal digits)")]
pub struct ParseIdError {
    text: String,
    article: &'static str,
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $article:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            pub const LEN: usize = $len;

            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The id whose bytes these are; `None` if the length is wrong.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map($name)
            }

            /// The first eight hexadecimal digits: enough for a person to tell two apart.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) => Ok($name(bytes)),
                    Err(_) => Err(ParseIdError { text: text.into(), article: $article, digits: $len * 2 }),
                }
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let position = d.position();
                $name::from_slice(d.bytes()?)
                    .ok_or_else(|| minicbor::decode::Error::message(concat!("expected ", $article)).at(position))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&hex::encode(self.0))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(/** A chunk: keyed BLAKE3-256 of its plaintext within a dedup domain. */ ChunkId, 32, "a chunk id");
id!(/** A content-named object: BLAKE3-256 of its stored bytes. */ ObjectId, 32, "an object id");
id!(/** A pack: BLAKE3-256 of its stored bytes. */ PackId, 32, "a pack id");
id!(/** A recovery point: BLAKE3-256 of its manifest's stored bytes. */ PointId, 32, "a recovery point id");
id!(/** A repository: BLAKE3-256 of its root verify key. */ RepositoryId, 32, "a repository id");
id!(/** One writing session. Random. */ SessionId, 16, "a session id");
id!(/** A signer: the first 16 bytes of BLAKE3-256 of its verify key. */ HostId, 16, "a host id");
id!(/** A dedup domain: derived from its secret. */ DomainId, 16, "a dedup domain id");
id!(/** One hold on a recovery point. Random. */ HoldId, 16, "a hold id");
id!(/** One life of a store's log: chosen anew when the store was rolled back. Random. */ Incarnation, 16, "a store incarnation");

/// A key epoch: counts from 1. Rotation begins a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct EpochId(#[n(0)] pub u32);

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_cbor() {
        let id = ChunkId([0xab; 32]);
        assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
        let bytes = minicbor::to_vec(id).unwrap();
        assert_eq!(bytes[..2], [0x58, 32], "a CBOR byte string, so that any reader sees 32 raw bytes");
        assert_eq!(minicbor::decode::<ChunkId>(&bytes).unwrap(), id);
    }

    #[test]
    fn a_wrong_length_is_refused_with_what_was_expected() {
        let error = "abcd".parse::<SessionId>().unwrap_err();
        assert_eq!(error.to_string(), "\"abcd\" is not a session id (expected 32 hexadecimal digits)");
        assert!(minicbor::decode::<SessionId>(&minicbor::to_vec(ChunkId([1; 32])).unwrap()).is_err());
    }
}
