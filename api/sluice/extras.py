"""What isn't installed with the core: its extras, by the name that a person types."""

from __future__ import annotations

from importlib.util import find_spec

DISTRIBUTION = "sluice-mongodb"
"""What `pip install` calls this package."""
EXTRAS = {"motor": "motor", "prometheus_client": "metrics"}
"""By the module that is missing."""


def missing(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Says which extra brings the module that `what` needs; the error itself if it is none of an extra's."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return error
    remedy = f"pip install '{DISTRIBUTION}[{EXTRAS[module]}]'"
    return ModuleNotFoundError(f"{what} needs the package {module}: {remedy}", name=error.name)


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # whoever else looks for modules may say so in this way
        return False
