"""The demo's stream, its feeder, and the whole demo as a new user starts it."""

import json
import signal
import threading

import httpx
import numpy as np
import pytest

from benchmarks.testbed.fakes import MemorySink
from benchmarks.testbed.ports import free_ports
from connectors import open_source
from streamlearn import demo
from streamlearn.commands import demo_yaml
from streamlearn.config import load
from streamlearn.demo import DEGREES_PER_SAMPLE, Feeder, message, turned_digit


def test_sample_i_is_a_function_of_i_and_the_seed_alone():
    first = [message(i).value for i in range(5000, 5020)]
    assert [message(i).value for i in reversed(range(5000, 5020))] == first[::-1]
    assert [message(i, seed=1).value for i in range(5000, 5020)] != first


def test_a_sample_is_a_picture_that_was_turned_and_its_digit():
    from sklearn.datasets import load_digits  # noqa: PLC0415 - an optional extra

    digits = load_digits()
    image, label = turned_digit(0)
    same = (np.abs(digits.images / 16.0 - image).max(axis=(1, 2)) < 1e-6).nonzero()[0]
    assert label in digits.target[same], "the first one is turned by nothing"
    assert (image.min(), image.dtype, image.shape) == (0.0, np.float32, (8, 8))
    later, _ = turned_digit(round(90 / DEGREES_PER_SAMPLE))
    assert 0.0 <= later.min() <= later.max() <= 1.0


def test_each_pass_has_every_picture_once_in_an_order_of_its_own():
    orders = [demo._order(0, turn) for turn in range(3)]
    assert all(sorted(order) == list(range(1797)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_no_picture_comes_twice_at_the_same_angle():
    """Of 360° / 0.0030001° samples, before any angle could come again."""
    passes = 1000
    angles = (np.arange(passes * 1797) * DEGREES_PER_SAMPLE) % 360.0
    assert len(np.unique(angles)) == len(angles)


class Clock:
    """Time that a feeder sees, moved by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Log(MemorySink):
    """Says when so many messages are durable."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.enough, self.reached = enough, threading.Event()

    def flush(self, timeout_s: float) -> None:
        super().flush(timeout_s)
        if self.durable >= self.enough:
            self.reached.set()


def test_a_feeder_goes_on_where_the_log_ends():
    log, clock = Log(enough=30), Clock()
    feeder = Feeder(lambda: (log, 120), per_s=10.0, clock=clock)
    feeder.start()
    clock.now = 3.05
    assert log.reached.wait(10.0)
    feeder.stop(5.0)
    assert log.messages == [message(i) for i in range(120, 150)], "as many as the time that has gone by asks for"


def test_a_feeder_that_was_held_up_makes_up_for_it_in_small_steps():
    log, clock = Log(enough=250), Clock()
    sizes: list[int] = []
    write = log.write
    log.write = lambda messages: (sizes.append(len(messages)), write(messages))[1]
    feeder = Feeder(lambda: (log, 0), per_s=100.0, clock=clock)
    feeder.start()
    clock.now = 2.5
    assert log.reached.wait(20.0)
    feeder.stop(5.0)
    assert max(sizes) == 100
    assert len(log.messages) == 250


def test_a_feeder_with_a_total_ends_there_and_a_broken_log_ends_it_without_noise(capsys):
    log, clock = Log(enough=7), Clock()
    feeder = Feeder(lambda: (log, 0), per_s=10.0, total=7, clock=clock)
    clock.now = 0.7
    feeder.start()
    clock.now = 1.4
    assert log.reached.wait(10.0)
    feeder._thread.join(10.0)
    assert not feeder._thread.is_alive()
    broken = MemorySink()
    broken.fail = True
    feeder = Feeder(lambda: (broken, 0), per_s=10.0)
    feeder.start()
    feeder._thread.join(10.0)
    assert "feeder.failed" in capsys.readouterr().out


def test_a_feeder_that_never_started_can_be_stopped():
    feeder = Feeder(lambda: (MemorySink(), 0), per_s=1.0)
    feeder.stop(1.0)
    feeder.stop(1.0)


def test_the_printed_configuration_is_one(tmp_path):
    (tmp_path / "demo.yaml").write_text(demo_yaml(tmp_path / "state", 8080, 8082))
    config = load(tmp_path / "demo.yaml")
    assert (config.input.shape, config.source.type, config.learner.name) == ((8, 8), "log", "la-maml")


def test_print_config_prints_it_and_starts_nothing(forks, tmp_path):
    life = forks.run("demo", "--print-config", "--state-dir", tmp_path / "state")
    assert life.wait() == 0
    assert life.stdout == demo_yaml(tmp_path / "state", 8080, 8082)
    assert not (tmp_path / "state").exists()


def told(url):
    try:
        return httpx.get(f"{url}/status.json", timeout=2.0).json()
    except (httpx.TransportError, json.JSONDecodeError):
        return None


@pytest.mark.timeout(300)
def test_the_demo_learns_shows_a_page_survives_a_kill_and_goes_on(forks, tmp_path):
    port, metrics_port = free_ports(2)
    url, state = f"http://127.0.0.1:{port}", tmp_path / "state"
    arguments = ["demo", "--state-dir", state, "--port", port, "--metrics-port", metrics_port, "--rate", "400"]
    life = forks.start(*map(str, arguments))
    life.until(lambda: (told(url) or {"number": 0})["number"] > 10, "learning")
    assert f"The page: {url}/" in life.stderr
    assert "<html" in httpx.get(url).text
    assert "streamlearn_accuracy_ratio" in httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    image, _ = turned_digit(0)
    question = {"name": "features", "shape": [1, 8, 8], "datatype": "FP32", "data": image.ravel().tolist()}
    answer = httpx.post(f"{url}/v2/models/digits/infer", json={"inputs": [question]}, timeout=5.0)
    assert answer.status_code == 200
    life.until(lambda: list((state / "checkpoints").glob("[0-9]*")), "a checkpoint")
    life.kill(signal.SIGKILL)
    assert life.wait() == -9
    life = forks.start(*map(str, arguments))
    again = life.until(lambda: told(url), "the page")
    life.until(lambda: told(url)["outcomes"]["learned"] > again["outcomes"]["learned"] + 100, "going on")
    life.stop()
    kept = json.loads(forks.run("inspect", state, "--json").stdout)
    fed = everything(state / "samples.sqlite")
    assert fed == [message(i).value for i in range(len(fed))], "no sample was left out or came twice"
    assert kept["counts"]["learned"] + kept["pending"] + kept["probe"]["taken"] == kept["positions"]["samples[0]"] <= len(fed)


def everything(path):
    source = open_source("log", {"path": str(path)})
    source.seek({})
    values = []
    while records := source.poll(1000, 0.0):
        values += [record.value for record in records]
    source.close()
    return values
