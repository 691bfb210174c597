"""Models of one sequence, and of a source and a target; sampling and beam search."""

from longlag.models.answers import NO_CLASS, is_nan, likeliest_class
from longlag.models.beam import Hypotheses, beam_search, generate
from longlag.models.building import ATTENTION_OPTIONS, build, idle_options
from longlag.models.decoding import DecoderState, Encoded
from longlag.models.embedding import Embedding
from longlag.models.image_encoder import Pictures
from longlag.models.model import Cost, Model, check_at
from longlag.models.parameter_matching import (
    WITHIN,
    map_back,
    match_parameters,
    mixer_parameters,
    mixers,
)
from longlag.models.sampling import sample
from longlag.models.seq2seq import Seq2Seq
from longlag.models.sequence import SequenceModel, WholeSequenceModel

__all__ = [
    "ATTENTION_OPTIONS",
    "NO_CLASS",
    "WITHIN",
    "Cost",
    "DecoderState",
    "Embedding",
    "Encoded",
    "Hypotheses",
    "Model",
    "Pictures",
    "Seq2Seq",
    "SequenceModel",
    "WholeSequenceModel",
    "beam_search",
    "build",
    "check_at",
    "generate",
    "idle_options",
    "is_nan",
    "likeliest_class",
    "map_back",
    "match_parameters",
    "mixer_parameters",
    "mixers",
    "sample",
]
