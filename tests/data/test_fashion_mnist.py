"""The real pictures, from the package, and the task that reads them step by step."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import jax
import numpy as np
import pytest

from longlag.data import fashion_mnist
from longlag.tasks import SequentialImages
from longlag.training import evaluation_batch


@pytest.fixture(scope="module")
def images() -> fashion_mnist.Images:
    return fashion_mnist.load()


def test_the_pictures_are_those_of_the_package(images: fashion_mnist.Images):
    assert images.train.shape == (60_000, 28, 28) and images.test.shape == (10_000, 28, 28)
    assert images.train.dtype == np.uint8 and images.train_labels.dtype == np.int32
    for labels, count in ((images.train_labels, 6000), (images.test_labels, 1000)):
        assert np.bincount(labels).tolist() == [count] * 10
    # As the pictures look: the first for training is an ankle boot, the second test one a pullover.
    assert fashion_mnist.CLASSES[images.train_labels[0]] == "ankle boot"
    assert [fashion_mnist.CLASSES[i] for i in images.test_labels[:2]] == ["ankle boot", "pullover"]
    assert hashlib.sha256(images.test.tobytes()).hexdigest()[:12] == "c867c93ff953"


def test_rows_and_pixels_are_the_same_pictures(images: fashion_mnist.Images):
    rows, pixels, permuted = (
        SequentialImages(order).sample(jax.random.key(3), 4)
        if not seed
        else SequentialImages(order, permutation=seed).sample(jax.random.key(3), 4)
        for order, seed in (("rows", 0), ("pixels", 0), ("pixels", 1))
    )
    assert rows.inputs.shape == (4, 28, 28) and pixels.inputs.shape == (4, 784, 1)
    np.testing.assert_array_equal(rows.inputs.reshape(4, -1), pixels.inputs[..., 0])
    order = np.random.RandomState(1).permutation(784)
    np.testing.assert_array_equal(permuted.inputs[:, :, 0], pixels.inputs[:, order, 0])
    assert not np.array_equal(permuted.inputs, pixels.inputs)
    for batch in (rows, pixels, permuted):
        assert batch.scored.sum() == 4 and batch.scored[:, -1].all()
    # The oracle: each is one of the training pictures, and has its label.
    flat = images.train.reshape(60_000, -1)
    for picture, label in zip(np.asarray(pixels.inputs)[..., 0], np.asarray(pixels.targets)[:, -1]):
        (found,) = np.flatnonzero((flat == np.rint(picture * 255).astype(np.uint8)).all(axis=1))[:1]
        assert images.train_labels[found] == label


def test_the_test_part_is_drawn_from_at_the_test_alone(images: fashion_mnist.Images):
    task = SequentialImages()
    tested = evaluation_batch(task.at_lag(28), 64, "test")
    whole = {picture.tobytes() for picture in images.test}
    drawn = [np.rint(np.asarray(p) * 255).astype(np.uint8).tobytes() for p in tested.inputs]
    assert all(picture in whole for picture in drawn)
    held = np.asarray(evaluation_batch(task, 64, "validation").inputs)
    assert not any(np.rint(p * 255).astype(np.uint8).tobytes() in whole for p in held)


def test_the_floor_is_any_class():
    floor = SequentialImages().floor()
    assert floor.accuracy == 0.1 and floor.loss == pytest.approx(np.log(10))


@pytest.mark.parametrize(
    ("dials", "message"), [({"order": "columns"}, "rows"), ({"permutation": -1}, "permutation")]
)
def test_impossible_dials_are_refused(dials, message: str):
    with pytest.raises(ValueError, match=message):
        SequentialImages(**dials)
    with pytest.raises(ValueError, match="lag = 28"):
        SequentialImages().at_lag(56)


def test_a_folder_without_the_pictures_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3"):
        fashion_mnist.load(tmp_path)
    for part in ("train", "t10k"):
        for kind, axes in (("images-idx3", 3), ("labels-idx1", 1)):
            head = bytes([0, 0, 8, axes]) + (2).to_bytes(4, "big") * axes
            content = gzip.compress(head + bytes(2**axes))
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected 60,000 pictures.*got \[2, 2, 2\]"):
        fashion_mnist.load(str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"abcd"))
    with pytest.raises(ValueError, match="IDX"):
        fashion_mnist.load(tmp_path / ".")
