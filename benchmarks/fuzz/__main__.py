"""`python -m benchmarks.fuzz [FORMAT …] [--records N] [--seed S]`: fuzz decoders; 1 when one of them is not right."""

import argparse
import resource
import sys
import time

from benchmarks.fuzz.independent import PARSERS
from benchmarks.fuzz.trial import Verdicts, run
from benchmarks.reliability import table

ADDRESS_SPACE_BYTES = 2 << 30  # beyond what the process has at the start: an unbounded allocation fails

FULL = 100_000  # records of a format from which on its row of docs/reliability.md is written


def main(arguments: list[str] | None = None) -> int:
    """1 when a record was read wrongly, crashed the decoder, or took too much memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(PARSERS)}; all when left out")
    parser.add_argument("--records", type=int, default=FULL, help="of each format (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    bound_memory()
    wrong = 0
    for name in told.formats or PARSERS:
        began = time.perf_counter()
        found = run(name, told.records, told.seed)
        wrong += len(found.wrong)
        print(
            f"{name}: {told.records:,} records, seed {told.seed}: {found.accepted:,} read the same by both, {found.refused:,}"
            f" refused by both, {found.stricter.total():,} by the program alone, {len(found.wrong)} wrong; most memory for"
            f" one record {found.peak_bytes:,} bytes; {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        if told.records >= FULL:
            record(name, told.records, told.seed, found)
        for reason, times in found.stricter.most_common(5):
            print(f"  refused alone {times} times: {reason}")
        for each in found.wrong[:10]:
            print(f"  WRONG: {each}")
    return int(wrong > 0)


def record(name: str, records: int, seed: int, found: Verdicts) -> None:
    """Its row among the data faults."""
    made = "right records, seven of ten of them broken in up to five places, read by the decoder and by an independent parser"
    told = (
        f"{found.accepted:,} read the same by both, {found.refused:,} refused by both, {found.stricter.total():,} by the"
        f" program alone, {len(found.wrong)} wrong; most memory for one record {found.peak_bytes:,} bytes"
    )
    scenario = table.Scenario("data", f"broken records, {name}", made, lambda _: outcome)
    outcome = table.Outcome(told, records, survived=not found.wrong)
    table.record(scenario, outcome, command=f"python -m benchmarks.fuzz {name} --records {records} --seed {seed}")


def bound_memory() -> None:
    """Of this process, from now on."""
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        pages = int(statm.read().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    sys.exit(main())
