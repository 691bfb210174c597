"""What the report says of every picture that is committed beside a question's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from longlag.report.page import CAPTIONS

__all__ = ["PICTURES", "Picture"]


class Picture(NamedTuple):
    """What is said of a committed picture.

    Attributes:
        heading: over it.
        legend: how to read it.
        sentence: what it shows.
        alt: for those who cannot see it.
    """

    heading: str
    legend: str
    sentence: str
    alt: str


def _of_the_demo(name: str, sentence: str) -> Picture:
    heading, legend = CAPTIONS[name]
    return Picture(
        heading, legend, sentence, f"{heading}: heat map of one test sequence of the demo."
    )


def _of_distance(sentence: str) -> Picture:
    return Picture(
        "Where attention could help",
        "Bits of the byte that ends an 8-gram, by how long ago that 8-gram was seen.",
        sentence,
        "Bits of the next byte against the distance to the last time its 8-gram was seen.",
    )


def _of_captions(heading: str, sentence: str) -> Picture:
    return Picture(
        heading,
        "Eight pictures of the test, evenly over it; a copy for each word that was said, faded "
        "where nothing was read.",
        sentence,
        "Emoji, each with a copy for every word of its caption, showing the regions read.",
    )


# By question and by the name of the file beside its results.
PICTURES: Mapping[str, Mapping[str, Picture]] = {
    "demo": {
        "attention": _of_the_demo(
            "attention", "The step where a key comes again reads the value that followed it."
        ),
        "trace": _of_the_demo(
            "trace",
            "The units of a state that tracks parity change sign together, at the ones.",
        ),
    },
    "intents": {
        "confusion": Picture(
            "Which intents are taken for which",
            "Rows: what an utterance asks for; columns: what it was taken for, in % of the row.",
            "What is left of the diagonal was lost on sentence forms that were not in training.",
            "Confusion matrix of the arm with attention over all held-out templates.",
        ),
        "reading": Picture(
            "Which words are read",
            "What the attention reads of each word, in utterances of held-out templates; left, "
            "what each was taken for.",
            "The first utterance of the median length of each of six intents, picked by no one.",
            "Words of six utterances, coloured by the weight that the attention gives them.",
        ),
    },
    "language": {
        "distance": _of_distance(
            "The recurrence alone is ahead within the attention's reach, too, where it could copy."
        ),
    },
    "language-quick": {
        "distance": _of_distance(
            "Within the attention's reach it could be copied; after so little reading it is not."
        ),
    },
    "language-enwik8": {
        "distance": _of_distance(
            "Within its reach attention needs a half to two thirds of the bits; beyond, nearly all."
        ),
    },
    "translation": {
        "alignment": Picture(
            "Where each piece of the answer looked",
            "Across: the source; down: what was said of it; the darker the more was read.",
            "Year, month and day are read where they stand.",
            "Weights of two attentions over the characters of one date.",
        ),
        "by-length": Picture(
            "Against the length of the source",
            "Bins of about equal counts, with 95% bootstrap intervals.",
            "Bahdanau's own figure, on dates.",
            "Quality of each arm against the length of the source, with intervals.",
        ),
    },
    "translation-full": {
        "alignment": Picture(
            "Where each piece of a translation looked",
            "Across: the source; down: what was said of it; the darker the more was read.",
            "Nouns are read where they stand; “unexpected” is left out.",
            "Weights of additive attention over the pieces of one message of a compiler.",
        ),
        "by-length": Picture(
            "Translations against the length of the source",
            "Bins of about equal counts, with 95% bootstrap intervals.",
            "Attention is ahead at every length, and level with the nearest source of training.",
            "chrF of each arm and floor against the words of the source, with intervals.",
        ),
    },
    "speech": {
        "heard": Picture(
            "How much has to be heard",
            "Accuracy on the standard test by how many steps of an utterance are heard at most; "
            "the line is the floor.",
            "Sixteen steps are nearly as good as all.",
            "Accuracy of each arm against the steps heard: flat from about sixteen steps on.",
        ),
    },
    "spoken-digits-quick": {
        "heard": Picture(
            "When each digit is written",
            "The human voice of each language says 4, then 7, and none is written right: the "
            "probability of every digit by time.",
            "Nobody told where a digit is: each is written in one short peak.",
            "Probability of each digit over time for five voices, with narrow peaks.",
        ),
    },
    "captions": {
        "attended": _of_captions(
            "Where each word of a caption looked",
            "Of two people with two tones, “dark” and “medium-dark” read each its own face.",
        ),
    },
    "captions-quick": {
        "attended": _of_captions(
            "Where each word looked, after a few minutes",
            "The tone itself mostly reads faces and hands, now and then a hat or clothes.",
        ),
    },
}
