"""What is here and at somebody else's too: `PAIRS`, for `experiments.agreement` and the tests.

A pair says which of ours it is, whose theirs is, how the weights go over (`longlag.interop`, where
it has them), and how theirs is run. Needs `pip install "longlag[peers]"`.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from experiments.peers.attentions import ATTENTIONS
from experiments.peers.cells import BOTH_WAYS, CELLS
from experiments.peers.pair import Pair as Pair
from experiments.peers.pair import Peer as Peer

__all__ = ["PAIRS", "Pair", "Peer"]

PAIRS = [*CELLS, *BOTH_WAYS, *ATTENTIONS]
