#!/usr/bin/env python3
"""Side-by-side figures: Mainstay against what its users would pick instead, on the same machine and the same data.

    benches/bench.py [CASE ...]          all cases: files small unchanged restore database cluster archive list memory

Each round runs every contender once, in turn, so that a machine that slows down slows all of them; five rounds, medians,
and the ratio to Mainstay. The page cache is warm. Needs restic, borg and PostgreSQL 15 (apt-get install restic borgbackup
postgresql-15 pgbackrest) and the release build; BENCH_DIR (default /var/tmp/mainstay-bench) needs 15 GB. Prints Markdown.
"""
import json, os, resource, shutil, statistics, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = Path(os.environ.get("BENCH_DIR", "/var/tmp/mainstay-bench"))
MAINSTAY = os.environ.get("MAINSTAY", str(ROOT / "target/release/mainstay"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
PG_BIN = Path("/usr/lib/postgresql/15/bin")
KEY = "07" * 32
ENV = {**os.environ, "MAINSTAY_KEY": KEY, "RESTIC_PASSWORD": "bench", "BORG_PASSPHRASE": "bench",
       "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
       "BORG_CACHE_DIR": str(BENCH / "borg-cache"), "BORG_CONFIG_DIR": str(BENCH / "borg-config"),
       "RESTIC_CACHE_DIR": str(BENCH / "restic-cache"), "MAINSTAY_CACHE": str(BENCH / "cache")}


# Runs during which other processes used more than this share of the machine are made again (1: never). Of no use for databases,
# whose servers are other processes.
ALONE = float(os.environ.get("BENCH_ALONE", "1"))

def make_room(warm):
    """Empties the page cache (as root) and reads `warm` into it again. In a machine whose memory is full of cache every page
    that is written must first evict another, and all contenders take up to three times as long, by turns."""
    if os.geteuid() == 0:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("1")
    for path in warm:
        subprocess.check_call(f"find '{path}' -type f -print0 | xargs -0 -n 500 -P 2 cat > /dev/null", shell=True)


def busy():
    """CPU seconds that the machine has worked so far, and that it has had."""
    fields = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - fields[3] - fields[4]) / tick, sum(fields) / tick


def wait_until_idle():
    while ALONE < 1:
        (worked, had), _ = busy(), time.sleep(0.5)
        worked, had = (after - before for after, before in zip(busy(), (worked, had)))
        if worked < ALONE * had:
            return


class Run:
    def __init__(self, wall, cpu, rss):
        self.wall, self.cpu, self.rss = wall, cpu, rss


def run(command, cwd=None, env=None):
    """Runs a command to its end; wall seconds, CPU seconds, peak resident MiB of the process."""
    # Not by runuser itself: it is a process more, which takes half as long as what is measured here at the shortest.
    user = {"user": command[2], "group": command[2], "extra_groups": []} if command[:2] == ["runuser", "-u"] else {}
    begun = time.monotonic()
    shell = isinstance(command, str)
    process = subprocess.Popen(command[4:] if user else command, shell=shell, cwd=cwd, env={**ENV, **(env or {})}, **user,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command} failed ({process.returncode}):\n{errors.decode(errors='replace')[-2000:]}")
    return Run(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(title, contenders, rounds=ROUNDS, warm=None):
    """contenders: name → (prepare, command, size). Prints a table; the first contender is the one the ratios are to. `warm`:
    what the page cache holds at the beginning of each run, and nothing else."""
    results = {name: [] for name in contenders}
    sizes = {}
    for _ in range(rounds):
        for name, (prepare, command, size) in contenders.items():
            if prepare:
                prepare()
            os.sync()
            for attempt in range(200):
                if attempt and prepare:
                    prepare()
                if warm is not None:
                    make_room(warm)
                wait_until_idle()
                worked, had = busy()
                result = run(command)
                worked, had = (after - before for after, before in zip(busy(), (worked, had)))
                if worked - result.cpu <= ALONE * had:
                    break
            results[name].append(result)
            if size:
                sizes[name] = size()
    print(f"\n### {title}\n\n| what | wall, s (min–max) | ratio | CPU, s | peak MiB | stored MiB |\n|---|---|---|---|---|---|")
    first = None
    for name, runs in results.items():
        wall = statistics.median(r.wall for r in runs)
        first = first or wall
        low, high = min(r.wall for r in runs), max(r.wall for r in runs)
        print(f"| {name} | **{wall:.2f}** ({low:.2f}–{high:.2f}) | {wall / first:.2f} "
              f"| {statistics.median(r.cpu for r in runs):.2f} | {max(r.rss for r in runs):.0f} "
              f"| {sizes.get(name, '')} |", flush=True)
    return results


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def mib(path):
    return int(subprocess.check_output(["du", "-s", "--apparent-size", "-BM", str(path)]).split()[0].rstrip(b"M"))


def config(name, source, level=None):
    """A configuration and an empty repository; returns the mainstay command's beginning."""
    home = BENCH / f"mainstay-{name}"
    fresh(home)
    compression = f"compression: {{ level: {level} }}, " if level else ""
    (home / "mainstay.yaml").write_text(f"""version: 1
stores: {{ local: {{ url: "file://{home}/repo" }} }}
repositories: {{ main: {{ key: {{ env: MAINSTAY_KEY }}, stores: [local], {compression}cache: "{home}/cache" }} }}
apps: {{ bench: {{ repository: main, sources: {{ data: {source} }} }} }}
""")
    command = [MAINSTAY, "--config", str(home / "mainstay.yaml"), "--quiet"]
    run(command + ["init"], cwd=home)
    return command


def files_source(path):
    return f'{{ files: {{ paths: ["{path}"] }} }}'


def mainstay(name, source, level=None):
    """A contender: first backup into an empty repository."""
    home = BENCH / f"mainstay-{name}"
    return (lambda: config(name, source, level), [MAINSTAY, "--config", str(home / "mainstay.yaml"), "--quiet", "backup", "bench"],
            lambda: mib(home / "repo"))


def restic(name, path):
    repo = BENCH / f"restic-{name}"
    def prepare():
        fresh(repo)
        run(["restic", "-r", str(repo), "init"])
    return prepare, ["restic", "-r", str(repo), "backup", "-q", str(path)], lambda: mib(repo)


def rustic(name, path):
    """Optional: `cargo install rustic-rs --locked`, then RUSTIC=/path/to/rustic."""
    program, repo = os.environ.get("RUSTIC") or shutil.which("rustic"), BENCH / f"rustic-{name}"
    if not program:
        return {}
    command = [program, "-r", str(repo), "--password", "bench", "--no-progress", "--log-level", "error"]
    def prepare():
        fresh(repo)
        run(command + ["init"])
    return {"rustic": (prepare, command + ["backup", str(path)], lambda: mib(repo))}


def borg(name, path):
    repo = BENCH / f"borg-{name}"
    def prepare():
        fresh(repo)
        run(["borg", "init", "-e", "repokey-blake2", str(repo)])
    return (prepare, ["borg", "create", "-C", "zstd,1", f"{repo}::{{now:%Y%m%d%H%M%S%f}}", str(path)], lambda: mib(repo))


def case_files():
    path = Path("/usr/lib/x86_64-linux-gnu")
    run(f"tar cf - {path} 2>/dev/null | cat > /dev/null")
    engine = ROOT / "target/release/examples/engine_speed"
    contenders = {
        "mainstay": mainstay("files3", files_source(path)),
        "mainstay, level 1": mainstay("files1", files_source(path), 1),
        "restic": restic("files", path),
        "borg zstd,1": borg("files", path),
        **rustic("files", path),
    }
    if engine.exists():
        store = BENCH / "engine"
        contenders["the engine alone, and reading back"] = (lambda: shutil.rmtree(store, ignore_errors=True), [str(engine), str(path), str(store)], None)
    compare(f"First backup of {path} ({mib(path)} MiB)", contenders, warm=[path])


def small_tree(count):
    tree = BENCH / f"small-{count}"
    marker = tree / ".complete"
    if not marker.exists():
        fresh(tree)
        noise = os.urandom(1 << 20)
        for directory in range(count // 100):
            d = tree / f"{directory // 100:04}" / f"{directory % 100:02}"
            d.mkdir(parents=True)
            for number in range(100):
                n = directory * 100 + number
                start = (n * 7919) % (1 << 19)
                (d / f"file-{number:03}.txt").write_bytes(b"%d\n" % n + noise[start:start + 300 + n % 2000].hex().encode())
        time.sleep(3)  # so that no file is younger than two seconds when it is first read
        marker.touch()
    return tree


def case_small():
    tree = small_tree(300_000)
    compare("First backup of 300,000 small files", {
        "mainstay": mainstay("small", files_source(tree)), "restic": restic("small", tree), "borg zstd,1": borg("small", tree)},
        min(ROUNDS, 3), warm=[tree])


def case_unchanged():
    tree = small_tree(1_000_000)
    commands = {"mainstay": mainstay("million", files_source(tree)), "restic": restic("million", tree), "borg zstd,1": borg("million", tree)}
    for prepare, command, _ in commands.values():
        prepare()
        run(command)
    halves = sorted(p for p in tree.iterdir() if p.is_dir())
    half = len(halves) // 2
    find = " & ".join("find " + " ".join(map(str, part)) + " -printf '%p %s %T@\\n' > /dev/null" for part in (halves[:half], halves[half:]))
    contenders = {name: (None, command, None) for name, (_, command, _) in commands.items()}
    contenders["find -printf on two threads"] = (None, find + " & wait", None)
    compare("Backup again of 1,000,000 unchanged files", contenders, min(ROUNDS, 3))


def case_restore():
    path = Path("/usr/lib/x86_64-linux-gnu")
    prepare, command, _ = mainstay("restore", files_source(path))
    prepare(); run(command)
    r_prepare, r_command, _ = restic("restore", path)
    r_prepare(); run(r_command)
    target = BENCH / "restored"
    empty = lambda: fresh(target)
    others = {}
    for name, (r_prepare, r_command, _) in rustic("restore", path).items():
        r_prepare(); run(r_command)
        others[name] = (empty, r_command[:-2] + ["restore", "latest", str(target)], None)
    compare("Restore of /usr/lib/x86_64-linux-gnu", {
        "mainstay": (empty, command[:-2] + ["restore", "bench", "--point", "latest", "--source", "data", "--to-dir", str(target), "--yes"], None),
        "restic": (empty, ["restic", "-r", str(BENCH / "restic-restore"), "restore", "-q", "latest", "--target", str(target)], None), **others},
        warm=sorted(BENCH.glob("*-restore")))


# What a web application notes of its requests: nearly half a KiB each, of which an identifier, an address, times and sizes do
# not repeat.
EVENTS = """drop table if exists events;
    create table events as select n as id, now() - n * interval '1 second' as at, jsonb_build_object(
        'user', n % 90001, 'kind', (array['view','click','order','login'])[1 + h[1] % 4], 'page', '/product/' || h[2] % 4999,
        'session', md5((n / 7)::text), 'request', md5(n || 'request')::uuid, 'address', '10.' || h[1] / 4 % 256 || '.' || h[1] / 1024 % 256 || '.' || h[2] % 251,
        'ms', h[2] / 8192 % 3000, 'bytes', h[3] % 180000, 'status', (array[200,200,200,200,304,404,301,500])[1 + h[3] / 262144 % 8],
        'agent', 'Mozilla/5.0 ' || (array['(X11; Linux x86_64)','(Windows NT 10.0; Win64; x64)','(Macintosh; Intel Mac OS X 10_15_7)'])[1 + h[1] / 262144 % 3]
            || ' AppleWebKit/537.36 (KHTML, like Gecko) Chrome/' || 100 + h[2] / 67108864 || '.0.0.0 Safari/537.36',
        'referrer', 'https://www.example.com/search?q=' || (array['shoes','garden','lamp','winter coat','book','chair','phone'])[1 + h[3] % 7] || '&page=' || h[1] % 40) as body
    from generate_series(1, 2500000) n, lateral (select array[hashint4(n) & 2147483647, hashint4(n + 10000000) & 2147483647, hashint4(n + 20000000) & 2147483647] as h) as noise;
    alter table events add primary key (id)"""


def postgres():
    data = BENCH / "pg"
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if as_postgres:
            subprocess.check_call(["chmod", "755", str(BENCH)])
            subprocess.check_call(["chown", "postgres", str(data)])
        subprocess.check_call(as_postgres + [str(PG_BIN / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres"], stdout=subprocess.DEVNULL)
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    options = f"-k {data} -c listen_addresses='' -p 5478 -c shared_buffers=512MB -c max_wal_size=8GB -c autovacuum=off -c fsync=off"
    if subprocess.call(as_postgres + [str(PG_BIN / "pg_ctl"), "-D", str(data), "status"], stdout=subprocess.DEVNULL) != 0:
        subprocess.check_call(as_postgres + [str(PG_BIN / "pg_ctl"), "-D", str(data), "-o", options, "-l", str(data / "log"), "-w", "start"], stdout=subprocess.DEVNULL)
    os.environ.update(PGHOST=str(data), PGPORT="5478", PGUSER="postgres")
    ENV.update(PGHOST=str(data), PGPORT="5478", PGUSER="postgres")
    made = subprocess.call(["psql", "-Xqc", "select from events where id = 2500000", "bench"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    if not made:
        subprocess.call(["createdb", "bench"], stderr=subprocess.DEVNULL)
        subprocess.check_call([str(PG_BIN / "pgbench"), "-i", "-q", "-s", "100", "bench"], stderr=subprocess.DEVNULL)
        subprocess.check_call(["psql", "-Xqc", EVENTS, "-c", "vacuum analyze", "bench"])
    return data, as_postgres


def stop_postgres(data, as_postgres):
    subprocess.check_call(as_postgres + [str(PG_BIN / "pg_ctl"), "-D", str(data), "-m", "fast", "-w", "stop"], stdout=subprocess.DEVNULL)


def case_database():
    data, as_postgres = postgres()
    try:
        url = f"postgres://postgres@localhost/bench?host={data}&port=5478"
        source = f'{{ postgres: {{ url: "{url}", bin_dir: "{PG_BIN}" }} }}'
        dump, directory = BENCH / "bench.dump", BENCH / "bench.dir"
        size = subprocess.check_output(["psql", "-XAtc", "select pg_size_pretty(pg_database_size('bench'))", "bench"]).decode().strip()
        copies = ("psql -Xqc 'copy pgbench_accounts to stdout' bench > /dev/null & psql -Xqc 'copy events to stdout' bench > /dev/null & wait")
        compare(f"Logical backup of a database of {size}", {
            "mainstay": mainstay("db", source),
            "pg_dump -Fc": (None, [str(PG_BIN / "pg_dump"), "-Fc", "-f", str(dump), "bench"], lambda: mib(dump)),
            "pg_dump -Fd -j2 -Z1": (lambda: shutil.rmtree(directory, ignore_errors=True), [str(PG_BIN / "pg_dump"), "-Fd", "-j2", "-Z1", "-f", str(directory), "bench"], lambda: mib(directory)),
            "two parallel COPYs to nowhere": (None, copies, None)}, warm=[data / "base"])
        home = BENCH / "mainstay-db"
        command = [MAINSTAY, "--config", str(home / "mainstay.yaml"), "--quiet"]
        drop = lambda: subprocess.check_call(["psql", "-Xqc", "drop database if exists restored", "postgres"], stderr=subprocess.DEVNULL)
        def again():
            drop()
            subprocess.check_call(["createdb", "restored"])
        compare("The same restored", {
            "mainstay": (drop, command + ["restore", "bench", "--point", "latest", "--source", "data", "--to-database", "restored", "--no-compare", "--yes"], None),
            "mainstay, with every row compared": (drop, command + ["restore", "bench", "--point", "latest", "--source", "data", "--to-database", "restored", "--yes"], None),
            "pg_restore -j2": (again, [str(PG_BIN / "pg_restore"), "-j2", "-d", "restored", str(directory)], None)},
            min(ROUNDS, 3), warm=[data / "base", home / "repo", directory])
        drop()
        before = mib(home / "repo")
        subprocess.check_call(["psql", "-Xqc", "update pgbench_accounts set abalance = abalance + 1 where aid between 4000000 and 4100000", "bench"])
        run(command + ["backup", "bench"])
        print(f"\nAfter 1 % of the rows changed in one place, the next backup stored {mib(home / 'repo') - before} MiB more ({before} MiB before).")
    finally:
        stop_postgres(data, as_postgres)


def pgbackrest(data):
    """The pgBackRest command for the benchmark's cluster, as its owner; and where its repository is."""
    repo = BENCH / "pgbackrest"
    conf = BENCH / "pgbackrest.conf"
    conf.write_text(f"""[global]
repo1-path={repo}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=benchmark
repo1-bundle=y
compress-type=zst
compress-level=1
process-max=2
start-fast=y
archive-check=n
log-level-console=off
log-level-file=off
lock-path={BENCH}/pgbackrest-lock
spool-path={BENCH}/pgbackrest-spool
[bench]
pg1-path={data}
pg1-socket-path={data}
pg1-port=5478
pg1-user=postgres
""")
    owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    for folder in (BENCH / "pgbackrest-lock", BENCH / "pgbackrest-spool"):
        folder.mkdir(exist_ok=True)
        if owner:
            shutil.chown(folder, "postgres")
    return owner + ["pgbackrest", f"--config={conf}", "--stanza=bench"], repo


def case_cluster():
    data, as_postgres = postgres()
    try:
        command, repo = pgbackrest(data)
        taken = BENCH / "basebackup"

        def own(path):
            fresh(path)
            if as_postgres:
                shutil.chown(path, "postgres")

        def new_stanza():
            own(repo)
            run(command + ["stanza-create"])
        url = f"postgres://postgres@localhost/postgres?host={data}&port=5478"
        source = f'{{ cluster: {{ url: "{url}" }} }}'
        size = int(subprocess.check_output(["du", "-sm", str(data / "base")]).split()[0])
        compare(f"Full base backup of a cluster of {size} MiB", {
            "mainstay": mainstay("cluster", source),
            "mainstay, level 1": mainstay("cluster1", source, 1),
            "pgBackRest, zst 1, AES, two processes": (new_stanza, command + ["backup", "--type=full"], lambda: mib(repo / "backup")),
            "pg_basebackup, server-zstd 1, two workers": (lambda: own(taken), as_postgres + [str(PG_BIN / "pg_basebackup"), "-D", str(taken), "-Ft",
                "--compress=server-zstd:level=1,workers=2", "-X", "none", "-c", "fast"], lambda: mib(taken))}, warm=[data / "base"])
        home = BENCH / "mainstay-cluster"
        ours = [MAINSTAY, "--config", str(home / "mainstay.yaml"), "--quiet"]
        change = """update pgbench_accounts set abalance = abalance + 1 where aid in (select 1 + (random() * 9999999)::int from generate_series(1, 10000));
            update events set at = now() where id in (select 1 + (random() * 2499999)::int from generate_series(1, 2500)); checkpoint"""
        before, peers = mib(home / "repo"), mib(repo / "backup")
        stored = {"mainstay": [], "pgbackrest": []}

        def changed():
            subprocess.check_call(["psql", "-Xqc", change, "bench"])
        contenders = {"mainstay": (changed, ours + ["backup", "bench"], lambda: mib(home / "repo")),
                      "pgBackRest, incr": (changed, command + ["backup", "--type=incr"], lambda: mib(repo / "backup"))}
        compare("The same again, after 0.1 % of the rows of both tables changed at random (stored: all so far)", contenders, min(ROUNDS, 3), warm=[data / "base"])
        print(f"\nEach stored on average {(mib(home / 'repo') - before) / min(ROUNDS, 3):.0f} MiB (mainstay) and "
              f"{(mib(repo / 'backup') - peers) / min(ROUNDS, 3):.0f} MiB (pgBackRest) more.")
    finally:
        stop_postgres(data, as_postgres)
    back, peer = BENCH / "cluster-restored", BENCH / "cluster-restored-pgbackrest"
    our_restore = ours + ["restore", "bench", "--source", "data", "--to-dir", str(back), "--yes"]
    peer_restore = command + ["restore", f"--pg1-path={peer}", "--type=none"]
    compare("Restore of the last one", {
        "mainstay": (lambda: shutil.rmtree(back, ignore_errors=True), our_restore, None),
        "pgBackRest": (lambda: own(peer), peer_restore, None)},
        min(ROUNDS, 3), warm=[home / "repo", repo / "backup"])

    def change_files(directory):
        """A page of every hundredth file gets other bytes."""
        files = sorted(p for p in (directory / "base").rglob("*") if p.is_file() and p.stat().st_size >= 8192)
        for path in files[::100]:
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 16384 * 8192)
                file.write(os.urandom(8192))
    hashing = f"find {back} -type f -print0 | xargs -0 -P2 -n8 sha1sum > /dev/null"
    compare("Delta restore after a page of 1 % of the files changed", {
        "mainstay": (lambda: change_files(back), our_restore + ["--delta", "--no-backup"], None),
        "pgBackRest": (lambda: change_files(peer), peer_restore + ["--delta"], None),
        "sha1sum of every file, two at once": (None, hashing, None)},
        min(ROUNDS, 3), warm=[home / "repo", repo / "backup", back, peer])


SEGMENTS = int(os.environ.get("BENCH_SEGMENTS", "200"))


def archive_input():
    """A folder that looks like a data directory, with so many full segments that wait for the archiver; a base backup that was
    taken before them; and pgBackRest with a new stanza for the same cluster."""
    data, as_postgres = postgres()
    waiting, base = BENCH / "archive-data", BENCH / "archive-base"
    try:
        subprocess.check_call(["psql", "-Xqc", "alter system set wal_keep_size = '8GB'", "-c", "select pg_reload_conf()", "postgres"], stdout=subprocess.DEVNULL)
        if not (waiting / "complete").exists():
            for path in (waiting, base):
                fresh(path)
                if as_postgres:
                    shutil.chown(path, "postgres")
            query = lambda sql: subprocess.check_output(["psql", "-XAtc", sql, "postgres"]).decode().strip()
            subprocess.check_call(as_postgres + [str(PG_BIN / "pg_basebackup"), "-D", str(base), "-X", "stream", "-c", "fast"])
            first = query("select pg_walfile_name(pg_switch_wal())")
            def full():
                last = query("select pg_walfile_name(pg_current_wal_lsn())")
                return sorted(p.name for p in (data / "pg_wal").iterdir() if len(p.name) == 24 and first < p.name < last)
            while len(full()) < SEGMENTS:
                subprocess.check_call([str(PG_BIN / "pgbench"), "-n", "-c", "4", "-T", "5", "bench"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            (waiting / "global").mkdir()
            (waiting / "pg_wal/archive_status").mkdir(parents=True)
            for name in ("global/pg_control", "PG_VERSION"):
                shutil.copy2(data / name, waiting / name)
            for name in ([first] + full())[:SEGMENTS]:
                shutil.copy2(data / "pg_wal" / name, waiting / "pg_wal" / name)
            (waiting / "complete").touch()
        command, repo = pgbackrest(data)
        fresh(repo)
        if as_postgres:
            subprocess.check_call(["chown", "-R", "postgres", str(repo), str(waiting)])
        run(command + ["stanza-create"])
    finally:
        stop_postgres(data, as_postgres)
    return waiting, base, command, repo, as_postgres


def push_all(title, command, waiting, stored):
    """What PostgreSQL's archiver does: one call after the other, each file marked as done after its own."""
    status = waiting / "pg_wal/archive_status"
    names = sorted(p.name for p in (waiting / "pg_wal").iterdir() if len(p.name) == 24)
    for name in names:
        (status / f"{name}.done").unlink(missing_ok=True)
        (status / f"{name}.ready").touch()
    subprocess.check_call(["chown", "-R", f"--reference={waiting}", str(status)])
    make_room([waiting / "pg_wal"])
    calls, begun = [], time.monotonic()
    for name in names:
        calls.append(run(command + [f"pg_wal/{name}"], cwd=waiting).wall * 1000)
        (status / f"{name}.ready").rename(status / f"{name}.done")
    wall = time.monotonic() - begun
    calls.sort()
    print(f"| {title} | **{statistics.median(calls):.1f}** | {calls[len(calls) * 95 // 100]:.1f} | {wall:.1f} "
          f"| {16 * len(names) / wall:.0f} | {stored()} |", flush=True)


def case_archive():
    waiting, base, peer, repo, as_postgres = archive_input()
    home = BENCH / "mainstay-archive"
    socket = home / "wal.sock"
    ours = as_postgres + [MAINSTAY, "--config", str(home / "mainstay.yaml"), "--quiet"]

    def anew():
        config("archive", '{ cluster: { url: "postgres://postgres@/postgres" } }')
        if as_postgres:
            subprocess.check_call(["chown", "-R", "postgres", str(home)])
        for path in (repo / "archive", BENCH / "pgbackrest-spool"):
            subprocess.call(f"find '{path}' -type f ! -name 'archive.info*' -delete 2> /dev/null", shell=True)

    def daemon():
        process = subprocess.Popen(ours + ["wal", "daemon", "bench", "--socket", str(socket)], env=ENV)
        while not socket.exists():
            time.sleep(0.01)
        return process

    def stop(process):
        told = subprocess.check_output(ours + ["--json", "wal", "status", "--socket", str(socket)], env=ENV)
        pid = next(line["pid"] for line in map(json.loads, told.splitlines()) if line["type"] == "wal_daemon")
        os.kill(pid, 15)
        process.wait()

    def peer_is_done():
        while subprocess.call(["pgrep", "-f", "pgbackrest.*archive-push:async"], stdout=subprocess.DEVNULL) == 0:
            time.sleep(0.1)
    push = ours + ["wal", "push", "--socket", str(socket)]
    print(f"\n### {SEGMENTS} segments of 16 MiB archived, call after call\n\n| what | median, ms | 95 %, ms | all, s | MiB/s | stored MiB |\n|---|---|---|---|---|---|")
    for _ in range(min(ROUNDS, 3)):
        anew()
        push_all("pgBackRest, asynchronous, zst 1, AES, two processes", peer + ["--archive-async", f"--pg1-path={waiting}", "archive-push"], waiting, lambda: mib(repo / "archive"))
        peer_is_done()
        push_all("mainstay", push, waiting, lambda: mib(home / "repo"))
        anew()
        process = daemon()
        push_all("mainstay, with its daemon", push, waiting, lambda: mib(home / "repo"))
        stop(process)

    copied = BENCH / "archive-copied"
    fresh(copied)
    subprocess.check_call(f"cp '{waiting}'/pg_wal/0* '{copied}'", shell=True)
    if as_postgres:
        subprocess.check_call(["chown", "-R", "postgres", str(copied)])
    fetch = f"env MAINSTAY_KEY={KEY} {MAINSTAY} --config {home}/mainstay.yaml --quiet wal fetch --socket {socket} %f %p"
    print(f"\n### Replay of {SEGMENTS} segments\n\n| restore_command | wall, s |\n|---|---|")
    for _ in range(min(ROUNDS, 3)):
        for title, restore, with_daemon in (("cp", f"cp {copied}/%f %p", False), ("mainstay wal fetch", fetch, False),
                                            ("mainstay wal fetch, with its daemon", fetch, True)):
            process = daemon() if with_daemon else None
            print(f"| {title} | **{replay(base, restore, as_postgres):.2f}** |", flush=True)
            if process:
                stop(process)


def replay(base, restore_command, as_postgres):
    """Seconds from the start of a server on a copy of the base backup until it has replayed what its archive has."""
    target = BENCH / "archive-replayed"
    shutil.rmtree(target, ignore_errors=True)
    subprocess.check_call(["cp", "-a", str(base), str(target)])
    with (target / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"restore_command = '{restore_command}'\nrecovery_target_timeline = 'current'\narchive_mode = off\n")
    (target / "recovery.signal").touch()
    target.chmod(0o700)
    subprocess.check_call(["chown", "-R", f"--reference={base}", str(target)])
    make_room([target / "base"])
    control = as_postgres + [str(PG_BIN / "pg_ctl"), "-D", str(target)]
    options = f"-k {target} -c listen_addresses='' -p 5479 -c shared_buffers=512MB -c max_wal_size=8GB -c fsync=off"
    begun = time.monotonic()
    subprocess.check_call(control + ["-o", options, "-l", str(target / "log"), "-t", "600", "-w", "start"], stdout=subprocess.DEVNULL)
    while subprocess.check_output(["psql", "-h", str(target), "-p", "5479", "-XAtc", "select pg_is_in_recovery()", "postgres"]).strip() != b"f":
        time.sleep(0.02)
    wall = time.monotonic() - begun
    subprocess.check_call(control + ["-m", "immediate", "-w", "stop"], stdout=subprocess.DEVNULL)
    return wall


def case_list():
    small = BENCH / "list-source"
    fresh(small)
    (small / "file").write_text("one file")
    command = config("list", files_source(small))
    home = BENCH / "mainstay-list"
    for n in range(1000):
        run(command + ["backup", "bench"])
    compare("mainstay list, 1,000 recovery points, no cache", {
        "mainstay list": (lambda: shutil.rmtree(home / "cache", ignore_errors=True), command + ["list"], None)})


def anonymous_peak(command):
    """Runs a command; the most anonymous memory it had, in MiB, looked at every 20 ms."""
    process = subprocess.Popen(command, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak] + [int(line.split()[1]) for line in lines if line.startswith("RssAnon")])
        except OSError:
            pass  # it has just ended
        time.sleep(0.02)
    if process.returncode != 0:
        raise SystemExit(f"{command} failed ({process.returncode})")
    return peak / 1024


def case_memory():
    inputs = {"1,000,000 small files": small_tree(1_000_000)}
    for size in (1, 20):
        tree = BENCH / f"random-{size}"
        if not tree.exists():
            tree.mkdir(parents=True)
            for n in range(size * 8):
                subprocess.check_call(f"head -c 125000000 /dev/urandom > {tree}/{n}", shell=True)
        inputs[f"{size} GB of random bytes"] = tree
    target = BENCH / "restored"
    print("\n### Anonymous memory, peak MiB\n\n| input | first backup | again | restore |\n|---|---|---|---|")
    for name, tree in inputs.items():
        prepare, command, _ = mainstay("memory", files_source(tree))
        prepare()
        fresh(target)
        restore = command[:-2] + ["restore", "bench", "--point", "latest", "--source", "data", "--to-dir", str(target), "--yes"]
        large = name.startswith("20")  # it would need 20 GB more
        peaks = [f"{anonymous_peak(c):.0f}" for c in ([command, command] if large else [command, command, restore])]
        print(f"| {name} | " + " | ".join(peaks) + (" | |" if large else " |"), flush=True)
        shutil.rmtree(target)

CASES = {"files": case_files, "small": case_small, "unchanged": case_unchanged, "restore": case_restore,
         "database": case_database, "cluster": case_cluster, "archive": case_archive, "list": case_list, "memory": case_memory}


def main():
    wanted = sys.argv[1:] or list(CASES)
    unknown = [name for name in wanted if name not in CASES]
    if unknown:
        raise SystemExit(f"no such case: {', '.join(unknown)} (there is: {', '.join(CASES)})")
    BENCH.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        CASES[name]()


if __name__ == "__main__":
    main()
