"""What is here and at somebody else's too: `PAIRS`, for `tests.peers.agreement` and the tests.

A pair says which of ours it is, whose theirs is, how the weights go over (`longlag.interop`, where
it has them), and how theirs is run. Needs `pip install "longlag[peers]"`.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from tests.peers.attentions import ATTENTIONS
from tests.peers.cells import BOTH_WAYS, CELLS
from tests.peers.pair import Pair as Pair
from tests.peers.pair import Peer as Peer

__all__ = ["PAIRS", "Pair", "Peer"]

PAIRS = [*CELLS, *BOTH_WAYS, *ATTENTIONS]
