"""In-context recall: a stream of pairs in which every key keeps the value it came with."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.tasks.task import Floor, Task, draw_distinct, sketch

__all__ = ["InContextRecall"]


class InContextRecall(Task):
    """In-context recall (MAD): predict a stream of pairs in which keys return with their values.

    The stream of `length` tokens is cut into frames of F = key_tokens + value_tokens. A frame holds
    a pair: a key of 1..key_tokens different tokens, then its value of 1..value_tokens different
    tokens; every size is as likely, and every row of tokens of that size. The pair lies anywhere in
    its frame, and the rest is blank. A key that returns brings the value that it came with. With
    chance `noise` a frame holds noise in place of a pair. The key of the first frame is of full
    size; the last frame repeats one of the keys of full size that have come, any of them alike, so
    that every sequence has something to recall.

    Every step predicts the next token and counts in the loss, as in the paper. Scored is what can
    be known: the value of a key that came before, but for its first token after a key that is not
    of full size, where the key might still go on. Tokens are the keys' 0..keys-1, then the values',
    the noise's, the blank. With length=24, keys=3, values=4, key_tokens=2, value_tokens=2, where
    keys are written as capitals and the blank as `_`:

        inputs  C A 5 4 C A 5 4 B C 4 _ C A 5 4 A 4 3 _ _ B C
        targets A 5 4 C A 5 4 B C 4 _ C A 5 4 A 4 3 _ _ B C 4

    The three tasks of the paper: the defaults (16 tokens); noisy, with noise=0.2, noise_tokens=16;
    fuzzy, with length=126, keys=7, values=8, key_tokens=3, value_tokens=3, where no step alone says
    what is asked: a key must be put together before it can be compared.

    Floor: in loss the entropy of the next token at each step, mean over the steps (`chances`); in
    accuracy any value, 1/values.

    Attributes:
        length: N of the paper, the tokens of the stream, whole frames; T = length - 1.
        keys: how many tokens keys are made of.
        values: how many tokens values are made of.
        key_tokens: how many tokens a key has at most.
        value_tokens: how many tokens a value has at most.
        noise: the chance that a frame, neither the first nor the last, is noise.
        noise_tokens: how many tokens noise is made of; 0 without noise.

    Raises:
        ValueError: if length is no multiple of F or holds fewer than two frames, keys < 2,
            values < 2, key_tokens or value_tokens is below 1 or above what can differ, noise is
            negative or not below 1, or there are noise tokens without noise or the reverse.

    Reference: MAD, Poli et al. (2024), arXiv 2403.17844, with multi_query as in all its settings.
    Departures: its code chooses a frame that is never noise, but may choose the last, which it does
    not draw; here the first is sure. Its fuzzy pairs leave no gaps, and the blanks all stand at the
    front; here they lie between. It tests fuzzy recall on streams whose keys are all of full size;
    here data to train and to test on are alike, and what a short key leaves open is not scored.
    """

    length: int = 128
    keys: int = 8
    values: int = 8
    key_tokens: int = 1
    value_tokens: int = 1
    noise: float = 0.0
    noise_tokens: int = 0

    lag_field = "length"

    def __post_init__(self) -> None:
        F = self.frame
        self.require(self.key_tokens >= 1, "key_tokens >= 1")
        self.require(self.value_tokens >= 1, "value_tokens >= 1")
        self.require(self.length % F == 0, f"a length of whole frames of {F} tokens")
        self.require(self.length >= 2 * F, f"length >= {2 * F} (two frames)")
        self.require(self.keys >= max(2, self.key_tokens), "keys >= 2 and >= key_tokens")
        self.require(self.values >= max(2, self.value_tokens), "values >= 2 and >= value_tokens")
        self.require(0 <= self.noise < 1, "0 <= noise < 1")
        self.require(self.noise_tokens >= 0, "noise_tokens >= 0")
        noise, tokens = self.noise > 0, self.noise_tokens > 0
        self.require(noise == tokens, "both noise and noise_tokens, or neither")

    @property
    def frame(self) -> int:
        """F, the tokens of the longest pair."""
        return self.key_tokens + self.value_tokens

    @property
    def time_steps(self) -> int:
        """All tokens but the last, each of which predicts the next: length - 1."""
        return self.length - 1

    @property
    def in_features(self) -> int:
        """Keys, values, noise, and a blank if pairs may be shorter than a frame."""
        return self.keys + self.values + self.noise_tokens + (self.frame > 2)

    @property
    def out_features(self) -> int:
        """The same: any token may come next."""
        return self.in_features

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, weighted everywhere, scored where known."""
        B, N, F = batch_size, self.length, self.frame
        P = N // F
        frames = jnp.arange(P, dtype=jnp.int32)
        edge = (frames == 0) | (frames == P - 1)
        of_noise, of_places, of_query, of_keys, of_values = jax.random.split(key, 5)
        keys = motifs(of_keys, B, self.keys, self.key_tokens, full=edge)
        values = motifs(of_values, B, self.values, self.value_tokens, full=jnp.zeros_like(edge))
        of_chance, of_tokens = jax.random.split(of_noise)
        pair = edge[None] | (jax.random.uniform(of_chance, (B, P), jnp.float32) >= self.noise)

        frames = frames[None]
        # The frame in which a key came first, whose value it keeps.
        same = jnp.all(keys[:, :, None] == keys[:, None], axis=3) & pair[:, None]
        first = jax.lax.argmax(same, 2, jnp.int32)
        # The last frame asks for one of the keys that can be asked for, each at its first place.
        full = keys[..., -1] >= 0
        askable = pair & full & (first == frames) & (frames < P - 1)
        lots = jnp.where(askable, jax.random.uniform(of_query, (B, P), jnp.float32), -1)
        first = first.at[:, -1].set(jax.lax.argmax(lots, 1, jnp.int32))
        keys = jnp.where((frames == P - 1)[..., None], take(keys, first), keys)
        values = take(values, first)

        # A pair of sizes k and v lies anywhere in its frame; place 0 is where its key begins.
        k, v = sizes(keys), sizes(values)
        start = jax.random.randint(of_places, (B, P, 1), 0, F + 1 - k - v, jnp.int32)
        place = jnp.arange(F, dtype=jnp.int32)[None, None] - start
        in_key, in_value = (place >= 0) & (place < k), (place >= k) & (place < k + v)
        key_token = jnp.take_along_axis(keys, jnp.clip(place, 0, self.key_tokens - 1), axis=2)
        value_token = jnp.take_along_axis(
            values, jnp.clip(place - k, 0, self.value_tokens - 1), axis=2
        )
        blank = self.keys + self.values + self.noise_tokens
        stream = jnp.where(in_value, self.keys + value_token, jnp.where(in_key, key_token, blank))
        if self.noise_tokens:
            lowest = blank - self.noise_tokens
            drawn = jax.random.randint(of_tokens, (B, P, F), lowest, blank, jnp.int32)
            stream = jnp.where(pair[..., None], stream, drawn)

        again = (pair & (first < frames))[..., None]
        known = again & in_value & ((place > k) | full[..., None])
        stream, known = stream.reshape(B, N), known.reshape(B, N)
        return Batch(
            inputs=stream[:, :-1],
            targets=stream[:, 1:],
            weights=jnp.ones((B, N - 1), jnp.float32),
            scored=known[:, 1:],
            mask=None,
        )

    def floor(self) -> Floor:
        """Any token, as often as it comes next at a step; any value where one is recalled."""
        floor = Floor.of_chances(self.chances(), "any value")
        return dataclasses.replace(floor, accuracy=1 / self.values)

    def chances(self) -> np.ndarray:
        """How likely each token is as the target of each step, `[T, out_features]`."""
        inner = self.shares(range(1, self.key_tokens + 1))
        inner = (1 - self.noise) * inner + self.noise * np.array([0, 0, 1, 0])
        edge = self.shares([self.key_tokens])
        shares = np.concatenate([edge, *[inner] * (self.length // self.frame - 2), edge])
        kinds = [self.keys, self.values, self.noise_tokens, int(self.frame > 2)]
        chances = np.repeat(shares / np.maximum(kinds, 1), kinds, axis=1)
        return chances[1:]  # nothing predicts the first token

    def shares(self, key_sizes: Sequence[int]) -> np.ndarray:
        """How often a key, a value, noise, a blank stand at each place of a pair's frame, `[F, 4]`.

        Args:
            key_sizes: the sizes that its key may have, all alike.
        """
        F, shares = self.frame, np.zeros((self.frame, 4))
        for k, v in itertools.product(key_sizes, range(1, self.value_tokens + 1)):
            starts = range(F + 1 - k - v)
            share = 1 / (len(key_sizes) * self.value_tokens * len(starts))
            for start in starts:
                shares[start : start + k, 0] += share
                shares[start + k : start + k + v, 1] += share
        shares[:, 3] = 1 - shares.sum(axis=1)
        return shares

    def picture(self) -> str:
        """Six pairs, fuzzy, of three tokens for keys and four for values."""
        task = InContextRecall(length=24, keys=3, values=4, key_tokens=2, value_tokens=2)
        return sketch(task, seed=8, names=dict(enumerate("ABC3456_")))


def motifs(key: jax.Array, batch_size: int, tokens: int, most: int, full: jax.Array) -> jax.Array:
    """Draws rows of 1..most different tokens out of 0..tokens-1, or of `most` where `full`.

    Args:
        key: a typed key.
        batch_size: B.
        tokens: how many tokens there are.
        most: the full size.
        full: `[P]` bool.

    Returns:
        `[B, P, most]` int32, -1 beyond the end of a row.
    """
    shape = (batch_size, len(full), 1)
    if most == 1:  # spares a search among all tokens
        return jax.random.randint(key, shape, 0, tokens, jnp.int32)
    of_tokens, of_sizes = jax.random.split(key)
    rows = draw_distinct(of_tokens, batch_size * len(full), tokens, most).reshape(*shape[:2], most)
    size = jax.random.randint(of_sizes, shape, 1, most + 1, jnp.int32)
    size = jnp.where(full[None, :, None], most, size)
    return jnp.where(jnp.arange(most, dtype=jnp.int32)[None, None] < size, rows, -1)


def sizes(rows: jax.Array) -> jax.Array:
    """How many tokens each row of `motifs` has, `[B, P, 1]` int32."""
    return jnp.sum(rows >= 0, axis=2, keepdims=True, dtype=jnp.int32)


def take(rows: jax.Array, frames: jax.Array) -> jax.Array:
    """The rows `[B, P, ...]` of other frames, `[B, P]`."""
    return jnp.take_along_axis(rows, frames[..., None], axis=1)
