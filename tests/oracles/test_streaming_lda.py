"""Discriminants of a stream are those of all its rows at once: scikit-learn's, and the inverse taken anew."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from streamlearn.errors import ConfigError
from streamlearn.learners.discriminant import Discriminant
from streamlearn.learners.nearest_mean import NearestMean
from streamlearn.learners.streaming_lda import StreamingLDA
from streamlearn.learners.task import Task
from streamlearn.records import Batch

SIZE, CLASSES, EACH = 6, 5, 8


def rows(seed=0, classes=CLASSES, each=EACH):
    """Classes that spread far in one common direction, in which means of few rows say little."""
    random = np.random.default_rng(seed)
    y = random.permutation(np.repeat(np.arange(classes), each))
    mixed = random.normal(size=(SIZE, SIZE))
    return (3 * random.normal(size=(classes, SIZE)))[y] + random.normal(size=(len(y), SIZE)) @ mixed, y


def learned(x, y, *, shrinkage=0.1, grown=1.0):
    made = Discriminant(SIZE, shrinkage=shrinkage, grown=grown)
    made.grow(int(y.max()) + 1)
    for each, label in zip(x, y, strict=True):
        made.learn(each, int(label))
    return made


def centred(logits):
    return logits - logits.mean(1, keepdims=True)


@pytest.mark.parametrize("shrinkage", [1e-12, 0.5])
def test_discriminants_are_those_of_scikit_learn(shrinkage):
    """Equal counts, where its covariance, a mean over classes, is the one over rows; it is told the pull to its diagonal."""
    x, y = rows(each=40)
    kind = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(CLASSES, 1 / CLASSES))
    theirs = kind.set_params(covariance_estimator=Drawn(shrinkage)).fit(x, y)
    weight, bias = learned(x, y, shrinkage=shrinkage).linear()
    asked = rows(1)[0]
    np.testing.assert_allclose(centred(asked @ weight.T + bias), centred(theirs.decision_function(asked)), rtol=1e-7, atol=1e-7)


class Drawn:
    """A covariance whose diagonal weighs more, as scikit-learn asks for one: called for each class."""

    def __init__(self, shrinkage):
        self.shrinkage = shrinkage

    def fit(self, x):
        found = np.cov(x.T, bias=True)
        pull = self.shrinkage / (1 - self.shrinkage) * np.diag(found) + 1e-6 * np.trace(found) / SIZE
        self.covariance_ = found + np.diag(pull)
        return self


def test_between_two_inversions_it_is_the_inverse_for_the_pull_of_the_last_one():
    """Rows of unequal classes, one of them met once; the pull is worked out here from the rows at the last inversion."""
    x, y = rows(2, each=30)
    x, y = np.concatenate([x, x[:1]]), np.concatenate([y, [CLASSES]])
    made = learned(x, y, grown=1.5)
    means = np.stack([x[y == label].mean(0) for label in range(CLASSES + 1)])
    scatter = sum(np.outer(d, d) for d in x - means[y])
    pulls, last, diagonal = [], 0.0, None
    for n in range(1, len(x) + 1):
        so_far = [x[:n][y[:n] == label] for label in np.unique(y[:n])]
        trace = sum(float(((part - part.mean(0)) ** 2).sum()) for part in so_far)
        if trace > 1.5 * last:
            last = trace
            diagonal = sum(((part - part.mean(0)) ** 2).sum(0) for part in so_far)
            pulls.append(n)
    assert len(pulls) > 3
    assert pulls[-1] < len(x) - 5, "some rows came after the last inversion"
    pull = 0.1 / 0.9 * diagonal + 1e-6 * last / SIZE
    precision = np.linalg.inv(scatter + np.diag(pull)) * len(x)
    asked = rows(3)[0]
    away = asked[:, None] - means
    distance = -0.5 * np.einsum("ncd,de,nce->nc", away, precision, away)
    weight, bias = made.linear()
    np.testing.assert_allclose(centred(asked @ weight.T + bias), centred(distance), rtol=1e-9, atol=1e-9)


def test_one_row_of_each_class_is_the_nearest_mean():
    x, y = rows(each=1)
    weight, bias = learned(x, y).linear()
    asked = rows(1)[0]
    means = x[np.argsort(y)]
    expected = asked @ means.T - 0.5 * (means**2).sum(1)
    np.testing.assert_allclose(centred(asked @ weight.T + bias), centred(expected), atol=1e-9)


def test_the_order_of_rows_changes_rounding_and_the_pull_alone():
    x, y = rows(each=30)
    order = np.random.default_rng(5).permutation(len(y))
    (weight, bias), (other, other_bias) = learned(x, y).linear(), learned(x[order], y[order]).linear()
    np.testing.assert_allclose(centred(x @ weight.T + bias), centred(x @ other.T + other_bias), rtol=1e-8, atol=1e-8)


def test_what_all_classes_spread_in_counts_for_less_than_for_the_nearest_mean():
    """Two features tell classes apart, a third one is loud: 20 times their distance."""
    random = np.random.default_rng(0)
    y = np.arange(600) % 3
    x = np.stack([np.cos(2 * np.pi * y / 3), np.sin(2 * np.pi * y / 3)], 1) + 0.1 * random.normal(size=(600, 2))
    x = np.concatenate([x, 20 * random.normal(size=(600, 1))], 1).astype(np.float32)
    right = {}
    for kind in (StreamingLDA, NearestMean):
        learner = kind(kind.Settings(), Task((3,)))
        report = learner.learn(Batch.of(x, y))
        right[kind] = (report.logits[300:].argmax(1) == y[300:]).mean()
    assert right[StreamingLDA] > 0.99
    assert right[NearestMean] < 0.9


def test_too_many_features_are_refused_with_what_they_would_take():
    with pytest.raises(ConfigError, match=r"max_features is 100, and there are 784 features: .* 10 MB"):
        StreamingLDA(StreamingLDA.Settings(max_features=100), Task((28, 28)))
