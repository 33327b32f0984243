"""Snippets that no test runs: configurations are checked as such, key by key, and commands are known with all their options."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from connectors import source_class
from streamlearn.cli import app
from streamlearn.config import configure, load_meta
from streamlearn.configured_servers import service
from streamlearn.errors import ConfigError
from streamlearn.models.classifier import ModelSettings
from streamlearn.settings import read

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = [(page, *found) for page, text in PAGES.items() for found in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)]
PROMETHEUS = re.compile(r"^(global|alerting|scrape_configs|rule_files):", re.MULTILINE)  # a file of another program
YAML = [
    pytest.param(block, id=f"{page}-{i}")
    for i, (page, kind, block) in enumerate(BLOCKS)
    if kind == "yaml" and not PROMETHEUS.search(block)
]
LEAST = {"source": {"type": "stdin"}, "input": {"shape": [8]}}  # for a block that shows one section alone
NAMES = {"columns", "client"}  # what lies below is named by its user, or by a library
COMMANDS = [(page, line) for page, kind, block in BLOCKS if kind in ("", "sh") for line in block.splitlines()]
PROGRAMS = ("make", "streamlearn", "pip", "docker", "kubectl", "systemctl")
TYPED = [each for each in COMMANDS if each[1].split(" ")[0] in PROGRAMS]


def check(values, folder):
    """Errors: ConfigError."""
    if "meta" in values:
        path = folder / "meta.yaml"
        path.write_text(yaml.safe_dump({"input": {"shape": [28, 28]}} | values))
        told = load_meta(path)
    else:
        told = configure(LEAST | values)
        for name in ("source", "label_source"):
            if (keys := getattr(told, name)) is not None:
                read(source_class(keys.type, path=name).Settings, keys.rest, path=name)
        service(told)
    read(ModelSettings, {"name": told.model.name} | told.model.rest, path="model")


def misspelt(values, within=()):
    """The same again and again, each time with another key misspelt."""
    if not isinstance(values, dict) or NAMES & set(within):
        return
    for key, value in values.items():
        yield (*within, key), {(f"{name}x" if name == key else name): each for name, each in values.items()}
        for path, inner in misspelt(value, (*within, key)):
            yield path, values | {key: inner}


@pytest.mark.parametrize("block", YAML)
def test_a_configuration_in_a_page_is_valid(block, tmp_path):
    check(yaml.safe_load(block), tmp_path)


@pytest.mark.parametrize("block", YAML)
def test_a_misspelt_key_in_a_page_would_be_noticed(block, tmp_path):
    for path, values in misspelt(yaml.safe_load(block)):
        with pytest.raises(ConfigError):
            pytest.fail(f"{'.'.join(path)} may be misspelt: {check(values, tmp_path)}")


def test_every_line_of_a_block_without_a_language_is_a_known_command_or_no_command():
    assert len(TYPED) > 6
    kinds = {kind for _, kind, _ in BLOCKS}
    assert kinds <= {"", "bash", "sh", "yaml", "json", "python", "promql", "ini", "avro"}, "a language that no test looks at"


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_a_command_in_a_page_is_known_with_its_options(page, line, tmp_path, monkeypatch):
    program, *words = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "streamlearn":
        monkeypatch.chdir(tmp_path)
        (tmp_path / "config.yaml").touch()
        name, *arguments = words
        get_command(app).commands[name].make_context(name, arguments)
    elif program == "pip":
        extras = re.findall(r"\.\[([\w,-]+)\]|streamlearn\[([\w,-]+)\]", line)
        known = re.search(r"optional-dependencies\](.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.M | re.S)[1]
        assert extras
        assert all(re.search(rf"^{name} = ", known, re.M) for pair in extras for name in "".join(pair).split(","))
    for path in re.findall(r"\bdeploy/[\w./-]+", line):
        assert (ROOT / path).exists(), path
