"""optax's optimisers and schedules by name, with their keywords."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from typing import Any

import jax
import numpy as np
import pytest

from longlag.cli.arguments import parse
from longlag.runs import Experiment
from longlag.training import Training
from longlag.training import optax_by_name as optimizers
from tests.helpers.tiny import PARITY

G = {"kernel": np.asarray([3.0, -1.0]), "bias": np.asarray(-4.0)}
P = {"kernel": np.asarray([1.0, -1.0]), "bias": np.asarray(2.0)}


def test_an_optimiser_and_its_keywords_by_hand():
    """Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2), of two gradients."""
    how = Training(
        optimizer="lion",
        optimizer_options={"b1": 0.25, "b2": 0.5},
        weight_decay=0.3,
        learning_rate=0.5,
        clip=0,
    )
    state = how.transformation.init(P)
    memory = jax.tree.map(np.zeros_like, G)
    for gradient in (G, jax.tree.map(lambda g: -0.1 * g, G)):
        updates, state = how.transformation.update(gradient, state, P)
        for name, decay in (("kernel", 0.3), ("bias", 0.0)):
            mixed = 0.25 * memory[name] + 0.75 * gradient[name]
            expected = -0.5 * (np.sign(mixed) + decay * P[name])
            np.testing.assert_allclose(updates[name], expected, rtol=1e-6)
            memory[name] = 0.5 * memory[name] + 0.5 * gradient[name]


RATE = {"learning_rate": 0.2, "steps": 40}


@pytest.mark.parametrize(
    ("how", "rates", "depends_on_steps"),
    [
        ({}, {0: 0.2, 39: 0.2}, False),
        ({"warmup": 10}, {0: 0.0, 5: 0.1, 10: 0.2, 39: 0.2}, False),
        ({"schedule": "cosine"}, {0: 0.2, 20: 0.1, 40: 0.0}, True),
        (
            {"schedule": "warmup_cosine_decay_schedule", "warmup": 10},
            {0: 0.0, 5: 0.1, 10: 0.2, 25: 0.1, 40: 0.0},
            True,
        ),
        (
            {"schedule": "cosine_decay_schedule", "schedule_options": {"alpha": 0.5}},
            {0: 0.2, 20: 0.15, 40: 0.1},
            True,
        ),
        (
            {"schedule": "linear_schedule", "schedule_options": {"transition_steps": 10}},
            {0: 0.2, 5: 0.1, 10: 0.0, 40: 0.0},
            False,
        ),
        (
            {
                "schedule": "exponential_decay",
                "schedule_options": {"transition_steps": 10, "decay_rate": 0.5},
                "warmup": 4,  # before it
            },
            {0: 0.0, 2: 0.1, 4: 0.2, 14: 0.1, 24: 0.05},
            False,
        ),
        (
            {
                "schedule": "piecewise_constant_schedule",
                "schedule_options": {"boundaries_and_scales": {10: 0.5, 20: 0.1}},
            },
            {0: 0.2, 11: 0.1, 21: 0.01},
            False,
        ),
        (
            {
                "schedule": "sgdr_schedule",
                "schedule_options": {
                    "cosine_kwargs": [
                        {"init_value": 0, "peak_value": 1, "warmup_steps": 2, "decay_steps": 6},
                        {"init_value": 0, "peak_value": 0.5, "warmup_steps": 2, "decay_steps": 6},
                    ]
                },
            },
            {0: 0.0, 2: 0.2, 4: 0.1, 6: 0.0, 8: 0.1},
            False,
        ),
    ],
)
def test_a_schedule_by_hand(how: dict[str, Any], rates: dict[int, float], depends_on_steps: bool):
    training = Training(**RATE, **how)
    for step, rate in rates.items():
        found: Any = training.rates(step) if callable(training.rates) else training.rates
        assert math.isclose(found, rate, rel_tol=1e-5, abs_tol=1e-7), (step, found)
    assert training.depends_on_steps is depends_on_steps
    # All rates share one program, and a configuration goes through JSON.
    other = dataclasses.replace(training, learning_rate=0.1)
    assert other != training and other.as_compiled == training.as_compiled
    assert hash(other.as_compiled) == hash(training.as_compiled)
    experiment = dataclasses.replace(PARITY, training=training)
    assert through_json(experiment) == experiment


def through_json(experiment: Experiment) -> Experiment:
    return Experiment.from_config(json.loads(json.dumps(experiment.config())))


def test_a_configuration_of_an_earlier_version_is_what_it_was():
    config = json.loads(json.dumps(PARITY.config()))
    for name in ("optimizer_options", "schedule_options"):
        del config["training"][name]
    for name in ("adam", "adamw", "rmsprop", "sgd"):
        for schedule in ("constant", "cosine"):
            config["training"] |= {"optimizer": name, "schedule": schedule, "weight_decay": 0.1}
            training = dataclasses.replace(PARITY.training, optimizer=name, schedule=schedule)
            assert Experiment.from_config(config).training == training


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"optimizer": "lino"}, "unknown optimizer: .*'lino'. Did you mean 'lion'"),
        (
            {"optimizer": "lion", "optimizer_options": {"b3": 1}},
            "unknown keyword of optimizer lion: expected one of b1, b2, .*; got 'b3'. Did you mean",
        ),
        ({"optimizer_options": {"b1": "half"}}, "'adam' with {'b1': 'half'} fails: unsupported"),
        ({"optimizer_options": {"b1": object()}}, "optimizer_options: expected keywords with val"),
        (
            {"optimizer_options": "b1"},
            "optimizer_options: expected a Mapping or a tuple, .* got str",
        ),
        ({"optimizer_options": {"learning_rate": 1}}, "expected no learning_rate, which learning_"),
        (
            {"optimizer": "adamw", "optimizer_options": {"weight_decay": 0.1}},
            "optimizer_options: expected no weight_decay, which weight_decay sets",
        ),
        (
            {"optimizer": "adamw", "optimizer_options": {"mask": None}},
            "optimizer_options: expected no mask, which Model.decays sets",
        ),
        (
            {"optimizer": "novograd", "optimizer_options": {"weight_decay": 0.1}},
            "expected no weight_decay, since novograd has no mask for it",
        ),
        ({"optimizer": "sgd", "weight_decay": 0.5}, "weight_decay: expected 0.1, since it has no"),
        # Updates that are not proportional to the rate, at once or at its extremes.
        ({"optimizer": "fromage"}, "updates proportional to the learning rate, .*'fromage'"),
        ({"optimizer": "rprop"}, "updates proportional to the learning rate, .*'rprop'"),
        (
            {"optimizer": "adafactor", "optimizer_options": {"weight_decay_rate": 0.1}},
            "proportional to the learning rate, .*'adafactor' with {'weight_decay_rate': 0.1}",
        ),
        # More than gradients and parameters, other parameters, and what cannot be saved.
        (
            {"optimizer": "lbfgs"},
            "from gradients and parameters alone; 'lbfgs' with {} fails: .*v",
        ),
        ({"optimizer": "schedule_free_sgd"}, "'schedule_free_sgd', which evaluates an average"),
        ({"schedule": "warmup_cosine"}, "unknown schedule: .* 'warmup_cosine_decay_schedule'"),
        ({"schedule_options": {"alpha": 1}}, "expected none, since schedule 'constant' has none"),
        (
            {"schedule": "exponential_decay"},
            "schedule_options: expected decay_rate, which exponential_decay demands; got none",
        ),
        (
            {"schedule": "linear_schedule", "schedule_options": {"end": 0}},
            "unknown keyword of schedule linear_schedule: .*got 'end'. Did you mean 'end_value'",
        ),
        (
            {"schedule": "linear_schedule", "schedule_options": {"end_value": "none"}},
            "schedule: 'linear_schedule' fails with .*'end_value': 'none'",
        ),
    ],
)
def test_what_training_cannot_use_is_refused_in_words(how: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Training(**how)


def test_the_common_optimisers_would_pass_the_trial_that_they_are_spared():
    for name in optimizers.TRIED:
        optimizers._try.__wrapped__(name, (), 0.1, False)


@pytest.mark.deep
@pytest.mark.parametrize("name", optimizers.optimizers())
def test_every_optimiser_of_optax_is_taken_or_refused_in_words(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optax, on what it will change
        try:
            training = Training(optimizer=name)
        except ValueError as error:
            assert str(error).startswith("optimizer: expected"), error
            return
    updates, _ = training.transformation.update(G, training.transformation.init(P), P)
    assert jax.tree.all(jax.tree.map(lambda u: np.isfinite(u).all(), updates))


def test_options_on_the_command_line():
    argv = (
        "--optimizer sgd --optimizer-options momentum=0.5 nesterov=true "
        "--schedule piecewise_constant_schedule "
        "--schedule-options boundaries_and_scales={10:0.5,20:0.1}"
    )
    experiment, _ = parse(argv.split(), "compare", "", PARITY)
    training = experiment.training
    assert training.optimizer_options == (("momentum", 0.5), ("nesterov", True))
    assert training.schedule_options == (("boundaries_and_scales", ((10, 0.5), (20, 0.1))),)
    # They are defaults of a run that goes on.
    assert parse([], "compare", "", experiment)[0] == experiment
    assert through_json(experiment) == experiment
