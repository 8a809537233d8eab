"""What the manifests promise: limits, draining, connections, who reaches what, and as whom it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.routing import iter_route_contexts

from app.main import create_app
from app.settings.model import SECRETS, Settings
from sluice.pool.budget import Demand

if TYPE_CHECKING:
    from tests.kubernetes.conftest import Manifests

ROOT = Path(__file__).parents[2]


def paths(settings: Settings) -> set[str]:
    """Every path that the service serves."""
    return {route.path or "" for route in iter_route_contexts(create_app(settings).routes)} - {""}


def pods(manifests: Manifests) -> int:
    """How many there can be."""
    autoscaler = manifests.of("HorizontalPodAutoscaler")
    found: int = (autoscaler or manifests.the("Deployment"))["spec"]["maxReplicas" if autoscaler else "replicas"]
    return found


def pre_stop(manifests: Manifests) -> int:
    found: int = manifests.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    return found


class TestSettings:
    def test_every_variable_is_a_setting(self, manifests: Manifests) -> None:
        assert {name.lower() for name in manifests.environment} <= Settings.model_fields.keys()
        beside = {variable["name"] for variable in manifests.container["env"]}
        assert beside == {"FORWARDED_ALLOW_IPS"}  # Gunicorn's own

    def test_no_secret_is_in_a_manifest(self, manifests: Manifests) -> None:
        assert manifests.of("Secret") is None
        assert manifests.environment.keys().isdisjoint(name.upper() for name in SECRETS)
        assert "mongodb://" not in str(manifests.objects)
        assert "mongodb+srv://" not in str(manifests.objects)

    def test_secrets_are_files_of_the_mounted_secret(self, manifests: Manifests) -> None:
        (volume,) = (volume["secret"] for volume in manifests.pod["volumes"] if "secret" in volume)
        (mount,) = (mount for mount in manifests.container["volumeMounts"] if mount["name"] == "secrets")
        mounted = {f"{mount['mountPath']}/{item['path']}" for item in volume["items"]}
        assert mounted == {manifests.environment[f"{name.upper()}_FILE"] for name in SECRETS}
        assert mount["readOnly"]
        assert volume["defaultMode"] & 0o007 == 0
        assert not volume.get("optional")

    def test_the_folders_that_are_written_to_are_in_memory(self, manifests: Manifests) -> None:
        memory = {
            volume["name"]: volume["emptyDir"]["sizeLimit"]
            for volume in manifests.pod["volumes"]
            if volume.get("emptyDir", {}).get("medium") == "Memory"
        }
        mounted = [Path(each["mountPath"]) for each in manifests.container["volumeMounts"] if each["name"] in memory]
        assert Path(manifests.environment["WORKER_TMP_DIR"]) in mounted
        # The volume itself is root's, and the service wants a folder of its own.
        assert Path(manifests.environment["STATS_DIR"]).parent in mounted

    def test_it_listens_where_the_service_and_prometheus_look(self, manifests: Manifests) -> None:
        (port,) = manifests.container["ports"]
        address, _, number = manifests.environment["BIND"].rpartition(":")
        scrape = manifests.the("Deployment")["spec"]["template"]["metadata"]["annotations"]
        assert address == "0.0.0.0"  # noqa: S104
        assert number == str(port["containerPort"]) == scrape["prometheus.io/port"]
        assert [each["targetPort"] for each in manifests.the("Service")["spec"]["ports"]] == [port["name"]]
        assert scrape["prometheus.io/scrape"] == "true"


class TestConnections:
    def test_the_arithmetic_counts_every_pod_that_there_can_be(self, manifests: Manifests, settings: Settings) -> None:
        assert settings.api_containers == pods(manifests)

    def test_the_budget_has_room_for_a_pod_that_drains(self, settings: Settings, tmp_path: Path) -> None:
        rolling = Demand(settings.api_containers + 1, settings.workers, settings.max_pool_size)
        assert settings.connection_budget is not None
        assert rolling.connections <= settings.connection_budget
        settings.model_copy(update={"stats_dir": tmp_path / "statistics"}).check_start()

    def test_never_do_two_pods_drain_at_once(self, manifests: Manifests) -> None:
        deployment = manifests.the("Deployment")["spec"]
        assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        assert deployment["minReadySeconds"] >= manifests.pod["terminationGracePeriodSeconds"]

    def test_it_scales_on_cpu_alone(self, prod: Manifests) -> None:
        scaler = prod.the("HorizontalPodAutoscaler")["spec"]
        assert [(metric["type"], metric["resource"]["name"]) for metric in scaler["metrics"]] == [("Resource", "cpu")]
        assert scaler["scaleTargetRef"]["name"] == prod.the("Deployment")["metadata"]["name"]
        assert scaler["minReplicas"] == 3
        assert "replicas" not in prod.the("Deployment")["spec"]  # every apply would undo what it decided
        (policy,) = scaler["behavior"]["scaleDown"]["policies"]
        assert policy["value"] == 1
        assert policy["periodSeconds"] >= prod.pod["terminationGracePeriodSeconds"]


class TestLife:
    def test_resources(self, manifests: Manifests) -> None:
        assert manifests.container["resources"] == {
            "requests": {"cpu": "250m", "memory": "256Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi"},
        }

    def test_three_replicas(self, manifests: Manifests) -> None:
        scaler = manifests.of("HorizontalPodAutoscaler")
        assert (scaler["spec"]["minReplicas"] if scaler else manifests.the("Deployment")["spec"]["replicas"]) == 3

    def test_probes_and_scrapes_ask_for_what_is_served(self, manifests: Manifests, settings: Settings) -> None:
        probes = ("startup", "liveness", "readiness")
        asked = {name: manifests.container[f"{name}Probe"]["httpGet"]["path"] for name in probes}
        assert asked == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
        scraped = manifests.the("Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
        assert {*asked.values(), scraped} <= paths(settings)

    def test_gunicorn_replaces_a_hung_worker_before_the_pod_is_restarted(
        self, manifests: Manifests, settings: Settings
    ) -> None:
        probe = manifests.container["livenessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] > settings.timeout

    def test_a_pod_has_time_to_drain(self, manifests: Manifests, settings: Settings) -> None:
        assert manifests.pod["terminationGracePeriodSeconds"] > pre_stop(manifests) + settings.graceful_timeout
        assert settings.graceful_timeout * 1000 > settings.request_timeout_ms

    def test_connections_of_the_ingress_controller_are_not_closed_under_its_requests(self, settings: Settings) -> None:
        assert settings.keep_alive > 90  # Traefik's; nginx keeps idle ones for 60 s

    def test_disruptions_take_one_pod_at_a_time(self, manifests: Manifests) -> None:
        assert manifests.the("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1

    def test_pods_are_spread(self, manifests: Manifests) -> None:
        spread = {each["topologyKey"] for each in manifests.pod["topologySpreadConstraints"]}
        assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}

    def test_the_overlay_says_which_image(self, manifests: Manifests) -> None:
        name, _, tag = manifests.container["image"].rpartition(":")
        assert name.endswith("sluice-api")
        assert tag != "latest"


class TestReach:
    def test_selectors_match_the_pods(self, manifests: Manifests) -> None:
        labels = manifests.the("Deployment")["spec"]["template"]["metadata"]["labels"]
        spread = [each["labelSelector"]["matchLabels"] for each in manifests.pod["topologySpreadConstraints"]]
        selectors = [
            manifests.the("Deployment")["spec"]["selector"]["matchLabels"],
            manifests.the("Service")["spec"]["selector"],
            manifests.the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            manifests.the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
            *spread,
        ]
        for selector in selectors:
            assert selector
            assert selector.items() <= labels.items()

    def test_everything_is_in_the_overlays_namespace(self, manifests: Manifests) -> None:
        name = manifests.the("Namespace")["metadata"]["name"]
        others = [thing for thing in manifests.objects if thing["kind"] != "Namespace"]
        assert {thing["metadata"]["namespace"] for thing in others} == {name}

    def test_the_ingress_lets_through_what_nginx_does(self, prod: Manifests) -> None:
        hidden = re.search(r"location ~ (\^/\(metrics\S*)", (ROOT / "nginx/nginx.conf").read_text())
        assert hidden
        (rule,) = prod.the("Ingress")["spec"]["rules"]
        served = paths(Settings(_env_file=None))  # type: ignore[call-arg]
        assert "/metrics" in served
        for path in served | {"/metrics/", "/pool/control", "/", "/health/ready", "/users/x"}:
            routed = any(leads(route, path) for route in rule["http"]["paths"])
            assert routed == (not re.match(hidden[1], path)), path

    def test_the_ingress_leads_to_the_service_by_tls(self, prod: Manifests) -> None:
        ingress = prod.the("Ingress")["spec"]
        service = prod.the("Service")
        backend = {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}
        assert all(path["backend"]["service"] == backend for rule in ingress["rules"] for path in rule["http"]["paths"])
        assert {rule["host"] for rule in ingress["rules"]} == {host for tls in ingress["tls"] for host in tls["hosts"]}
        assert "defaultBackend" not in ingress

    def test_only_the_ingress_controller_and_prometheus_get_in(self, manifests: Manifests) -> None:
        policy = manifests.the("NetworkPolicy")["spec"]
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
        assert len(policy["ingress"]) == 2
        for rule in policy["ingress"]:
            assert rule["from"]
            assert all(narrow(peer) for peer in rule["from"])
            assert [port["port"] for port in rule["ports"]] == [manifests.container["ports"][0]["name"]]

    def test_only_name_servers_and_mongodb_are_reached(self, manifests: Manifests) -> None:
        names, members = manifests.the("NetworkPolicy")["spec"]["egress"]
        assert {port["port"] for port in names["ports"]} == {53}
        assert {port["port"] for port in members["ports"]} == {27017}
        for rule in (names, members):
            assert rule["to"]
            assert all(narrow(peer) for peer in rule["to"])


class TestSecurity:
    def test_the_pod_is_restricted(self, manifests: Manifests) -> None:
        """As the Pod Security Standard of that name wants it, which the namespace enforces, and then some."""
        labels = manifests.the("Namespace")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        pod = manifests.pod["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert manifests.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not manifests.pod["automountServiceAccountToken"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & manifests.pod.keys()

    def test_it_runs_as_the_images_user(self, manifests: Manifests) -> None:
        user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "api/Dockerfile").read_text(), re.MULTILINE)
        assert user
        context = manifests.pod["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user.groups()
        assert context["fsGroup"] == context["runAsGroup"]  # the secret's files are the group's


def leads(route: dict[str, Any], path: str) -> bool:
    """Whether an Ingress' path matches, by Kubernetes' rules: a prefix is one of whole segments."""
    given: str = route["path"]
    return path == given or (route["pathType"] == "Prefix" and path.startswith(given.rstrip("/") + "/"))


def narrow(peer: dict[str, Any]) -> bool:
    """Whether a NetworkPolicy's peer is less than the whole cluster and the whole world."""
    if "ipBlock" in peer:
        return not peer["ipBlock"]["cidr"].endswith("/0")
    return bool(peer.get("namespaceSelector", {}).get("matchLabels"))


def test_the_guide_does_the_same_arithmetic(prod: Manifests) -> None:
    given = {name: int(prod.environment[name]) for name in ("API_CONTAINERS", "WORKERS", "MAX_POOL_SIZE")}
    guide = (ROOT / "docs/kubernetes.md").read_text()
    assert f"= {Demand(*given.values()).connections}\n" in guide
    assert f": {Demand(given['API_CONTAINERS'] + 1, *list(given.values())[1:]).connections}." in guide
