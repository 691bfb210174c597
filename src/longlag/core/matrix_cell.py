"""Cells whose state is a matrix: an associative memory that keys write to and queries read."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Literal, cast

import flax.struct
import jax
import jax.numpy as jnp

from longlag.core.affine_cell import AffineCell
from longlag.core.any_length import associative_scan
from longlag.core.array_types import (
    Keys,
    PRNGKey,
    Queries,
    StepInputs,
    StepOutputs,
    TimeMajorMask,
    TimeMajorResets,
    Values,
)
from longlag.core.checks import is_zero
from longlag.core.linear_cell import refuse_backward
from longlag.core.ops import Params, affine, dot, keep_dtype, lecun, split_heads
from longlag.core.options import ScanOptions
from longlag.core.over_devices import entering, time_axis
from longlag.core.promotion import add, widen
from longlag.core.scans.matrix import METHODS, matrix_scan, matrix_step
from longlag.core.selection import select
from longlag.core.spec import choose

__all__ = ["Association", "MatrixCarry", "MatrixCell", "Reads"]

# The logarithm of an input gate that is shut, as at a masked step, and of the scale of a memory
# that nothing was written to. Sums and differences of it are finite, which those of -inf are not.
SHUT = -1e30


@flax.struct.dataclass
class MatrixCarry:
    """The state of a matrix cell.

    Attributes:
        S: memory, `[*batch, N, K, V]`, with a column more where the cell is `normalised`.
        log_scale: m, `[*batch, N]`: the memory stands for `S exp(m)`, and m is `SHUT` until
            something is written; None unless the cell is `exponential`.
    """

    S: jax.Array
    log_scale: jax.Array | None = None


@flax.struct.dataclass
class Association:
    """What a step does to the memory of each head, and asks of it.

    Attributes:
        q: query, `[..., N, K]`.
        k: key, `[..., N, K]`.
        v: value, `[..., N, V]`.
        log_decay: logarithm of the decay, from -inf to 0, `[..., N, 1]` for a head or `[..., N,
            K]` for each of its keys, or without the leading axes; None: nothing is forgotten.
        rate: β of the delta rule, `[..., N]`: how much of what the key stands for is replaced;
            None: the value is added.
        log_input: logarithm of the input gate, `[..., N]`, of an `exponential` cell.
        aux: what `readout` needs.
    """

    q: Queries
    k: Keys
    v: Values
    log_decay: Any = None
    rate: Any = None
    log_input: Any = None
    aux: Any = None


@flax.struct.dataclass
class Reads:
    """The results that the queries read from the memory.

    Attributes:
        y: `Sᵀ q`, `[..., N, V]`.
        norm: the same of a value that is always one, `[..., N]`, if the cell is `normalised`.
        log_scale: m, `[..., N]`, if the cell is `exponential`: `y` and `norm` stand for `exp(m)`
            times themselves.
    """

    y: Values
    norm: Any = None
    log_scale: Any = None


class MatrixCell(AffineCell[MatrixCarry]):
    """A cell with one matrix of state per head: write `project`, perhaps `gates` and `readout`.

        S' = decay ⊙ S + k wᵀ,   w = v, or β (v - (decay ⊙ S)ᵀ k) with a rate
        y  = S'ᵀ q

    The library owns the chunkwise form, in matrix products and without a state for every step
    (`longlag.matrix_scan`), masks, resets, streaming, and the scale that keeps exponential gates
    from overflowing.

    Attributes:
        features: H = N V, the width of the output.
        heads: N, which divides H.
        key_features: K, the width of a key of one head; None: that of a value, V = H / N.

    Parameters: `input.kernel` `[D, sum of the gates' widths]` and `input.bias`, the parts in the
    order of `gates`; the widths are `gate_widths`.
    """

    heads: int = dataclasses.field(default=4, kw_only=True)
    key_features: int | None = dataclasses.field(default=None, kw_only=True)

    gates: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    normalised: ClassVar[bool] = False
    exponential: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.heads < 1 or self.features % self.heads:
            raise ValueError(
                f"{name}.heads: expected a divisor of features = {self.features}, got {self.heads}"
            )
        if self.key_features is not None and self.key_features < 1:
            raise ValueError(f"{name}.key_features: expected at least 1, got {self.key_features}")

    @property
    def key_width(self) -> int:
        """The width of a key, K."""
        return self.key_features or self.features // self.heads

    def gate_widths(self) -> tuple[int, ...]:
        """Widths of all heads' parts: N K for "q" and "k", H for "v", N for any other gate."""
        keys = self.heads * self.key_width
        widths = {"q": keys, "k": keys, "v": self.features}
        return tuple(widths.get(name, self.heads) for name in self.gates)

    def per_head(self, params: Params, xs: StepInputs) -> tuple[jax.Array, ...]:
        """The affine projection of the input, by gate: `[..., N, K or V]`, a number `[..., N]`."""
        products = affine(params["input"], xs)
        ends = [sum(self.gate_widths()[: i + 1]) for i in range(len(self.gates))]
        parts = jnp.split(products, ends[:-1], axis=-1)
        return tuple(
            self.split_heads(part) if name in ("q", "k", "v") else part
            for name, part in zip(self.gates, parts)
        )

    def split_heads(self, x: StepInputs) -> Queries:
        """`[..., N * K]` to `[..., N, K]`."""
        return split_heads(x, self.heads)

    @abc.abstractmethod
    def project(self, params: Params, xs: StepInputs, *, key: PRNGKey | None = None) -> Association:
        """What each step writes and asks, for any leading axes."""

    def readout(self, params: Params, reads: Reads, aux: Any) -> StepOutputs:
        """The output `[..., H]`; by default the heads' reads side by side."""
        del params, aux
        return merge_heads(reads.y)

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> MatrixCarry:
        """An empty memory.

        Its scale does not bound the scale of what is written first, so that no gate is too small.
        A learned memory begins at scale one: at scale zero it would have no gradient.
        """
        values = self.features // self.heads + self.normalised
        batch = (*batch_shape, self.heads)
        scale = 0.0 if self.learned_carry else SHUT
        return MatrixCarry(
            S=jnp.zeros((*batch, self.key_width, values), dtype),
            log_scale=jnp.full(batch, scale, dtype) if self.exponential else None,
        )

    def step(
        self, params: Params, carry: MatrixCarry, u: Association, /
    ) -> tuple[MatrixCarry, StepOutputs]:
        """One step of the recurrence, then `readout`."""
        scale = None
        if self.exponential:
            assert carry.log_scale is not None
            scale = jnp.maximum(carry.log_scale + self._head_decay(u), self._log_input(u))
        q, k, v, log_decay = self._scale(u, carry.log_scale, scale)
        S, y = matrix_step(carry.S, q, k, v, log_decay, u.rate)
        return MatrixCarry(S, scale), self.readout(params, self._reads(y, scale), u.aux)

    def scan(
        self,
        params: Params,
        carry: MatrixCarry,
        xs: jax.Array,
        options: ScanOptions,
        *,
        first: MatrixCarry,
        mask: TimeMajorMask | None,
        resets: TimeMajorResets | None,
        key: PRNGKey | None,
    ) -> tuple[MatrixCarry, jax.Array]:
        """As `Cell.scan`, by `matrix_scan`; `readout` is taken for all steps at once."""
        reverse, every_carry = options.reverse, options.every_carry
        choose(options.method, METHODS, "method")
        refuse_backward(self, options.backward)
        u = self._prepare(params, xs, mask, key)
        if mask is not None:
            u = _shut_masked(u, mask)
        begin, unseen = widen(carry), None
        # Of no steps none sees the carry, which must come out as it is.
        if (mask is not None or resets is not None) and not is_zero(xs.shape[0]):
            begin, unseen = _clear_unseen(begin, mask, resets, reverse)
        scales = before = None
        if self.exponential:
            scales, before = _log_scales(
                self._head_decay(u), self._log_input(u), begin, first, resets, reverse
            )
        q, k, v, log_decay = self._scale(u, before, scales)
        S, ys = matrix_scan(
            q,
            k,
            v,
            begin.S,
            log_decay=log_decay,
            rate=u.rate,
            resets=resets,
            S_reset=None if resets is None else first.S,
            method=cast(Literal["auto", "scan", "chunked"], options.method),
            reverse=reverse,
            every_state=every_carry,
        )
        out = MatrixCarry(S, scales)
        if not every_carry:
            last = None
            if scales is not None:
                last = scales[0 if reverse else -1] if scales.shape[0] else begin.log_scale
            out = MatrixCarry(S, last)
        out = jax.tree.map(keep_dtype, out, carry)
        if unseen is not None:
            unseen = unseen if every_carry else unseen[0 if reverse else -1]
            out = select(unseen, carry, out)
        ys = self.readout(params, self._reads(ys, scales), u.aux)
        return out, (ys if mask is None else select(mask, ys, jnp.zeros_like(ys)))

    def _head_decay(self, u: Association) -> Any:
        return 0.0 if u.log_decay is None else jnp.maximum(u.log_decay[..., 0], SHUT)

    def _log_input(self, u: Association) -> jax.Array:
        return jnp.maximum(u.log_input, SHUT)

    def _scale(self, u: Association, before: Any, after: Any) -> tuple[Any, ...]:
        """Query, key, value and decay of the memory that is kept, `S exp(-m)`."""
        k, v, log_decay = u.k, u.v, u.log_decay
        if self.normalised:
            v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        if self.exponential:
            k = k * jnp.exp(self._log_input(u) - after)[..., None]
            log_decay = (self._head_decay(u) + before - after)[..., None]
        return u.q, k, v, log_decay

    def _reads(self, y: jax.Array, scale: Any) -> Reads:
        if not self.normalised:
            return Reads(y, None, scale)
        return Reads(y[..., :-1], y[..., -1], scale)


def merge_heads(y: jax.Array) -> jax.Array:
    """`[..., N, V]` to `[..., N * V]`."""
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])


def unit(x: jax.Array) -> jax.Array:
    """`x` at length one along its last axis; a zero stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def low_rank_affine(params: Params, xs: jax.Array) -> jax.Array:
    """An affine map through a narrow middle: `x down up + b`."""
    return add(dot(dot(xs, params["down"]), params["up"]), params["bias"])


def init_low_rank(key: jax.Array, in_features: int, rank: int, out_features: int) -> Params:
    """Its parameters: `down` `[D, rank]`, `up` `[rank, K]` and `bias` `[K]`, zero."""
    down, up = jax.random.split(key)
    return {
        "down": lecun(down, in_features, rank),
        "up": lecun(up, rank, out_features),
        "bias": jnp.zeros(out_features),
    }


def _shut_masked(u: Association, mask: jax.Array) -> Association:
    """Where the mask is false, a step that leaves the memory and its scale as they are."""

    def shut(x: jax.Array | None, ndim: int, to: float = 0.0) -> jax.Array | None:
        # A decay may lack the leading axes (one for each head, always): spread it first.
        if x is None:
            return None
        x = jnp.broadcast_to(x, (*mask.shape, *x.shape[x.ndim - ndim :]))
        return select(mask, x, jnp.full_like(x, to))

    return u.replace(  # type: ignore[attr-defined]
        k=shut(u.k, 2),
        v=shut(u.v, 2),
        log_decay=shut(u.log_decay, 2),
        rate=shut(u.rate, 1),
        log_input=shut(u.log_input, 1, SHUT),
    )


def _clear_unseen(
    carry: MatrixCarry, mask: jax.Array | None, resets: jax.Array | None, reverse: bool
) -> tuple[MatrixCarry, jax.Array]:
    """The carry to compute with, and the steps after which the carry is still as it came.

    A carry that no live step sees may be anything, NaN too. It must not enter the products of a
    chunk, where a weight of zero would not keep it out.

    Returns:
        The carry, empty in rows where nothing sees it, and `[T, B]` bool.
    """
    axis = time_axis()
    if resets is not None:
        had_reset = associative_scan(jnp.logical_or, resets, reverse=reverse)
        if axis is not None:
            none = jnp.zeros_like(had_reset[0])
            part = had_reset[0 if reverse else -1]
            had_reset |= entering(axis, part, none, jnp.logical_or, reverse)
        before_any_reset = ~had_reset
    else:
        assert mask is not None
        before_any_reset = jnp.ones_like(mask)
    live = before_any_reset if mask is None else before_any_reset & mask
    row_sees = jnp.any(live, axis=0)  # [B]
    if axis is not None:
        row_sees = jax.lax.psum(row_sees.astype(jnp.int32), axis) > 0
    empty = jax.tree.map(jnp.zeros_like, carry)
    return select(row_sees, carry, empty), before_any_reset & ~row_sees[None]


def _log_scales(
    log_decay: Any,
    log_input: jax.Array,
    carry: MatrixCarry,
    first: MatrixCarry,
    resets: jax.Array | None,
    reverse: bool,
) -> tuple[jax.Array, jax.Array]:
    """`m[t] = max(log_decay[t] + m[t-1], log_input[t])` after and before each step, `[T, B, N]`."""
    assert carry.log_scale is not None
    assert first.log_scale is not None
    log_decay = jnp.broadcast_to(log_decay, log_input.shape)
    if resets is not None:
        anew = jnp.maximum(add(log_decay, first.log_scale), log_input)
        log_input = select(resets, anew, log_input)

    def combine(earlier: tuple[Any, ...], later: tuple[Any, ...]) -> tuple[Any, ...]:
        """Sums of decays, tops and resets of two parts of a sequence, leaves `[..., B, N]`."""
        forgets = later[2]
        top = jnp.maximum(earlier[1] + later[0], later[1])
        if forgets is None:
            return earlier[0] + later[0], top, None
        return earlier[0] + later[0], select(forgets, later[1], top), forgets | earlier[2]

    if not log_input.shape[0]:
        return log_input, log_input
    scanned = associative_scan(combine, (log_decay, log_input, resets), reverse=reverse)
    decay, top, anew = scanned
    entry, axis = carry.log_scale.astype(top.dtype), time_axis()
    if axis is not None:
        part = jax.tree.map(lambda x: x[0 if reverse else -1], scanned)
        entry = entering(axis, part, (part[0], entry, part[2]), combine, reverse)[1]
    after = jnp.maximum(add(decay, entry), top)
    after = after if anew is None else select(anew, top, after)
    entry = entry[None]
    before = [after[1:], entry] if reverse else [entry, after[:-1]]
    before = jnp.concatenate(before)
    return after, before if resets is None else select(resets, first.log_scale, before)
