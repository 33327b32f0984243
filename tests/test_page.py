"""The page, looked at in a real browser: curves are drawn, numbers move, and nothing from the stream becomes markup."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest

from streamlearn.serving.hosts import InProcess
from streamlearn.serving.http import Application, Settings
from streamlearn.serving.page import FILES, files
from streamlearn.snapshot import Reference

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
NOW_MS = 1_800_000_000_000
HOSTILE = "<img src=x onerror=\"document.title='taken over'\">"
TURNED = "\u202egnp.exe"

browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
]


class Learner:
    """A `status.json` that is further each time it is asked for: one more point, one more learned chunk."""

    def __init__(self, points=120):
        self.points = points
        self.told = []

    def __call__(self):
        self.points += 1
        self.told.append(status(self.points))
        return json.dumps(self.told[-1]).encode()


def status(points):
    times = [NOW_MS + 1000 * i for i in range(points)]
    accuracy = [None, None, *(0.9 - 0.8 * 0.97**i for i in range(points - 2))]
    return {
        "name": "digits", "learner": "la-maml", "model": "mlp", "source_type": "log", "phase": "running",
        "started_ms": times[0], "updated_ms": times[-1], "number": 20 * points, "records_per_second": 200.4, "labels": 3,
        "outcomes": {"learned": 200 * points, "rejected": 1}, "pending": 4, "lag": {"demo[0]": 30, "demo[1]": 7},
        "accuracy": {"accuracy": accuracy[-1], "windowed_accuracy": 0.75, "kappa": 0.5, "log_loss": None},
        "recall": [["cat", 0.5], [HOSTILE, 0.25], ["other", None]],
        "measures": {"gradient_alignment": -0.25, "step_size_zero_ratio": 0.125, "step_size_mean": 0.00002},
        "memory": [["cat", 60], [HOSTILE, 30], [TURNED, 15], ["other", 5]],
        "history": {
            "time_ms": times, "learned": [200 * i for i in range(points)], "accuracy": accuracy, "windowed": accuracy,
            "throughput": [200.0] * points, "lag": [float(i) for i in range(points)],
        },
        "drift": [{"time_ms": times[40], "learned": 8000, "detector": "adwin"}, {"time_ms": 5, "learned": 1, "detector": "x"}],
        "checkpoint": {"name": "000042", "number": 2000, "time_ms": times[-9], "size_bytes": 1_500_000, "duration_s": 0.0125},
        "snapshot": {"number": 20 * points, "time_ms": times[-1]},
        "rejected": [{"place": "demo[0]@7", "stage": "decode", "reason": f"label is {HOSTILE}", "time_ms": times[-5]}],
        "source": {"ok": False, "message": "no broker at 127.0.0.1:9092", "errors": 3},
    }  # fmt: skip


class Told(NamedTuple):
    """A service whose status is made as it is asked for."""

    status: object
    settings: Settings = Settings(port=0)

    def application(self, current):
        return Application(current, model_name="digits", settings=self.settings, status=self.status)


def look(told_status, tmp_path, *arguments):
    """Open the page in a browser of its own, let five seconds of its time pass, and return what it was asked to print."""
    host = InProcess(Told(told_status), Reference())
    host.start()
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    home = f"--user-data-dir={tmp_path / 'browser'}"
    command = [CHROMIUM, *FLAGS, *sandbox, home, "--window-size=1200,1700", "--virtual-time-budget=5000", *arguments]
    try:
        url = f"http://127.0.0.1:{host.port}/"
        return subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=120).stdout
    finally:
        host.stop(20.0)


class Dom(HTMLParser):
    """Elements of a page in order, each with its text, and texts by id."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self._open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append({"tag": tag, "text": "", "within": [each.get("id") for each in self._open]} | dict(attributes))
        if tag not in self.VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def text(self, name):
        return next(element["text"] for element in self.elements if element.get("id") == name)

    def classed(self, kind, within):
        return [each for each in self.elements if each.get("class") == kind and within in each["within"]]


def heights(path):
    return [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path["d"])]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    learner = Learner()
    return learner, Dom(look(learner, tmp_path_factory.mktemp("page"), "--dump-dom"))


def shown_of(seen):
    """What the page shows: the last that was told, or the one before it when the browser was stopped in between."""
    learner, dom = seen
    return next(told for told in learner.told[::-1] if f"{told['number']:,}" == dom.text("number"))


class TestInABrowser:
    pytestmark = browser

    def test_numbers_move_while_the_page_stays_open(self, seen):
        learner, dom = seen
        shown = shown_of(seen)
        assert learner.told.index(shown) >= 2, "one page, opened once, asked again and again"
        assert dom.text("learned") == f"{shown['history']['learned'][-1]:,}"
        assert dom.text("accuracy") == f"{100 * shown['accuracy']['accuracy']:.1f} %"

    def test_curves_are_drawn_from_the_history(self, seen):
        _, dom = seen
        (fading,) = dom.classed("curve first", "accuracy-chart")
        found = heights(fading)
        values = np.array(shown_of(seen)["history"]["accuracy"][2:])
        assert len(found) == len(values)
        drawn = (found[0] - np.array(found)) / (found[0] - found[-1])
        np.testing.assert_allclose(drawn, (values - values[0]) / (values[-1] - values[0]), atol=0.005)
        assert len(dom.classed("curve second", "accuracy-chart")) == 1
        assert len(set(heights(dom.classed("curve first", "throughput-chart")[0]))) == 1
        assert np.all(np.diff(heights(dom.classed("curve first", "lag-chart")[0])) < 0)

    def test_drift_is_marked_where_it_was_noticed(self, seen):
        _, dom = seen
        (mark,) = dom.classed("mark", "accuracy-chart")
        assert mark["text"] == "drift noticed by adwin after 8,000 samples"
        assert dom.text("drift-count") == "2 ×"

    def test_every_part_of_the_status_is_shown(self, seen):
        _, dom = seen
        page = dom.text("state") + dom.text("measures") + dom.text("rejected") + dom.text("lag-partitions")
        for part in ("000042", "1.5 MB", "12.5 ms", "2.00e-5", "12.5 %", "-0.25", "demo[0]@7", "decode", "demo[1] 7"):
            assert part in page
        assert (dom.text("lag"), dom.text("windowed"), dom.text("kappa-note")) == ("37", "75.0 %", "kappa 0.5")
        assert dom.text("source") == "source lost: no broker at 127.0.0.1:9092"
        assert dom.text("fresh") == "live" or "figures of" in dom.text("fresh")
        widths = [re.search(r"width: ([\d.]+)%", each["style"])[1] for each in dom.classed("bar", "memory")]
        assert [float(width) for width in widths] == pytest.approx([100, 50, 25, 100 / 12], abs=0.01)

    def test_what_came_from_the_stream_stays_text(self, seen):
        _, dom = seen
        assert not [each for each in dom.elements if each["tag"] == "img"]
        assert HOSTILE in dom.text("memory")
        assert f"label is {HOSTILE}" in dom.text("rejected")
        assert next(each["text"] for each in dom.elements if each["tag"] == "title") == "digits · streamlearn"
        assert "\\u202egnp.exe" in dom.text("memory"), "a turned name shows what turns it"

    def test_a_learner_without_status_is_said_so(self, tmp_path):
        dom = Dom(look(lambda: None, tmp_path, "--dump-dom"))
        assert dom.text("fresh") == "there is no status here: the learner has not written one"
        assert "nothing measured yet" in dom.text("accuracy-chart")

    def test_a_stream_without_its_first_label_is_drawn_as_nothing(self, tmp_path):
        nothing = {"accuracy": {}, "measures": {}, "history": {name: [] for name in status(60)["history"]}}
        none_yet = {"memory": [], "recall": [], "drift": [], "rejected": [], "snapshot": None, "checkpoint": None}
        empty = status(60) | nothing | none_yet
        dom = Dom(look(lambda: json.dumps(empty).encode(), tmp_path, "--dump-dom"))
        assert (dom.text("accuracy"), dom.text("number"), dom.text("snapshot-note")) == ("–", "–", "no snapshot yet")
        assert "nothing measured yet" in dom.text("accuracy-chart")

    def test_a_picture_of_the_page_shows_the_curve(self, tmp_path):
        image = pytest.importorskip("matplotlib.image")
        path = tmp_path / "page.png"
        look(Learner(), tmp_path, f"--screenshot={path}")
        pixels = (image.imread(path)[..., :3] * 255).round().astype(int)
        blue = (np.abs(pixels - (0x1F, 0x63, 0xD0)) < 24).all(axis=2)
        chart = blue[150:640]
        assert chart.any(axis=0).sum() > 900, "the curve reaches across the page"
        assert np.ptp(np.nonzero(chart.any(axis=1))[0]) > 100, "and climbs"


def test_the_page_names_no_other_host():
    for content, _ in files().values():
        assert set(re.findall(rb"https?://[^\"'\s]+", content)) <= {b"http://www.w3.org/2000/svg"}


def test_the_page_writes_text_and_never_markup():
    script = files()["/page.js"][0].decode()
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script) == []


def test_every_id_that_the_script_names_is_on_the_page():
    page, script = files()["/"][0].decode(), files()["/page.js"][0].decode()
    named = set(re.findall(r'(?:byId|put|badge|bars|facts|new Chart)\("([\w-]+)"', script))
    assert len(named) > 20
    assert named <= set(re.findall(r'id="([\w-]+)"', page))
    assert set(FILES) >= set(re.findall(r'(?:src|href)="(/page[^"]*)"', page))
