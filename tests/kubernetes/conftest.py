"""The manifests as kustomize renders them, without kustomize, which isn't a package of Debian's.

It knows the few features that k8s/ uses and refuses all others. Where a real kustomize is at hand, test_rendering.py
compares the two.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings.model import Settings, load

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "prod")
KNOWN = {"apiVersion", "kind", "resources", "namespace", "images", "configMapGenerator", "patches"}


def documents(path: Path) -> list[Json]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def render(folder: Path) -> list[Json]:
    """What `kubectl kustomize` prints for this folder. Raises `ValueError` for a feature that it doesn't know."""
    objects = _accumulate(folder)
    renamed = {}
    for thing in objects:
        if thing["kind"] == "ConfigMap":
            name = thing["metadata"]["name"]
            renamed[name] = thing["metadata"]["name"] = f"{name}-{_hash(thing['data'])}"
    for container in containers(objects):
        for source in container.get("envFrom", []):
            reference = source["configMapRef"]
            reference["name"] = renamed[reference["name"]]
    return objects


def containers(objects: list[Json]) -> list[Json]:
    return [
        container
        for thing in objects
        if thing["kind"] == "Deployment"
        for container in thing["spec"]["template"]["spec"]["containers"]
    ]


def _accumulate(folder: Path) -> list[Json]:
    (given,) = documents(folder / "kustomization.yaml")
    _only(given, KNOWN)
    objects: list[Json] = []
    for name in given.get("resources", []):
        path = folder / name
        objects += _accumulate(path) if path.is_dir() else documents(path)
    for generator in given.get("configMapGenerator", []):
        _generate(objects, generator)
    for patch in given.get("patches", []):
        _only(patch, {"path"})
        for document in documents(folder / patch["path"]):
            _merge(_find(objects, document["kind"], document["metadata"]["name"]), document)
    for image in given.get("images", []):
        _only(image, {"name", "newName", "newTag"})
        for container in containers(objects):
            if container["image"] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    if namespace := given.get("namespace"):
        for thing in objects:
            thing["metadata"]["name" if thing["kind"] == "Namespace" else "namespace"] = namespace
    return objects


def _generate(objects: list[Json], generator: Json) -> None:
    _only(generator, {"name", "behavior", "literals"})
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    if generator.get("behavior") == "merge":
        _find(objects, "ConfigMap", generator["name"])["data"] |= data
    else:
        _only(generator, {"name", "literals"})
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})


def _merge(target: Json, patch: Json) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        elif isinstance(value, list):
            raise ValueError(f"{key}: lists in patches are merged by rules that this renderer doesn't know")
        else:
            target[key] = value


def _find(objects: list[Json], kind: str, name: str) -> Json:
    (found,) = (thing for thing in objects if thing["kind"] == kind and thing["metadata"]["name"] == name)
    return found


def _only(given: Json, known: set[str]) -> None:
    if unknown := given.keys() - known:
        raise ValueError(f"this renderer doesn't know {', '.join(sorted(unknown))}")


def _hash(data: dict[str, str]) -> str:
    """kustomize's: it leaves the name empty, and replaces vowels and their lookalikes, so that no word appears."""
    text = json.dumps({"data": data, "kind": "ConfigMap", "name": ""}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(str.maketrans("013ae", "ghkmt"))


class Manifests:
    """One overlay, rendered."""

    def __init__(self, overlay: str) -> None:
        self.overlay = overlay
        self.objects = render(K8S / "overlays" / overlay)

    def of(self, kind: str) -> Json | None:
        """The only object of this kind, or None."""
        found = [thing for thing in self.objects if thing["kind"] == kind]
        assert len(found) < 2, kind
        return found[0] if found else None

    def the(self, kind: str) -> Json:
        found = self.of(kind)
        assert found is not None, kind
        return found

    @property
    def pod(self) -> Json:
        """The pod's specification."""
        spec: Json = self.the("Deployment")["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Json:
        (container,) = self.pod["containers"]
        found: Json = container
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What the ConfigMap sets."""
        data: dict[str, str] = self.the("ConfigMap")["data"]
        return data


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return Manifests(request.param)


@pytest.fixture
def prod() -> Manifests:
    return Manifests("prod")


@pytest.fixture
def settings(manifests: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the service makes of the ConfigMap; only its secrets are elsewhere."""
    given = {name.lower(): value for name, value in manifests.environment.items()}
    for name in ("mongodb_url", "monitoring_url", "api_key"):
        monkeypatch.delenv(name.upper(), raising=False)
        secret = tmp_path / name
        secret.write_text("mongodb://app:secret@mongodb:27017/?replicaSet=rs0\n")
        given[f"{name}_file"] = str(secret)
    return load(**given)
