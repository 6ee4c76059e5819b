"""The committed OpenAPI file against a live server: generated requests, no 5xx, no answer that is not documented."""

import subprocess
import sys
from pathlib import Path

from tests.support.rest import Rest, a_shape

ROOT = Path(__file__).parents[2]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
PHASES = {"mysql": "examples,coverage,fuzzing", "mariadb": "fuzzing"}  # What the document alone says is covered once: it mostly asks what no database sees.


def test_no_generated_request_gets_a_5xx_or_an_undocumented_answer(rest: Rest, database_kind: str, tmp_path: Path) -> None:
    gateway = rest.gateway()
    with rest.client(gateway) as client:
        client.made("/v1/experiments", {"name": "one", "application_interface_id": a_shape(client), "inputs": {"edges": "a>b"}, "launch": True})
        token = client.headers["Authorization"]
    # One worker: with two, CPython 3.11's compile() now and then fails in the fuzzer itself (SystemError: AST constructor recursion depth mismatch).
    program = Path(sys.executable).with_name("schemathesis")
    told = subprocess.run(
        [program, "run", ROOT / "docs" / "openapi.json", "--url", rest.public, "-H", f"Authorization: {token}", "--checks", CHECKS, "--phases", PHASES[database_kind], "-n", "8",
         "--seed", "20261124", "--generation-deterministic", "--max-failures", "5", "--workers", "1", "--request-timeout", "15", "--exclude-path-regex", "status$|events$",
         "--suppress-health-check", "all", "--warnings", "off"],
        cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    print(told.stdout[-1500:])
    assert "No issues found" in told.stdout
