"""The manifests of `deploy/kubernetes`: valid for the API, agreeing with each other, and naming only what this program has."""

import re
from itertools import chain
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from streamlearn.cli import app
from streamlearn.config import load
from streamlearn.configured_servers import service
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.http import Application
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import Reference
from tests.test_http import get

FOLDER = Path(__file__).parents[1] / "deploy/kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
DOCUMENTS = list(chain.from_iterable(yaml.safe_load_all((FOLDER / name).read_text()) for name in KUSTOMIZATION["resources"]))
SETS = [each for each in DOCUMENTS if each["kind"] in ("StatefulSet", "Deployment")]
VERSIONS = ("1.31", kubernetes_validate.latest_version())


def named(document):
    return f"{document['kind']} {document['metadata']['name']}"


def pod(document):
    return document["spec"]["template"]["spec"]


def container(document):
    (only,) = pod(document)["containers"]
    return only


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_manifest_is_valid_for_the_api(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_key_would_be_noticed():
    broken = yaml.safe_load(yaml.safe_dump(SETS[0]).replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_every_file_of_the_folder_is_applied():
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert files == {*KUSTOMIZATION["resources"], "kustomization.yaml", "config.yaml"}


def test_the_configuration_is_one_for_learner_and_followers(monkeypatch, tmp_path):
    for role in ("readers", "writers"):
        (tmp_path / role).write_text("0123456789abcdef" + role)
    text = (FOLDER / "config.yaml").read_text().replace("/run/secrets/streamlearn", str(tmp_path))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    config = load(path, {})
    mounts = {mount["mountPath"] for mount in container(SETS[0])["volumeMounts"]}
    assert {str(config.state_dir), str(config.publish.folder)} <= mounts
    assert (service(config).settings.port, service(config).settings.wanted_grpc_port) == (8080, 8081)
    assert config.telemetry.port == 8082
    for document in SETS:
        arguments = container(document)["args"]
        assert "/etc/streamlearn/config.yaml" in arguments
        help_text = CliRunner().invoke(app, [arguments[0], "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        assert not [option for option in arguments if option.startswith("--") and option not in help_text]


def test_prometheus_finds_the_metrics_of_learner_and_followers_and_may_ask_for_them():
    config = load(FOLDER / "config.yaml", {})
    own = Settings(**{key: config.serve.rest[key] for key in ("host", "metrics_port")})
    assert own.host == config.telemetry.host == "0.0.0.0"  # noqa: S104 - inside the pod
    policies = {each["metadata"]["name"]: each["spec"] for each in DOCUMENTS if each["kind"] == "NetworkPolicy"}
    scraped = yaml.safe_load((FOLDER.parent / "prometheus/kubernetes.yml").read_text())["scrape_configs"][0]
    labels = {"job": scraped["job_name"], "port": scraped["relabel_configs"][1]["regex"]}
    assert labels == {"job": "streamlearn", "port": "metrics"}
    for document, port in zip(SETS, (config.telemetry.port, own.metrics_port), strict=True):
        ports = {each["name"]: each["containerPort"] for each in container(document)["ports"]}
        assert ports["metrics"] == port, named(document)
        template = document["spec"]["template"]["metadata"]
        assert template["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)}
        policy = policies[f"streamlearn-{template['labels']['app.kubernetes.io/component']}"]
        monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        (rule,) = [rule for rule in policy["ingress"] if monitoring in rule["from"]]
        assert rule["ports"] == [{"protocol": "TCP", "port": port}]


@pytest.mark.parametrize("document", SETS, ids=named)
def test_pods_are_not_root_on_a_read_only_root(document):
    user = re.search(r"USER (\d+):(\d+)", (FOLDER.parents[1] / "Dockerfile").read_text())
    context = pod(document)["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, *map(int, user.groups()))
    inner = container(document)["securityContext"]
    assert (inner["readOnlyRootFilesystem"], inner["allowPrivilegeEscalation"]) == (True, False)
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert pod(document)["automountServiceAccountToken"] is False
    assert {"requests", "limits"} <= set(container(document)["resources"])


@pytest.mark.parametrize("document", SETS, ids=named)
def test_probes_ask_for_paths_that_exist_at_ports_that_are_open(document):
    ports = {port["name"]: port["containerPort"] for port in container(document)["ports"]}
    application = Application(Endpoint(Reference(), model_name="model", settings=Settings()))
    probes = [container(document)[name] for name in ("livenessProbe", "readinessProbe")]
    for probe in [*probes, *filter(None, [container(document).get("startupProbe")])]:
        handler = probe.get("httpGet") or probe["tcpSocket"]
        assert ports[handler["port"]] == 8080
        assert get(application, handler.get("path", "/v2/health/live")).status_code in (200, 503)


def test_selectors_find_their_pods_and_volumes_exist():
    labels = {document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"] for document in SETS}
    for document in DOCUMENTS:
        spec = document["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        if selector is not None and document["kind"] != "HorizontalPodAutoscaler":
            wanted = selector.get("matchLabels", selector)
            assert [name for name, found in labels.items() if wanted.items() <= found.items()], named(document)
        target = spec.get("scaleTargetRef")
        assert target is None or target["name"] in labels
    claims = {each["metadata"]["name"] for each in DOCUMENTS if each["kind"] == "PersistentVolumeClaim"}
    for document in SETS:
        made = {each["metadata"]["name"] for each in document["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"]: volume for volume in pod(document)["volumes"]}
        assert {mount["name"] for mount in container(document)["volumeMounts"]} == volumes.keys() | made
        assert {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v} <= claims


def test_there_is_one_learner_and_it_may_reach_kafka_while_followers_reach_nobody():
    (learner,) = [each for each in DOCUMENTS if each["kind"] == "StatefulSet"]
    assert learner["spec"]["replicas"] == 1
    policies = {each["metadata"]["name"]: each["spec"] for each in DOCUMENTS if each["kind"] == "NetworkPolicy"}
    assert policies["streamlearn-follower"]["egress"] == []
    kafka = int(load(FOLDER / "config.yaml", {}).source.rest["bootstrap_servers"].rsplit(":", 1)[1])
    assert kafka in {port["port"] for rule in policies["streamlearn-learner"]["egress"] for port in rule["ports"]}
