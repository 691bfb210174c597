"""The scripts of the experiments, and the questions that they record. No list names them.

A module of `experiments` is a script if it defines `QUESTIONS`, questions by what they are about,
or `RECORDED`, what is shown of each. Without `RECORDED` every entry of `QUESTIONS` is recorded
under the script's name and its own, with the table that is the default of `Recorded`.
`SMOKE = False` says that the script has no `--preset smoke`.

The functions that a script gives to `ask` and `Recorded` have one name each in all scripts:

    question(...)     builds a `Question`, of a size or a preset
    columns(results)  the head of the table, where it depends on the results
    lines(results)    the rows of the table, a line for every arm
    verdict(results)  the sentences under the table
    figure(results)   the figure of its page, a `Plot`

A script of several questions takes the name of the question as the first argument of them, and
binds it by `functools.partial`. `harness.tables` has the `lines` and the `verdict` of a script that
writes none of its own.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

import experiments
from experiments.harness.recorded import RESULTS, Recorded
from longlag.core.spec import choose

__all__ = ["recorded_questions", "require_known", "scripts"]

# Agreement with other libraries is measured by the tests' peers.
OUTSIDE = ("tests.peers.agreement",)


@functools.cache
def scripts() -> Mapping[str, ModuleType]:
    """The modules of all scripts by their whole name."""
    modules = {
        info.name: importlib.import_module(info.name)
        for info in pkgutil.walk_packages(experiments.__path__, "experiments.")
        if not info.ispkg and not info.name.startswith("experiments.harness.")
    }
    modules |= {name: importlib.import_module(name) for name in OUTSIDE}
    return {
        name: module
        for name, module in modules.items()
        if hasattr(module, "RECORDED") or hasattr(module, "QUESTIONS")
    }


@functools.cache
def recorded_questions() -> Mapping[str, Recorded]:
    """All questions by the name of their results, in the order of the page.

    Raises:
        ValueError: two scripts record under one name.
    """
    questions: dict[str, Recorded] = {}
    every = (question for name in scripts() for question in _questions_of(name))
    for question in sorted(every, key=lambda question: question.order):
        if question.name in questions:
            raise ValueError(f"expected one script to record {question.name!r}; two do")
        questions[question.name] = question
    return questions


def _questions_of(name: str) -> tuple[Recorded, ...]:
    """What one script records."""
    module = scripts()[name]
    if hasattr(module, "RECORDED"):
        return tuple(module.RECORDED)
    stem = name.rpartition(".")[2].replace("_", "-")
    return tuple(
        Recorded("-".join(filter(None, (stem, part))), question("cpu").title)
        for part, question in module.QUESTIONS.items()
    )


def require_known() -> None:
    """Refuses results that no script records.

    Raises:
        ValueError: there are some.
    """
    for folder in sorted(RESULTS.iterdir()):
        if (folder / "cpu.json").is_file():
            choose(folder.name, recorded_questions(), "question in experiments/results")
