"""A disk that loses its power: from the system calls of a process, every state that may be found on it afterwards.

The model is what POSIX allows, not what one file system does. Data of a file is durable after `fsync` of that file, a name in
a folder after `fsync` of that folder. What was not synced survives in part: any write, torn or whole; any change of names, one
without the other; a name without its data. A rename within a folder happens or not.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CALLS = "openat,creat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate"


class Op(NamedTuple):
    """One call that changed the disk, or what the process said it had promised (`said`)."""

    kind: str
    path: str = ""
    to: str = ""
    at: int = 0
    data: bytes = b""


STRACE = ("strace", "-f", "-y", "-xx", "-s", "20000000", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o")
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)(?:<((?:\\x..)*)>)?(?: .*)?$")
_TEXT = re.compile(r'"((?:\\x..)*)"')
_HANDLE = re.compile(r"^(?:(-?\d+)|AT_FDCWD)<((?:\\x..)*)>")


def operations(trace: Path, root: Path, said: Path) -> list[Op]:
    """What the traced process did under `root`, in order; what it appended to `said` becomes operations of their own."""
    found: list[Op] = []
    ends: dict[str, int] = {}  # of files that are appended to
    halves: dict[str, str] = {}
    for raw in trace.read_text().splitlines():
        line = _whole(raw, halves)
        match = _LINE.match(line) if line else None
        if match is None or int(match[3]) < 0:
            continue
        for op in _parsed(match[1], match[2], _decoded(match[4] or ""), int(match[3])):
            if op.path == str(said):
                found += [Op("said", data=op.data)] if op.kind == "write" else []
            elif op.path.startswith(f"{root}/") or op.path == str(root):
                found.append(_placed(op, ends))
    return found


def _whole(line: str, halves: dict[str, str]) -> str:
    """Calls of several threads overlap: a call that was interrupted in the trace is put together."""
    thread = line.split(" ", 1)[0]
    if line.endswith("<unfinished ...>"):
        halves[thread] = line.removesuffix("<unfinished ...>").rstrip()
        return ""
    if "resumed>" in line:
        return halves.pop(thread, "") + line.partition("resumed>")[2]
    return line


def _decoded(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode(errors="surrogateescape")


def _parsed(call: str, arguments: str, result: str, count: int) -> Iterator[Op]:
    texts = [bytes.fromhex(each.replace("\\x", "")) for each in _TEXT.findall(arguments)]
    handle = _HANDLE.match(arguments)
    folder = _decoded(handle[2]) if handle else ""
    paths = [str(Path(folder) / text.decode(errors="surrogateescape")) for text in texts]
    match call:
        case "openat" | "creat":
            if "O_CREAT" in arguments:
                yield Op("create", result)
            if "O_TRUNC" in arguments:
                yield Op("truncate", result)
        case "write":
            yield Op("write", folder, at=-1, data=texts[0][:count])
        case "pwrite64":
            yield Op("write", folder, at=int(arguments.rpartition(",")[2]), data=texts[0][:count])
        case "fsync" | "fdatasync":
            yield Op("sync", folder)
        case "ftruncate":
            yield Op("truncate", folder, at=int(arguments.rpartition(",")[2]))
        case "rename" | "renameat" | "renameat2":
            yield Op("rename", paths[0], paths[1])
        case "unlink" | "rmdir" | "unlinkat":
            yield Op("remove", paths[0])
        case "mkdir" | "mkdirat":
            yield Op("folder", paths[0])


def _placed(op: Op, ends: dict[str, int]) -> Op:
    """A write without a place is at the end: the program writes files from their beginning, and appends to journals."""
    if op.kind == "truncate":
        ends[op.path] = op.at
    elif op.kind == "rename":
        ends[op.to] = ends.pop(op.path, 0)
    elif op.kind == "remove":
        ends.pop(op.path, None)
    elif op.kind == "write":
        op = op._replace(at=ends.get(op.path, 0) if op.at < 0 else op.at)
        ends[op.path] = max(ends.get(op.path, 0), op.at + len(op.data))
    return op


@dataclass(slots=True)
class Node:
    """A file or a folder: what is certainly on the disk, and what was done to it since."""

    is_folder: bool
    data: bytes = b""
    names: "dict[str, Node]" = field(default_factory=dict)
    pending: list[Op] = field(default_factory=list)  # writes and truncations of a file
    changes: "list[tuple[str, str, Node | None]]" = field(default_factory=list)  # kind, name, node or new name's node

    def now(self) -> "dict[str, Node]":
        """Names as a running process sees them."""
        return _changed(self.names, self.changes)

    def sync(self) -> None:
        """All of it is certainly there from now on."""
        if self.is_folder:
            self.names, self.changes = self.now(), []
        else:
            self.data, self.pending = _written(self.data, self.pending), []


def _changed(names: "dict[str, Node]", changes: "Sequence[tuple[str, str, Node | None]]") -> "dict[str, Node]":
    result = dict(names)
    for kind, name, node in changes:
        if kind == "remove":
            result.pop(name, None)
        elif kind == "add" and node is not None:
            result[name] = node
        elif kind == "rename":
            old, _, new = name.partition("\0")
            if old in result:
                result[new] = result.pop(old)
    return result


def _written(data: bytes, ops: Sequence[Op]) -> bytes:
    held = bytearray(data)
    for op in ops:
        if op.kind == "truncate":
            del held[op.at :]
        held.extend(bytes(max(0, op.at - len(held))))
        held[op.at : op.at + len(op.data)] = op.data
    return bytes(held)


class Disk:
    """What is under one folder, as operations are done to it."""

    def __init__(self, root: Path) -> None:
        self._root, self.top = str(root), Node(is_folder=True)

    def do(self, op: Op) -> None:
        """Errors: KeyError for a name that is not there."""
        if op.kind in ("said", "create") and (op.kind == "said" or self._name(op.path) in self._parent(op.path).now()):
            return
        parent, name = self._parent(op.path), self._name(op.path)
        match op.kind:
            case "create" | "folder":
                parent.changes.append(("add", name, Node(is_folder=op.kind == "folder")))
            case "remove":
                parent.changes.append(("remove", name, None))
            case "rename":
                parent.changes.append(("rename", f"{name}\0{self._name(op.to)}", None))
            case "sync":
                self._node(op.path).sync()
            case _:
                self._node(op.path).pending.append(op)

    def _node(self, path: str) -> Node:
        node = self.top
        for part in path.removeprefix(self._root).strip("/").split("/"):
            node = node.now()[part] if part else node
        return node

    def _parent(self, path: str) -> Node:
        return self._node(str(Path(path).parent)) if path != self._root else self.top

    @staticmethod
    def _name(path: str) -> str:
        return Path(path).name

    def after_a_cut(self, draw: random.Random, samples: int) -> "Iterator[dict[str, bytes | None]]":
        """States that may be found: path → content, None for a folder. The corners first, then `samples` at random."""
        for names, data in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
            yield self._found(random.Random(0), names, data)
        for _ in range(samples):
            yield self._found(draw, draw.choice((0.2, 0.5, 0.8, 1.0)), draw.choice((0.0, 0.5, 0.9)))

    def _found(self, draw: random.Random, names: float, data: float) -> "dict[str, bytes | None]":
        found: dict[str, bytes | None] = {}

        def walk(node: Node, path: str) -> None:
            survived = [change for change in node.changes if draw.random() < names]
            for name, child in sorted(_changed(node.names, survived).items()):
                place = f"{path}{name}"
                if child.is_folder:
                    found[place] = None
                    walk(child, f"{place}/")
                else:
                    kept = [_torn(op, draw, data) for op in child.pending if draw.random() < data or data == 1.0]
                    found[place] = _written(child.data, kept)

        walk(self.top, "")
        return found


def _torn(op: Op, draw: random.Random, data: float) -> Op:
    whole = data == 1.0 or op.kind != "write" or draw.random() < 0.5
    return op if whole else op._replace(data=op.data[: draw.randrange(len(op.data) + 1)])


def put(state: "dict[str, bytes | None]", folder: Path) -> None:
    """Make the state true under an empty folder."""
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
