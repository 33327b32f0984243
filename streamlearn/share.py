"""Which processors a thread may use, and how readily it gives way: for machines that are short of cores.

Linux keeps both for each thread, and a new thread or process has those of the thread that started it.
"""

import os
import threading

from pydantic import field_validator

from streamlearn.errors import ConfigError
from streamlearn.settings import Section, key

GIVES_WAY = 5  # a third of a server's weight where both want the same core


class Share(Section):
    """Of the machine's processors."""

    cpus: tuple[int, ...] = key((), "numbers of the processors that may be used, as [0, 1]; empty: all that the process has")
    nice: int | None = key(
        None,
        "-20 to 19: the more, the later its turn; less than it was started with needs CAP_SYS_NICE;"
        " empty: as started, a learner with servers 5 more",
        ge=-20,
        le=19,
    )

    @field_validator("cpus")
    @classmethod
    def _are_there(cls, cpus: tuple[int, ...]) -> tuple[int, ...]:
        if cpus and not hasattr(os, "sched_setaffinity"):
            raise ValueError("this system does not let a program choose its processors: expected none")
        there = os.sched_getaffinity(0) if cpus else set()
        if not set(cpus) <= there:
            raise ValueError(f"found {list(cpus)}: expected some of {sorted(there)}, which this process may use")
        return cpus

    def take(self) -> None:
        """For the calling thread, and all that it starts from now on. Errors: OSError where that is not allowed."""
        if self.cpus:
            os.sched_setaffinity(0, self.cpus)
        if self.nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, self.nice)  # 0: this thread

    def beside(self, servers: int) -> "Share":
        """Of a learner with so many server processes: unless told otherwise it gives way, since someone waits for an answer."""
        if self.nice is not None or not servers or not hasattr(os, "sched_setaffinity"):
            return self
        return self.model_copy(update={"nice": min(19, os.getpriority(os.PRIO_PROCESS, 0) + GIVES_WAY)})

    def check(self, path: str) -> None:
        """Tried in a thread that ends. Errors: ConfigError naming `path` where it is not allowed."""
        failed: list[OSError] = []

        def attempt() -> None:
            try:
                self.take()
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        if failed:
            now = os.getpriority(os.PRIO_PROCESS, 0)
            raise ConfigError(
                f"{path}.nice is {self.nice}, and this process may not take it: {failed[0].strerror}; expected {now} or more,"
                " or the capability SYS_NICE"
            )
