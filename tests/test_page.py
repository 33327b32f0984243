"""The page, looked at in a real browser: curves are drawn, numbers move, and nothing from the stream becomes markup."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pytest

from streamlearn.records import Answering, Snapshot
from streamlearn.schema import Column, Schema
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.hosts import InProcess
from streamlearn.serving.http import Application
from streamlearn.serving.page import FILES, files
from streamlearn.serving.settings import Settings
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
        "measures": {
            "gradient_alignment": -0.25, "step_size_zero_ratio": 0.125, "step_size_mean": 0.00002,
            "member_weight/partitions": 0.5, "member_weight/label-law": 1.25, "member_weight/plastic-mlp": -0.125,
        },
        "memory": [["cat", 60], [HOSTILE, 30], [TURNED, 15], ["other", 5]],
        "history": {
            "time_ms": times, "learned": [200 * i for i in range(points)], "accuracy": accuracy, "windowed": accuracy,
            "throughput": [200.0] * points, "lag": [float(i) for i in range(points)],
            "step_size_mean": [0.1] * points, "step_size_zero_ratio": [i / points for i in range(points)],
            "gradient_alignment": [None, *(-0.5 for _ in range(points - 1))],
        },
        "eras": {"auto": [0.9, 0.5], "ever": [0.9, 0.5], "matrix": [[0.98], [0.25, None], [0.9, 0.5]], "era_records": 2000,
                 "best": [0.98, None], "best_at": [2000, None]},
        "probe": {"retention/auto": 0.7, "forgetting/auto": 0.08, "backward_transfer/auto": -0.08, "rows": 240.0},
        "contexts": {
            "contexts": 5.0, "visits": 20.0, "given_up": 2.0, "regained": 1230.0, "reached": None, "forward_transfer": 0.254,
        },
        "classes": [[HOSTILE, 0.2, 0.92, 12000], ["dog", 0.7, None, None], ["cat", 0.8, 0.75, 8000]],
        "drift": [
            {"time_ms": 5, "learned": 1, "detector": "x"},  # of an older program, before the curve
            {"time_ms": times[40], "learned": 8000, "detector": "adwin", "on": "error", "moved": [
                {"name": HOSTILE, "before": 0.125, "now": 0.625, "size": 0.5},
                {"name": "cat", "before": None, "now": 1.0, "size": 1.0},
            ]},
            {"time_ms": times[50], "learned": 12000, "detector": "kswin", "on": "inputs", "moved": [
                {"name": "amount", "before": 20.5, "now": -3.0625, "size": -9.42},
            ]},
        ],
        "alerts": {"error": 0.0, "inputs": 1.0}, "faster": 2.0, "kept": ["0001-00000042"],
        "sets": [[0.9, 0.8875, 2.5], [0.95, None, None]],
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
        forms = {"told": told}
        endpoint = Endpoint(current, model_name="digits", settings=self.settings, forms=forms.__getitem__)
        return Application(endpoint, status=self.status)


def told(_arrays, _settings, x):
    """The first four values of a sample are its logits; a missing one counts 0."""
    return np.nan_to_num(x.reshape(len(x), -1)[:, :4])


def look(told_status, tmp_path, *arguments, snapshot=None, question=None):
    """Open the page in a browser of its own, let five seconds of its time pass, and return what it was asked to print."""
    reference = Reference()
    if snapshot:
        reference.publish(snapshot)
    host = InProcess(Told(told_status), reference)
    host.start()
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    home = f"--user-data-dir={tmp_path / 'browser'}"
    command = [CHROMIUM, *FLAGS, *sandbox, home, "--window-size=1200,1700", "--virtual-time-budget=5000", *arguments]
    try:
        link = "" if question is None else "#ask=" + quote(question if isinstance(question, str) else json.dumps(question))
        url = f"http://127.0.0.1:{host.port}/{link}"
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
        ((mark,), (other,)) = (dom.classed(kind, "accuracy-chart") for kind in ("mark", "mark inputs"))
        said = f"drift of the error noticed by adwin after 8,000 samples: {HOSTILE} +50 points; cat +100 points"
        assert mark["text"] == said
        assert other["text"] == "drift of the inputs noticed by kswin after 12,000 samples: amount −9.4 σ"
        assert float(other["x1"]) > float(mark["x1"])
        assert (dom.text("drift-count"), dom.text("input-drift-count")) == ("2 ×", "1 ×")

    def test_what_moved_is_told_by_name_with_before_and_after(self, seen):
        _, dom = seen
        cells = [each["text"] for each in dom.elements if "drifts" in each["within"] and each["tag"] == "td"]
        newest, error, old = cells[:5], cells[5:10], cells[10:15]
        assert newest[1:] == ["12,000", "inputs", "kswin", "amount −9.4 σ (20.5 → -3.06)"]
        assert error[1:4] == ["8,000", "error", "adwin"]
        assert error[4] == f"{HOSTILE} +50 points (12.5 % wrong → 62.5 %); cat +100 points (new, 100.0 % wrong)"
        assert old[1:] == ["1", "error", "x", "–"]
        assert dom.text("alert") == "drift of the inputs"
        assert dom.text("drift-note") == "step sizes are 2 times what they were · kept for it: checkpoint 0001-00000042"

    def test_live_coverage_stands_beside_what_was_promised(self, seen):
        _, dom = seen
        assert "promised 90.0 %held 88.8 % · 2.50 labels" in dom.text("sets")
        assert "promised 95.0 %held – · – labels" in dom.text("sets")
        assert "hidden" not in next(each for each in dom.elements if each.get("id") == "sets-card")

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

    def test_members_of_a_pool_are_shown_by_what_they_count(self, seen):
        _, dom = seen
        assert re.findall(r"(label-law|partitions|plastic-mlp)(-?[\d.]+)", dom.text("members")) == [
            ("label-law", "1.25"),
            ("partitions", "0.50"),
            ("plastic-mlp", "-0.13"),
        ]
        widths = [re.search(r"width: ([\d.]+)%", each["style"])[1] for each in dom.classed("bar", "members")]
        assert [float(width) for width in widths] == pytest.approx([100, 40, 0], abs=0.01)
        card = next(each for each in dom.elements if each.get("id") == "members-card")
        assert "hidden" not in card
        assert "member" not in dom.text("measures")

    def test_the_accuracy_matrix_is_a_table_of_what_each_test_found(self, seen):
        _, dom = seen
        cells = [
            (each["tag"], each["text"]) for each in dom.elements if "known" in each["within"] and each["tag"] in ("th", "td")
        ]
        assert [text for tag, text in cells if tag == "td"] == ["98 best", "25", "–", "90", "50"]
        assert [text for tag, text in cells if tag == "th"] == ["after \\ era to", "2K", "4K", "2K", "4K", "now"]
        told = (
            "retention 70.0 % · forgetting 8.0 % · backward transfer -8.0 % · tested on 240 records that are never trained on"
        )
        assert dom.text("known-note") == told
        colours = [
            float(re.search(r"--colour: ([\d.]+)", each["style"])[1])
            for each in dom.elements
            if "--colour" in each.get("style", "")
        ]
        assert colours == pytest.approx([100 * 0.98**4, 100 * 0.25**4, 0, 100 * 0.9**4, 100 * 0.5**4], abs=0.06)

    def test_a_label_that_is_less_known_than_it_was_says_how_much_and_since_when(self, seen):
        _, dom = seen
        cells = [each["text"] for each in dom.elements if "classes" in each["within"] and each["tag"] in ("th", "td")]
        assert cells[0::4] == [HOSTILE, "dog", "cat"]
        assert cells[2::4] == ["20.0 %", "70.0 %", "80.0 %"]
        assert cells[3::4] == ["was 92.0 % after 12,000, −72 points", "", ""], "no best yet; better than ever"

    def test_how_soon_contexts_are_learned_again_is_told(self, seen):
        _, dom = seen
        cells = [each["text"] for each in dom.elements if "visits" in each["within"] and each["tag"] == "td"]
        assert cells == ["5", "20, of which 2 ended too soon", "1,230 records", "not known yet", "+25 points"]
        assert "hidden" not in next(each for each in dom.elements if each.get("id") == "visits-card")

    def test_step_sizes_and_alignment_are_drawn_below_zero_too(self, seen):
        _, dom = seen
        assert len(set(heights(dom.classed("curve first", "steps-chart")[0]))) == 1
        (alignment,), (zero,) = dom.classed("curve first", "signs-chart"), dom.classed("curve second", "signs-chart")
        assert min(heights(alignment)) > max(heights(zero)), "a negative cosine lies below every share"

    def test_a_sample_in_a_link_is_asked_and_answered_with_probabilities_and_version(self, tmp_path):
        labels = ("cat", HOSTILE, "dog", 7)
        snapshot = Snapshot(4711, Answering("told", {}, {}), labels, (2, 2), 0, sets={0.9: 0.95, 0.95: 1.0})
        dom = Dom(look(Learner(), tmp_path, "--dump-dom", snapshot=snapshot, question=[[0, 3], [1, 0]]))
        assert dom.text("answer-set") == f"The true label is in this set 90.0 % of the time: {HOSTILE}, dog."
        assert re.fullmatch(rf"The answer is {re.escape(HOSTILE)}, by version 4711, in [\d.]+ ms\.", dom.text("answer-note"))
        share = 100 * np.exp([3, 1, 0, 0]) / np.exp([3, 1, 0, 0]).sum()
        rows = [f"{label}{part:.1f} %" for label, part in zip((HOSTILE, "dog", "cat", "7"), share, strict=True)]
        assert dom.text("answer") == "The most probable labels" + "".join(rows)
        assert not [each for each in dom.elements if each["tag"] == "img"]

    def test_a_sample_of_named_columns_is_asked_by_name(self, tmp_path):
        schema = Schema((Column("amount"), Column("carrier", "categorical", True, 8)))
        snapshot = Snapshot(8, Answering("told", {}, {}), ("no", "yes"), (2,), 0, {}, schema)
        unpromised = json.dumps(status(60) | {"sets": []}).encode()
        dom = Dom(look(lambda: unpromised, tmp_path, "--dump-dom", snapshot=snapshot, question={"amount": 5, "carrier": None}))
        assert dom.text("answer-set") == ""
        assert "by version 8" in dom.text("answer-note")
        assert "object of its columns" in dom.text("ask-note")

    @pytest.mark.parametrize(
        ("question", "said"),
        [
            ([[0, 3], [1]], "found 3 values, expected 4 numbers (2 × 2)"),
            ("[0, ", "this is not JSON"),
            ({"inputs": []}, "found 1 values, expected 4 numbers"),
        ],
    )
    def test_what_is_no_sample_is_said_so(self, tmp_path, question, said):
        snapshot = Snapshot(4711, Answering("told", {}, {}), ("a", "b", "c", "d"), (2, 2), 0)
        dom = Dom(look(Learner(), tmp_path, "--dump-dom", snapshot=snapshot, question=question))
        assert said in dom.text("answer-note")
        assert "hidden" in next(each for each in dom.elements if each.get("id") == "answer")

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
        assert "hidden" in next(each for each in dom.elements if each.get("id") == "members-card")

    def test_a_stream_without_its_first_label_is_drawn_as_nothing(self, tmp_path):
        nothing = {"accuracy": {}, "measures": {}, "history": {name: [] for name in status(60)["history"]}}
        nothing["contexts"] = {"contexts": 0.0, "visits": 0.0, "given_up": 0.0, "regained": None}
        none_yet = {"memory": [], "recall": [], "drift": [], "rejected": [], "snapshot": None, "checkpoint": None}
        empty = status(60) | nothing | none_yet
        dom = Dom(look(lambda: json.dumps(empty).encode(), tmp_path, "--dump-dom"))
        assert (dom.text("accuracy"), dom.text("number"), dom.text("snapshot-note")) == ("–", "–", "no snapshot yet")
        assert "nothing measured yet" in dom.text("accuracy-chart")
        assert "hidden" in next(each for each in dom.elements if each.get("id") == "visits-card")

    def test_a_picture_of_the_page_shows_the_curve(self, tmp_path):
        image = pytest.importorskip("matplotlib.image")
        path = tmp_path / "page.png"
        look(Learner(), tmp_path, f"--screenshot={path}")
        pixels = (image.imread(path)[..., :3] * 255).round().astype(int)
        blue = (np.abs(pixels - (0x1F, 0x63, 0xD0)) < 24).all(axis=2)
        chart = blue[150:640]
        assert chart.any(axis=0).sum() > 900, "the curve reaches across the page"
        assert np.ptp(np.nonzero(chart.any(axis=1))[0]) > 100, "and climbs"


def scripts():
    return "\n".join(content.decode() for path, (content, _) in files().items() if path.endswith(".js"))


def test_the_page_names_no_other_host():
    for content, _ in files().values():
        assert set(re.findall(rb"https?://[^\"'\s]+", content)) <= {b"http://www.w3.org/2000/svg"}


def test_the_page_writes_text_and_never_markup():
    script = scripts()
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script) == []


def test_every_id_that_the_script_names_is_on_the_page():
    page, script = files()["/"][0].decode(), scripts()
    named = set(re.findall(r'(?:byId|put|badge|bars|facts|matrix|new Chart)\("([\w-]+)"', script))
    assert len(named) > 20
    assert named <= set(re.findall(r'id="([\w-]+)"', page))
    assert set(FILES) >= set(re.findall(r'(?:src|href)="(/page[^"]*)"', page))
    assert set(FILES) >= {f"/{name}" for name in re.findall(r'from "\./([^"]+)"', script)}
