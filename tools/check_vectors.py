#!/usr/bin/env python3
"""Checks doc/vectors.json with the independent reader: every value is computed anew from the ones
before it.

    check_vectors.py doc/vectors.json

Exit code 0: all hold; otherwise the first that does not is named.
"""

import json
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import reader
from standards import H, Damaged, blake3, cbor, cbor_sequence, derive

MASK = (1 << 64) - 1


def siphash(key, data):
    """SipHash-1-3 with 128 bits of output (Aumasson and Bernstein): the 16 bytes of the reference
    implementation."""
    k0, k1 = (int.from_bytes(key[at:at + 8], "little") for at in (0, 8))
    v = [
        k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ 0xee,
        k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573,
    ]

    def turn(x, bits):
        return (x << bits | x >> 64 - bits) & MASK

    def rounds(count):
        for _ in range(count):
            v[0] = v[0] + v[1] & MASK
            v[2] = v[2] + v[3] & MASK
            v[1] = turn(v[1], 13) ^ v[0]
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = turn(v[0], 32)
            v[2] = v[2] + v[1] & MASK
            v[0] = v[0] + v[3] & MASK
            v[1] = turn(v[1], 17) ^ v[2]
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = turn(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at:at + 8], "little")
        v[3] ^= word
        rounds(1)
        v[0] ^= word
    v[2] ^= 0xee
    rounds(3)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xdd
    rounds(3)
    return first.to_bytes(8, "little") + (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")


class Vectors(reader.Repository):
    """A repository whose objects are those of the vectors."""

    def __init__(self, objects, **secret):
        self.objects = {name: bytes.fromhex(text) for name, text in objects.items()}
        super().__init__(".", **secret)

    def read(self, name):
        return self.objects[name]

    def has(self, name):
        return name in self.objects

    def names(self, prefix):
        return sorted(name for name in self.objects if name.startswith(prefix + "/"))


def same(what, found, expected):
    if found != expected:
        raise Damaged(f"{what}: {found!r}, not {expected!r}")


def public(kind, seed):
    return kind.from_private_bytes(bytes.fromhex(seed)).public_key().public_bytes_raw()


def check(vectors):
    given, derived = vectors["bundle"], vectors["derived"]
    root = public(Ed25519PrivateKey, given["root seed"])
    secret = bytes.fromhex(given["domain secret"])
    values = {
        "root verify key": root.hex(),
        "repository id": H(root).hex(),
        "host id": H(public(Ed25519PrivateKey, given["signing seed"]))[:16].hex(),
        "data public": public(X25519PrivateKey, given["data private"]).hex(),
        "index public": public(X25519PrivateKey, given["index private"]).hex(),
        "chunk id key": derive("mainstay v1 chunk id", secret).hex(),
        "chunker seed": str(int.from_bytes(derive("mainstay v1 chunker", secret)[:8], "big")),
        "row key": derive("mainstay v1 row digest", secret)[:16].hex(),
        "domain id": derive("mainstay v1 domain id", secret)[:16].hex(),
    }
    same("derived", values, derived)

    fields = ("data private", "index private", "domain secret", "signing seed", "root seed")
    bundle = {0: 1} | {number: bytes.fromhex(given[name]) for number, name in enumerate(fields, 1)}
    same("bundle", cbor(bytes.fromhex(given["cbor"]), "bundle"), bundle)

    for chunk in vectors["chunks"]:
        key = bytes.fromhex(derived["chunk id key"])
        same("chunk id", blake3(bytes.fromhex(chunk["plain"]), key=key).hexdigest(), chunk["id"])

    rows = bytes.fromhex(vectors["rows"]["text"]).splitlines(keepends=True)
    key = bytes.fromhex(derived["row key"])
    digest = sum(int.from_bytes(siphash(key, row), "little") for row in rows) % (1 << 128)
    same("row count", len(rows), vectors["rows"]["count"])
    same("row digest", digest.to_bytes(16, "big").hex(), vectors["rows"]["digest"])

    key, passphrase = bytes.fromhex(vectors["key"]), vectors["passphrase"].encode()
    for secret in {"key": key}, {"passphrase": passphrase}:
        repository = Vectors(vectors["objects"], **secret)
        same("bundle as unwrapped", repository.bundles, {1: bundle})
        check_objects(vectors, repository)


def check_objects(vectors, repository):
    """Everything sealed opens to what is written beside it."""
    manifest = vectors["manifest"]
    found = repository.manifest(manifest["object"].split("/")[1])
    reach = cbor(bytes.fromhex(manifest["reach"]), "reach")
    same("reach", found[0], reach[0])
    same("point", found[1], cbor(bytes.fromhex(manifest["point"]), "point"))
    repository.read_index(set(reach[0]))
    places = {}
    for pack in vectors["packs"]:
        name = bytes.fromhex(pack["object"].split("/")[-1])
        _, key, nonce = repository.open_pack(name)
        same("pack key", key.hex(), pack["key"])
        same("pack nonce", nonce.hex(), pack["nonce"])
        commitment = derive("mainstay v1 pack commitment", key + nonce)
        same("commitment", commitment.hex(), pack["commitment"])
        for blob in pack["blobs"]:
            place = name, blob["offset"], blob["length"], blob["plain length"]
            places[bytes.fromhex(blob["chunk"])] = place
    same("places", repository.places, places)
    for chunk in vectors["chunks"]:
        same("chunk", repository.chunk(bytes.fromhex(chunk["id"])).hex(), chunk["plain"])
    sources = {source[0]: source for source in found[1][1]}
    rows = b"".join(reader.read_table(repository, sources["db"], "public.t"))
    same("rows", rows.hex(), vectors["rows"]["text"])
    plain = [bytes.fromhex(chunk["plain"]) for chunk in vectors["chunks"]]
    file = b"".join(reader.read_file(repository, sources["files"], "file\udcff"))
    same("file", file, plain[0] + bytes(1000) + plain[1])
    listing = reader.streams(sources["files"])["listing"]
    for piece, block in zip(repository.pieces(listing), repository.blocks(listing), strict=True):
        directory, entry = cbor_sequence(block, "the listing")
        same("key of the listing", piece.key, directory + b"\0" + entry[0])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        check(json.load(file))
