"""What a release's version and CHANGELOG owe each other, and that the version stands in one place."""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import migrations
from app import VERSION
from app.dev.servers import ROOT
from tests.deployment.release import build, faults

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-11-20\n\n## [0.1.0] - 2026-01-02\n"


@pytest.mark.parametrize(("version", "tag"), [("0.2.0", "v0.2.0"), ("0.2.0", None), ("0.3.0", None)])
def test_a_commit_that_keeps_its_word_may_be_built(version: str, tag: str | None) -> None:
    assert faults(CHANGELOG, version=version, tag=tag) == []


@pytest.mark.parametrize(
    ("changelog", "version", "tag", "told"),
    [
        (CHANGELOG, "0.3.0", "v0.3.0", "must have ## [0.3.0]"),
        (CHANGELOG, "0.2.0", "v0.1.0", "app.VERSION must be 0.1.0"),
        (CHANGELOG, "0.1.0", None, "names a version above app.VERSION"),
        (CHANGELOG.replace(" - 2026-11-20", ""), "0.2.0", None, "[0.2.0] has no date"),
        (CHANGELOG.replace("## [Unreleased]\n\n", ""), "0.2.0", None, "must open with ## [Unreleased]"),
        (CHANGELOG.replace("0.1.0", "0.2.1"), "0.3.0", None, "newest first"),
    ],
)
def test_a_commit_that_breaks_its_word_is_not_built(changelog: str, version: str, tag: str | None, told: str) -> None:
    assert [line for line in faults(changelog, version=version, tag=tag) if told in line]


def test_our_own_changelog_keeps_its_word() -> None:
    assert faults((ROOT / "CHANGELOG.md").read_text(), version=VERSION, tag=None) == []


def test_the_version_stands_in_one_place() -> None:
    """Nowhere else in what we ship; the schema's release and the build follow it."""
    files = [
        Path(each)
        for each in subprocess.run(
            ["git", "ls-files", "app", "outbox_relay", "components", "observability", "migrations", "pyproject.toml", "Dockerfile", "compose.yaml", "k8s"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
    ]
    found = [str(each) for each in files if re.search(rf"(?<![\d.]){re.escape(VERSION)}(?![\d.])", (ROOT / each).read_text(errors="replace"))]
    assert found == ["app/__init__.py"]
    assert VERSION.startswith(".".join(map(str, migrations.RELEASE)) + ".")


def test_two_builds_are_equal_and_hold_what_is_committed_only(tmp_path: Path) -> None:
    stray = ROOT / "app" / "stray_of_a_test.py"
    first = build("HEAD", tmp_path / "one")
    stray.write_text("NOT = 'committed'\n")
    try:
        second = build("HEAD", tmp_path / "two")
    finally:
        stray.unlink()
    assert [each.name for each in first] == [f"airavata_workflow-{VERSION}-py3-none-any.whl", f"airavata_workflow-{VERSION}.tar.gz"]
    assert [each.read_bytes() for each in first] == [each.read_bytes() for each in second]
    assert "app/__init__.py" in zipfile.ZipFile(first[0]).namelist()


def test_what_runs_in_an_image_is_locked_to_the_very_files_that_were_tested() -> None:
    """`requirements.runtime.lock` is a part of `requirements.lock`: same versions, same hashes, and nothing without a hash."""
    tested, shipped = (locked(ROOT / name) for name in ("requirements.lock", "requirements.runtime.lock"))
    assert shipped.items() <= tested.items()
    assert {"pytest", "mypy", "ruff"}.isdisjoint(shipped)
    for lock in ("requirements.lock", "requirements.runtime.lock", "requirements.build.lock", "requirements.deployment.lock"):
        assert all(hashes for hashes in locked(ROOT / lock).values()), lock


def locked(path: Path) -> dict[str, frozenset[str]]:
    """Name and version → hashes."""
    found: dict[str, set[str]] = {}
    for line in path.read_text().splitlines():
        if pin := re.match(r"([A-Za-z0-9._-]+(?:\[.*?\])?==\S+)", line):
            hashes = found.setdefault(pin[1], set())
        elif "--hash=" in line:
            hashes.add(line.split("--hash=")[1].split()[0])
    return {name: frozenset(each) for name, each in found.items()}


def test_a_package_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    """A wheel of ours stands for one that was changed on its way: no index is asked."""
    wheel = build("HEAD", tmp_path / "dist")[0]
    lock = tmp_path / "lock"
    lock.write_text(f"airavata-workflow=={VERSION} --hash=sha256:{hashlib.sha256(b'what was locked').hexdigest()}\n")
    words = f"pip install --no-deps --no-index --find-links {wheel.parent} --require-hashes --target {tmp_path}/into -r {lock}".split()
    done = subprocess.run([str(Path(sys.executable).with_name("uv")), *words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()
