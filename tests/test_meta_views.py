"""Images seen otherwise: against scipy's interpolation and numpy's turns, and what meta-training makes of them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.inputs import Inputs, InputSettings
from streamlearn.meta.corpus import PLAIN, Corpus, Episodes
from streamlearn.meta.settings import CorpusSettings, MetaSettings, ViewSettings
from streamlearn.meta.trainer import Trainer
from streamlearn.meta.views import quarter_turns, seen
from streamlearn.models.classifier import ModelSettings


class Drawn:
    """Draws what it is told to, for a generator."""

    def __init__(self, *rows):
        self._rows = np.array(rows, dtype=float)

    def uniform(self, low, high, size):
        assert (low, high, size) == (-1, 1, self._rows.shape)
        return self._rows


def expected(image, views, drawn):
    """scipy at the places that the view shows, in pixels from the centre: turned, stretched, moved."""
    angle, wide, high = np.radians(views.turn) * drawn[0], *(1 + views.stretch) ** np.array(drawn[1:3])
    height, width = image.shape
    down, across = np.mgrid[:height, :width] + 0.5
    u, v = across - width / 2, down - height / 2
    x = (np.cos(angle) * u + np.sin(angle) * v) / wide + views.shift * drawn[3]
    y = (-np.sin(angle) * u + np.cos(angle) * v) / high + views.shift * drawn[4]
    return ndimage.map_coordinates(image, [y + height / 2 - 0.5, x + width / 2 - 0.5], order=1, mode="nearest")


@pytest.mark.parametrize("shape", [(9, 9), (8, 13)])
@pytest.mark.parametrize(
    "changes", [{"shift": 2.5}, {"turn": 40}, {"stretch": 0.3}, {"shift": 1.5, "turn": 25, "stretch": 0.2}]
)
def test_each_image_is_seen_as_scipy_interpolates_it(shape, changes):
    random, views = np.random.default_rng(0), ViewSettings(**changes)
    images, drawn = random.normal(size=(6, *shape)), random.uniform(-1, 1, (6, 5))
    found = seen(torch.from_numpy(images), views, Drawn(*drawn))
    for image, made, told in zip(images, found.numpy(), drawn, strict=True):
        np.testing.assert_allclose(made, expected(image, views, told), atol=1e-12)


def test_channels_of_an_image_move_together():
    planes = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 3, 7, 7)))
    views = ViewSettings(shift=2, turn=30)
    together = seen(planes, views, np.random.default_rng(2))
    for channel in range(3):
        assert torch.equal(together[:, channel], seen(planes[:, channel], views, np.random.default_rng(2)))


def test_draws_stay_within_what_is_told_and_fill_it():
    """A single bright pixel, moved: where it lies is how far it went."""
    images = torch.zeros(2000, 21, 21, dtype=torch.float64)
    images[:, 10, 10] = 1.0
    found = seen(images, ViewSettings(shift=3), np.random.default_rng(0)).numpy()
    for along in (1, 2):
        at = (found.sum(along) * np.arange(21)).sum(1) - 10
        assert -3 <= at.min() < -2.9
        assert 2.9 < at.max() <= 3
        assert abs(at.mean()) < 0.15


def test_without_views_images_are_left_as_they_are_and_nothing_is_drawn():
    images, random = torch.rand(3, 5, 5), np.random.default_rng(0)
    assert seen(images, ViewSettings(quarter_turns=True), random) is images
    assert random.bit_generator.state == np.random.default_rng(0).bit_generator.state


def images(classes=8, each=4):
    return np.random.default_rng(0).integers(0, 255, (classes * each, 6, 6), dtype=np.uint8), np.repeat(
        np.arange(classes), each
    )


def test_quarter_turns_are_classes_of_their_own_that_are_trained_on_and_not_held_out():
    x, y = images()
    plain, turned = (Corpus.of(x, y, held_out=0.25, seed=0, views=ViewSettings(quarter_turns=asked)) for asked in (False, True))
    assert len(plain.train) == 6
    assert len(turned.train) == 24
    assert turned.fingerprint == plain.fingerprint
    for quarters in range(4):
        for now, before in zip(turned.train[6 * quarters :], plain.train, strict=False):
            np.testing.assert_array_equal(turned.x[now], [np.rot90(image, quarters) for image in x[before]])
    assert [rows.tolist() for rows in turned.held_out] == [rows.tolist() for rows in plain.held_out]
    assert quarter_turns(x).dtype == np.uint8


def test_rows_that_are_trained_on_are_seen_anew_and_held_out_ones_as_they_are():
    x, y = images()
    own = Corpus.of(x, y, held_out=0.25, seed=0, views=ViewSettings(shift=2, turn=20))
    episodes = Episodes(own, Inputs.fresh(InputSettings(), (6, 6)), torch.float32, "cpu")
    known = {image.astype(np.float32).tobytes() for image in x}

    def share_as_they_are(*parts):
        rows = [row.numpy().tobytes() in known for part in parts for row in part.reshape(-1, 6, 6)]
        return np.mean(rows)

    asked = {"ways": 2, "shots": 2, "queries": 2}
    held, trained = (episodes.few_shot(np.random.default_rng(0), 5, **asked, held_out=held) for held in (True, False))
    along, _ = episodes.trajectories(np.random.default_rng(0), 2, classes=2, shots=2, remember=3)
    batch = episodes.batch(np.random.default_rng(0), 20)
    assert share_as_they_are(held.support_x, held.query_x) == 1
    for made in (trained, along, batch):
        assert share_as_they_are(made.support_x, made.query_x) == 0
    again = episodes.batch(np.random.default_rng(0), 20)
    assert torch.equal(batch.query_x, again.query_x)


@pytest.mark.parametrize(("shape", "views", "told"), [
    ((12,), {"shift": 1}, r"corpus.views.shift is given, the inputs are \[12\]: expected images"),
    ((12,), {"quarter_turns": True}, "corpus.views.quarter_turns is given"),
    ((4, 6), {"quarter_turns": True}, "as high as wide"),
])  # fmt: skip
def test_views_are_of_images(shape, views, told):
    y = np.repeat(np.arange(6), 3)
    with pytest.raises(ConfigError, match=told):
        Corpus.of(np.zeros((len(y), *shape)), y, held_out=0.3, seed=0, views=ViewSettings(**views))


def test_views_stand_in_the_corpus_section_and_reach_the_trainer(tmp_path):
    x, y = images()
    np.savez(tmp_path / "images.npz", x=x, y=y)
    settings = CorpusSettings(path=tmp_path / "images.npz", held_out=0.25, views={"quarter_turns": True, "shift": 1})
    own = Corpus.load(settings, shape=(6, 6), seed=0)
    assert len(own.train) == 24
    assert own.views.shift == 1


def trainer(views=PLAIN, **changes):
    x, y = images()
    settings = MetaSettings(algorithm="supervised", batch=8, validation_classes=2, validation_shots=2, **changes)
    own = Corpus.of(x, y, held_out=0.25, seed=0, views=views)
    return Trainer(settings, own, shape=(6, 6), model=ModelSettings(hidden=(4,)), inputs=InputSettings(kind="none"))


def test_a_run_that_was_begun_with_other_views_is_not_gone_on_with():
    with pytest.raises(CheckpointError, match=r"begun with views .*'shift': 0\.0.*'shift': 1\.0"):
        trainer(ViewSettings(shift=1)).restore(trainer().state())


def test_in_the_cooldown_the_outer_step_falls_to_nothing_along_a_line():
    """Adam's first steps are of the step size itself wherever the gradient keeps its sign: compare whole moves."""
    made, plain = trainer(steps=10, cooldown=0.5), trainer(steps=10)
    rates = []
    for _ in range(10):
        rates.append(made._cooled())
        made.step()
        plain.step()
        if made.steps <= 6:
            assert all(torch.equal(made.params[n], plain.params[n]) for n in made.params)
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert not all(torch.equal(made.params[n], plain.params[n]) for n in made.params)
