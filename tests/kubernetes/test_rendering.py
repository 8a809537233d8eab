"""The overlays render, by our own renderer as by kustomize, to objects that Kubernetes knows."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

if TYPE_CHECKING:
    from tests.kubernetes.conftest import Manifests

Json = dict[str, Any]

K8S = Path(__file__).parents[2] / "k8s"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""The oldest that docs/kubernetes.md promises, and the newest whose schemas are at hand."""


@functools.cache
def kustomize() -> list[str]:
    """The command of a real kustomize 5 or later; empty where there is none."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        asked = subprocess.run(
            ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=False
        )
        version = json.loads(asked.stdout or "{}").get("kustomizeVersion", "v0")
        if int(version.lstrip("v").split(".")[0]) >= 5:
            return ["kubectl", "kustomize"]
    return []


def by_name(objects: list[Json]) -> dict[tuple[str, str], Json]:
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in objects}


def test_the_renderer_does_as_kustomize_does(manifests: Manifests) -> None:
    if not kustomize():
        pytest.skip("neither kustomize nor a kubectl that carries kustomize 5: the renderer isn't compared")
    done = subprocess.run(
        [*kustomize(), str(K8S / "overlays" / manifests.overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert by_name(manifests.objects) == by_name(list(yaml.safe_load_all(done.stdout)))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema_of_kubernetes(manifests: Manifests, version: str) -> None:
    for thing in manifests.objects:
        kubernetes_validate.validate(thing, version, strict=True)


def test_the_schema_would_notice_a_wrong_field(manifests: Manifests) -> None:
    manifests.container["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(manifests.the("Deployment"), VERSIONS[-1], strict=True)


def test_every_file_is_used() -> None:
    used = set()
    for kustomization in K8S.rglob("kustomization.yaml"):
        given = yaml.safe_load(kustomization.read_text())
        names = [*given["resources"], *(patch["path"] for patch in given.get("patches", []))]
        used |= {kustomization, *((kustomization.parent / name).resolve() for name in names)}
    assert {path for path in K8S.rglob("*") if path.is_file()} <= used
