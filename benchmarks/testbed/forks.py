"""Many lives of the program for the price of one start: a process that has imported everything forks one on request.

A fork runs `streamlearn.cli.main` on its arguments as `python -m streamlearn` does, in a process of its own with its own exit.
It begins before the process it came from has any thread, so nothing of one life is left in another.

Run as a program this file is that process. It reads requests, a line of JSON each: `{"arguments", "folder", "environment"}` is
answered by the number of a new process, `{"wait": number}` by its exit code once it has ended.
"""

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
First: TypeAlias = tuple[str, list[Any]]
"""`"module:function"` and its arguments: how a test changes the process that a life begins as."""
DEADLINE_S = 60.0
PRELOADED = (
    *("streamlearn.commands", "streamlearn.inspection", "streamlearn.learners.look_ahead", "streamlearn.serving.http"),
    *("connectors.kafka", "connectors.kafka_sink", "connectors.log", "connectors.file", "connectors.synthetic"),
)


@dataclass
class Life:
    """One process of the program, from its start to its end."""

    pid: int
    folder: Path
    ending: Callable[[float], int]  # waits so many seconds for the exit code
    code: int | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """The exit code once it has ended; minus N when signal N ended it."""
        if self.code is None:
            try:
                self.code = self.ending(timeout_s)
            except (TimeoutError, subprocess.TimeoutExpired):
                self.kill()
                raise AssertionError(f"it did not end within {timeout_s} s; it said:\n{self.stderr}") from None
        return self.code

    def stop(self, timeout_s: float = DEADLINE_S) -> None:
        """Ask it to drain, and wait until it has. Errors: AssertionError where it ended with another code than 0."""
        self.kill(signal.SIGTERM)
        assert self.wait(timeout_s) == 0, f"it ended with {self.code}, and said:\n{self.stderr}"

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it said on standard error so far."""
        return (self.folder / "stderr").read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Log lines so far; a line that is being written does not count."""
        return [json.loads(line) for line in self.stderr.split("\n")[:-1] if line.startswith("{")]

    def event(self, name: str, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """The first event of that name, waited for while the process lives."""
        found = self.until(lambda: next((e for e in self.events if e["event"] == name), None), name, timeout_s)
        return found or {}

    def until(self, claim: Callable[[], T], what: str, timeout_s: float = DEADLINE_S) -> T:
        """What `claim` returns once it is true. It is asked again and again, for it is true in another process."""
        deadline = time.monotonic() + timeout_s
        while not (found := claim()):
            if ended(self.pid) and not (found := claim()):
                raise AssertionError(f"it ended before {what}, and said:\n{self.stderr}")
            assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s; it said:\n{self.stderr}"
            time.sleep(0.001)
        return found


class Forks:
    """The process that forks. Everything that it started is gone when `close` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()
        self._lives: list[Life] = []
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )

    def ask(self, request: dict[str, Any], timeout_s: float) -> int:
        """Its answer. Errors: TimeoutError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise TimeoutError
        return int(self._process.stdout.readline())

    def start(self, *arguments: str | Path, first: First | None = None, **environment: str) -> Life:
        """`streamlearn ARGUMENTS`, with these variables in the environment; `first` is called before it begins."""
        folder = self._room()
        request = {"arguments": [str(a) for a in arguments], "folder": str(folder), "environment": environment, "first": first}
        pid = self.ask(request, 5 * DEADLINE_S)  # the first one waits for all that is imported
        return self._born(Life(pid, folder, lambda timeout_s: self.ask({"wait": pid}, timeout_s)))

    def execute(self, *arguments: str | Path, **environment: str) -> Life:
        """`python -m streamlearn ARGUMENTS`: slower, and nothing but what a user starts."""
        folder = self._room()
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamlearn", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=os.environ | environment,
            )
        return self._born(Life(process.pid, folder, process.wait))

    def _room(self) -> Path:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        for name in ("stdout", "stderr"):
            (folder / name).touch()
        return folder

    def _born(self, life: Life) -> Life:
        self._lives.append(life)
        return life

    def run(
        self, *arguments: str | Path, timeout_s: float = DEADLINE_S, first: First | None = None, **environment: str
    ) -> Life:
        """The same, ended."""
        life = self.start(*arguments, first=first, **environment)
        life.wait(timeout_s)
        return life

    def end_all(self) -> None:
        """Kill what still lives."""
        for life in self._lives:
            if life.code is None:
                with contextlib.suppress(ProcessLookupError):
                    life.kill()
                life.wait()
        self._lives.clear()

    def close(self) -> None:
        """End it and all that came from it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def ended(pid: int) -> bool:
    """Whether the process is gone, or only waits for its parent to notice."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def main() -> None:
    """Answer requests until there are no more."""
    sys.path[0] = str(Path(__file__).parents[2])
    for name in PRELOADED:
        import_module(name)
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork would lose the other threads"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "wait" in request:
            status = os.waitpid(request["wait"], 0)[1]
            answer = os.waitstatus_to_exitcode(status)
        elif not (answer := os.fork()):
            _live(request, answers.fileno())
            return
        answers.write(f"{answer}\n")
        answers.flush()


def _live(request: dict[str, Any], answers: int) -> None:
    os.close(answers)
    for fd, path, flags in (
        (0, "/dev/null", os.O_RDONLY),
        *((fd, f"{request['folder']}/{name}", os.O_WRONLY | os.O_APPEND) for fd, name in ((1, "stdout"), (2, "stderr"))),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, fd)
        os.close(opened)
    os.environ.update(request["environment"])
    if request["first"]:
        named, values = request["first"]
        module, _, function = named.partition(":")
        getattr(import_module(module), function)(*values)
    sys.argv = ["streamlearn", *request["arguments"]]
    import_module("streamlearn.cli").main()


if __name__ == "__main__":
    main()
