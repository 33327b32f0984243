"""The page in use: on a phone, in the dark, by keys alone and by a screen reader; and every request that it makes."""

import json
import re

import pytest

from streamlearn.records import Answering, Snapshot
from streamlearn.serving.hosts import InProcess
from streamlearn.snapshot import Reference
from tests.devtools import Browser
from tests.test_page import CHROMIUM, FLAGS, HOSTILE, Learner, Told
from tests.test_page import browser as needs_chromium

pytestmark = needs_chromium
PHONE = (390, 844)
LABELS = ("cat", HOSTILE, "dog", 7)
FOCUSED = """(() => {
  const at = document.activeElement, style = getComputedStyle(at);
  const name = at.id || at.getAttribute("href") || at.closest("[id]")?.id || at.tagName;
  return [name, style.outlineStyle, parseFloat(style.outlineWidth)];
})()"""
WIDE = """[...document.querySelectorAll("body *")].map((each) => [each.getBoundingClientRect().right, each.outerHTML])
  .filter(([right]) => right > document.documentElement.clientWidth + 0.5).map(([, markup]) => markup.slice(0, 120))"""
FAINT = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const parts = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(parts(getComputedStyle(at).backgroundColor));
    return layers.reduce((under, [...top]) => under.map((value, i) => top[i] * top[3] + value * (1 - top[3])), [1, 1, 1]);
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let looked = 0;
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
    if (!text || element.closest(".unseen, noscript, title") || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const ink = light(parts(element.closest("svg") ? style.fill : style.color)), paper = light(ground(element));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (isLarge ? 3 : 4.5)) found.push([text, Number(contrast.toFixed(2))]);
    looked += 1;
  }
  return { found, looked };
})()"""
"""Texts with less contrast than WCAG 2.2 asks for at level AA (success criterion 1.4.3)."""


class Grown(Learner):
    """A learner that has gone on for twenty eras."""

    def __call__(self):
        status = json.loads(super().__call__())
        ends = [[0.98 - 0.04 * abs(row - era) for era in range(row + 1)] for row in range(20)]
        eras = {"matrix": [*ends, ends[-1]], "best_at": [2000 * (era + 1) for era in range(20)]}
        moved = [{"name": f"{row},{row} spread of a column", "before": 0.5, "now": 9.0, "size": 123.0} for row in range(5)]
        many = [
            {"time_ms": status["updated_ms"], "learned": 9, "detector": "page_hinkley", "on": "inputs", "moved": moved}
        ] * 20
        return json.dumps(status | {"eras": status["eras"] | eras, "drift": status["drift"] + many}).encode()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(CHROMIUM, FLAGS, tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def address():
    reference = Reference()
    reference.publish(Snapshot(4711, Answering("told", {}, {}), LABELS, (2, 2), 0, sets={0.9: 0.95}))
    host = InProcess(Told(Grown()), reference)
    host.start()
    yield f"http://127.0.0.1:{host.port}/"
    host.stop(20.0)


def focused(browser, steps):
    """What has the focus after each step with Tab."""
    places = []
    for _ in range(steps):
        browser.press("Tab")
        places.append(browser.value(FOCUSED))
    return places


def text(browser, name):
    return browser.value(f"document.getElementById({json.dumps(name)}).textContent")


def hint(browser, chart):
    return browser.value(f'document.querySelector("#{chart} .hint").textContent')


def test_nothing_is_wider_than_a_phone(browser, address):
    browser.open(address, *PHONE)
    assert browser.value("innerWidth") == PHONE[0], "it is laid out for the phone, not shrunk"
    assert browser.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), browser.value(WIDE)
    heights = browser.value("[...document.querySelectorAll('button')].map((each) => each.getBoundingClientRect().height)")
    assert min(heights) >= 24, "large enough for a finger (WCAG 2.2, 2.5.8)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser, address, scheme):
    browser.open(address, scheme=scheme)
    focused(browser, 1)
    browser.press("End")
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(244, 246, 249)", "dark": "rgb(14, 18, 24)"}[scheme]
    seen = browser.value(FAINT)
    assert seen["found"] == []
    assert seen["looked"] > 150


def test_tab_goes_through_all_that_can_be_used_in_the_order_of_the_page_and_shows_where_it_is(browser, address):
    browser.open(address)
    places = focused(browser, 13)
    assert [name for name, *_ in places] == [
        *("accuracy-chart", "drift-card", "known-card", "throughput-chart", "lag-chart", "steps-chart", "signs-chart"),
        *("question", "ask", "example", "rejected-card", "/v2", "/status.json"),
    ]
    assert all(style == "solid" and width >= 2 for _, style, width in places), places


def test_a_curve_is_read_with_the_arrow_keys(browser, address):
    browser.open(address)
    focused(browser, 1)
    assert hint(browser, "accuracy-chart") == ""
    browser.press("Home")
    assert hint(browser, "accuracy-chart").endswith("\nwindowed  –\nfading  –"), "nothing was known at the first point"
    for _ in range(4):
        browser.press("ArrowRight")
    fourth = f"{100 * (0.9 - 0.8 * 0.97**2):.1f} %"
    assert hint(browser, "accuracy-chart").endswith(f"\nwindowed  {fourth}\nfading  {fourth}")
    browser.press("ArrowLeft")
    third = f"{100 * (0.9 - 0.8 * 0.97):.1f} %"
    assert hint(browser, "accuracy-chart").endswith(f"\nfading  {third}")
    browser.press("Tab")
    assert hint(browser, "accuracy-chart") == "", "it goes with the focus"


def test_what_the_arrow_keys_chose_is_read_out(browser, address):
    browser.open(address)
    focused(browser, 1)
    said = '[...document.querySelectorAll(".hint")].map((each) => [each.getAttribute("role"), getComputedStyle(each).display])'
    assert set(map(tuple, browser.value(said))) == {("status", "block")}, (
        "a live region has to be there before it says something"
    )
    browser.press("Home")
    assert "windowed" in "".join(name for role, name in browser.tree() if role in ("StaticText", "InlineTextBox"))


def test_a_sample_is_asked_with_control_and_enter(browser, address):
    browser.open(address)
    focused(browser, 8)
    browser.write("[[0, 3],")
    browser.press("Enter")
    browser.write("[1, 0]]")
    assert browser.value('document.getElementById("question").value') == "[[0, 3],\n[1, 0]]"
    assert text(browser, "answer-note") == "", "Enter alone is a new line"
    browser.press("Enter", control=True)
    browser.until(lambda: "by version 4711" in text(browser, "answer-note"), "an answer")
    browser.press("Tab")
    assert browser.value(FOCUSED)[0] == "ask"
    browser.press("Enter")
    browser.until(lambda: "by version 4711" in text(browser, "answer-note"), "an answer to the button")


def test_a_screen_reader_meets_names_for_all_that_can_be_used_or_seen(browser, address):
    browser.open(address)
    tree = browser.tree()
    nameless = {role for role, name in tree if role in NAMED and not name.strip()}
    assert nameless == set()
    roles = {role for role, _ in tree}
    assert set(NAMED) <= roles, "none of them is there for nothing"
    told = set(tree)
    assert {("textbox", "Sample, as JSON"), ("button", "Ask"), ("button", "An empty one"), ("link", "/v2")} <= told
    assert {("table", "Recall by label"), ("table", "Accuracy of the least known labels, and their best")} <= told
    assert {("region", "What it still knows"), ("region", "Last rejected records"), ("heading", "Accuracy over time")} <= told
    (curve,) = (name for role, name in tree if role == "image" and name.startswith("Accuracy over time"))
    assert re.fullmatch(r"Accuracy over time; now windowed [\d.]+ %, fading [\d.]+ %; drift noticed 23 times", curve)
    assert {"status", "columnheader", "rowheader"} <= roles


NAMED = ("button", "heading", "image", "link", "region", "table", "textbox")


def test_no_request_leaves_the_host(browser, address):
    """Every one that the browser made for the page, by its own account, also those that were blocked or found no host."""
    browser.events.clear()
    browser.open(address, scheme="dark")
    focused(browser, 8)
    browser.write("[[0, 3], [1, 0]]")
    browser.press("Enter", control=True)
    browser.until(lambda: "by version 4711" in text(browser, "answer-note"), "an answer")
    browser.until(lambda: browser.value("Number(document.body.dataset.shown)") >= 2, "a second status")
    asked = [each["params"]["request"]["url"] for each in browser.events if each["method"] == "Network.requestWillBeSent"]
    paths = {url.removeprefix(address) for url in asked}
    assert {"", "page.css", "page.js", "page_ask.js", "status.json", "v2/models/digits/infer"} <= paths
    assert [url for url in asked if not url.startswith(address)] == []
    opened = ("Network.webSocketCreated", "Network.webTransportCreated")
    assert [each for each in browser.events if each["method"] in opened] == []
    said = [each["params"]["entry"] for each in browser.events if each["method"] == "Log.entryAdded"]
    assert [each["text"] for each in said if each["level"] == "error"] == [], "nothing had to be blocked"
