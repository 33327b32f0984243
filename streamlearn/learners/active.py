"""Which head rows are in the softmax: those with a learned sample, overall and, where asked, in each context."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from streamlearn.memory import sent
from streamlearn.records import State


@dataclass(frozen=True)
class ActiveRows:
    """A value: admission gives the next one. Line 0 of `lines` is the overall mask, the others belong to contexts.

    `lines` are on the host, whatever the device: which labels there are decides shapes, and nobody waits for a device.
    """

    lines: Tensor  # bool [1 + contexts, capacity]
    contexts: dict[int, int]  # context → line
    max_contexts: int  # 0: contexts are ignored
    device: str  # of the masks that are given

    @classmethod
    def fresh(cls, known: int, capacity: int, max_contexts: int, device: str) -> "ActiveRows":
        """`known` rows are active from the start, in no context."""
        return cls((torch.arange(capacity) < known).unsqueeze(0), {}, max_contexts, device)

    @property
    def width(self) -> int:
        """One past the highest active row."""
        rows = torch.nonzero(self.lines[0])
        return int(rows[-1]) + 1 if len(rows) else 0

    def grown(self, capacity: int) -> "ActiveRows":
        """The same with room for `capacity` head rows."""
        extra = capacity - self.lines.shape[1]
        return self if extra <= 0 else replace(self, lines=torch.nn.functional.pad(self.lines, (0, extra)))

    def admitted(self, labels: list[int], contexts: list[int]) -> "ActiveRows":
        """After these labels were met in these contexts. Contexts beyond `max_contexts`, and −1, have no mask of their own."""
        wanted = self._with_lines(contexts)
        pairs = {(0, label) for label in labels}
        pairs |= {(wanted.contexts[c], label) for label, c in zip(labels, contexts, strict=True) if c in wanted.contexts}
        if all(bool(wanted.lines[line, label]) for line, label in pairs):
            return wanted
        lines = wanted.lines.clone()
        for line, label in pairs:
            lines[line, label] = True
        return replace(wanted, lines=lines)

    def _with_lines(self, contexts: list[int]) -> "ActiveRows":
        known = dict(self.contexts)
        for context in contexts:
            if context >= 0 and context not in known and len(known) < self.max_contexts:
                known[context] = len(known) + 1
        new = len(known) - len(self.contexts)
        if not new:
            return self
        return replace(self, contexts=known, lines=torch.nn.functional.pad(self.lines, (0, 0, 0, new)))

    def mask(self, contexts: list[int]) -> Tensor:
        """bool [n, capacity], or [1, capacity] where one mask serves all rows."""
        return sent(self.lines[self.line_of(contexts)], torch.device(self.device)) if self.contexts else self.overall

    @property
    def overall(self) -> Tensor:
        """bool [1, capacity]: in no context."""
        return sent(self.lines[:1], torch.device(self.device))

    def line_of(self, contexts: list[int]) -> list[int]:
        """The line of each row's mask."""
        return [self.contexts.get(context, 0) for context in contexts]

    def state(self) -> State:
        """The masks and whose they are."""
        return State({"lines": self.lines.numpy().copy()}, {"contexts": list(self.contexts)})

    def restored(self, state: State) -> "ActiveRows":
        """What gave `state`."""
        lines = torch.from_numpy(state.arrays["lines"].copy())
        return replace(self, lines=lines, contexts={c: i + 1 for i, c in enumerate(state.values["contexts"])})
