"""Which recovery points live: as much of doc/consistency.md as tells that, a fold over the log. Who
only restores a point whose id is known needs none of it."""

from standards import MALFORMED, Cursor, Damaged, H, cbor, need, warn

# By tag, the roles of which a host needs one to write it: 1 backup, 2 verify, 4 prune, 8 admin.
MAY_SAY = (8, 12, 9, 9, 12, 12, 12, 12, 12, 12, 13, 12, 10, 12, 8, 15)
# An entry that lies more than this beyond the end is not taken for a part of the log.
BEYOND = 4096


class Fold:
    """The part of the log's state that decides which points live. It does not follow Condemn and
    Sweep: a Commit that names what was condemned before its session began has no effect, but a
    writer cannot make one by mistake."""

    def __init__(self):
        self.points, self.sessions, self.holds, self.strays = set(), {}, {}, set()
        self.incarnation, self.previous, self.readable = None, bytes(32), True

    def apply(self, n, signer, tag, event, incarnation):
        if tag == 0 and n == 0:  # Open
            self.incarnation = incarnation
        elif tag == 1:  # Incarnate
            self.incarnation = event[0]
            self.sessions.clear()
        elif tag == 2:  # Begin
            self.sessions.setdefault(event[0], signer)
        elif tag == 3 and self.sessions.get(event[0]) == signer:  # Commit
            del self.sessions[event[0]]
            self.points.add(event[1])
        elif tag == 4:  # Fence
            self.sessions.pop(event[0], None)
        elif tag == 9 and event[0] not in self.holds.values():  # Drop
            self.points.discard(event[0])
        elif tag == 10 and event[1] in self.points:  # Hold
            self.holds.setdefault(event[0], event[1])
        elif tag == 11:  # Release
            self.holds.pop(event[0], None)
        elif tag == 14:  # Acknowledge
            self.strays.update(entry for entry in event[0] if entry > n)


def live_points(repository):
    """What was committed, by a session that was open, and not dropped while no hold was on it. An
    entry that cannot be relied on has no effect. Without a log every manifest counts."""
    names = repository.names("log")
    if not names:
        warn("there is no log: every manifest is taken for a recovery point")
        return repository.point_ids()
    fold = Fold()
    head = -1
    for number in (int(name.removeprefix("log/")) for name in names):
        if number > head + BEYOND:
            warn(f"log entry {number} lies far beyond the end of the log")
            break
        head = number
    for n in range(head + 1):
        name, data = f"log/{n:020}", b""
        try:
            data = repository.read(name)
            entry = log_entry(repository, name, n, data, fold)
            if n not in fold.strays:
                fold.apply(*entry)
        except (Damaged, *MALFORMED) as error:
            warn(f"{name} cannot be relied on: {error}")
        fold.previous = H(data) if data and fold.readable and n not in fold.strays else None
    return sorted(point.hex() for point in fold.points)


def log_entry(repository, name, n, data, fold):
    """Checks an entry in its place: repository, number, incarnation, chain, and that its signer may
    say this."""
    fold.readable = False
    cursor = Cursor(data[:-80], name)
    need(cursor.take(8) == b"MSTYLOG1", f"{name} is not a log entry of a version known here")
    body = cbor(cursor.take(cursor.u32()), name)
    cursor.take(cursor.u32())  # Sealed: what tells about users, and the manifests say too.
    cursor.end()
    tag, event = body[5]
    fold.readable = True
    need(body[0] == repository.id and body[2] == n, f"{name} was written for another place")
    here = n == 0 or body[1] == fold.incarnation
    need(here, f"{name} was written for another incarnation of the store")
    need(fold.previous in (None, body[3]), f"{name} does not follow the entry before it")
    signer = data[-80:-64]
    own_fence = tag == 4 and fold.sessions.get(event[0]) == signer
    roles = 15 if own_fence or tag >= len(MAY_SAY) else MAY_SAY[tag]
    repository.host_signed(name, data, "log", roles)
    return n, signer, tag, event, body[1]
