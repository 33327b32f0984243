"""The soak's own judgement: what is flat, and what has grown."""

import pytest

from benchmarks.reliability.soak import Look, judged


def looks(**last):
    """Forty looks, in which a figure rises over the last three quarters from what it was to this."""
    usual = {"resident_bytes": 5e8, "files": 20, "threads": 5, "server_bytes": 1e8, "server_files": 9, "server_threads": 3}
    made = []
    for i in range(40):
        rise = max(0.0, (i - 10) / 29)
        seen = {name: value + rise * (last.get(name, value) - value) for name, value in usual.items()}
        made.append(Look(60.0 * i, 1000.0 * i, **seen, p50_s=0.001, p99_s=0.01))
    return made


def test_what_stays_is_flat_and_a_warm_up_is_not_looked_at():
    warming = [each._replace(resident_bytes=i * 1e7) if i < 10 else each for i, each in enumerate(looks())]
    assert "flat over 39,000 samples in 39.0 min" in judged(warming)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"resident_bytes": 6e8}, "learner: resident memory grew from 52"),
        ({"server_bytes": 1.2e8}, "server: resident memory grew from 10"),
        ({"files": 30}, "learner: open files grew"),
        ({"server_threads": 9}, "server: threads grew"),
    ],
)
def test_what_grows_is_no_soak_that_was_survived(last, said):
    with pytest.raises(AssertionError, match=said):
        judged(looks(**last))
