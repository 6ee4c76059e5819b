"""`make dist`: sdist and wheel of the commit that is checked out, the same bytes whoever builds them; and what a release's version and CHANGELOG owe each other.

Built from `git archive`, never from the work tree: a file nobody committed cannot slip in. The time stamps are the build tool's constants, so two builds are equal.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from app import VERSION
from app.dev.servers import ROOT

HEADING = re.compile(r"^## \[(Unreleased|\d+\.\d+\.\d+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def faults(changelog: str, *, version: str, tag: str | None) -> list[str]:
    """What keeps this commit from being built. `tag`: v<version> where the commit is a release."""
    found = HEADING.findall(changelog)
    names, dates = [name for name, _ in found], dict(found)
    told = [] if names[:1] == ["Unreleased"] else ["CHANGELOG.md must open with ## [Unreleased]"]
    told += [f"CHANGELOG.md: ## [{name}] has no date" for name in names if name != "Unreleased" and not dates[name]]
    released = [_numbers(name) for name in names if name != "Unreleased"]
    if released != sorted(released, reverse=True):
        told.append("CHANGELOG.md: versions must stand newest first")
    if any(each > _numbers(version) for each in released):
        told.append(f"CHANGELOG.md names a version above app.VERSION, {version}")
    if tag and (tag != f"v{version}" or version not in names):
        told.append(f"this commit is tagged {tag}: app.VERSION must be {tag[1:]} (is {version}) and CHANGELOG.md must have ## [{tag[1:]}] - <date>")
    return told


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def build(commit: str, out: Path) -> list[Path]:
    """Both files of a commit, in `out`."""
    with tempfile.TemporaryDirectory() as made:
        source = Path(made) / "source"
        source.mkdir()
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run(
            [uv, "build", "-q", "--no-build-isolation", "--python", sys.executable, "-o", str(out), str(source)],
            check=True,
            env={"PATH": "/usr/bin:/bin", "HOME": made},
        )
    return sorted(each for each in out.iterdir() if each.suffix in {".gz", ".whl"})


def tag_of(commit: str) -> str | None:
    told = subprocess.run(["git", "tag", "--points-at", commit, "v*"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return told[0] if told else None


def main() -> None:
    wrong = faults((ROOT / "CHANGELOG.md").read_text(), version=VERSION, tag=tag_of("HEAD"))
    if wrong:
        sys.exit("\n".join(wrong))
    for each in build("HEAD", ROOT / "dist"):
        print(f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.relative_to(ROOT)}")
    if subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, check=False).returncode:
        print("changes that are not committed are not in it", file=sys.stderr)


if __name__ == "__main__":
    main()
