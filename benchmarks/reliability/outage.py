"""A real broker that is gone, hangs, or was never there: what a daemon that reads it does, and that it answers meanwhile."""

import os
import signal
from collections.abc import Callable

from benchmarks.reliability.bench import Bench
from benchmarks.reliability.cluster import Asker
from benchmarks.reliability.stream import PATIENCE_S
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.reliability.trial import SAME, Trial


def outages(bench: Bench, away: Callable[[Trial], None], times: int = 3) -> Outcome:
    """The broker goes while the daemon waits for more, is back when `away` returned, and has more."""
    recover_s = []
    runs = 1 if bench.quick else times
    for n in range(runs):
        bench.room(f"outage-{n}")
        trial = Trial(bench)
        trial.first_half()
        away(trial)
        recover_s.append(trial.second_half())
        trial.finish()
    return Outcome(SAME, runs, recover_s)


@scenario("broker", "killed and started again", produced="SIGKILL to the broker, started again at once; real broker")
def restarted(bench: Bench) -> Outcome:
    def away(trial: Trial) -> None:
        trial.cluster.kill()
        trial.cluster.up()

    return outages(bench, away)


@scenario(
    "broker",
    "away for longer than every time-out",
    produced="SIGKILL to the broker, started again after three reported losses and the longest pause between two tries;"
    " time-outs of 1 s; real broker",
)
def outlasted(bench: Bench) -> Outcome:
    def away(trial: Trial) -> None:
        trial.cluster.kill()
        trial.outlast()
        trial.cluster.up()

    return outages(bench, away)


@scenario(
    "broker",
    "hangs for longer than every time-out",
    produced="SIGSTOP to the broker, whose connections stay open and silent; SIGCONT after three reported losses and the"
    " longest pause between two tries; time-outs of 1 s; real broker",
)
def hung(bench: Bench) -> Outcome:
    def away(trial: Trial) -> None:
        os.kill(trial.cluster.node.pid, signal.SIGSTOP)
        trial.outlast()
        os.kill(trial.cluster.node.pid, signal.SIGCONT)

    return outages(bench, away)


@scenario(
    "broker",
    "away at the start",
    produced="daemon started on a checkpoint without a broker, which comes after reported losses; real broker",
)
def absent(bench: Bench) -> Outcome:
    trial = Trial(bench)
    trial.first_half()
    trial.asker.stop()
    trial.reader.life.stop(PATIENCE_S)
    trial.cluster.kill()
    trial.reader.start()
    trial.asker = Asker(trial.reader.port)  # answers from the checkpoint's model
    trial.reader.lost(2 if bench.quick else 10)
    trial.cluster.until(lambda: trial.asker.answers > 10, "ten answers", PATIENCE_S)
    trial.cluster.up()
    recover_s = trial.second_half()
    trial.finish()
    return Outcome(SAME, 1, [recover_s])
