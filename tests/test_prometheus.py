"""A real Prometheus scrapes daemons that run: what dashboard, annotations and alerts ask for is there, and is a number."""

import contextlib
import json
import math
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml

from benchmarks.testbed.forks import Life
from benchmarks.testbed.ports import free_port
from benchmarks.testbed.small import append, keys, samples
from tests.test_deploy import ALERTS, DASHBOARD, DEPLOY, EXPRESSIONS, RECORDING, tool

ANNOTATIONS = [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
EMPTY = {
    'streamlearn_device_memory_bytes{instance=~".*"}': "memory of an accelerator, and here is none",
    'streamlearn_questions_waiting_records{instance=~".*"}': "questions in topics of Kafka, and here is no broker",
    "streamlearn_disk_free_bytes offset 55m": "an hour of history, which the alert waits for before it extrapolates",
}
"""Queries without a number here, and why. That they have none is asserted too."""
CUTS = re.compile(r"\b(?:or|and|unless)\b|==|!=|>=|<=|>|<")
MATCHING = re.compile(r"^(?:bool\b)?\s*(?:(?:on|ignoring)\s*\([^)]*\))?")
SECTIONS = {
    "probe": {"share": 0.2, "era_records": 300, "score_every": 100, "first_rows": 1},
    "drift": {
        "adwin": {"warm_up": 100, "refractory": 200},
        "page_hinkley": {"warm_up": 100, "refractory": 200, "threshold": 20.0},
        "inputs": {"warm_up": 200, "refractory": 200},
    },
    "checkpoint": {"every_records": 100, "every_s": 0.5},
    "pending": {"record_answers": True},
    "telemetry": {"enabled": True, "port": 0, "accuracy_floor": 0.01},
}


def operands(expression):
    """What an alert compares and combines, without the comparing: vectors, and no numbers."""
    parts, depth, begin, at = [], 0, 0, 0
    while at < len(expression):
        depth += (expression[at] in "([{") - (expression[at] in ")]}")
        cut = CUTS.match(expression, at) if depth == 0 else None
        if cut is not None:
            parts.append(expression[begin:at])
            begin = cut.end()
        at = cut.end() if cut else at + 1
    parts.append(expression[begin:])
    found = [MATCHING.sub("", part.strip()).strip() for part in parts]
    if len(found) > 1:
        return [operand for part in found for operand in operands(part)]
    (whole,) = found
    if whole.startswith("(") and _ends_where_it_began(whole):
        return operands(whole[1:-1])
    return [] if re.fullmatch(r"[\d.e]+", whole) else [whole]


def _ends_where_it_began(text):
    """Whether the first parenthesis is closed by the last character."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return at == len(text) - 1
    return False


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('up{job="a"} == 0', ['up{job="a"}']),
        ("time() - (a > 0 or on (b) c) > 600 and on (b) d > 0", ["time() - (a > 0 or on (b) c)", "d"]),
        (
            "increase(a[2m]) == 0 or on (job, instance) (a:b > 0 and on (x) f(g[2m]) == 0)",
            ["increase(a[2m])", "a:b", "f(g[2m])"],
        ),
        ("floor >= floor_limit and ignoring (reason) a - min_over_time(a[10m]) > 0.2 * (b + c)", None),
    ],
)
def test_an_alert_is_taken_apart_into_what_it_compares(expression, expected):
    expected = expected or ["floor", "floor_limit", "a - min_over_time(a[10m])", "0.2 * (b + c)"]
    assert operands(expression) == expected


def changing(n):
    """A long stream: every n records another of three contexts, the second with inputs and labels of its own.

    In the midst of each, one record in ten is labelled later, before the context ends: an older label would end the visit.
    """
    waiting = []
    for i, value in enumerate(samples(50 * n, seed=3)):
        record = json.loads(value)
        record["context"] = i // n % 3
        if record["context"] == 1:
            record["features"][3] += 4.0
            record["label"] = record["label"][::-1].translate(str.maketrans("01", "10"))
        if i % 10 == 0 and 60 <= i % n < n - 120:
            record["id"] = f"r{i}"
            waiting.append({"kind": "label", "id": record["id"], "label": record.pop("label")})
        yield json.dumps(record).encode()
        if len(waiting) > 5 or (waiting and i % n > n - 60):
            yield json.dumps(waiting.pop(0)).encode()


@dataclass
class Users:
    """Those who send records and labels and ask, while it is watched."""

    log: Path
    port: int  # of a server, once it is known

    def __post_init__(self):
        self.values, self.done, self.numbers = changing(600), threading.Event(), count()
        self.refused = []
        self.thread = threading.Thread(target=self._run, daemon=True)

    def feed(self, n):
        append(self.log, [next(self.values) for _ in range(n)])

    def are_answered(self):
        """Whether there is a model that answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/v2/models/model/ready", timeout=180) as answer:
                return answer.status == 200
        except HTTPError as error:
            error.close()
            return False
        except URLError:
            return False

    def _run(self):
        while not self.done.wait(0.2):
            self.feed(60)
            try:
                self._ask(f"q{next(self.numbers)}")
            except HTTPError as error:
                with error:
                    self.refused.append(error.read().decode())

    def _ask(self, id_):
        """A client is answered, and the label comes later."""
        features = [0.5, -1.0, 1.0, 0.0, 0.0, 0.0]
        tensor = {"name": "features", "shape": [1, 6], "datatype": "FP32", "data": features}
        self._post("infer", {"id": id_, "inputs": [tensor]})
        self._post("feedback", {"id": id_, "label": "10"})

    def _post(self, what, body):
        url = f"http://127.0.0.1:{self.port}/v2/models/model/{what}"
        with urlopen(Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}), timeout=180) as answer:
            answer.read()


@contextlib.contextmanager
def prometheus(folder, targets):
    """The port of one that scrapes these each second, with our rules."""
    program, port = tool("prometheus", "Debian's package prometheus"), free_port()
    settings = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    settings["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(DEPLOY / "prometheus/alert_rules.yml")]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = targets
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as output:
        process = subprocess.Popen(
            [program, *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def answer(port, path, **parameters):
    with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
        return json.load(answer)["data"]


def has_number(port, query):
    """Whether an instant query gives a series that is no NaN."""
    return any(not math.isnan(float(one["value"][1])) for one in answer(port, "query", query=query)["result"])


def asked():
    """Every query of dashboard and alerts."""
    shown = [each.replace("$__rate_interval", "1m").replace("$instance", ".*") for each in [*EXPRESSIONS, *ANNOTATIONS]]
    return sorted({*shown, *RECORDING, *(operand for rule in ALERTS.values() for operand in operands(rule["expr"]))})


def metrics_port(life: Life):
    return life.event("metrics.listening")["port"]


@pytest.mark.timeout(180)
def test_every_panel_annotation_and_alert_finds_data_of_daemons_that_run(tmp_path, forks):
    tool("prometheus", "Debian's package prometheus")
    log, port = tmp_path / "samples.sqlite", free_port()
    users = Users(log, port)
    users.feed(1500)  # all three contexts
    reads, lives = {"type": "log", "path": str(log)}, {}
    serving = {"serve": {"enabled": True, "port": port, "grpc_port": None}}
    for name, more in {"la-maml": serving, "pool": {"learner": {"name": "pool"}}}.items():
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(keys(tmp_path / name, reads, **SECTIONS) | more))
        lives[name] = forks.start("run", config)
    targets = [f"127.0.0.1:{metrics_port(life)}" for life in lives.values()]
    lives["la-maml"].until(users.are_answered, "an answer")
    users.thread.start()
    try:
        with prometheus(tmp_path, targets) as port:
            deadline, queries = time.monotonic() + 100, asked()
            missing = queries
            while missing and time.monotonic() < deadline:
                with contextlib.suppress(URLError):
                    missing = [query for query in missing if query not in EMPTY and not has_number(port, query)]
                time.sleep(0.2)
            assert (missing, users.refused) == ([], [])
            assert set(EMPTY) <= set(queries)
            assert [query for query in EMPTY if has_number(port, query)] == []
            rules = [rule for group in answer(port, "rules")["groups"] for rule in group["rules"]]
            assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys([*RECORDING, *ALERTS], "ok")
    finally:
        users.done.set()
        users.thread.join()
