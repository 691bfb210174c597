"""Models of one sequence, and of a source and a target; sampling and beam search."""

from longlag.models.answers import NO_CLASS as NO_CLASS
from longlag.models.answers import is_nan as is_nan
from longlag.models.answers import likeliest as likeliest
from longlag.models.beam import Hypotheses as Hypotheses
from longlag.models.beam import beam_search as beam_search
from longlag.models.beam import generate as generate
from longlag.models.building import ATTENTIONS as ATTENTIONS
from longlag.models.building import build as build
from longlag.models.building import idle_options as idle_options
from longlag.models.decoding import DecoderState as DecoderState
from longlag.models.decoding import Encoded as Encoded
from longlag.models.embedding import Embedding as Embedding
from longlag.models.image_encoder import Pictures as Pictures
from longlag.models.model import Cost as Cost
from longlag.models.model import Model as Model
from longlag.models.model import check_at as check_at
from longlag.models.parameter_matching import WITHIN as WITHIN
from longlag.models.parameter_matching import back_to as back_to
from longlag.models.parameter_matching import matched as matched
from longlag.models.parameter_matching import mixer_parameters as mixer_parameters
from longlag.models.parameter_matching import mixers as mixers
from longlag.models.sampling import sample as sample
from longlag.models.seq2seq import Seq2Seq as Seq2Seq
from longlag.models.sequence import SequenceModel as SequenceModel
from longlag.models.sequence import WholeSequenceModel as WholeSequenceModel
