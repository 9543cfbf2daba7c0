"""What reader.py and live.py need of other standards: BLAKE3, Ed25519, HPKE (RFC 9180), AES-GCM,
argon2id (RFC 9106), zstd, and as much of CBOR (RFC 8949) as doc/format.md uses. All of it checks
what it takes apart; what does not hold is `Damaged`."""

import hmac, struct, sys

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# What Python says of an object that does not have the fields that the format says.
MALFORMED = KeyError, IndexError, TypeError, ValueError, AttributeError


class Damaged(Exception):
    """An object is not what the format says it must be."""


def need(truth, complaint):
    if not truth:
        raise Damaged(complaint)


def H(data):
    return blake3(data).digest()


def derive(context, material):
    return blake3(material, derive_key_context=context).digest()


def aes_open(key, nonce, sealed, aad, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Damaged(f"{what} does not open with its key") from None


def argon2id(passphrase, salt, memory, iterations, lanes):
    from argon2.low_level import Type, hash_secret_raw  # Needed for passphrases only.
    return hash_secret_raw(passphrase, salt, iterations, memory, lanes, 32, Type.ID, 0x13)


def verify(public, signature, message, what):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        raise Damaged(f"{what} has a wrong signature") from None


def unzstd(data, limit, what):
    """One zstd frame, all of `data`, which names its size: at most `limit` bytes."""
    try:
        need(0 <= zstandard.frame_content_size(data) <= limit, f"{what} is larger than it may be")
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        plain = decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise Damaged(f"{what} does not decompress: {error}") from None
    need(decompressor.eof and not decompressor.unused_data, f"{what} is not one zstd frame")
    return plain


def hpke_open(private, encapsulated, sealed, info, aad, what):
    """RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, the first message
    of its context."""
    def extract(suite, salt, label, material):
        return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")

    def expand(suite, key, label, context, length):
        text = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(key, text + b"\x01", "sha256")[:length]

    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    secret = X25519PrivateKey.from_private_bytes(private)
    try:
        shared = secret.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    except ValueError:
        raise Damaged(f"{what} has a key that is no X25519 point") from None
    both = encapsulated + secret.public_key().public_bytes_raw()
    shared = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", both, 32)
    psk_id_hash = extract(suite, b"", b"psk_id_hash", b"")
    context = b"\x00" + psk_id_hash + extract(suite, b"", b"info_hash", info)
    schedule = extract(suite, shared, b"secret", b"")
    key = expand(suite, schedule, b"key", context, 32)
    nonce = expand(suite, schedule, b"base_nonce", context, 12)
    return aes_open(key, nonce, sealed, aad, what)


class Cursor:
    """Takes fixed layouts apart; running out of bytes is damage."""

    def __init__(self, data, what):
        self.data, self.what, self.at = data, what, 0

    def take(self, length):
        need(self.at + length <= len(self.data), f"{self.what} is cut short")
        self.at += length
        return self.data[self.at - length:self.at]

    def unpack(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def u32(self):
        return self.unpack(">I")[0]

    def end(self):
        need(self.at == len(self.data), f"{self.what} has bytes after its end")


def cbor_item(cursor, depth=0):
    need(depth < 32, f"{cursor.what} is nested too deeply")
    head = cursor.take(1)[0]
    major, number = head >> 5, head & 31
    if major == 7:
        need(number in (20, 21, 22), f"{cursor.what} has a CBOR value that the format does not use")
        return {20: False, 21: True, 22: None}[number]
    if number >= 24:
        need(number <= 27, f"{cursor.what} has a CBOR item of indefinite length")
        number = int.from_bytes(cursor.take(1 << (number - 24)), "big")
    if major == 0:
        return number
    if major == 1:
        return -1 - number
    if major == 2:
        return cursor.take(number)
    if major == 3:
        try:
            return cursor.take(number).decode()
        except UnicodeDecodeError:
            raise Damaged(f"{cursor.what} has text that is not UTF-8") from None
    if major == 4:
        return [cbor_item(cursor, depth + 1) for _ in range(number)]
    need(major == 5, f"{cursor.what} has a CBOR tag, which the format does not use")
    found = {}
    for _ in range(number):
        key = cbor_item(cursor, depth + 1)
        plain = isinstance(key, (int, str, bytes))
        need(plain and key not in found, f"{cursor.what} has a bad or double key")
        found[key] = cbor_item(cursor, depth + 1)
    return found


def cbor(data, what):
    cursor = Cursor(data, what)
    item = cbor_item(cursor)
    cursor.end()
    return item


def cbor_sequence(data, what):
    """RFC 8742: items one after the other."""
    cursor, items = Cursor(data, what), []
    while cursor.at < len(data):
        items.append(cbor_item(cursor))
    return items


def warn(sentence):
    print(f"reader: {sentence}", file=sys.stderr)
