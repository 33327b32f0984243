"""Streams with late labels for tests: records, their decoder, and a slow obvious account of what has to become of them."""

import random
from dataclasses import dataclass, field

import msgspec
import numpy as np

from streamlearn.errors import DecodeError
from streamlearn.records import Given, Sample

FADE = 0.999
OUTCOMES = ("learned", "rejected", "expired", "joined", "unmatched", "duplicate")


class LateDecoder:
    """`{"x", "label"?, "id"?, "kind"?, "served"?: [number, logits]}` as JSON; the one feature is x."""

    def decode(self, record, out):
        try:
            values = msgspec.json.decode(record.value or b"")
        except msgspec.DecodeError as error:
            raise DecodeError(f"{record.place}: {error}") from error
        out[0] = values.get("x", 0.0)
        given = None
        if "served" in values:
            number, logits = values["served"]
            given = Given(number, np.array(logits, np.float32), is_served=True, label=int(np.argmax(logits)))
        return Sample(values.get("label"), values.get("id"), values.get("time"), None, values.get("kind", "sample"), given)


def stream(n, seed, *, ids=40):
    """All ways in, mixed: labelled, unlabelled, labels before and after, served answers, duplicates, nonsense."""
    draw = random.Random(seed)
    kinds = {
        "labelled": lambda: {"x": draw.random(), "label": draw.choice((0, 1))},
        "unlabelled": lambda: {"x": draw.random(), "id": str(draw.randrange(ids))},
        "label": lambda: {"kind": "label", "id": str(draw.randrange(ids)), "label": draw.choice((0, 1))},
        "both": lambda: {"x": draw.random(), "label": draw.choice((0, 1)), "id": str(draw.randrange(ids))},
        "served": lambda: {
            "x": draw.random(),
            "kind": "answer",
            "id": str(draw.randrange(ids)),
            "served": [draw.randrange(5), [draw.gauss(0, 1), draw.gauss(0, 1)]],
        },
        "nonsense": lambda: {"x": 0.5},  # neither label nor id
    }
    names = draw.choices(list(kinds), (4, 4, 4, 1, 1, 0.2), k=n)
    return [msgspec.json.encode(kinds[name]()) for name in names]


@dataclass
class Account:
    """What has to become of a stream of one partition: lists that are searched, no table, no bound but `room`."""

    room: int = 10**9
    w: float = 0.0
    number: int = 0
    chunk: list = field(default_factory=list)
    waiting: list = field(default_factory=list)
    early: list = field(default_factory=list)
    joined: set = field(default_factory=set)
    counts: dict = field(
        default_factory=lambda: dict.fromkeys(("learned", "rejected", "expired", "joined", "unmatched", "duplicate"), 0)
    )
    scored: list = field(default_factory=list)  # of each learned row: whether the answer that was given was right
    served: list = field(default_factory=list)
    versions: list = field(default_factory=list)
    told: list = field(default_factory=list)  # evidence that comes back with late labels: what the loop itself said

    def take(self, value):
        record = msgspec.json.decode(value)
        kind = record.get("kind", "sample")
        {"label": self.label, "answer": self.served_answer}.get(kind, self.sample)(record)

    def answer(self, x):
        return self.number, [np.float32(self.w), np.float32(x)]

    def evidence(self, x):
        return [float(each) for each in self.answer(x)[1]] + [7.0] * (int(100 * self.w) % 2)

    def learn(self, x, label, given, told=None):
        self.chunk.append((np.float32(x), label, given, told))
        if len(self.chunk) == 3:
            for row in self.chunk:
                number, logits = row[2] or self.answer(row[0])
                self.scored.append(int(np.argmax(logits)) == row[1])
                self.versions.append(number)
                self.told += [row[3]] if row[3] else []
            self.w = 0.9 * self.w + float(np.array([row[0] for row in self.chunk], np.float32).mean(dtype=np.float64))
            self.number += 1
            self.counts["learned"] += 3
            self.chunk = []

    def found(self, table, id_):
        return next((entry for entry in table if entry["id"] == id_), None)

    def join(self, record):
        entry = self.found(self.waiting, record["id"])
        if entry:
            self.waiting.remove(entry)
            self.joined.add(record["id"])
            self.counts["joined"] += 1
            if entry["served"]:
                self.served.append(int(np.argmax(entry["given"][1])) == record["label"])
            self.learn(entry["x"], record["label"], entry["given"], entry["told"])
        return entry

    def label(self, record):
        if record["id"] in self.joined or self.found(self.early, record["id"]):
            self.counts["duplicate"] += 1
        elif not self.join(record):
            self.early.append(record)
            if len(self.early) > self.room:
                self.early.pop(0)
                self.counts["unmatched"] += 1

    def sample(self, record):
        id_ = record.get("id")
        if "label" in record:
            if id_ in self.joined:
                self.counts["duplicate"] += 1
            elif not (id_ and self.join(record)):
                self.learn(record["x"], record["label"], None)
        elif id_ is None:
            self.counts["rejected"] += 1
        elif id_ in self.joined or self.found(self.waiting, id_):
            self.counts["duplicate"] += 1
        else:
            self.new(record, self.answer(record["x"]), served=False)

    def served_answer(self, record):
        number, logits = record["served"]
        given = number, [np.float32(each) for each in logits]
        entry = self.found(self.waiting, record["id"])
        if record["id"] in self.joined or (entry and entry["served"]):
            self.counts["duplicate"] += 1
        elif entry:
            entry |= {"given": given, "served": True}
            self.counts["joined"] += 1
        else:
            self.new(record, given, served=True)

    def new(self, record, given, *, served):
        label = self.found(self.early, record["id"])
        if label:
            self.early.remove(label)
            self.joined.add(record["id"])
            self.counts["joined"] += 1
            self.learn(record["x"], label["label"], None if not served else given)
            if served:
                self.served.append(int(np.argmax(given[1])) == label["label"])
            return
        told = self.evidence(record["x"])
        self.waiting.append({"id": record["id"], "x": record["x"], "given": given, "served": served, "told": told})
        if len(self.waiting) > self.room:
            self.waiting.pop(0)
            self.counts["expired"] += 1


def fading(hits):
    """Their fading mean, as the loop's accuracy is defined."""
    total = weight = 0.0
    for hit in hits:
        total, weight = FADE * total + hit, FADE * weight + 1.0
    return total / weight
