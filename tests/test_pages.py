"""Pages of `docs/` that are pasted: all blocks of a page, in order, in one shell, against real programs."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.testbed.ports import free_ports
from streamlearn import checkpoint, snapshot_file
from streamlearn.meta import warm_start

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def blocks(page):
    return re.findall(r"```bash\n(.*?)```", PAGES[page], re.DOTALL)


def pasted(page, folder, **replaced):
    """What the shell printed, with `streamlearn` and `python3` those of this environment and every port one of its own."""
    ports = dict(zip((8080, 8082, 9090), free_ports(3), strict=True))
    script = "\n".join(blocks(page))
    for old, new in {**{f"127.0.0.1:{old}": f"127.0.0.1:{new}" for old, new in ports.items()}, **replaced}.items():
        script = script.replace(old, new)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "streamlearn").write_text(f'#!/bin/sh\nexec {sys.executable} -m streamlearn "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (folder / "deploy").symlink_to(ROOT / "deploy")
    keys = {"STREAMLEARN__SERVE__PORT": str(ports[8080]), "STREAMLEARN__TELEMETRY__PORT": str(ports[8082])}
    keys["STREAMLEARN__SERVE__GRPC_PORT"] = "0"
    paths = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ending = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    command = ["timeout", "240", "bash", "-euo", "pipefail", "-c", ending + script]
    done = subprocess.run(command, cwd=folder, env=os.environ | keys | paths, capture_output=True, text=True, check=False)
    logs = "".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:] + logs
    return done.stdout


def test_from_kafka_to_a_dashboard(kafka, kafka_admin, tmp_path):
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian's package prometheus)")
    kafka_admin.create_topics({"orders": {"num_partitions": 1, "replication_factor": 1}}, timeout_ms=10_000)
    told = pasted("kafka-to-dashboard.md", tmp_path, **{"127.0.0.1:9092": kafka, "make kafka-up": ""})
    late, on_time = re.search(r'"label".*?"data":\["([^"]*)","([^"]*)"\]', told).groups()
    assert (late, on_time) == ("late", "on time"), "green is the slow one now"
    assert float(re.search(r"^streamlearn_accuracy_ratio (\S+)", told, re.MULTILINE)[1]) > 0.8
    assert int(float(re.search(r'streamlearn_records_total{outcome="probe"} (\S+)', told)[1])) > 100
    assert '"value":[' in told
    assert re.search(r"orders\[0\]\D*6000", told), "the checkpoint is behind the last order"


def test_late_labels(tmp_path):
    pasted("late-labels.md", tmp_path)
    assert list((tmp_path / "state/parcels").glob("checkpoints/*"))


def test_formats(tmp_path):
    told = pasted("formats.md", tmp_path)
    assert re.search(r"\w\[0\]@0: label 'late'", told), "the Avro record was decoded"
    assert "learned=2 " in told, "two events"
    assert "rejected=1 " in told, "and one of another version"


def test_operations(tmp_path):
    told = pasted("operations.md", tmp_path)
    newest, older = map(int, re.search(r"from (\d+) back to (\d+)\n", told).groups())
    assert 0 <= older < newest == 600
    assert (tmp_path / "state/parcels-before/checkpoints").is_dir()


def test_the_versions_in_operations_are_those_of_the_program():
    row = re.search(r"^\| (\S+) \| schema (\d+) \| schema (\d+) \| schema (\d+) \|$", PAGES["operations.md"], re.MULTILINE)
    told = (version("streamlearn"), str(checkpoint.SCHEMA), snapshot_file.SCHEMA, str(warm_start.SCHEMA))
    assert row.groups() == told, "a row for each version that reads or writes something else"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_in_operations_is_one_for_systemd(tmp_path):
    (unit,) = re.findall(r"```ini\n(.*?)```", PAGES["operations.md"], re.DOTALL)
    path = tmp_path / "streamlearn.service"
    path.write_text(unit.replace("/opt/streamlearn/bin/streamlearn", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if "streamlearn.service" in line] == []
    program, command, _ = re.search(r"^ExecStart=(\S+) (\S+) (\S+)$", unit, re.MULTILINE).groups()
    assert (Path(program).name, command) == ("streamlearn", "run")


def test_choosing_a_learner(tmp_path):
    told = pasted("choosing-a-learner.md", tmp_path)
    found = [float(value) for value in re.findall(r"^\W*accuracy\W+([\d.]+)", told, re.MULTILINE)]
    assert len(found) == 3
    assert found[0] > found[2], "what was true is not true any more: means of all rows cannot follow"


def test_warm_starts(tmp_path):
    told = pasted("warm-starts.md", tmp_path)
    kept = [float(value) for value in re.findall(r"^\W*probe_retention/auto\W+([\d.]+)", told, re.MULTILINE)]
    warm, cold = kept
    assert warm != cold, "features here, pixels there"
    assert cold > 0.85, "the page says nine tenths"
    own, mean = (float(re.search(rf"held_out_{name}\W+([\d.]+)", told)[1]) for name in ("accuracy", "nearest_mean"))
    assert own < mean, "as the page says"


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```bash" in text])
def test_every_page_with_commands_is_pasted_by_a_test(page):
    assert f'pasted("{page}"' in Path(__file__).read_text()


def test_how_it_works_names_code_that_exists():
    page = PAGES["how-it-works.md"]
    for path, names in re.findall(r"(streamlearn/\S+\.py)(?:  ([\w, ]+))?", page):
        text = (ROOT / path).read_text()
        assert not [name for name in names.split(", ") if name and not re.search(rf"^def {name}\b", text, re.MULTILINE)], path
    for path in re.findall(r"`((?:adapt|kernels)/\S+\.py)`", page):
        assert (ROOT / "streamlearn" / path).exists()


def test_links_between_pages_lead_somewhere():
    for name, text in PAGES.items():
        for link in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text):
            assert (ROOT / "docs" / link).exists(), (name, link)
