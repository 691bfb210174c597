"""Associative recall with one query: look a value up, or say that its key never came."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, sketch

__all__ = ["AssociativeRecall"]


class AssociativeRecall(Task):
    """Associative recall: after pairs of key and value, give the value of one key, or "new".

    Each sequence gives every key a value, both uniform and independent, so that keys may share one.
    `pairs` times a key is drawn, again and again the same ones, and written down with its value;
    then come a query token and a key that is drawn like the others. Its value is the answer, or the
    class `values`, "no", if it has not come. Tokens are the values, the keys and the query token,
    in this order. With pairs=5, keys=4, values=6, where keys are written as capitals:

        inputs  D 4 A 5 D 4 B 3 C 2 ? D
        targets . . . . . . . . . . . 4

    What `Recall` and `InContextRecall` do not ask: to know what one has not seen. The key is new
    with chance (1 - 1/keys)^pairs, which vanishes in long sequences.

    Floor: "no" or any value, whichever is likelier, in accuracy; in loss the entropy of both.

    Attributes:
        pairs: how many pairs there are; T = 2 * pairs + 2.
        keys: how many keys there are; what is to be held is a value for each that has come.
        values: how many values there are.

    Raises:
        ValueError: if pairs < 1, keys < 2 or values < 2.

    Reference: Fu et al. (2023), arXiv 2212.14052 (H3), and Poli et al. (2023), arXiv 2302.10866
    (Hyena), in the code of safari with allow_dot (vocabulary 20, length 40: pairs=20, keys=9,
    values=9). There the loss runs over the whole sequence and only the answer is tested; here only
    it is asked.
    """

    pairs: int = 10
    keys: int = 9
    values: int = 9

    lag_field = "pairs"

    def __post_init__(self) -> None:
        self.require(self.pairs >= 1, "pairs >= 1")
        self.require(self.keys >= 2, "keys >= 2")
        self.require(self.values >= 2, "values >= 2")

    @property
    def time_steps(self) -> int:
        """Pairs, query token, key: 2 * pairs + 2."""
        return 2 * self.pairs + 2

    @property
    def in_features(self) -> int:
        """Values, keys, query token."""
        return self.values + self.keys + 1

    @property
    def out_features(self) -> int:
        """Values and "no"."""
        return self.values + 1

    @property
    def weighted_steps(self) -> int:
        """The last step."""
        return 1

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the last step."""
        B, D, K, V = batch_size, self.pairs, self.keys, self.values
        of_keys, of_values = jax.random.split(key)
        keys = jax.random.randint(of_keys, (B, D + 1), 0, K, jnp.int32)
        value_of = jax.random.randint(of_values, (B, K), 0, V, jnp.int32)
        values = jnp.take_along_axis(value_of, keys, axis=1)
        # The query as a pair: its token, and the key in the place of a value.
        first = (V + keys).at[:, D].set(V + K)
        second = values.at[:, D].set(V + keys[:, D])
        new = jnp.all(keys[:, :D] != keys[:, D:], axis=1)
        answer = jnp.where(new, V, values[:, D])
        last = jnp.broadcast_to(jnp.arange(2 * D + 2, dtype=jnp.int32) == 2 * D + 1, (B, 2 * D + 2))
        return Batch(
            inputs=jnp.stack([first, second], axis=2).reshape(B, 2 * D + 2),
            targets=jnp.where(last, answer[:, None], 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=None,
        )

    def floor(self) -> Floor:
        """New or any value, as often as they are right."""
        new = (1 - 1 / self.keys) ** self.pairs
        chances = np.append(np.full(self.values, (1 - new) / self.values), new)
        note = '"no"' if chances.argmax() == self.values else "any value"
        return Floor.of_chances(chances[None], note)

    def picture(self) -> str:
        """Five pairs of four keys and six values."""
        names = dict(enumerate("ABCD?", 6))
        task = AssociativeRecall(pairs=5, keys=4, values=6)
        return sketch(task, seed=2, names=names, answers={6: "no"})
