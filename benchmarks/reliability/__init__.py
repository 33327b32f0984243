"""What the program survives, shown: scenarios, and the table that the commands which ran them write.

`python -m benchmarks.reliability [GROUP …]` runs every scenario of the groups (all when left out) and writes a row for each to
docs/results/reliability.json and docs/reliability.md. Runs of the same program add up in a row; of a changed one they take its
place. A scenario whose claim fails (an AssertionError) gets its row too, marked as not survived, and the command ends with 1.

To add a scenario, write in a file of this folder, whose name stands in `table.GROUPS`:

    @scenario("broker", "broker killed and started again", produced="SIGKILL to the broker, started again after 5 s")
    def restarted(bench: Bench) -> Outcome:
        "…asserts what has to hold, with `bench.forks`, `bench.folder` and `bench.kafka`…"
        return Outcome("every record learned once, 0 questions failed", runs=3, recover_s=seconds)

Keep it small under `bench.quick`, which the tests use. Who has a command of their own calls `table.record` instead.
"""
