from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from longlag import LSTM, MinGRU, cells
from longlag.runs import (
    Architecture,
    Captioner,
    EncoderDecoder,
    Experiment,
    Transcriber,
    cell_class,
    cell_name,
    cell_names,
    task_class,
    task_name,
    task_names,
)
from longlag.tasks import (
    Captions,
    CopyMemory,
    Dates,
    Intents,
    JapaneseVowels,
    NextByte,
    Parity,
    Recall,
    SpokenDigits,
    Task,
)
from longlag.training import Training
from tests.helpers import members
from tests.helpers.small_tasks import SMALL
from tests.helpers.tiny import PARITY

# String annotations, a field of a cell's own, a helper class and an imported cell: all of these
# depend on how the file is imported.
OWN = '''
from __future__ import annotations

from typing import ClassVar, Literal

from longlag import GRU
from longlag import Cell, LinearCell, gate_projection


class Leak(LinearCell):
    """A fixed leak."""

    how: Literal["slow", "fast"] = "slow"
    rates: ClassVar[dict[str, float]] = {"slow": 0.9, "fast": 0.5}
    gates = ("value",)

    def project(self, params, xs, *, key=None):
        (value,) = gate_projection(params["input"], xs, 1)
        return self.rates[self.how] + 0 * value, value, None


class NotACell:
    pass
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


def through_json(experiment: Experiment, folder: Path | None = None) -> Experiment:
    return Experiment.from_config(json.loads(json.dumps(experiment.config())), folder)


def each_turned(task: Task, dials: dict[str, Any]) -> Iterator[Task]:
    """The task with one dial turned at a time, where the others allow that."""
    for dial, value in dials.items():
        with contextlib.suppress(ValueError):
            yield dataclasses.replace(task, **{dial: value})


# Those that draw their data, each with one dial turned at a time, and those of files that are
# there everywhere.
TASKS = [
    *(one for task, dials in SMALL.items() for one in each_turned(task, dials)),
    JapaneseVowels(fold=2, folds=3),
    NextByte(length=30),
    SpokenDigits(3),
]
CELLS: list[Any] = [*members.CELLS, LSTM(8, chrono=50), None]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_comes_back_from_its_configuration(task: Any):
    experiment = dataclasses.replace(PARITY, task=task, test_lags=())
    assert through_json(experiment) == experiment


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_comes_back_from_its_configuration(cell: Any):
    architecture = Architecture(
        attention="window", placement="read", width=12, heads=3, dropout=0.5
    )
    training = Training(steps=7, schedule="cosine", warmup=2, clip=0.0, seeds_as="vmap")
    experiment = Experiment(Parity(), cell, architecture, training, 5, (80, 120))
    assert through_json(experiment) == experiment


def test_intents_come_back_from_their_configuration():
    pytest.importorskip("home_assistant_intents", reason='pip install "longlag[data]"')
    pytest.importorskip("hassil", reason='pip install "longlag[data]"')
    task = Intents("af", per_template=2, fold=3, shuffled=True, word_dropout=0.2)
    experiment = dataclasses.replace(PARITY, task=task, test_lags=())
    assert through_json(experiment) == experiment


def test_pairs_come_back_and_want_an_encoder_and_a_decoder():
    task, layers = Dates(count=100), EncoderDecoder(width=8)
    experiment = dataclasses.replace(PARITY, task=task, architecture=layers, test_lags=())
    assert through_json(experiment) == experiment
    with pytest.raises(ValueError, match="task dates: expected an encoder and a decoder"):
        dataclasses.replace(experiment, architecture=Architecture(width=8))
    pictured = dataclasses.replace(
        experiment, task=Captions(), architecture=Captioner("additive", width=8, dropout=0.1)
    )
    assert through_json(pictured) == pictured
    with pytest.raises(ValueError, match="expected a cell for the decoder"):
        dataclasses.replace(pictured, cell=None)
    with pytest.raises(ValueError, match=r"unknown attention.*got 'full'"):
        Captioner("full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in_features: expected a multiple of 12, got "):
        dataclasses.replace(pictured, task=Dates(count=100))


def test_a_transcriber_comes_back_and_wants_a_cell_of_half_its_width():
    layers = Transcriber("full", width=8, heads=2, dropout=0.1)
    experiment = dataclasses.replace(
        PARITY, task=SpokenDigits(), cell=MinGRU(4), architecture=layers, test_lags=(1,)
    )
    assert through_json(experiment) == experiment
    # It does not stream: what it keeps is the sequence.
    cost = experiment.model.cost(10)
    assert cost.cache_bytes == cost.state_bytes == 10 * 8 * 4 and cost.recurrent_bytes == 0
    params = experiment.model.init(jax.random.key(0))
    assert cost.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    for change, message in (
        ({"cell": MinGRU(8)}, "expected one of 4 outputs, half of width 8"),
        ({"cell": None}, "expected one of 4 outputs"),
        ({"training": Training(time_chunk=4)}, "whose losses are of single steps"),
        (
            {"training": Training(time_chunk=4), "task": PARITY.task},
            "expected a SequenceModel, which streams; got a WholeSequenceModel",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(experiment, **change)
    with pytest.raises(ValueError, match="heads: expected 4, since it has no effect"):
        Transcriber(heads=2)
    with pytest.raises(ValueError, match="depth: expected at least 2, got 1"):
        Transcriber("full", depth=1)
    with pytest.raises(ValueError, match=r"unknown attention.*got 'window'"):
        Transcriber("window")  # type: ignore[arg-type]


def test_every_task_and_cell_of_the_library_is_tried_above():
    of_files = {task_class(name) for name in ("captions", "dates", "intents", "translation")}
    of_files |= {task_class("intent-order"), task_class("sequential-images")}
    assert {type(task) for task in TASKS} == set(task_names().values()) - of_files
    assert {type(cell) for cell in CELLS} - {type(None)} == set(cell_names().values())


def test_a_cell_of_ones_own_comes_back(own: Path, tmp_path: Path):
    leak: Any = cell_class(f"{own}:Leak")
    experiment = dataclasses.replace(PARITY, cell=leak(8, how="fast"))
    assert experiment.config()["cell"]["name"] == f"{own}:Leak"
    assert through_json(experiment) == experiment
    assert experiment.arm == "Leak"
    # From the copy in a run folder, which is another class of the same equations.
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "cell.py").write_text(OWN.replace('"fast": 0.5', '"fast": 0.25'))
    own.unlink()
    copied: Any = through_json(experiment, folder)
    assert copied.cell.how == "fast" and copied.cell.rates["fast"] == 0.25
    with pytest.raises(ValueError, match=r"cell: cannot read .*own\.py: No such file"):
        through_json(experiment)


def test_a_file_imported_twice_gives_equal_cells(own: Path, monkeypatch: pytest.MonkeyPatch):
    leak: Any = cell_class(f"{own}:Leak")
    monkeypatch.chdir(own.parent)
    again: Any = cell_class("own.py:Leak")
    assert leak(8) == again(8) and hash(leak(8)) == hash(again(8))
    assert sys.modules[leak.__module__].__file__ == str(own)
    own.write_text(OWN.replace("0.9", "0.8"))  # an edited file is read again
    edited: Any = cell_class("own.py:Leak")
    assert edited.rates["slow"] == 0.8 and leak.rates["slow"] == 0.9
    assert sorted(path.name for path in own.parent.iterdir()) == ["own.py"]  # no __pycache__


def test_a_cell_of_ones_own_may_bear_a_name_of_the_library(tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("Leak", "LSTM"))
    own = cell_class(f"{file}:LSTM")
    assert own is not LSTM and cell_name(own) == f"{file}:LSTM"
    assert cell_name(LSTM) == "lstm" and cell_class("lstm") is LSTM


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lsmt", None, r"unknown cell: expected one of co-rnn, .*'lsmt'\. Did you mean 'lstm'\?"),
        ("LSTM", None, r"unknown cell: expected one of"),
        ("own.py", OWN, r"cell: expected a class of the file, own\.py:MyClass; got own\.py$"),
        ("none.py:Leak", OWN, r"cannot read .*none\.py: No such file"),
        (".:Leak", OWN, "cannot read .*: Is a directory"),
        ("own.py:Leek", OWN, r"unknown cell in own\.py: .*Leak; got 'Leek'\. Did you mean 'Leak'"),
        ("own.py:NotACell", OWN, r"unknown cell in own\.py: expected one of Leak; got 'NotACell'"),
        ("own.py:GRU", OWN, r"unknown cell in own\.py: expected one of Leak; got 'GRU'"),
        ("own.py:Leak", "def broken(", r"own\.py fails to import: SyntaxError: .*line 1\)$"),
        ("own.py:Leak", "\nimport nowhere_at_all", r"own\.py fails .*NotFoundError: .*\(line 2\)$"),
        ("own.py:Leak", b"\xff\x00", r"own\.py fails to import: (SyntaxError|ValueError)"),
    ],
)
def test_what_is_no_cell_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: Any, message: str
):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("own.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    modules = set(sys.modules)
    for _ in range(2):  # a file that fails once is not half there the second time
        with pytest.raises(ValueError, match=message):
            cell_class(name)
    broken = {name for name in set(sys.modules) - modules if "longlag_user" in name}
    assert len(broken) == (text == OWN and "own.py:" in name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own.py:Flip",
            r"unknown task in own\.py: expected one of Flips; got 'Flip'\. Did you mean",
        ),
        ("own.py:Parity", r"unknown task in own\.py: expected one of Flips; got 'Parity'"),
        ("none.py:Flips", r"task: cannot read .*none\.py: No such file"),
        ("broken.py:Flips", r"task: .*broken\.py fails to import: SyntaxError"),
        ("parity.py", r"task: expected a class of the file, parity\.py:MyClass; got parity\.py$"),
    ],
)
def test_what_is_no_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
):
    monkeypatch.chdir(tmp_path)
    text = "from longlag.tasks import Parity\n\n\nclass Flips(Parity):\n    coins: int = 1\n"
    Path("own.py").write_text(text)
    Path("broken.py").write_text("class Flips(")
    flips: Any = task_class("own.py:Flips")
    assert flips(1, 8, coins=3).coins == 3
    assert task_name(flips) == f"{tmp_path / 'own.py'}:Flips" and task_name(Parity) == "parity"
    with pytest.raises(ValueError, match=message):
        task_class(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("task"), "expected an experiment of longlag; KeyError"),
        (lambda c: c.update(seeds=None), "Experiment.seeds: expected an integer, got None"),
        (lambda c: c.update(training=[1]), "expected an experiment of longlag"),
        (lambda c: c["task"].update(name="party"), "unknown task: .*Did you mean 'parity'"),
        (lambda c: c["cell"].update(name="lstn"), "unknown cell: .*Did you mean 'lstm'"),
        (
            lambda c: c["training"].update(step=3),
            r"unknown entry of Training in config\.json: .*got 'step'\. Did you mean 'steps'",
        ),
        (
            lambda c: c["cell"].update(forgetbias=3),
            r"entry of LSTM in config\.json: .*Did you mean 'forget_bias'",
        ),
        (
            lambda c: c.update(seed=3),
            r"unknown entry of config\.json: .*got 'seed'\. Did you mean 'seeds'",
        ),
        (lambda c: c["architecture"].update(depth=0), "depth: expected at least 1, got 0"),
        (lambda c: c["training"].update(steps=0), "steps: expected at least 1, got 0"),
    ],
)
def test_a_configuration_that_is_none_is_refused(change: Any, message: str):
    config = json.loads(json.dumps(PARITY.config()))
    change(config)
    with pytest.raises(ValueError, match=message):
        Experiment.from_config(config)


def test_names_on_the_command_line():
    named = ["copy-memory", "in-context-recall", "parity", "sequential-images"]
    assert [name for name in task_names() if name in named] == named
    assert {"co-rnn", "delta-net", "ind-rnn", "lstm", "min-gru", "rglru", "s5"} <= set(cell_names())
    assert {cell_name(cls) for cls in cell_names().values()} == set(cell_names())
    assert {task_name(cls) for cls in task_names().values()} == set(task_names())
    assert "lstm-carry" not in cell_names() and hasattr(cells, "LSTMCarry")


@pytest.mark.parametrize(
    ("cell", "attention", "arm"),
    [
        (LSTM(8), "none", "LSTM"),
        (MinGRU(8), "full", "MinGRU + full"),
        (None, "window", "window attention only"),
    ],
)
def test_arms(cell: Any, attention: Any, arm: str):
    experiment = Experiment(Parity(), cell, Architecture(attention=attention, width=8))
    assert experiment.arm == arm


@pytest.mark.parametrize(
    ("task", "test_lags", "lags"),
    [
        (Parity(1, 40), (), (40, 80, 160)),
        (Parity(1, 40), (10, 40, 90), (40, 10, 90)),
        (CopyMemory(lag=30), (), (30, 60, 120)),
        (Recall(length=32, vocab=66), (), (32, 64)),  # 128 tokens of 66 are impossible
        (Recall(length=32, vocab=256), (), (32, 64, 128)),
    ],
)
def test_lags(task: Any, test_lags: tuple[int, ...], lags: tuple[int, ...]):
    assert Experiment(task, LSTM(8), test_lags=test_lags).lags == lags


def test_a_run_of_before_comes_back_without_the_options_that_had_no_effect():
    config = json.loads(json.dumps(PARITY.config()))
    config["architecture"] |= {"heads": 2, "placement": "read", "window": 9}
    del config["architecture"]["mixer_parameters"]  # there was no such option
    assert Experiment.from_config(config) == PARITY
    config["architecture"] |= {"attention": "window", "depth": 2, "placement": "read"}
    kept = Experiment.from_config(config).architecture
    assert (kept.heads, kept.placement, kept.window) == (2, "read", 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": Architecture(heads=2)}, "model heads: expected 4, since it has no"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"test_lags": (16, 0)}, "expected min_length >= 1"),
        ({"cell": None}, "expected a cell or an attention; got neither"),
        ({"architecture": Architecture(width=0)}, "width: expected at least 1, got 0"),
        ({"architecture": Architecture(dropout=1.5)}, "1.5"),
    ],
)
def test_an_impossible_experiment_is_refused_when_it_is_made(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PARITY, **changes)
