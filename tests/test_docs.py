"""What is written is true: every command, key, metric and exit code is documented, and generated pages are fresh."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from streamlearn.cli import app
from streamlearn.config import Config
from streamlearn.errors import StreamlearnError
from streamlearn.learners import LEARNERS
from streamlearn.telemetry import ROWS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize("command", sorted(get_command(app).commands))
def test_every_command_stands_in_the_readme(command):
    assert f"| `streamlearn {command}" in README


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_stands_in_the_readme(learner):
    assert f"| `{learner}` |" in README


def test_every_exit_code_stands_in_the_readme():
    codes = {error.exit_code for error in _all(StreamlearnError)} | {0, 130, 143}
    sentence = README[README.index("Exit codes:") :].split("\n\n")[0]
    assert codes == {int(number) for number in re.findall(r"\b\d+\b", sentence)}


def _all(kind):
    return {kind}.union(*(_all(sub) for sub in kind.__subclasses__()))


def test_every_top_level_key_stands_in_the_reference():
    for name in Config.model_fields:
        assert f"`{name}`" in CONFIGURATION


@pytest.mark.parametrize(
    ("module", "page"), [("streamlearn.reference", "configuration.md"), ("streamlearn.telemetry", "metrics.md")]
)
def test_generated_pages_are_fresh(module, page):
    made = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=True)
    assert made.stdout == (ROOT / "docs" / page).read_text(), f"run `make docs`: docs/{page} is stale"


def test_every_metric_stands_in_its_page():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert not [row.full_name for row in ROWS if f"`{row.full_name}`" not in page]


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_every_link_in_the_readme_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_test_that_answers_a_fault_of_another_system_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "what-broke-elsewhere.md").read_text())
    assert len(named) > 40
    missing = [(path, name) for path, name in named if not re.search(rf"def {name}\b", (ROOT / path).read_text())]
    assert missing == []
