"""The architecture, held to a drawing: who may import whom, and which library is wrapped by which file.

cli ─► config, commands, inspection          commands ─► assemble (all parts) ─► configured_learner, configured_servers
daemon, watch, status ─► prequential ─► admit, prefetch, chunks, journal, checkpoint, metrics, drift, answers
learners, kernels, meta ─► adapt, models, memory, inputs   never clocks, topics, files, threads or Prometheus
serving ─► snapshot                                       numpy only; torch in forms/torch alone
connectors ─► records, errors, settings, protocols, and their own client library
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SEAMS = {"records", "errors", "settings", "share", "protocols", "schema"}
STATE = {
    "admit",
    "conformal",
    "answers",
    "checkpoint",
    "chunks",
    "contexts",
    "drift",
    "due",
    "journal",
    "labels",
    "metrics",
    "ownership",
    "pending",
    "prefetch",
    "probe",
    "shortage",
}
EVERYTHING = {"*"}
MAY_IMPORT: dict[str, set[str]] = {
    "schema": set(),
    "records": {"schema"},
    "layout": SEAMS,
    "errors": set(),
    "settings": {"records", "errors"},
    "share": {"settings", "errors"},
    "protocols": {"records"},
    "due": set(),
    "disk": {"errors"},
    "labels": SEAMS,
    "journal": SEAMS | {"disk"},
    "ownership": SEAMS | {"disk"},
    "identities": SEAMS | {"disk"},
    "chunks": SEAMS,
    "checkpoint": SEAMS | {"disk"},
    "metrics": SEAMS,
    "contexts": SEAMS | {"metrics"},
    "drift": SEAMS,
    "conformal": SEAMS | {"metrics"},
    "inputs": SEAMS | {"layout"},
    "memory": SEAMS,
    "decode": SEAMS,
    "prefetch": SEAMS | {"journal"},
    "confidence": SEAMS | {"metrics"},
    "pending": SEAMS | {"confidence", "metrics"},
    "probe": SEAMS,
    "rows": SEAMS | {"pending", "prefetch"},
    "logs": set(),
    "admit": SEAMS | {"logs", "labels", "prefetch", "pending", "probe", "rows"},
    "answers": SEAMS | {"labels"},
    "shortage": SEAMS | {"admit", "chunks", "journal", "prefetch"},
    "prequential": SEAMS | STATE | {"logs"},
    "daemon": SEAMS | STATE | {"prequential", "control", "rollback"},
    "status": SEAMS | STATE | {"disk", "prequential"},
    "control_files": SEAMS | {"disk"},
    "control": SEAMS | STATE | {"prequential", "control_files", "disk", "rollback"},
    "watch": SEAMS | STATE | {"disk", "prequential", "status", "reading", "scrape"},
    "follower_files": set(),
    "reading": SEAMS | {"follower_files"},
    "telemetry": SEAMS | {"reading", "follower_files"},
    "scrape": SEAMS | {"telemetry", "reading", "follower_files"},
    "adapt": SEAMS,
    "models": SEAMS,
    "meta": SEAMS | {"adapt", "disk", "models", "memory", "inputs"},
    "kernels": SEAMS | {"adapt"},
    "learners": SEAMS | {"adapt", "models", "memory", "inputs", "kernels", "layout"},
    "snapshot_file": SEAMS,
    "snapshot": SEAMS | {"snapshot_file"},
    "serving": SEAMS
    | {"control_files", "disk", "logs", "snapshot", "streamlearn", "layout"}
    | {"models"}  # forms/torch, when a model needs it
    | {"follower_files", "reading", "scrape", "telemetry"},  # serving.metrics, where a server has a page of its own
    "export": SEAMS | {"layout", "models", "serving", "streamlearn"},
    "demo": SEAMS,
    "config": SEAMS
    | {
        "admit",
        "conformal",
        "decode",
        "drift",
        "inputs",
        "meta",
        "metrics",
        "pending",
        "probe",
        "scrape",
    },  # each section stands beside its reader
    "inspection": SEAMS | {"checkpoint"},
    "letters": SEAMS | {"admit"},
    "rollback": SEAMS | {"checkpoint", "journal", "ownership"},
    "configured_learner": SEAMS | {"config", "inputs", "learners", "meta", "models"},
    "configured_servers": SEAMS | {"config", "connectors", "daemon", "serving", "snapshot", "watch"},
    "assemble": EVERYTHING,
    "commands": EVERYTHING,
    "meta_train": EVERYTHING,
    "repetition": EVERYTHING,
    "reference": EVERYTHING,
    "warm": EVERYTHING,
    "cli": SEAMS
    | {"config", "commands", "export", "inspection", "logs", "meta_train", "rollback", "serving", "snapshot", "streamlearn"},
    "__main__": {"cli"},
    "connectors": SEAMS,
    "streamlearn": set(),
}
WRAPPED_BY: dict[str, set[str]] = {
    "torch": {
        "adapt",
        "models",
        "memory",
        "learners",
        "kernels",
        "meta",
        "serving.forms.torch",
        "export",
        "assemble",
        "configured_learner",
        "commands",
        "meta_train",
    },
    "numba": {"kernels"},
    "river": {"drift"},
    "kafka": {"connectors.kafka", "connectors.kafka_client", "connectors.kafka_commits", "connectors.kafka_sink"},
    "sqlite3": {"connectors.log"},
    "prometheus_client": {"scrape", "serving.metrics"},
    "uvicorn": {"serving.service", "serving.connections", "serving.exchange"},
    "uvloop": {"serving.hosts", "serving.follower"},
    "grpc": {"serving.grpc"},
    "google": {"serving.grpc_messages", "decode.protobuf"},
    "fastavro": {"decode.avro"},
    "opentelemetry": {"serving.tracing"},
    "yaml": {"config", "commands"},
    "typer": {"cli", "commands", "meta_train"},
    "sklearn": {"demo"},
    "scipy": {"demo"},
    "threading": {
        "share",
        "prefetch",
        "demo",
        "serving",
        "follower_files",
        "connectors.kafka",
        "connectors.kafka_commits",
        "connectors.file",
        "connectors.stdin",
    },
    "pickle": set(),
}


def _files() -> dict[str, Path]:
    paths = [path for top in ("streamlearn", "connectors") for path in sorted((ROOT / top).rglob("*.py"))]
    return {_name(path): path for path in paths}


def _name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name.removeprefix("streamlearn.")


def _imports(path: Path) -> set[str]:
    """Dotted names of modules and of the things taken from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = _files()


def _ours(imported: str) -> str | None:
    """The room that an import leads into; None for what is not ours."""
    parts = imported.split(".")
    if parts[0] == "connectors":
        return "connectors"
    if parts[0] != "streamlearn":
        return None
    return parts[1] if len(parts) > 1 and any(name.split(".")[0] == parts[1] for name in FILES) else "streamlearn"


@pytest.mark.parametrize("name", FILES)
def test_each_file_imports_only_what_the_drawing_allows(name):
    room = name.split(".")[0]
    allowed = MAY_IMPORT[room] | {room}
    if "*" in allowed:
        return
    reached = {_ours(imported) for imported in _imports(FILES[name])} - {None}
    assert reached <= allowed, f"{name} imports {sorted(reached - allowed)}: mend the seam, or redraw the drawing"


def test_the_drawing_names_no_room_that_is_gone():
    assert set(MAY_IMPORT) == {name.split(".")[0] for name in FILES}


@pytest.mark.parametrize("library", WRAPPED_BY)
def test_each_library_is_imported_only_by_the_files_that_wrap_it(library):
    users = {name for name, path in FILES.items() if any(i.split(".")[0] == library for i in _imports(path))}
    strangers = {u for u in users if not any(u == w or u.startswith(f"{w}.") for w in WRAPPED_BY[library])}
    assert not strangers


def test_no_file_imports_inside_a_function_to_break_a_cycle():
    """Imports inside functions are for optional or heavy libraries: never for one of ours, but for the commands of the cli."""
    for name, path in FILES.items():
        functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
        late = {i for f in functions for node in ast.walk(f) if isinstance(node, ast.ImportFrom) for i in [node.module or ""]}
        assert name == "cli" or not any(i.startswith(("streamlearn", "connectors")) for i in late), (name, late)


@pytest.mark.parametrize(
    ("who", "never"),
    [
        ("streamlearn", ("benchmarks", "tests")),
        ("connectors", ("benchmarks", "tests")),
        ("benchmarks", ("tests",)),
    ],
)
def test_nothing_leans_on_what_is_made_to_try_it(who, never):
    for path in sorted((ROOT / who).rglob("*.py")):
        found = {imported for imported in _imports(path) if imported.split(".")[0] in never}
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_what_tests_and_benchmarks_share_leans_on_no_benchmark():
    for path in sorted((ROOT / "benchmarks" / "testbed").rglob("*.py")):
        found = {i for i in _imports(path) if i.split(".")[0] == "benchmarks" and not i.startswith("benchmarks.testbed")}
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


@pytest.mark.parametrize("module", ["streamlearn.serving.follower", "streamlearn", "streamlearn.cli"])
def test_what_must_start_fast_loads_neither_torch_nor_river(module):
    code = (
        f"import {module}, sys; print([m for m in ('torch', 'river', 'kafka', 'sklearn', 'scipy', 'grpc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
