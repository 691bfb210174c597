"""Results are recorded whole: nothing recorded is lost, and nothing that answers no question."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.harness import discovery, gallery, record, recorded
from experiments.harness.tables import rows_by_arm

QUESTION = "family-recall"
PAGE = f"docs/results/{QUESTION}.md"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is recorded, of the documents too, that a test may write to."""
    shutil.copytree(record.RESULTS / QUESTION, tmp_path / "results" / QUESTION)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "docs/results").mkdir(parents=True)
    for file in ("experiments/README.md", "docs/cells.md", PAGE):
        shutil.copyfile(gallery.ROOT / file, tmp_path / file)
    for module in (record, recorded, discovery, gallery):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    monkeypatch.setattr(gallery, "_draw", lambda *_: None)
    question = discovery.recorded_questions()[QUESTION]
    monkeypatch.setattr(discovery, "recorded_questions", lambda: {QUESTION: question})
    return tmp_path / "results" / QUESTION / "cpu.json"


def run(folder: Path, results: Path, arms: dict[str, str], command: str = "asked again") -> Path:
    """A run whose arms are copies of recorded ones, under other names, all of them wrong."""
    found = json.loads(results.read_text("utf-8"))
    found["rows"] = [
        row | {"arm": arms[row["arm"]], "accuracy": 0.0}
        for row in found["rows"]
        if row["arm"] in arms
    ]
    found["meta"] |= {"command": command, "core_hours": 0.25, "dirty": True}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(found), "utf-8")
    return folder


def test_arms_are_not_lost(results: Path, tmp_path: Path):
    before = results.read_bytes()
    with pytest.raises(ValueError, match=r"4 of them are not in .*additive.*give --add"):
        record.main(run(tmp_path / "run", results, {"full": "full"}), QUESTION)
    assert results.read_bytes() == before


def test_an_arm_is_added_beside_the_others(results: Path, tmp_path: Path):
    before = json.loads(results.read_text("utf-8"))
    of_run = run(tmp_path / "run", results, {"full": "new", "none": "none"})
    record.main(of_run, QUESTION, add=True)
    after = json.loads(results.read_text("utf-8"))
    arms, old = rows_by_arm(after), rows_by_arm(before)
    assert {*arms} == {*old, "new"}
    assert arms["full"] == old["full"] and len(arms["new"]) == len(old["full"])
    assert all(row["accuracy"] == 0 for row in arms["new"] + arms["none"])
    assert after["meta"]["core_hours"] == round(before["meta"]["core_hours"] + 0.25, 3)
    said = (tmp_path / PAGE).read_text("utf-8")
    assert "| new |" in said and "(new, none)\n- Command: `asked again`\n" in said
    assert "with uncommitted changes" in said
    # The same arms once more take the place of that addition, its time too.
    record.main(of_run, QUESTION, add=True)
    again = json.loads(results.read_text("utf-8"))["meta"]
    assert (again["core_hours"], len(again["added"])) == (after["meta"]["core_hours"], 1)


def test_what_is_known_of_an_arm_alone_is_added_with_it(results: Path, tmp_path: Path):
    parts = [{"arm": arm, "part": "none"} for arm in ("full", "none")]
    before = json.loads(results.read_text("utf-8")) | {"knock_outs": parts}
    results.write_text(json.dumps(before), "utf-8")
    of_run = run(tmp_path / "run", results, {"full": "new", "none": "none"})
    file = of_run / "results.json"
    found = json.loads(file.read_text("utf-8"))
    new = [{"arm": "new", "part": "none"}]
    file.write_text(json.dumps(found | {"knock_outs": new}), "utf-8")
    record.main(of_run, QUESTION, add=True)
    assert json.loads(results.read_text("utf-8"))["knock_outs"] == [parts[0], *new]
    for other in ({"threshold": 0.5}, {"differences": [{"arm": "new", "than": "full"}]}):
        file.write_text(json.dumps(found | {"knock_outs": new} | other), "utf-8")
        kept = results.read_bytes()
        with pytest.raises(ValueError, match=f"--add cannot join its '{next(iter(other))}'"):
            record.main(of_run, QUESTION, add=True)
        assert results.read_bytes() == kept


@pytest.mark.parametrize(("less", "what"), [("seed", "seeds"), ("budget", "training steps")])
def test_an_arm_of_less_is_not_added(results: Path, tmp_path: Path, less: str, what: str):
    file = run(tmp_path / "run", results, {"full": "new"}) / "results.json"
    found = json.loads(file.read_text("utf-8"))
    rows = [row for row in found["rows"] if row["arm"] == "new"]
    if less == "seed":
        rows = [row for row in rows if row["seed"] != rows[0]["seed"]]
    else:
        rows = [row | {"budget": row["budget"] // 2} for row in rows]
    file.write_text(json.dumps(found | {"rows": rows}), "utf-8")
    kept = results.read_bytes()
    with pytest.raises(ValueError, match=rf"expected at least [\d,]+ {what} .*; got \d.* of 'new'"):
        record.main(file.parent, QUESTION, add=True)
    assert results.read_bytes() == kept


def test_a_smoke_run_is_no_answer(results: Path, tmp_path: Path):
    arms = {arm: arm for arm in rows_by_arm(json.loads(results.read_text("utf-8")))}
    command = "python -m experiments.memory.family recall --preset smoke"
    with pytest.raises(ValueError, match="got a smoke run"):
        record.main(run(tmp_path / "run", results, arms, command), QUESTION)


def test_a_folder_without_results_is_none(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected a folder with results\.json, got"):
        record.main(tmp_path, QUESTION)


def test_a_page_with_half_of_its_markers_is_named(results: Path, tmp_path: Path):
    title = (tmp_path / PAGE).read_text("utf-8").splitlines()[0]
    (tmp_path / PAGE).write_text(f"{title}\n\n<!-- {QUESTION} -->\n", "utf-8")
    with pytest.raises(ValueError, match=rf"^{PAGE}: expected the markers"):
        gallery.main()


def test_a_new_question_is_given_a_page_with_gaps(results: Path, tmp_path: Path):
    (tmp_path / PAGE).unlink()
    gallery.main()
    once = (tmp_path / PAGE).read_text("utf-8")
    assert once.startswith("# Which attentions look up?\n") and "| full |" in once
    with pytest.raises(ValueError, match="expected prose for the answer, Method, Limits, Run it"):
        gallery.page_of(once)
    gallery.main()
    assert (tmp_path / PAGE).read_text("utf-8") == once


def test_a_question_that_is_not_recorded_needs_no_page(results: Path, tmp_path: Path):
    results.unlink()
    (tmp_path / PAGE).unlink()
    gallery.main()
    assert not (tmp_path / PAGE).exists()


def test_results_of_no_script_are_refused(results: Path, tmp_path: Path):
    other = results.parent.parent / "family-recal"
    other.mkdir()
    (other / "cpu.json").write_text("{}", "utf-8")
    with pytest.raises(ValueError, match=r"'family-recal'\. Did you mean 'family-recall'"):
        gallery.main()
