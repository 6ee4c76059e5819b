"""One question to a program that answers `{"data": …}` over HTTP, as Prometheus and Jaeger do."""

import json
import urllib.parse
import urllib.request
from typing import Any


def asked(url: str, **parameters: object) -> Any:
    """Its `data`. Raises OSError where nobody answers, or not well."""
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:
        return json.load(answer)["data"]
