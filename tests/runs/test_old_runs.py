"""Runs that commit 24222fc made: configurations, checkpoints and results load for good.

Each folder was left by `carry_out` there, and `answers.npy` by its model on two test sequences.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from longlag import report
from longlag.models import Seq2Seq
from longlag.runs import RunFolder, carry_out, load
from longlag.training import evaluation_batch

RUNS = Path(__file__).parent / "made_by_24222fc"
NAMES = sorted(path.name for path in RUNS.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_an_old_run_loads_and_gives_the_same_answers(name):
    run = load(RUNS / name)
    assert run.step == 10 and run.messages == ()
    batch = evaluation_batch(run.experiment.task, 16, "test")
    two = jax.tree.map(lambda leaf: leaf[:2], batch)
    if isinstance(run.model, Seq2Seq):
        answers = run.model.answer(run.of_seed(), two)
    else:
        answers = run.predict(two.inputs)
    np.testing.assert_allclose(answers, np.load(RUNS / name / "answers.npy"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_old_run_that_has_ended_keeps_its_results(name, tmp_path):
    shutil.copytree(RUNS / name, tmp_path / name)
    folder = RunFolder.open(tmp_path / name)
    before = json.loads((RUNS / name / "results.json").read_text())
    again = carry_out(load(folder.path).experiment, folder)
    assert again is not None
    assert again["threshold"] == before["threshold"]
    for one, other in zip(again["rows"], before["rows"], strict=True):
        # What is later added to a row is no loss.
        same = {key: one[key] for key in other if "seconds" not in key}
        # XLA counts a few operations more where dtypes are now promoted explicitly.
        assert same.pop("flops_per_token") == pytest.approx(other["flops_per_token"], rel=0.01)
        kept = {key: other[key] for key in same}
        for new, old in zip(jax.tree.leaves(same), jax.tree.leaves(kept), strict=True):
            assert new == (pytest.approx(old, rel=1e-4) if isinstance(old, float) else old)
    page = report.write(folder.path, before | {"title": name})
    assert page.stat().st_size > 1000
