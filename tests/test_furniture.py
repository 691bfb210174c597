"""What stands around the code: workflows, templates, the citation, containers, the version."""

from __future__ import annotations

import datetime
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import longlag

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
YAML = sorted((ROOT / ".github").rglob("*.yml"))
CONTAINERS = sorted(ROOT.glob("Dockerfile*"))


def workflow() -> dict[Any, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())


def test_the_citation_has_what_the_format_requires():
    # https://github.com/citation-file-format: the keys that a file of version 1.2.0 must have.
    assert {"cff-version", "message", "title", "authors"} <= CITATION.keys()
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert all({"name"} <= author.keys() for author in CITATION["authors"])
    assert CITATION["title"].startswith(f"{PROJECT['name']}: ")
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["repository-code"] == PROJECT["urls"]["Homepage"]


def test_version_and_date_are_the_same_everywhere():
    """Between releases the code is ahead: its version then ends in .dev0."""
    released = re.findall(
        r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    version, date = released[0]
    assert str(CITATION["version"]) == version
    assert CITATION["date-released"] == datetime.date.fromisoformat(date)
    assert longlag.__version__ == version or longlag.__version__.endswith(".dev0")


@pytest.mark.parametrize("file", YAML, ids=lambda path: path.name)
def test_the_files_of_the_project_page_are_read(file: Path):
    content = yaml.safe_load(file.read_text())
    match file.parent.name, file.stem:
        case "workflows", _:
            # YAML reads the key `on` as true.
            assert {"name", True, "permissions", "jobs"} <= content.keys()
            steps = [step for job in content["jobs"].values() for step in job["steps"]]
            assert all(("uses" in step) != ("run" in step) for step in steps)
        case "ISSUE_TEMPLATE", "config":
            assert content == {"blank_issues_enabled": True}
        case _:
            assert {"name", "description", "body"} <= content.keys()
            kinds = {"textarea", "input", "dropdown", "checkboxes"}
            assert {field["type"] for field in content["body"]} <= kinds
            names = [field["id"] for field in content["body"]]
            assert len({*names}) == len(names)
            assert all(field["attributes"]["label"] for field in content["body"])


def test_the_workflow_tests_both_ends_of_what_is_promised():
    jobs = workflow()["jobs"]
    assert {"suite", "wheel", "docs"} == jobs.keys()
    for job in ("suite", "wheel"):
        pythons = jobs[job]["strategy"]["matrix"]["python"]
        assert f">={pythons[0]}" == PROJECT["requires-python"] and pythons[-1] == "3.13"
    lines = (ROOT / ".github" / "oldest-packages.txt").read_text().splitlines()
    oldest = {line.replace("==", ">=") for line in lines if not line.startswith("#")}
    # ">=0.10" is 0.10.0.
    bounds = {line.partition(",")[0] for line in PROJECT["dependencies"]}
    assert {re.sub(r">=(\d+\.\d+)$", r">=\1.0", bound) for bound in bounds} == {
        re.sub(r">=(\d+\.\d+)$", r">=\1.0", line) for line in oldest
    }


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda path: path.name)
def test_a_container_ends_in_the_demo(file: Path):
    text = file.read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("FROM ") and lines[-1] == 'CMD ["make", "demo"]'
    extras = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert {extra for words in extras for extra in words.split(",")} <= {
        *PROJECT["optional-dependencies"]
    }
    targets = re.findall(r"(?:RUN|CMD) make (\w+)", text)
    assert {*targets, "demo"} <= {*re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)}


def test_no_file_names_a_package_index():
    files = [*YAML, *CONTAINERS, ROOT / ".github" / "oldest-packages.txt", ROOT / "Makefile"]
    assert len(CONTAINERS) == 2 and len(YAML) == 5
    named = [
        file.name for file in files if re.search(r"index-url|pypi|find-links", file.read_text())
    ]
    assert not named
