"""P8: nothing that the network, data or a checkpoint says is executed. Planted pickles lie still; our own code holds none."""

import ast
import contextlib
import json
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import connectors
from benchmarks.testbed.small import append, keys, samples
from streamlearn import assemble, commands, configured_learner
from streamlearn.config import configure, load, load_meta
from streamlearn.daemon import recover
from streamlearn.errors import CheckpointError, ConfigError, SourceError, StreamlearnError
from streamlearn.follower_files import FollowerFiles
from streamlearn.inspection import inspected
from streamlearn.meta import warm_start
from streamlearn.meta.corpus import Corpus, CorpusSettings
from streamlearn.records import Answering, Snapshot
from streamlearn.serving.service import Service, decode
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FollowedFile, Reference
from streamlearn.snapshot_file import FILE, write
from tests.test_http import answering, post

ROOT = Path(connectors.__file__).parent.parent
MARK = Path("/tmp") / f"streamlearn-planted-{__name__}"  # noqa: S108 - the payloads name it
SECTION = {"log": {"level": "error"}}


class Evil:
    """Whoever unpickles it makes a file."""

    def __reduce__(self):
        return (Path.write_text, (MARK, "executed"))


PICKLE = pickle.dumps(Evil())


@pytest.fixture(autouse=True)
def _nothing_is_executed():
    MARK.unlink(missing_ok=True)
    yield
    executed = MARK.exists()
    MARK.unlink(missing_ok=True)
    assert not executed


def test_the_payload_works():
    pickle.loads(PICKLE)  # noqa: S301 - that is what this shows
    assert MARK.exists()
    MARK.unlink()


def objects(path):
    """An npz whose arrays are pickles."""
    array = np.empty(4, object)
    array[:] = [Evil()] * 4
    np.savez(path, x=array, y=array, x_train=array, y_train=array)
    return path


def torch_file(path):
    torch.save({"state": Evil()}, path)
    return path


CONTENTS = {
    "a pickle": lambda path: path.write_bytes(PICKLE),
    "a torch file": torch_file,
    "an npz of objects": lambda path: shutil.copy(objects(path.with_suffix(".objects.npz")), path),
    "YAML that calls": lambda path: path.write_text(f"!!python/object/apply:pathlib.Path.write_text [{MARK}, x]\n"),
    "JSON that names": lambda path: path.write_text(json.dumps({"py/reduce": [{"py/function": "os.system"}, ["touch x"]]})),
}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A state directory with a checkpoint, journal, status and dead letters, whose daemon has ended."""
    folder = tmp_path_factory.mktemp("learned")
    append(folder / "samples.sqlite", [*samples(60), b"broken"])
    config = configured(folder / "state")
    daemon = assemble.daemon(config)
    daemon.loop.turn = ended_after(daemon, daemon.loop.turn, 61)
    daemon.run()
    return folder / "state"


def configured(state, **more):
    reads = {"type": "log", "path": str(state.parent / "samples.sqlite")}
    return configure(keys(state, reads, **SECTION, **more))


def ended_after(daemon, turn, records):
    def one(timeout_s):
        told = turn(timeout_s)
        if daemon.loop.read >= records:
            daemon.stop()
        return told

    return one


def files_of(state):
    return sorted(path for path in state.rglob("*") if path.is_file() and path.suffix not in {".lock", ".sqlite-shm"})


@pytest.mark.parametrize("content", [CONTENTS["a pickle"], torch_file])
def test_a_pickle_in_the_place_of_any_file_of_the_state_is_refused_or_left_alone(content, learned, tmp_path):
    """Whatever comes of it, an error of ours or a start without that file, it is never executed."""
    names = [path.relative_to(learned) for path in files_of(learned)]
    assert {"status.json", "dead_letters.sqlite"} <= {str(name) for name in names}
    assert {".safetensors", ".json", ".jsonl"} <= {name.suffix for name in names}
    for i, name in enumerate(names):
        state = tmp_path / str(i) / "state"
        shutil.copytree(learned, state)
        shutil.copy(learned.parent / "samples.sqlite", state.parent)
        content(state / name)
        readers = (inspected, letters) if "letters" in name.name else (inspected, restored)
        for read in (partial(each, state) for each in readers):
            try:
                read()
            except StreamlearnError:
                continue


def restored(state):
    loop = assemble.prequential(configured(state), state_dir=state, publisher=Reference())
    try:
        recover(loop)
    finally:
        loop.writer.close()
        loop.journal.close()
        loop.close()


def letters(state):
    commands.dead_letters(configured(state))


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_pickle_is_no_snapshot_no_count_and_no_word_of_a_parent(content, tmp_path):
    content(tmp_path / FILE)
    followed = FollowedFile(tmp_path)
    assert followed.poll() is None
    assert followed.failed_loads == 1
    content(tmp_path / "follower-0.json")
    assert FollowerFiles(tmp_path).read().rows == 0
    with pytest.raises(ConfigError):
        decode((tmp_path / FILE).read_bytes())


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_pickle_is_no_configuration_no_warm_start_no_corpus_and_no_tokens(content, tmp_path):
    path = tmp_path / "planted.npz"
    content(path)
    tokens = Settings(tokens=[{"role": "write", "file": path}])
    for read in (
        lambda: load(path),
        lambda: load_meta(path),
        lambda: warm_start.load(path),
        lambda: Corpus.load(CorpusSettings(path=path), shape=(2,), seed=0),
        tokens.access,
    ):
        with pytest.raises(ConfigError):
            read()


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("name", ["planted.npz", "planted.jsonl", "planted.csv", "planted.messages"])
def test_a_pickle_is_no_source(content, name, tmp_path):
    path = tmp_path / name
    content(path)
    source = connectors.open_source("file", {"path": str(path), "follow": False})
    try:
        source.seek({})
        records = source.poll(10, 0.1)
    except (SourceError, ConfigError):
        records = []
    finally:
        source.close()
    decoder = assemble.decoder(configure(keys(tmp_path / "s", {"type": "stdin"})))
    for record in records:
        with pytest.raises(StreamlearnError):
            decoder.decode(record, np.zeros(6, np.float32))


@pytest.mark.parametrize("form", ["json", "msgpack", "tensor", "csv"])
def test_a_pickle_is_no_record_in_any_format(form, tmp_path):
    more = {"csv": {"columns": [*"abcdef", "label"]}} if form == "csv" else {}
    decoder = assemble.decoder(configure(keys(tmp_path / "s", {"type": "stdin"}, decode={"format": form, **more})))
    headers = (("shape", b"6"), ("dtype", b"|O"), ("label", b"a"))
    for value in (PICKLE, b"\xc7" + bytes([len(PICKLE)]) + b"\x01" + PICKLE):
        with pytest.raises(StreamlearnError):
            decoder.decode(connectors_record(value, headers), np.zeros(6, np.float32))


def connectors_record(value, headers):
    from streamlearn.records import Record  # noqa: PLC0415 - one use

    return Record("log[0]", 0, value, headers=headers)


def test_a_pickle_is_no_request():
    app = answering(samples=[].extend)
    for path in ("infer", "samples"):
        for kind in ("application/json", "application/octet-stream", "application/python-pickle"):
            assert post(app, f"/v2/models/digits/{path}", PICKLE, **{"content-type": kind}).status_code == 400


EVIL_MODULE = "planted_module:factory"


@pytest.fixture
def planted_module(tmp_path, monkeypatch):
    """A module on the path that leaves its mark when somebody imports it."""
    (tmp_path / "planted_module.py").write_text(
        f"import pathlib\npathlib.Path({str(MARK)!r}).write_text('imported')\nfactory = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("planted_module", None)


@pytest.mark.usefixtures("planted_module")
def test_only_the_configuration_names_code_never_a_snapshot_a_checkpoint_or_a_warm_start(learned, tmp_path):
    snapshot = Snapshot(1, Answering("torch", {}, {"model": {"module": EVIL_MODULE}, "shape": [2]}), ("a",), (2,), 0)
    write(snapshot, tmp_path)
    assert FollowedFile(tmp_path).poll() is not None
    reference = Reference()
    reference.publish(snapshot)
    application = Service("m").application(reference)
    assert application.served() is None
    application.close()
    for name in ("planted_module", "planted_module:factory", "pathlib:Path"):
        odd = Snapshot(1, Answering(name, {}, {}), ("a",), (2,), 0)
        reference.publish(odd)
        assert Service("m").application(reference).served() is None

    state = tmp_path / "state"
    shutil.copytree(learned, state)
    for manifest in state.rglob("*.json"):
        manifest.write_text(manifest.read_text().replace('"mlp"', f'"{EVIL_MODULE}"').replace('"la-maml"', f'"{EVIL_MODULE}"'))
    shutil.copy(learned.parent / "samples.sqlite", tmp_path)
    with contextlib.suppress(CheckpointError):
        restored(state)
    assert not MARK.exists()


@pytest.mark.usefixtures("planted_module")
def test_what_the_configuration_names_is_imported_so_that_the_plant_is_alive(tmp_path):
    values = keys(tmp_path / "s", {"type": "stdin"}) | {"model": {"name": "module", "module": EVIL_MODULE}}
    config = configure(values)
    with pytest.raises(Exception):  # noqa: B017 - the module is not a model; that it was imported is what counts
        configured_learner.learner(config)
    assert MARK.exists()
    MARK.unlink()


FORBIDDEN_IMPORTS = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "jsonpickle",
    "code",
    "runpy",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("torch", "save"), ("yaml", "load"), ("yaml", "full_load"), ("yaml", "unsafe_load"), ("os", "system"), ("os", "popen")}  # fmt: skip  # noqa: E501
MAY_IMPORT_BY_NAME = {
    "configured_learner.py": "names of the table of learners",
    "reference.py": "names of the table of learners",
    "models/classifier.py": "model.module of the configuration",
    "serving/service.py": "told by the parent over its pipe, connectors:open_sink",
    "serving/forms/__init__.py": "names of the table of forms",
    "serving/spans.py": "one name, which stands there",
    "serving/follower.py": "one name, which stands there",
    "decode/__init__.py": "names of the table of formats whose library need not be there",
    "__init__.py": "names of the table of connectors, and installed entry points",
}


def code():
    paths = [path for top in ("streamlearn", "connectors") for path in sorted((ROOT / top).rglob("*.py"))]
    return [(path, ast.parse(path.read_text())) for path in paths]


def offences(path, tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS)
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in FORBIDDEN_CALLS:
            yield f"calls {called.id}"
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            where = (called.value.id, called.attr)
            if where in FORBIDDEN_ATTRIBUTES:
                yield "calls " + ".".join(where)
            if where == ("np", "load") and not _refuses_pickles(node):
                yield "calls np.load without allow_pickle=False"
        if any(k.arg == "shell" or (k.arg == "allow_pickle" and getattr(k.value, "value", True)) for k in node.keywords):
            yield "starts a shell, or allows pickles"


def _refuses_pickles(node):
    return any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is False for k in node.keywords)


def test_no_code_of_ours_unpickles_evaluates_or_starts_a_shell():
    assert [(str(path), what) for path, tree in code() for what in offences(path, tree)] == []


LINES = [
    "import pickle",
    "from marshal import loads",
    "eval('1')",
    "np.load(p)",
    "np.load(p, allow_pickle=True)",
    "torch.load(p)",
]


@pytest.mark.parametrize("line", [*LINES, "yaml.load(p)", "f(shell=True)"])
def test_the_audit_finds_what_it_looks_for(line):
    assert list(offences(None, ast.parse(line)))


def test_modules_are_imported_by_name_only_where_the_table_says_whose_name_it_is():
    found = {
        str(path.relative_to(ROOT / path.relative_to(ROOT).parts[0]))
        for path, tree in code()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
    }
    assert found == set(MAY_IMPORT_BY_NAME)
