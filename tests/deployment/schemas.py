"""Kubernetes' own schemas, strict, of several versions, offline."""

import sys
from functools import cache
from types import ModuleType

from tests.deployment import locked


@cache
def validator() -> ModuleType:
    """The module kubernetes_validate. Raises NotHad."""
    sys.path.append(str(locked.packages()))  # Behind ours: what we have of its dependencies, it uses.
    import kubernetes_validate

    return kubernetes_validate
