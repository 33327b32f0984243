"""The estimate of accuracy without labels, against truths that are known because the test draws them."""

import math

import numpy as np
import pytest

from streamlearn.confidence import Calibration


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
