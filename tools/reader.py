#!/usr/bin/env python3
"""Reads Mainstay repositories: an independent implementation of doc/format.md, written from that
page alone; the numbers of fields are the page's. Which recovery points live, live.py knows from
doc/consistency.md; what other standards say is in standards.py. It needs nothing of Mainstay, only
Python 3.11 and the packages cryptography, zstandard, blake3 and, for passphrases, argon2-cffi.

    reader.py list  STORE_DIR                            the recovery points that live, by the log
    reader.py ls    STORE_DIR POINT SOURCE               the files of a source, or its streams
    reader.py file  STORE_DIR POINT SOURCE PATH          a file's bytes
    reader.py table STORE_DIR POINT SOURCE SCHEMA.TABLE  a table's rows (names escaped as in `ls`)

POINT is `latest`, or a point's id or the beginning of one, dropped or not. The key comes from the
environment: MAINSTAY_KEY (64 hexadecimal digits, or base64) or MAINSTAY_PASSPHRASE. Exit code 0:
all is well; 1: something is damaged, missing or cannot be opened, and what was printed until then
is right but not all. A repository in a bucket is copied to a directory first.
"""

import base64, glob, os, struct, sys
from datetime import datetime, timezone
from functools import lru_cache
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from live import live_points
from standards import (
    MALFORMED, AESGCM, Cursor, Damaged, H, InvalidTag, aes_open, argon2id, blake3, cbor,
    cbor_sequence, derive, hpke_open, need, unzstd, verify, warn,
)

# Roles of a host (§3).
BACKUP, PRUNE, ADMIN = 1, 4, 8


class Piece(NamedTuple):
    """What a stream is made of (§9). A hole has no chunk."""
    chunk: bytes | None
    length: int
    rows: int = 0
    digest: bytes = bytes(16)
    key: bytes = b""
    patch: bytes | None = None


class Repository:
    def __init__(self, directory, key=None, passphrase=None):
        self.directory = Path(directory)
        self.root, self.bundles, self.places = None, {}, {}

        body = self.root_signed("format", b"MSTYFMT1", "format")
        need((body[0], body[1]) == (1, 1), "format names a version or suite that is not known here")
        need(body[4] == 0, f"format names features that are not known here ({body[4]:#x})")
        self.root = body[2]
        self.id = H(self.root)

        name = max(self.names("trust"), default="trust/0000000001")
        body = self.root_signed(name, b"MSTYTRS1", "trust")
        need(name == f"trust/{body[1]:010}", f"{name} was given another name")
        self.hosts = {H(host[0])[:16]: host for host in body[3]}

        for name in self.names("keys"):
            try:
                self.read_recipient(name, {0: key, 1: passphrase})
            except Damaged as damage:
                warn(f"{damage}; it is passed over")
        need(self.bundles, "the key does not open this repository")
        secret = self.bundles[max(self.bundles)][3]
        self.chunk_key = derive("mainstay v1 chunk id", secret)
        self.domain = derive("mainstay v1 domain id", secret)[:16]

    def read(self, name):
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None

    def has(self, name):
        return (self.directory / name).exists()

    def names(self, prefix):
        """Without what begins with a dot, as glob has it."""
        found = glob.glob(f"{prefix}/**", root_dir=self.directory, recursive=True)
        return sorted(name for name in found if (self.directory / name).is_file())

    def read_named(self, name):
        data = self.read(name)
        need(name.endswith(H(data).hex()), f"{name} does not have the bytes that its name says")
        return data

    def root_signed(self, name, magic, label):
        cursor = Cursor(self.read(name), name)
        need(cursor.take(8) == magic, f"{name} is not of a kind and version that is known here")
        body = cbor(cursor.take(cursor.u32()), name)
        message = f"mainstay v1 {label}\0".encode() + cursor.data[:cursor.at]
        verify(self.root or body[2], cursor.take(64), message, name)
        cursor.end()
        return body

    def host_signed(self, name, data, label, roles):
        """Checks signer and signature, and returns a cursor over the bytes before them."""
        need(len(data) > 80, f"{name} is cut short")
        host = self.hosts.get(data[-80:-64])
        need(host, f"{name} is signed by a host that the repository does not trust")
        need(host[2] & roles, f"{name} is signed by {host[1]}, which may not do so")
        verify(host[0], data[-64:], f"mainstay v1 {label}\0".encode() + data[:-80], name)
        return Cursor(data[:-80], name)

    def header(self, cursor, magic, pool=0):
        """Checks what all sealed objects begin with, and returns the keys of their epoch."""
        found, suite, two_bytes, epoch, repository = cursor.unpack(">8sHHI32s")
        known = (found, suite, two_bytes) == (magic, 1, pool << 8)
        need(known, f"{cursor.what} is not of the kind that its name says, or of another suite")
        need(repository == self.id, f"{cursor.what} belongs to another repository")
        need(epoch in self.bundles, f"{cursor.what} is of epoch {epoch}, which the key cannot open")
        return self.bundles[epoch]

    def read_recipient(self, name, secrets):
        body = self.root_signed(name, b"MSTYKEY1", "recipient")
        epoch, recipient, kind = body[1], body[2], body[4]
        secret = secrets.get(kind)
        if secret is None or epoch in self.bundles:
            return
        if kind == 1:
            salt, memory, iterations, lanes = body[5]
            need(memory <= 256 << 10 and iterations <= 16 and lanes <= 8, f"{name} is too costly")
            secret = argon2id(secret, salt, memory, iterations, lanes)
        kek = derive("mainstay v1 recipient", secret + recipient)
        aad = self.id + struct.pack(">I16sB", epoch, recipient, kind)
        try:
            self.bundles[epoch] = cbor(AESGCM(kek).decrypt(body[6], body[7], aad), name)
        except InvalidTag:
            pass  # It is for another key.

    @lru_cache(maxsize=4)
    def open_pack(self, pack):
        """Bytes, key and nonce of a pack; from then on it is known where its chunks lie."""
        path = f"{pack.hex()[:2]}/{pack.hex()}"
        pool, number = ("tree", 2) if self.has(f"packs/tree/{path}") else ("data", 1)
        name = f"packs/{pool}/{path}"
        data = self.read_named(name)
        cursor = Cursor(data, name)
        keys = self.header(cursor, b"MSTYPAK1", number)
        session, domain, nonce = cursor.unpack(">16s16s16s")
        need(domain == self.domain, f"{name} is of another domain")
        encapsulated, sealed, commitment = cursor.unpack(">32s48s32s")
        key = hpke_open(keys[1], encapsulated, sealed, b"mainstay v1 pack", data[:96], name)
        committed = derive("mainstay v1 pack commitment", key + nonce)
        need(committed == commitment, f"{name} has a key that it is not committed to")
        self.read_contents(name, pack, data, key, nonce)
        return data, key, nonce

    def read_contents(self, name, pack, data, key, nonce):
        length = Cursor(data[-4:], name).u32()
        sealed = data[-4 - length:-4]
        aad = self.id + nonce + bytes(8 + 1 + 32)
        cursor = Cursor(aes_open(key, struct.pack(">IQ", 1, 0), sealed, aad, name), name)
        at = 208
        for _ in range(cursor.u32()):
            chunk, offset, length, plain, kind = cursor.unpack(">32sIIIB")
            need(offset == at, f"{name} has a gap between blobs")
            at += length
            if kind == 1:
                self.places.setdefault(chunk, (pack, offset, length, plain))
        cursor.end()

    def chunk(self, chunk):
        need(chunk in self.places, f"chunk {chunk.hex()} is in no pack of this point")
        pack, offset, length, plain_length = self.places[chunk]
        what = f"chunk {chunk.hex()} in pack {pack.hex()}"
        need(plain_length <= 8 << 20, f"{what} is larger than a chunk can be")
        data, key, nonce = self.open_pack(pack)
        aad = self.id + nonce + struct.pack(">QB", offset, 1) + chunk
        sealed = data[offset:offset + length]
        payload = aes_open(key, struct.pack(">IQ", 0, offset), sealed, aad, what)
        codec, plain = payload[:1], payload[1:]
        need(codec in (b"\0", b"\1"), f"{what} has a codec that is not known here")
        if codec == b"\1":
            plain = unzstd(plain, plain_length, what)
        need(len(plain) == plain_length, f"{what} has another length than the index says")
        found = blake3(plain, key=self.chunk_key).digest()
        need(found == chunk, f"{what} is not what its id says")
        return plain

    def read_index(self, reach):
        """Finds out where chunks lie in the packs that a point needs."""
        try:
            for name in self.names("index"):
                self.read_segment(name, reach)
        except Damaged as damage:
            warn(f"{damage}; the packs' own tables of contents are read instead")
            for pack in reach:
                self.open_pack(pack)

    def read_segment(self, name, reach):
        data = self.read_named(name)
        cursor = self.host_signed(name, data, "index", BACKUP | PRUNE | ADMIN)
        keys = self.header(cursor, b"MSTYIDX1")
        if cursor.take(16) != self.domain:
            return  # Another domain's chunks are named by another key.
        segment = unseal(cursor, keys[2], b"mainstay v1 index", data[:64])
        cursor.end()
        cursor = Cursor(segment, name)
        packs, records = cursor.unpack(">II")
        packs = [cursor.unpack(">32sB")[0] for _ in range(packs)]
        records = [cursor.unpack(">32sIIII") for _ in range(records)]
        cursor.end()
        need(records == sorted(records, key=lambda record: record[0]), f"{name} is not sorted")
        for chunk, pack, offset, length, plain in records:
            if packs[pack] in reach:
                self.places.setdefault(chunk, (packs[pack], offset, length, plain))

    def point_ids(self):
        return [name.removeprefix("manifests/") for name in self.names("manifests")]

    def manifest(self, point):
        """The packs that a recovery point needs, and the point itself."""
        name = f"manifests/{point}"
        data = self.read_named(name)
        cursor = self.host_signed(name, data, "manifest", BACKUP | ADMIN)
        keys = self.header(cursor, b"MSTYMAN1")
        cursor.take(16)  # The session.
        reach = unseal(cursor, keys[2], b"mainstay v1 reach", data[:64])
        point = unseal(cursor, keys[1], b"mainstay v1 point", data[:64])
        cursor.end()
        return cbor(reach, name)[0], cbor(unzstd(point, 512 << 20, name), name)

    def find_point(self, word):
        if word == "latest":
            found = sorted(live_points(self), key=lambda point: self.manifest(point)[1][0][5])[-1:]
        else:
            found = [point for point in self.point_ids() if point.startswith(word)]
        need(len(found) == 1, f"{word} stands for {len(found)} recovery points")
        return found[0]

    def source(self, point, name):
        reach, point = self.manifest(self.find_point(point))
        sources = {source[0]: source for source in point[1]}
        need(name in sources, f"the point has no source {name}")
        self.read_index(set(reach))
        return sources[name]

    def pieces(self, content):
        """The pieces of level 0 in order."""
        level, pieces = content
        need(level <= 6, "a stream has more levels than one can have")
        for piece in starmap(Piece, pieces):
            if level == 0:
                yield piece
                continue
            what = f"list {piece.chunk.hex()}"
            below = cbor(self.chunk(piece.chunk), what)
            need(span(below) == piece[1:5], f"{what} does not add up to what was said of it")
            yield from self.pieces([level - 1, below])

    def blocks(self, content):
        """The bytes of a stream in order: of each piece, but for a long hole, at once."""
        for piece in self.pieces(content):
            if piece.chunk is None:
                for at in range(0, piece.length, 1 << 20):
                    yield bytes(min(piece.length - at, 1 << 20))
                continue
            data = self.chunk(piece.chunk)
            need(len(data) == piece.length, f"chunk {piece.chunk.hex()} is not as long as was said")
            if piece.patch:
                data = lay_over(data, Cursor(self.chunk(piece.patch), f"patch {piece.patch.hex()}"))
            yield data

    def entries(self, source):
        """Path and entry of everything in a source's listing, in its order."""
        listing = streams(source).get("listing")
        need(listing, f"{source[0]} has no listing")
        before = None
        for block in self.blocks(listing):
            directory = None
            for item in cbor_sequence(block, "the listing"):
                if isinstance(item, bytes):
                    directory = item
                    continue
                path = directory + b"/" + item[0] if directory != b"" else item[0]
                place = directory.split(b"/"), item[0]
                need(before is None or before < place, "the listing is out of order")
                before = place
                yield path, item


def unseal(cursor, private, info, aad):
    encapsulated = cursor.take(32)
    sealed = cursor.take(cursor.u32())
    return hpke_open(private, encapsulated, sealed, info, aad, cursor.what)


def span(pieces):
    """Length, rows, digest and key of pieces together."""
    pieces = list(starmap(Piece, pieces))
    digest = sum(int.from_bytes(piece.digest, "big") for piece in pieces) % (1 << 128)
    length, rows = sum(piece.length for piece in pieces), sum(piece.rows for piece in pieces)
    return length, rows, digest.to_bytes(16, "big"), pieces[0].key if pieces else b""


def lay_over(frame, patch):
    """A frame with the pages of a patch."""
    frame = bytearray(frame)
    count, = patch.unpack(">H")
    for number in patch.unpack(f">{count}H"):
        page = slice(8192 * number, 8192 * (number + 1))
        need(page.stop <= len(frame), f"{patch.what} has a page beyond its frame")
        frame[page] = patch.take(8192)
    patch.end()
    return bytes(frame)


def streams(source):
    return {stream[0]: stream[1] for stream in source[6]}


def shown(path):
    """One line whatever the bytes: backslashes and what is not printable are escaped."""
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def list_points(repository):
    print(f"repository {repository.id.hex()}", file=sys.stderr)
    found, damaged = [], 0
    for point in live_points(repository):
        try:
            summary = repository.manifest(point)[1][0]
            found.append((summary[5], point, summary))
        except Damaged as damage:
            warn(damage)
            damaged += 1
    for finished, point, summary in sorted(found):
        time = datetime.fromtimestamp(finished // 10**9, timezone.utc).strftime("%FT%TZ")
        state = ("complete", "incomplete", "failed")[summary[7]]
        sources = ",".join(f"{brief[0]}:{brief[1]}" for brief in summary[8])
        print(point, time, shown(summary[0].encode()), state, sources or "-", sep="\t")
    need(not damaged, f"{damaged} recovery points cannot be shown")


def list_source(repository, source):
    if source[1] != "files":
        for name, content in streams(source).items():
            length, rows, *_ = span(content[1])
            print(shown(name.encode()), length, rows, sep="\t")
        return
    for path, entry in repository.entries(source):
        mode = "-dlpcbs"[entry[1]] + f"{entry[2]:04o}"
        seconds, nanoseconds = entry[6]
        modified = seconds * 10**9 + nanoseconds
        target = " -> " + shown(entry[12]) if 12 in entry else ""
        print(mode, entry[3], entry[4], entry[5], modified, shown(path) + target, sep="\t")


def read_file(repository, source, path):
    for found, entry in repository.entries(source):
        if found == os.fsencode(path):
            need(14 in entry, f"{path} is not a regular file, or could not be read at the time")
            need(span(entry[14][1])[0] == entry[5], f"{path} has another size than was said of it")
            return repository.blocks(entry[14])
    raise Damaged(f"{source[0]} has no file {path}")


def read_table(repository, source, table):
    prefix = f"table/{table}/"
    parts = {name: part for name, part in streams(source).items() if name.startswith(prefix)}
    need(parts, f"{source[0]} has no table {table}")
    for number in range(len(parts)):
        name = f"{prefix}{number}"
        need(name in parts, f"{name} is missing")
        yield from repository.blocks(parts[name])


def secrets():
    """The key and the passphrase of the environment."""
    text = os.environ.get("MAINSTAY_KEY", "").strip()
    passphrase = os.environ.get("MAINSTAY_PASSPHRASE", "").encode()
    need(text or passphrase, "set MAINSTAY_KEY or MAINSTAY_PASSPHRASE")
    try:
        key = bytes.fromhex(text) if len(text) == 64 else base64.urlsafe_b64decode(text + "==")
    except ValueError:
        raise Damaged("MAINSTAY_KEY is neither hexadecimal nor base64") from None
    return key or None, passphrase or None


def run(command, store, point=None, source=None, what=None):
    repository = Repository(store, *secrets())
    if command == "list":
        list_points(repository)
        return
    source = repository.source(point, source)
    if command == "ls":
        list_source(repository, source)
        return
    read = read_file if command == "file" else read_table
    for block in read(repository, source, what):
        sys.stdout.buffer.write(block)


def main(arguments):
    wanted = {"list": 2, "ls": 4, "file": 5, "table": 5}
    if not arguments or wanted.get(arguments[0]) != len(arguments):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        run(*arguments)
    except Damaged as damage:
        warn(damage)
        return 1
    except MALFORMED as error:
        warn(f"an object does not have the fields that the format says: {error!r}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
