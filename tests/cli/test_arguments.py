"""The command line: what it teaches, and what it refuses without writing anything."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from longlag import LSTM
from longlag.cli import compare
from longlag.cli.arguments import parse, peek, plain_errors
from longlag.models import ATTENTION_OPTIONS
from longlag.runs import Architecture, cell_names, create, task_names
from longlag.tasks import CopyMemory, Parity, Recall
from longlag.training import Training
from tests.helpers.small_disk import contents, fill, make_read_only, small_disk
from tests.helpers.tiny import OPTIONS

pytestmark = pytest.mark.usefixtures("shared_compilations")


@dataclasses.dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        """Both streams, without the frames and line breaks of a box."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", f"{self.out} {self.err}").split())


def prepared(argv: list[str]) -> tuple[Any, Any, Any]:
    """What `longlag compare` would run, in which folder, and the options."""
    with compare._prepared(argv) as prepared_run:
        return prepared_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def say(here: Path, capsys: pytest.CaptureFixture[str]):
    def command(*argv: str) -> Said:
        try:
            with plain_errors():
                code = compare.main(argv)
        except SystemExit as left:
            code = int(left.code or 0)
        return Said(code, *capsys.readouterr())

    return command


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--task recal", "unknown task: .*got 'recal'. Did you mean 'recall'"),
        ("--cell lstn", "unknown cell: .*got 'lstn'. Did you mean 'lstm'"),
        ("--learning-rat 1", "--learning-rat.* Perhaps you meant: --learning-rate"),
        ("--task.lenth 8", "--task.lenth.* Perhaps you meant: --task.length"),
        ("--cell.forget-bia 1", "--cell.forget-bia.* Perhaps you meant: --cell.forget-bias"),
        ("--attention fulll", "--attention: expected one of none, .*'fulll'. Did you mean 'full'"),
        ("--optimizer=admw", "--optimizer: expected one of .*adam, .*'admw'. Did you mean 'adamw'"),
        ("--optimizer lion --optimizer-options b3=1", "keyword of optimizer lion.*'b3'. Did you"),
        ("--optimizer-options b1", "expected KEYWORD=VALUE; got 'b1'"),
        (
            "--schedule cosin",
            "--schedule: expected one of .*'cosin'. Did you mean 'cosine'",
        ),
        ("--steps many", "--steps: invalid literal for int.*'many'"),
        ("--seeds 0", "seeds: expected at least 1, got 0"),
        ("--width 0", "features: expected at least 1, got 0"),
        ("--steps 0", "steps: expected at least 1, got 0"),
        ("--task copy-memory --task.lag -3", r"expected lag >= 1, got CopyMemory\(lag=-3"),
        ("--task copy-memory --test-lags -5", r"expected lag >= 1, got CopyMemory\(lag=-5"),
        ("--test-lags 31", r"expected an even length, got Recall\(length=31"),
        (
            "--task recall --task.length 16 --task.vocab 8",
            r"key space too small for the pairs\), got Recall\(length=16, pairs=4, vocab=8\)",
        ),
        ("--cell missing.py:Mine", "cannot read .*missing.py: No such file"),
        ("--resume nowhere", "expected a run folder at nowhere; got nothing"),
        ("--resume", "--resume"),
        ("--cell none", "model: expected a cell or an attention; got neither"),
        ("--heads 2", "model heads: expected 4, since it has no effect with attention 'none'; got"),
        ("--mixer-parameters 9", "expected 9 parameters within 5% .*; the nearest is"),
        ("--mixer-parameters 9 --cell.features 3", "the cell's features at the width 64"),
    ],
)
def test_bad_input_is_one_message(say, here: Path, argv: str, message: str):
    said = say(*argv.split())
    assert said.code == 2, said
    assert re.search(message, said.all), said.all
    assert "Traceback" not in said.all
    assert list(here.iterdir()) == []


def test_the_line_of_ones_own_cell_that_fails_is_named(say, here: Path):
    file = here.parent / "failing.py"
    file.write_text(
        "import jax.numpy as jnp\nimport longlag\nclass Mine(longlag.DenseCell):\n"
        '    gates = ("a", "b")\n'
        "    def update(self, params, carry, z):\n        return carry, jnp.tanh(z)\n"
    )
    said = say(*OPTIONS, "--cell", f"{file}:Mine")
    assert said.code == 2 and "Traceback" not in said.all
    assert re.search(rf"error: TypeError: tanh .* \({file}:6, in update\)", said.all), said.all


def test_an_error_of_the_house_is_none_of_the_users():
    with pytest.raises(TypeError, match="of ours"), plain_errors():
        raise TypeError("of ours")


def test_a_cell_file_that_is_not_right(say, here: Path):
    file = here.parent / "mine.py"
    file.write_text("import longlag as ll\nclass Mine(ll.DenseCell):\n    gates = ('a',)\n")
    assert "Did you mean 'Mine'" in say("--cell", f"{file}:Mien").all
    file.write_text("1 / 0\n")
    said = say("--cell", f"{file}:Mine")
    assert said.code == 2 and "fails to import: ZeroDivisionError" in said.all
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "base", "message"),
    [
        ("--task", "tasks.Parity", "complete task in which every dial has a default; got: .*'own'"),
        ("--cell", "LSTM", "complete cell in which every field but features has a default; got"),
    ],
)
def test_what_is_ones_own_needs_defaults(say, here: Path, option: str, base: str, message: str):
    file = here.parent / "mine.py"
    field = "    own: int = dataclasses.field(kw_only=True)\n"
    file.write_text(
        f"import dataclasses\nimport longlag\nimport longlag.tasks\n"
        f"class Mine(longlag.{base}):\n{field}"
    )
    said = say(option, f"{file}:Mine")
    assert said.code == 2 and re.search(message, said.all), said.all
    assert list(here.iterdir()) == []


def test_an_existing_folder_is_left_as_it_is(say, here: Path):
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("mine")
    said = say(*OPTIONS, "--out", "mine")
    assert said.code == 2
    assert "expected a new run folder; mine exists already and is left as it is" in said.all
    assert contents(here) == {"mine/notes.txt": b"mine"}
    said = say(*OPTIONS, "--resume", "mine")
    assert said.code == 2 and "a folder without config.json" in said.all
    assert contents(here) == {"mine/notes.txt": b"mine"}


def test_a_run_has_its_folder_and_is_found_by_a_near_name(say, here: Path):
    said = say(*OPTIONS)
    assert said.code == 0, said
    (folder,) = (here / "runs").iterdir()
    assert folder.name.endswith("-parity-lstm-none")
    assert {"config.json", "env.json", "metrics.jsonl", "results.json", "report.html"} <= {
        path.name for path in folder.iterdir()
    }
    assert f"runs/{folder.name}" in said.all and "parity" in said.all
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {row["steps"] for row in rows} == {20}
    before = contents(here)
    said = say("--resume", f"runs/{folder.name}x")
    assert said.code == 2 and f"Did you mean runs/{folder.name}" in said.all
    said = say("--resume", f"runs/{folder.name}", "--out", "other")
    assert said.code == 2 and "expected --resume or --out; got both" in said.all
    assert contents(here) == before


def test_a_full_disk(say, tmp_path: Path):
    with small_disk(tmp_path / "disk", "200k") as disk:
        fill(disk)
        before = contents(disk)
        said = say(*OPTIONS, "--out", str(disk / "run"))
        assert said.code == 2 and "Traceback" not in said.all
        assert f"cannot write a new run folder to {disk}/run: No space left on device" in said.all
        assert contents(disk) == before
        (disk / "filler").unlink()
        # Room for the folder, but none for a checkpoint.
        said = say(*OPTIONS, "--out", str(disk / "run"))
        assert said.code == 2 and "Traceback" not in said.all
        assert re.search("cannot write the checkpoint of step 5 .*No space left", said.all)
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert say("--resume", str(disk / "run")).code == 0
        assert len((disk / "run" / "metrics.jsonl").read_text().splitlines()) == 2 * 4


def test_a_read_only_disk(say, tmp_path: Path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        make_read_only(disk)
        said = say(*OPTIONS, "--out", str(disk / "run"))
        assert said.code == 2 and "Traceback" not in said.all
        assert f"cannot write a new run folder to {disk}/run: Read-only file system" in said.all
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("task", [Recall, CopyMemory])
def test_help_names_every_field(say, here: Path, task: type):
    name = {Recall: "recall", CopyMemory: "copy-memory"}[task]
    said = say("--help", "--task", name)
    assert said.code == 0
    for prefix, spec in (("", Architecture), ("", Training), ("task.", task), ("cell.", LSTM)):
        for field in dataclasses.fields(spec):  # type: ignore[arg-type]
            option = f"--{prefix}{field.name.replace('_', '-')}"
            # The option, what it takes, and a word of help from the docstring.
            assert re.search(rf"{re.escape(option)}[ ,].*?\w+ .*?\(default", said.all), option
    for option in ("--task", "--cell", "--seeds", "--test-lags", "--resume", "--out"):
        assert f"{option} " in said.all
    assert list(here.iterdir()) == []


def test_of_an_option_given_twice_the_last_counts():
    argv = "--task recall --task parity --cell gru --cell=lstm --width 8 --width 16"
    experiment, _ = parse(argv.split(), "compare", "", compare.DEFAULT)
    assert (experiment.task, experiment.cell) == (Parity(), LSTM(16))
    assert experiment.architecture.width == 16


def test_mixers_of_the_size_that_was_asked_for_are_named():
    argv = "--cell min-gru --attention full --mixer-parameters 33024"
    experiment, _ = parse(argv.split(), "compare", "", compare.DEFAULT)
    gru, full = compare.sizes(experiment)
    assert gru.startswith("33,044 parameters: Recurrent(cell=MinGRU(features=170,")
    assert full.startswith("32,768 parameters: DotProduct(") and "inner_features=128" in full
    assert compare.sizes(compare.DEFAULT) == []


def test_a_run_of_before_is_resumed(here: Path):
    """Options have come since, and some that it names had no effect."""
    experiment, _ = parse(OPTIONS, "compare", "", compare.DEFAULT)
    folder = create(experiment, here / "mine", here, "")
    config = json.loads((folder.path / "config.json").read_text())
    config["architecture"] |= {"heads": 2}
    del config["architecture"]["mixer_parameters"]
    (folder.path / "config.json").write_text(json.dumps(config))
    assert prepared(["--resume", "mine"])[0] == experiment
    with pytest.raises(
        ValueError, match=r"^mine was made .*\n  training\.clip: expected 1.0; got 2"
    ):
        prepared(["--resume", "mine", "--clip", "2"])
    longer, folder, _ = prepared(["--resume", "mine", "--steps", "21"])
    assert (longer.training.steps, experiment.training.steps) == (21, 20)
    assert folder.config == config | {"training": config["training"] | {"steps": 21}}


def test_list_names_everything(say, here: Path):
    said = say("--list")
    assert said.code == 0
    words = set(said.all.split())
    assert {*task_names(), *cell_names(), *ATTENTION_OPTIONS} <= words
    assert list(here.iterdir()) == []


def test_the_run_that_is_looked_at_is_the_run_that_is_resumed(here: Path):
    """One reader: of `--resume A --resume B`, all that reads the command line takes B."""
    experiments = {
        name: parse([*OPTIONS, "--width", width], "compare", "", compare.DEFAULT)[0]
        for name, width in (("A", "8"), ("B", "16"))
    }
    for name, experiment in experiments.items():
        create(experiment, here / name, here, "")
    for argv in ("--resume A --resume B", "--resume=A --resume=B", "--resume A --resume=B"):
        experiment, folder, _ = prepared(argv.split())
        assert (experiment, folder.path) == (experiments["B"], Path("B"))
    with pytest.raises(ValueError, match=r"architecture\.width: expected 16; got 8"):
        prepared(["--resume", "A", "--resume=B", "--width=16", "--width=8"])


def test_a_few_options_are_read_as_all_of_them_are():
    argv = "--cell=gru --first_seed 3 --test-lags 16 32 --cell lstm --help --task.lag -3"
    given = peek(argv.split(), ["cell", "first-seed", "task"])
    assert given == {"cell": "lstm", "first-seed": "3"}
    assert peek(["--cell=", "--cell-"], ["cell"]) == {"cell": ""}
