#!/usr/bin/env python3
"""Reads Mainstay repositories: an independent implementation of doc/format.md, written from that page alone. Which recovery
points live, `live.py` knows from doc/consistency.md; what other standards say is in `standards.py`.

It needs nothing of Mainstay, only Python 3.11 and the packages cryptography, zstandard, blake3 and, for passphrases,
argon2-cffi. It writes nothing, and gives out no byte that it did not check: names, signatures, commitments, chunk ids,
lengths. It is slow and keeps the whole index in memory. A repository in a bucket is copied to a directory first.

    reader.py list  STORE_DIR                            the recovery points that live, by the log
    reader.py ls    STORE_DIR POINT SOURCE               the files of a source, or its streams
    reader.py file  STORE_DIR POINT SOURCE PATH          a file's bytes
    reader.py table STORE_DIR POINT SOURCE SCHEMA.TABLE  a table's rows (dots and slashes in names as `ls` shows them)

POINT is a point's id, the beginning of one, or `latest`. The key comes from the environment: MAINSTAY_KEY (64
hexadecimal digits, or base64) or MAINSTAY_PASSPHRASE. Exit code 0: all is well; 1: something is damaged, missing or
cannot be opened, and what was printed until then is right but not all.
"""

import base64, os, struct, sys
from datetime import datetime, timezone
from pathlib import Path

import live
from standards import (
    MALFORMED, AESGCM, Cursor, Damaged, H, InvalidTag, aes_open, blake3, cbor, cbor_item, derive, hpke_open, need, unzstd,
    verify, warn,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Repository:
    def __init__(self, directory, key=None, passphrase=None):
        self.directory = Path(directory)
        self.root, self.hosts, self.bundles, self.packs = None, {}, {}, {}
        self.places = None
        self.read_format()
        self.read_trust()
        self.read_keys(key, passphrase)

    # Objects

    def read(self, name):
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None

    def has(self, name):
        return (self.directory / name).exists()

    def names(self, prefix):
        """Names begin with a dot only for what is no object, such as temporary files."""
        found = (path.relative_to(self.directory) for path in (self.directory / prefix).rglob("*") if path.is_file())
        return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))

    def read_named(self, name):
        data = self.read(name)
        need(H(data).hex() == name.rsplit("/", 1)[-1], f"{name} does not have the bytes that its name says")
        return data

    def root_signed(self, name, magic, label):
        cursor = Cursor(self.read(name), name)
        need(cursor.take(8) == magic, f"{name} is not of a kind and version that this reader knows")
        body = cbor(cursor.take(cursor.u32()), name)
        signed = cursor.data[:cursor.at]
        signature = cursor.take(64)
        cursor.end()
        need(isinstance(body, dict), f"{name} is not a map")
        verify(self.root or body[2], signature, f"mainstay v1 {label}\0".encode() + signed, name)
        return body

    def host_signed(self, name, data, label, roles):
        """Checks the last 80 bytes, signer and signature; the signer must have one of the roles (bits)."""
        need(len(data) > 80, f"{name} is cut short")
        host = self.hosts.get(data[-80:-64])
        need(host, f"{name} is signed by a host that the repository does not trust")
        need(host[2] & roles, f"{name} is signed by {host[1]}, which may not do so")
        verify(host[0], data[-64:], f"mainstay v1 {label}\0".encode() + data[:-80], name)

    def header(self, cursor, magic):
        """Checks magic, suite, two bytes that differ by kind, epoch, repository id. Returns those two and the epoch."""
        need(cursor.take(8) == magic, f"{cursor.what} is not of a kind and version that this reader knows")
        suite, kind, epoch = cursor.unpack(">HHI")
        need(suite == 1, f"{cursor.what} is of suite {suite}, which this reader does not know")
        need(cursor.take(32) == self.id, f"{cursor.what} belongs to another repository")
        need(epoch in self.bundles, f"{cursor.what} is of epoch {epoch}, for which there is no key here")
        return kind, epoch

    # Format, trust, keys

    def read_format(self):
        body = self.root_signed("format", b"MSTYFMT1", "format")
        need(body[0] == 1 and body[1] == 1, "the repository is of a newer format or suite than this reader knows")
        need(body[4] == 0, f"the repository uses features that this reader does not know ({body[4]:#x})")
        self.root = body[2]
        self.id = H(self.root)

    def read_trust(self):
        name = max(self.names("trust"), default="trust/0000000001")
        body = self.root_signed(name, b"MSTYTRS1", "trust")
        need(body[0] == self.id, f"{name} belongs to another repository")
        need(f"trust/{body[1]:010}" == name, f"{name} was given another name")
        self.hosts = {H(host[0])[:16]: host for host in body[3]}

    def read_keys(self, key, passphrase):
        epochs = set()
        for name in self.names("keys"):
            try:
                wrapped = self.root_signed(name, b"MSTYKEY1", "recipient")
                epoch, recipient, kind = wrapped[1], wrapped[2], wrapped[4]
                need(wrapped[0] == self.id, f"{name} belongs to another repository")
                need(f"keys/{epoch:010}/{recipient.hex()}" == name, f"{name} was given another name")
                epochs.add(epoch)
                secret = key if kind == 0 else passphrase if kind == 1 else None
                if epoch not in self.bundles and secret is not None:
                    self.unwrap(name, wrapped, secret)
            except Damaged as damage:  # It must not keep a good key from working.
                warn(f"{damage}; it is passed over")
        need(self.bundles, "the key does not open this repository")
        for epoch in epochs - self.bundles.keys():
            warn(f"no key for epoch {epoch}: what was written in it cannot be read")
        secret = self.bundles[max(self.bundles)][3]
        self.chunk_key = derive("mainstay v1 chunk id", secret)
        self.domain = derive("mainstay v1 domain id", secret)[:16]

    def unwrap(self, name, wrapped, secret):
        epoch, recipient, kind = wrapped[1], wrapped[2], wrapped[4]
        if kind == 1:
            from argon2.low_level import Type, hash_secret_raw
            salt, memory, iterations, lanes = wrapped[5]
            need(memory <= 256 << 10 and iterations <= 16 and lanes <= 8, f"{name} asks for too much work")
            secret = hash_secret_raw(secret, salt, iterations, memory, lanes, 32, Type.ID, 0x13)
        aad = self.id + struct.pack(">I", epoch) + recipient + bytes([kind])
        try:
            kek = derive("mainstay v1 recipient", secret + recipient)
            bundle = cbor(AESGCM(kek).decrypt(wrapped[6], wrapped[7], aad), name)
        except InvalidTag:
            return  # It is for another key.
        need(bundle[0] == epoch, f"{name} holds the keys of another epoch")
        if 5 in bundle:
            root = Ed25519PrivateKey.from_private_bytes(bundle[5]).public_key().public_bytes_raw()
            need(root == self.root, f"{name} holds another repository's root key")
        self.bundles[epoch] = bundle

    # Recovery points

    def point_ids(self):
        return [name.rsplit("/", 1)[-1] for name in self.names("manifests")]

    def manifest(self, point):
        """The packs that a point needs, and the point itself."""
        name = f"manifests/{point}"
        data = self.read_named(name)
        self.host_signed(name, data, "manifest", 1 | 8)
        cursor = Cursor(data[:-80], name)
        kind, epoch = self.header(cursor, b"MSTYMAN1")
        cursor.take(16)  # The session.
        need(kind == 0, f"{name} has an unknown header")
        sections = []
        for private, info in (2, b"mainstay v1 reach"), (1, b"mainstay v1 point"):
            encapsulated = cursor.take(32)
            sealed = cursor.take(cursor.u32())
            sections.append(hpke_open(self.bundles[epoch][private], encapsulated, sealed, info, data[:64], name))
        cursor.end()
        return cbor(sections[0], name)[0], cbor(unzstd(sections[1], 512 << 20, name), name)

    def find_point(self, word):
        if word == "latest":
            points = [(self.manifest(point)[1][0][5], point) for point in live.live_points(self)]
            need(points, "there is no recovery point")
            return max(points)[1]
        found = [point for point in live.live_points(self) if point.startswith(word)]
        if not found:
            found = [point for point in self.point_ids() if point.startswith(word)]
            warn(f"no recovery point {word} lives; what was dropped or never committed is looked through")
        need(found, f"there is no recovery point {word}")
        need(len(found) == 1, f"{word} is the beginning of {len(found)} recovery points")
        return found[0]

    # Chunks

    def read_index(self, reach):
        """Where chunks lie, in the packs that are needed: from the index, or from the packs where it is damaged."""
        self.places, whole = {}, True
        for name in self.names("index"):
            try:
                self.read_segment(name, reach)
            except Damaged as damage:
                warn(f"{damage}; the packs' own tables of contents are read instead")
                whole = False
        if not whole:
            for pack in reach:
                self.open_pack(pack)

    def read_segment(self, name, reach):
        data = self.read_named(name)
        self.host_signed(name, data, "index", 1 | 4 | 8)
        cursor = Cursor(data[:-80], name)
        kind, epoch = self.header(cursor, b"MSTYIDX1")
        need(kind == 0, f"{name} has an unknown header")
        if cursor.take(16) != self.domain:
            return  # Another domain's chunks are named by another key.
        aad, encapsulated = data[:cursor.at], cursor.take(32)
        sealed = cursor.take(cursor.u32())
        cursor.end()
        segment = hpke_open(self.bundles[epoch][2], encapsulated, sealed, b"mainstay v1 index", aad, name)
        cursor = Cursor(segment, name)
        packs, records = cursor.unpack(">II")
        packs = [cursor.unpack(">32sB")[0] for _ in range(packs)]
        before = b""
        for _ in range(records):
            chunk, pack, offset, length, plain = cursor.unpack(">32sIIII")
            need(before <= chunk and pack < len(packs), f"{name} is out of order")
            before = chunk
            if packs[pack] in reach:
                self.places.setdefault(chunk, (packs[pack], offset, length, plain))
        cursor.end()

    def open_pack(self, pack):
        """Bytes, key and nonce of a pack. The last few are kept: neighbours are asked for one after the other."""
        if pack in self.packs:
            return self.packs[pack]
        places = [f"packs/{pool}/{pack.hex()[:2]}/{pack.hex()}" for pool in ("data", "tree")]
        name = next((name for name in places if self.has(name)), places[0])
        data = self.read_named(name)
        cursor = Cursor(data, name)
        kind, epoch = self.header(cursor, b"MSTYPAK1")
        need(kind == (0x100 if name == places[0] else 0x200), f"{name} is not of the pool that its name says")
        cursor.take(16)  # The session.
        need(cursor.take(16) == self.domain, f"{name} is of another domain")
        nonce, encapsulated, sealed, commitment = cursor.unpack(">16s32s48s32s")
        key = hpke_open(self.bundles[epoch][1], encapsulated, sealed, b"mainstay v1 pack", data[:96], name)
        need(derive("mainstay v1 pack commitment", key + nonce) == commitment, f"{name} has a key not committed to")
        self.read_contents(name, pack, data, key, nonce)
        while len(self.packs) > 3:
            self.packs.pop(next(iter(self.packs)))
        self.packs[pack] = data, key, nonce
        return self.packs[pack]

    def read_contents(self, name, pack, data, key, nonce):
        """The table of contents: blobs without gaps from the header to the table itself."""
        length = Cursor(data[-4:], name).u32()
        start = len(data) - 4 - length
        need(start >= 208, f"{name} has a table of contents that cannot be")
        aad = self.id + nonce + bytes(8 + 1 + 32)
        cursor = Cursor(aes_open(key, struct.pack(">IQ", 1, 0), data[start:-4], aad, name), name)
        at = 208
        for _ in range(cursor.u32()):
            chunk, offset, length, plain, kind = cursor.unpack(">32sIIIB")
            need(offset == at, f"{name} has a gap between blobs")
            at += length
            if kind == 1:
                self.places.setdefault(chunk, (pack, offset, length, plain))
        need(at == start, f"{name} has a gap before its table of contents")
        cursor.end()

    def chunk(self, chunk):
        need(chunk in self.places, f"chunk {chunk.hex()} is in no pack of this point")
        pack, offset, length, plain = self.places[chunk]
        data, key, nonce = self.open_pack(pack)
        what = f"chunk {chunk.hex()} in pack {pack.hex()}"
        sealed = Cursor(data[offset:], what).take(length)
        aad = self.id + nonce + struct.pack(">QB", offset, 1) + chunk
        payload = aes_open(key, struct.pack(">IQ", 0, offset), sealed, aad, what)
        need(payload[:1] in (b"\0", b"\1"), f"{what} has a codec that this reader does not know")
        need(plain <= 8 << 20, f"{what} is larger than a chunk can be")
        payload = payload[1:] if payload[0] == 0 else unzstd(payload[1:], plain, what)
        need(len(payload) == plain, f"{what} has another length than the index says")
        need(blake3(payload, key=self.chunk_key).digest() == chunk, f"{what} is not what its id says")
        return payload

    # Streams

    def pieces(self, content):
        """The pieces of a stream in order, from which the data is read."""
        level, pieces = content
        need(level <= 6, "a stream has more levels than one can have")
        for piece in pieces:
            if level == 0:
                yield piece
                continue
            what = f"list {piece[0].hex()}"
            below = cbor(self.chunk(piece[0]), what)
            sums = [sum(number(lower, field) for lower in below) for field in (1, 2, 3)]
            said = [number(piece, field) for field in (1, 2, 3)]
            need([*sums[:2], sums[2] % (1 << 128)] == said, f"{what} does not add up to what was said of it")
            need(below and key_of(below[0]) == key_of(piece), f"{what} begins with another key than was said of it")
            yield from self.pieces([level - 1, below])

    def block(self, piece):
        data = self.chunk(piece[0])
        need(len(data) == piece[1], f"chunk {piece[0].hex()} has another length than its stream says")
        if len(piece) > 5:
            data = lay_over(data, self.chunk(piece[5]), f"patch {piece[5].hex()}")
        return data

    def blocks(self, content):
        """The bytes of a stream in order."""
        for piece in self.pieces(content):
            if piece[0] is not None:
                yield self.block(piece)
                continue
            for at in range(0, piece[1], 1 << 20):
                yield bytes(min(piece[1] - at, 1 << 20))

    def entries(self, source):
        """Path and entry of everything in a source's listing, in its order."""
        before = None
        for piece in self.pieces(stream(source, "listing")):
            what = f"the listing's chunk {piece[0].hex()}"
            cursor, items = Cursor(self.block(piece), what), []
            while cursor.at < len(cursor.data):
                items.append(cbor_item(cursor))
            need(isinstance(items[0], bytes), f"{what} does not begin with a directory")
            first = items[1][0] if len(items) > 1 and isinstance(items[1], dict) else b""
            need(key_of(piece) == items[0] + b"\0" + first, f"{what} has another key than its first entry's")
            for item in items:
                if isinstance(item, bytes):
                    directory = item
                    continue
                name = item[0]
                need(b"/" not in name and b"\0" not in name and name not in (b".", b".."), f"{what} has a bad name")
                place = directory.split(b"/") if directory else [], name
                need(before is None or before < place, f"{what} is out of order")
                before = place
                yield (directory + b"/" + name if directory else name), item


def number(piece, field):
    """Bytes (1), rows (2) or digest (3) that a piece spans."""
    value = piece[field] if field < len(piece) else 0
    return int.from_bytes(value, "big") if isinstance(value, bytes) else value


def lay_over(frame, patch, what):
    """A frame with the pages of its patch."""
    count = int.from_bytes(patch[:2], "big")
    pages = 2 + 2 * count
    need(len(patch) == pages + 8192 * count, f"{what} has another length than its count says")
    frame = bytearray(frame)
    for number, at in zip(struct.unpack(f">{count}H", patch[2:pages]), range(pages, len(patch), 8192)):
        need(8192 * (number + 1) <= len(frame), f"{what} has a page beyond its frame")
        frame[8192 * number : 8192 * (number + 1)] = patch[at : at + 8192]
    return bytes(frame)


def key_of(piece):
    return piece[4] if len(piece) > 4 else b""


def stream(source, name):
    found = [stream[1] for stream in source[6] if stream[0] == name]
    need(len(found) == 1, f"{source[0]} has no stream {name}")
    return found[0]


def moment(nanoseconds):
    return datetime.fromtimestamp(nanoseconds // 10**9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(path):
    """One line whatever the bytes: control characters, backslashes and what is not UTF-8 are escaped."""
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def list_points(repository):
    print(f"repository {repository.id.hex()}", file=sys.stderr)
    points, damaged = [], False
    for point in live.live_points(repository):
        try:
            points.append((repository.manifest(point)[1][0], point))
        except Damaged as damage:
            warn(str(damage))
            damaged = True
    for summary, point in sorted(points, key=lambda found: (found[0][5], found[1])):
        state = ("complete", "incomplete", "failed")[summary[7]]
        sources = ",".join(f"{brief[0]}:{brief[1]}" for brief in summary[8])
        print(point, moment(summary[5]), shown(summary[0].encode()), state, sources or "-", sep="\t")
    return damaged


def list_source(repository, source):
    if source[1] != "files":
        for entry in source[6]:
            rows = sum(number(piece, 2) for piece in entry[1][1])
            print(shown(entry[0].encode()), sum(piece[1] for piece in entry[1][1]), rows, sep="\t")
        return
    for path, entry in repository.entries(source):
        seconds, nanoseconds = entry[6]
        target = " -> " + shown(entry[12]) if 12 in entry else ""
        print(f"{'-dlpcbs'[entry[1]]}{entry[2]:04o}", entry[3], entry[4], entry[5], seconds * 10**9 + nanoseconds,
              shown(path) + target, sep="\t")


def read_file(repository, source, path):
    for found, entry in repository.entries(source):
        if found == os.fsencode(path):
            need(entry[1] == 0 and 14 in entry, f"{path} is not a regular file, or could not be read at the time")
            need(sum(piece[1] for piece in entry[14][1]) == entry[5], f"{path} has another size than was said of it")
            return repository.blocks(entry[14])
    raise Damaged(f"{source[0]} has no file {path}")


def read_table(repository, source, table):
    prefix = f"table/{table}/"
    parts = {stream[0].removeprefix(prefix): stream[1] for stream in source[6] if stream[0].startswith(prefix)}
    need(parts, f"{source[0]} has no table {table}")
    need(set(parts) == {str(part) for part in range(len(parts))}, f"a part of {table} is missing")
    last = b"\n"
    for part in sorted(parts, key=int):
        for block in repository.blocks(parts[part]):
            last = block[-1:] or last
            yield block
        need(last == b"\n", f"part {part} of {table} does not end with a row's end")


def secret_from_environment():
    text = os.environ.get("MAINSTAY_KEY", "").strip()
    passphrase = os.environ.get("MAINSTAY_PASSPHRASE")
    need(text or passphrase, "set MAINSTAY_KEY or MAINSTAY_PASSPHRASE")
    try:
        plain = text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
        plain += "=" * (-len(plain) % 4)
        key = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(plain, validate=True)
    except ValueError:
        key = b""
    need(not text or len(key) == 32, "MAINSTAY_KEY is neither 64 hexadecimal digits nor base64 of 32 bytes")
    return key if text else None, passphrase.encode() if passphrase else None


def main(arguments):
    wanted = {"list": 2, "ls": 4, "file": 5, "table": 5}
    if not arguments or wanted.get(arguments[0]) != len(arguments):
        print(__doc__, file=sys.stderr)
        return 2
    command, directory, *rest = arguments
    try:
        repository = Repository(directory, *secret_from_environment())
        if command == "list":
            return 1 if list_points(repository) else 0
        reach, point = repository.manifest(repository.find_point(rest[0]))
        source = next((source for source in point[1] if source[0] == rest[1]), None)
        need(source, f"the point has no source {rest[1]}")
        repository.read_index(set(reach))
        if command == "ls":
            list_source(repository, source)
            return 0
        for block in (read_file if command == "file" else read_table)(repository, source, rest[2]):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return 0
    except Damaged as damage:
        warn(str(damage))
    except MALFORMED as error:
        warn(f"an object does not have the fields that the format says: {error!r}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
