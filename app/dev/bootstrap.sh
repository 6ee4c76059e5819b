#!/usr/bin/env bash
# Everything `make demo` and `make test` need, on a bare Debian or Ubuntu: system packages, virtual environment, broker jars, a private MySQL.
# Idempotent; nothing outside .venv, .dev and the system's packages changes. Cold about two minutes, warm at once.
set -euo pipefail
cd "$(dirname "$0")/../.."
DEV=$PWD/.dev; mkdir -p "$DEV/lib" "$DEV/log"
PACKAGES="mariadb-server openssh-server default-jre-headless maven hmmer hmmer-examples prometheus"
t0=$(date +%s)
say() { printf '[%3ds] %s\n' $(($(date +%s) - t0)) "$*" >&2; }
fail() { say "FAILED: $1"; [ -z "${2:-}" ] || tail -n 15 "$2" >&2; exit 1; }
hash_of() { cat "$@" | sha256sum | cut -c1-16; }

have_packages() { for p in $PACKAGES; do dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || return 1; done; }
packages() {
  have_packages && return 0
  local sudo=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "these packages are missing and you are neither root nor have sudo: apt-get install $PACKAGES"
    sudo="sudo"
  fi
  say "installing system packages: $PACKAGES"
  { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $PACKAGES; } >"$DEV/log/apt.log" 2>&1 || fail "apt-get (log: .dev/log/apt.log)" "$DEV/log/apt.log"
}
environment() {
  local want; want=$(hash_of requirements.lock pyproject.toml)
  [ "$(cat .venv/.bootstrapped 2>/dev/null)" = "$want" ] && return 0
  say "virtual environment from requirements.lock (hashes checked)"
  [ -x .venv/bin/python ] || python3 -m venv .venv
  { .venv/bin/python -m pip install -q 'uv>=0.9' && .venv/bin/uv pip install -q -p .venv/bin/python --require-hashes -r requirements.lock &&
    .venv/bin/uv pip install -q -p .venv/bin/python --no-deps -e .; } >"$DEV/log/python.log" 2>&1 || fail "Python packages (log: .dev/log/python.log)" "$DEV/log/python.log"
  echo "$want" >.venv/.bootstrapped
}
jars() {
  local want; want=$(hash_of app/dev/kafka/pom.xml app/dev/kafka/jars.sha256)
  [ "$(cat "$DEV/lib/kafka/.bootstrapped" 2>/dev/null)" = "$want" ] && return 0
  say "Apache Kafka from Maven Central"
  rm -rf "$DEV/lib/kafka"; mkdir -p "$DEV/lib/kafka"
  mvn -q -B -f app/dev/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$DEV/lib/kafka" -DincludeScope=runtime >"$DEV/log/maven.log" 2>&1 || fail "Maven (log: .dev/log/maven.log)" "$DEV/log/maven.log"
  (cd "$DEV/lib/kafka" && sha256sum --quiet -c "$OLDPWD/app/dev/kafka/jars.sha256") >"$DEV/log/jars.log" 2>&1 || fail "a Kafka jar is not the one we know (log: .dev/log/jars.log)" "$DEV/log/jars.log"
  echo "$want" >"$DEV/lib/kafka/.bootstrapped"
}
# What a broker loads, as it lies in the memory of this machine's Java: a broker writes it at its end. Without it brokers only start slower.
classes() {
  local archive=$DEV/lib/kafka/classes.jsa base
  [ -e "$archive" ] && java -Xshare:on -XX:SharedArchiveFile="$archive" -cp "$DEV/lib/kafka/*" -version >/dev/null 2>&1 && return 0
  say "a broker's classes, archived"
  rm -f "$archive"; base=$(mktemp -d)
  .venv/bin/python -c "
import pathlib, sys
from app.dev import broker, servers
server = servers.Native(pathlib.Path(sys.argv[1]), jvm=(*broker.FIRST_COMPILER_ONLY, f'-XX:ArchiveClassesAtExit={sys.argv[2]}'))
try:
    server.kafka()
finally:
    server.close()" "$base" "$archive" >"$DEV/log/classes.log" 2>&1 || say "brokers will start slower: their classes could not be archived (log: .dev/log/classes.log)"
  rm -rf "$base"
}
# Debian carries MySQL only in its unstable suite: its packages are unpacked into a private prefix and run with their own loader. Nothing of the system changes.
mysql() {
  [ -x "$DEV/lib/mysql/usr/sbin/mysqld" ] && return 0
  if [ "${AIRAVATA_TEST_DATABASES:-}" = mariadb ]; then say "no private MySQL: AIRAVATA_TEST_DATABASES=mariadb"; return 0; fi
  say "MySQL into a private prefix"
  local a=$DEV/lib/mysql.apt uri
  rm -rf "$a" "$DEV/lib/mysql.new"; mkdir -p "$a/lists/partial" "$a/cache/archives/partial" "$DEV/lib/mysql.new"
  uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | awk '/^URIs:/{print $2; exit} /^deb /{for(i=2;i<=NF;i++) if ($i ~ /:\/\//){print $i; exit}}' || true)
  echo "deb $uri sid main" >"$a/sid.list"; : >"$a/status"
  local o=(-oDir::Etc::sourcelist="$a/sid.list" -oDir::Etc::sourceparts=/dev/null -oDir::State::Lists="$a/lists" -oDir::Cache="$a/cache" -oDir::State::status="$a/status"
    -oAPT::Sandbox::User=root -oAPT::Install-Recommends=false -oDebug::NoLocking=true)
  { apt-get "${o[@]}" -qq update && apt-get "${o[@]}" -qq -y --download-only install mysql-server-core mysql-client-core &&
    for d in "$a"/cache/archives/*.deb; do dpkg -x "$d" "$DEV/lib/mysql.new"; done; } >"$DEV/log/mysql.log" 2>&1 ||
    fail "the private MySQL could not be had; set AIRAVATA_TEST_DATABASES=mariadb to go on with MariaDB alone (log: .dev/log/mysql.log)" "$DEV/log/mysql.log"
  rm -rf "$a"; mv "$DEV/lib/mysql.new" "$DEV/lib/mysql"
}

packages
environment & e=$!
jars & j=$!
mysql & m=$!
wait $e && wait $j && classes && wait $m || exit 1
[ $(($(date +%s) - t0)) -lt 2 ] || say "ready"
