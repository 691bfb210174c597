"""Sentence templates of home-assistant-intents, and utterances drawn from them.

Imported by `longlag.data.intents` when it needs it, because the parser (`hassil`) and the data
(`home_assistant_intents`) are an extra.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping

import home_assistant_intents
from hassil import (
    Alternative,
    Expression,
    Intents,
    ListReference,
    Permutation,
    RangeSlotList,
    RuleReference,
    Sentence,
    Sequence,
    SlotList,
    TextChunk,
    TextSlotList,
)
from hassil.numbers import get_rbnf_engine

from longlag.core.spec import choose

__all__ = ["LISTS", "NAMES", "SPACELESS", "Form", "draw", "read"]

# A user's own rooms, timers and wishes are open lists in the package. These are our values for
# English, chosen so that no value of one list names a thing of another.
LISTS: dict[str, tuple[str, ...]] = {
    "area": ("kitchen", "bedroom", "living room", "office", "hallway", "garden"),
    "floor": ("first", "second", "ground", "upper", "basement"),
    "message": ("dinner is ready", "the taxi is here", "we leave soon", "time to get up"),
    "search_query": ("jazz", "abbey road", "the beatles", "nina simone", "star wars"),
    "shopping_list_item": ("milk", "bread", "two apples", "olive oil", "coffee"),
    "timer_command": ("turn off the lights", "lock the front door", "open the blinds", "play jazz"),
    "timer_name": ("pizza", "laundry", "egg", "tea", "homework"),
    "todo_list_item": ("call the dentist", "water the plants", "pay the rent", "wash the car"),
    "zone": ("home", "work", "school", "gym", "airport"),
}
# The list {name} depends on the domain a template asks for: one locks a door, not a lamp.
NAMES: dict[str, tuple[str, ...]] = {
    "binary_sensor": ("mailbox", "motion sensor", "patio door", "smoke detector"),
    "button": ("doorbell", "restart button", "panic button", "bell"),
    "climate": ("thermostat", "heater", "air conditioner", "radiator"),
    "cover": ("roller blinds", "curtains", "garage door", "awning"),
    "fan": ("ceiling fan", "desk fan", "extractor fan", "ventilator"),
    "input_boolean": ("guest mode", "vacation mode", "party mode", "sleep mode"),
    "input_button": ("cat feeder", "reset counter", "door opener", "test alarm"),
    "lawn_mower": ("lawn robot", "grass cutter", "garden mower", "robot mower"),
    "light": ("reading lamp", "night light", "christmas lights", "chandelier"),
    "lock": ("front door", "back door", "garage lock", "safe"),
    "media_player": ("tv", "radio", "speaker", "stereo"),
    "person": ("anna", "ben", "carla", "david"),
    "scene": ("movie night", "romantic dinner", "sunset", "reading time"),
    "script": ("bedtime routine", "morning routine", "leave home", "wake up call"),
    "sensor": ("humidity", "power consumption", "outdoor temperature", "battery level"),
    "switch": ("coffee maker", "kettle", "dishwasher", "heating pad"),
    "todo": ("chores", "groceries", "packing", "weekend"),
    "vacuum": ("roomba", "vacuum cleaner", "hoover", "dust robot"),
    "valve": ("water valve", "sprinkler", "gas valve", "main tap"),
    "weather": ("london", "paris", "tokyo", "new york"),
}
# Written without spaces between words, so there is nothing here to read word by word.
SPACELESS = ("ja", "th", "zh-CN", "zh-HK", "zh-TW")


@dataclasses.dataclass(frozen=True)
class Form:
    """One template with all that its references need.

    Attributes:
        sentence: the parsed template.
        lists: the values of every list `{...}` that has some.
        rules: the bodies of the rules `<...>`.
    """

    sentence: Sentence
    lists: Mapping[str, TextSlotList]
    rules: Mapping[str, Sentence]

    @property
    def complete(self) -> bool:
        """Whether every list that the template refers to has values."""
        return self.lists.keys() >= set(self.sentence.list_names(dict(self.rules)))


def read(language: str) -> dict[str, dict[str, list[Form]]]:
    """Reads the templates of a language: intent -> template -> its forms.

    A template that an intent gives in several blocks is one template with several forms: the
    blocks differ only in the domain whose names the template may speak of.

    Args:
        language: a code of the package, "en" or "pt-BR".

    Raises:
        ValueError: no such language, or one written without spaces.
    """
    if language in SPACELESS:
        raise ValueError(f"language: expected one with spaces between words, got {language!r}")
    known = home_assistant_intents.get_languages()
    data = home_assistant_intents.get_intents(choose(language, known, "language"))
    assert data is not None
    intents = Intents.from_dict(data)
    own = LISTS if language == "en" else {}
    own = {name: TextSlotList.from_strings(values) for name, values in own.items()}
    lists = {name: _values(values, language) for name, values in intents.slot_lists.items()} | own
    lists = {name: values for name, values in lists.items() if values is not None}

    forms: dict[str, dict[str, list[Form]]] = {}
    for intent in intents.intents.values():
        for block in intent.data:
            local = {name: _values(values, language) for name, values in block.slot_lists.items()}
            domains = block.requires_context.get("domain", ())
            domains = (domains,) if isinstance(domains, str) else domains
            names = [name for domain in domains for name in NAMES.get(domain, ())]
            if names and language == "en":
                local["name"] = TextSlotList.from_strings(names)
            here = lists | {name: values for name, values in local.items() if values is not None}
            rules = {**intents.expansion_rules, **block.expansion_rules}
            for sentence in block.sentences:
                same = forms.setdefault(intent.name, {}).setdefault(sentence.text or "", [])
                same.append(Form(sentence, here, rules))
    return forms


def draw(form: Form, rng: random.Random) -> str:
    """Draws one utterance, choosing at each fork of the template with equal odds.

    `hassil.sample_expression` lists a template's utterances in order, the first choices first,
    and numbers in the order of string hashes, which changes from process to process. A walk down
    the template favours no choice and repeats; it also keeps short utterances, which are few
    among all that a template with many optional words can say.
    """

    def walk(e: Expression) -> str:
        if isinstance(e, TextChunk):
            return e.text
        if isinstance(e, Alternative):
            return walk(rng.choice(e.items))
        if isinstance(e, Permutation):
            return "".join(map(walk, rng.sample(e.items, len(e.items))))
        if isinstance(e, Sequence):
            return "".join(map(walk, e.items))
        if isinstance(e, RuleReference):
            return walk(form.rules[e.rule_name].expression)
        assert isinstance(e, ListReference)
        return walk(rng.choice(form.lists[e.list_name].values).text_in)

    return walk(form.sentence.expression)


def _values(values: SlotList, language: str) -> TextSlotList | None:
    """The values of a list, each number in digits or in words; None for an open list."""
    if isinstance(values, TextSlotList):
        return values
    if not isinstance(values, RangeSlotList):
        return None
    spelled = []
    for number in values.get_numbers():
        words = _words(number, values.words_language or language) if values.words else []
        digits = [str(number)] if values.digits or not words else []
        spelled.append(f"({'|'.join(digits + words)})")
    return TextSlotList.from_strings(spelled)


def _words(number: float, language: str) -> list[str]:
    """The ways to say a number, none where the package does not know the language's."""
    try:
        ways = get_rbnf_engine(language).format_number(number).text_by_ruleset
    except ValueError:
        return []
    return sorted(set(ways.values()))
