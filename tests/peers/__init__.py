"""What is here and at somebody else's too: `COUNTERPARTS`.

`tests.peers.agreement` and the tests measure them. A counterpart says which of ours it is, whose
theirs is, how the weights go over (`longlag.interop`, where it has them), and how theirs is run.
Needs `pip install "longlag[peers]"`.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from tests.peers.attentions import ATTENTION_COUNTERPARTS
from tests.peers.cells import BOTH_WAYS, CELLS
from tests.peers.counterpart import Counterpart as Counterpart
from tests.peers.counterpart import Peer as Peer

__all__ = ["COUNTERPARTS", "Counterpart", "Peer"]

COUNTERPARTS = [*CELLS, *BOTH_WAYS, *ATTENTION_COUNTERPARTS]
