"""The estimate of accuracy without labels, against truths that are known because the test draws them."""

import math

import numpy as np
import pytest

from streamlearn.confidence import Calibration, Misses


def answers(generator, n, power):
    """Confidences, and whether each answer was right: with chance confidence ** power, which is over-confident above 1."""
    confidences = generator.beta(4, 1.5, n)
    return confidences, generator.random(n) < confidences**power


@pytest.mark.parametrize("power", [0.5, 1.0, 2.5])
def test_the_interval_covers_the_truth_of_the_tail_about_95_times_in_100(power):
    """200 times: labels of 600 answers have come, those of 150 have not; then they come too."""
    generator, covered, widths, biases = np.random.default_rng(1), 0, [], []
    for _ in range(200):
        calibration = Calibration(0.999)
        for confidence, right in zip(*answers(generator, 600, power), strict=True):
            calibration.update(confidence, is_right=bool(right))
        tail, right = answers(generator, 150, power)
        low, value, high = calibration.estimate(tail.tolist())
        covered += low <= right.mean() <= high
        widths.append(high - low)
        biases.append(value - right.mean())
    assert 0.92 <= covered / 200 <= 0.985  # 95 % ± 2 standard errors of 200 throws
    assert abs(np.mean(biases)) < 3 * np.std(biases) / math.sqrt(200) + 0.005
    assert np.mean(widths) < 4.5 * math.sqrt(0.25 / 150), "an interval of [0, 1] would cover everything"


def test_raw_confidence_would_be_wrong_where_calibrated_confidence_is_right():
    generator, calibration = np.random.default_rng(2), Calibration(0.999)
    for confidence, right in zip(*answers(generator, 3000, 2.5), strict=True):
        calibration.update(confidence, is_right=bool(right))
    tail, right = answers(generator, 5000, 2.5)
    assert abs(tail.mean() - right.mean()) > 0.2
    assert abs(calibration.estimate(tail.tolist()).value - right.mean()) < 0.03
    assert abs(calibration.bias) < 0.05


def test_a_bias_shows_when_the_world_changes_and_goes_once_it_is_learned():
    generator, calibration = np.random.default_rng(3), Calibration(0.99)
    for power, rows in ((0.5, 2000), (3.0, 60)):
        for confidence, right in zip(*answers(generator, rows, power), strict=True):
            calibration.update(confidence, is_right=bool(right))
    assert calibration.bias > 0.1
    for confidence, right in zip(*answers(generator, 2000, 3.0), strict=True):
        calibration.update(confidence, is_right=bool(right))
    assert abs(calibration.bias) < 0.1


def test_it_is_the_closed_form_with_one_bin_and_no_fading():
    calibration = Calibration(1.0)
    for right in [True] * 6 + [False] * 2:
        calibration.update(0.82, is_right=right)
    low, value, high = calibration.estimate([0.82] * 4)
    excess = (8 * 0.82 - 6) / 10  # of all bins together, of which there is one
    p = (6 + 2 * (0.82 - excess)) / 10
    reach = 1.959964 * math.sqrt(p * (1 - p) / 4 + p * (1 - p) / 10)
    assert (low, value, high) == pytest.approx((p - reach, p, min(1.0, p + reach)))


def test_before_anything_waits_there_is_no_estimate_and_missing_answers_do_not_count():
    assert all(map(math.isnan, Calibration(0.9).estimate([])))
    assert all(map(math.isnan, Calibration(0.9).estimate([math.nan])))
    assert Calibration(0.9).estimate([0.7, math.nan]) == Calibration(0.9).estimate([0.7])


def test_a_state_goes_round():
    generator, calibration = np.random.default_rng(4), Calibration(0.99)
    for confidence, right in zip(*answers(generator, 100, 2.0), strict=True):
        calibration.update(confidence, is_right=bool(right))
    again = Calibration(0.99)
    again.restore(calibration.state())
    again.update(0.5, is_right=True)
    calibration.update(0.5, is_right=True)
    assert again.estimate([0.5, 0.9]) == calibration.estimate([0.5, 0.9])
    assert again.bias == calibration.bias


def in_runs(generator, n, stay=0.98):
    """Answers that are all as confident, and right in runs: a hidden state, which stays a while, says 9 times in 10 or 3."""
    change = generator.random(n) > stay
    good = (np.cumsum(change) + generator.integers(2)) % 2 == 0
    return np.full(n, 0.6), generator.random(n) < np.where(good, 0.9, 0.3)


def test_where_answers_are_right_in_runs_the_interval_is_as_much_wider():
    """100 labels late: 60 times the tail of 100 answers is estimated and then seen. Coins alone would cover half of them."""
    generator, covered, by_coins = np.random.default_rng(5), [], []
    confidences, right = in_runs(generator, 9000)
    calibration, expected = Calibration(0.999), np.full(len(right), np.nan)
    for row in range(len(right)):
        expected[row] = calibration.chance(confidences[row])
        if row >= 100:
            calibration.update(confidences[row - 100], is_right=bool(right[row - 100]), expected=expected[row - 100])
        if row >= 3000 and row % 100 == 0:
            low, value, high = calibration.estimate(confidences[row - 99 : row + 1].tolist())
            truth = right[row - 99 : row + 1].mean()
            covered.append(low <= truth <= high)
            by_coins.append(abs(value - truth) <= 1.96 * math.sqrt(value * (1 - value) / 100))
    assert len(covered) == 60
    assert np.mean(by_coins) < 0.7
    assert 0.88 <= np.mean(covered) <= 1.0
    assert high - low < 0.9, "an interval of [0, 1] would cover everything"


def test_misses_are_those_of_blocks_of_neighbours_by_hand():
    """Sixteen blocks of 8: each misses by 1/4 in turn above and below, so blocks of 16 miss by nothing."""
    misses = Misses()
    for block in range(16):
        for _ in range(8):
            misses.take(0.25 * (-1) ** block, 0.01)
    squares, coins, weight, count = misses.blocks[3]
    assert count == 16
    assert (squares / weight, coins / weight) == pytest.approx((1 / 16, 0.01 / 8))
    assert misses.blocks[4, 0] == 0
    assert misses.excess(7) == 0, "no size that small is kept"
    assert misses.excess(8) == misses.excess(15) == pytest.approx(1 / 16 - 0.01 / 8)
    assert misses.excess(1000) == 0, "of blocks of 16, which are eight: the largest that was seen often enough"


def test_what_was_expected_when_the_answer_was_given_is_what_missed():
    calibration = Calibration(0.999)
    for _ in range(500):
        calibration.update(0.9, is_right=True, expected=0.5)
    low, value, _ = calibration.estimate([0.9] * 64)
    assert value > 0.95
    assert low < 0.3, "64 in a row were missed by half"
