"""The contract of a cell.

A cell is a frozen dataclass of hyperparameters with pure methods; its parameters are a plain nested
dict. Four kinds say what the library may do with it, and the author writes the maths once:

| kind         | the recurrence                     | the author writes                     |
| ------------ | ---------------------------------- | ------------------------------------- |
| `Cell`       | anything                           | `init`, `initial_carry`, `step`       |
| `DenseCell`  | products with recurrent kernels,   | `gates`, `update`, perhaps `mix`      |
|              | then an update                     |                                       |
| `LinearCell` | `h = a * h + b`, elementwise       | `gates`, `project`, perhaps `readout` |
| `MatrixCell` | `S = A S + k uᵀ`, a matrix         | `gates`, `project`, perhaps `readout` |

The first two are here, `LinearCell` is in `linear_cell.py` and `MatrixCell` in `matrix_cell.py`.
Whatever the kind, `longlag.unroll` runs it over a sequence with masks, resets and streaming, and
every layer, model, task and experiment takes it.

Letters: B batch, T time, D input features, H `features`, G number of gates.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers
from typing_extensions import TypeVar

from longlag import time_parallel
from longlag.checks import check_like, check_rows
from longlag.linear_scan import Method
from longlag.promotion import add, at_least_float32
from longlag.select import select
from longlag.spec import Spec, choose
from longlag.time_parallel import Backward
from longlag.weight_decay import by_name

__all__ = [
    "AffineCell",
    "Carry",
    "Cell",
    "DenseCell",
    "Params",
    "SeparableCell",
    "affine",
    "dot",
    "finite_exp",
    "gate_projection",
    "keep_dtype",
    "lecun",
    "split_heads",
]

Params = dict[str, Any]

# Width from which it costs less to store what `mix` returned than to take it again.
STORE_FROM = 256


@flax.struct.dataclass
class Carry:
    """The state of a cell that has one array of state.

    Attributes:
        h: `[*batch, H]`, or another state shape for a linear cell; a complex state is a pair of
            arrays `(re, im)`, as in `linear_scan`.
    """

    h: Any


CarryT = TypeVar("CarryT", default=Any)
DenseCarryT = TypeVar("DenseCarryT", default=Carry)


class Cell(Spec, abc.ABC, Generic[CarryT]):
    """A recurrent cell of any form. Write `init`, `initial_carry` and `step`; the rest is optional.

    Whatever in the input does not meet the carry belongs into `project`, which sees the whole
    sequence at once; `step` then holds only what must be done one step after another.
    """

    @abc.abstractmethod
    def init(self, key: jax.Array, in_features: int) -> Params:
        """Draws parameters.

        Args:
            key: a typed key.
            in_features: D.
        """

    @abc.abstractmethod
    def initial_carry(self, params: Params, batch_shape: Sequence[int] = ()) -> CarryT:
        """The state before the first step and after a reset; each leaf is `[*batch_shape, ...]`.

        It takes the parameters, so that a first state may be learned. Leaves may be numbers of any
        dtype, bools, typed keys or None.
        """

    def project(self, params: Params, xs: jax.Array, *, key: jax.Array | None = None) -> Any:
        """All that does not depend on the carry, for any leading axes; by default the input itself.

        Args:
            params: parameters.
            xs: `[..., D]`.
            key: source of noise, for a cell that has any; None means no noise.

        Returns:
            A tree of arrays `[..., *]`, best one array for each gate: XLA:CPU runs a scan over one
            fused `[T, B, G * H]` array 4 to 5 times slower.
        """
        del params, key
        return xs

    @abc.abstractmethod
    def step(self, params: Params, carry: CarryT, z: Any) -> tuple[CarryT, jax.Array]:
        """One step, the body of `jax.lax.scan`.

        Args:
            params: parameters.
            carry: the state, leaves `[*batch, ...]`.
            z: what `project` made of the present input, leaves `[*batch, ...]`.

        Returns:
            The new carry, of the same structure and shapes, and the output `y` `[*batch, ...]`.
        """

    def probe(self, params: Params, carry: CarryT, z: Any) -> dict[str, jax.Array]:
        """Gates and other quantities worth looking at, by name, before the step is taken."""
        del params, carry, z
        return {}

    def decays(self, params: Params) -> Any:
        """Which parameters weight decay shrinks: a tree of bools like `params`.

        By default kernels and embeddings, by their names (`longlag.weight_decay.by_name`). Override
        it if a kernel goes by another name, or something named so sets a decay or a step.

        Args:
            params: parameters, or their shapes.
        """
        return by_name(params)

    def in_features(self, params: Params) -> int | None:
        """D as the parameters have it, so that `unroll` can refuse a wrong input; None: any."""
        del params
        return None

    def scan(
        self,
        params: Params,
        carry: CarryT,
        xs: jax.Array,
        *,
        first: CarryT,
        mask: jax.Array | None,
        resets: jax.Array | None,
        key: jax.Array | None,
        reverse: bool,
        method: Method,
        backward: Backward,
        every_carry: bool,
        zoneout: float,
    ) -> tuple[CarryT, jax.Array]:
        """Runs the cell over a sequence. Each kind has its own; authors and users call `unroll`.

        Args:
            params: parameters.
            carry: the state before the first step.
            xs: inputs `[T, B, ...]`.
            first: the carry after a reset.
            mask: `[T, B]` bool or None.
            resets: `[T, B]` bool or None.
            key: source of noise for `project`.
            reverse: from the last step to the first.
            method: how; this kind knows only "auto" and "scan".
            backward: how gradients are taken, see `unroll`.
            every_carry: return the carries after every step, leaves `[T, B, ...]`, not the last.
            zoneout: the chance that a number of the carry stays as it was, see `unroll`.

        Returns:
            The carry or carries, and the outputs `[T, B, ...]`.
        """
        if method not in ("auto", "scan"):
            raise ValueError(
                f"method: expected 'auto' or 'scan' for {type(self).__name__}, which is not a "
                f"linear cell; got {method!r}"
            )

        def project(consts, inputs):
            xs, live, reset, held = inputs
            return (xs if noisy else self._project(consts[0], xs, live)), live, reset, held

        def begin(consts, carry, inputs):
            z, live, reset, _ = inputs
            given, first = carry, jax.tree.map(_as_wide, consts[1], carry)
            carry = jax.tree.map(_as_wide, carry, consts[1])
            if reset is not None:
                carry = select(reset, first, carry)
            # A masked step is computed and thrown away. It starts from a clean carry, since zero
            # times a NaN in the kept one would be a NaN in the gradient.
            start = carry if live is None else select(live, carry, first)
            return jax.tree.map(keep_dtype, carry, given), start, z, live

        def mix(consts, carry, inputs):
            _, start, z, _ = begin(consts, carry, inputs)
            return self._mix(consts[0], start, z)

        def update(consts, carry, inputs, mixed):
            carry, start, z, live = begin(consts, carry, inputs)
            new, y = _stepped(self, self._update(consts[0], start, z, mixed), start, rows)
            if zoneout:
                new, y = _zone_out(zoneout, start, new, y, inputs[3])
            new = jax.tree.map(keep_dtype, new, carry)
            if live is not None:
                new = select(live, new, carry)
                y = select(live, y, jax.tree.map(jnp.zeros_like, y))
            return new, y

        rows = xs.shape[1]
        # Noise is drawn for the whole sequence, whatever the chunks.
        noisy = key is not None
        held = None
        if noisy and zoneout:
            key, zoneout_key = jax.random.split(key)
            held = draw_held(zoneout_key, zoneout, carry, xs.shape[0])
        return time_parallel.scan(
            project,
            mix,
            update,
            (params, first),
            carry,
            (self._project(params, xs, mask, key) if noisy else xs, mask, resets, held),
            reverse=reverse,
            every_carry=every_carry,
            backward=self._backward() if backward == "auto" else backward,
            rows=rows,
        )

    def _project(self, params, xs, mask, key=None):
        """`project` of a sequence whose masked inputs may be anything."""
        xs = xs if mask is None else select(mask, xs, jnp.zeros_like(xs))
        return self.project(params, xs, key=key)

    def _mix(self, params, carry, z) -> Any:
        """The part of a step whose result the backward may store; nothing, in general."""
        del params, carry, z
        return ()

    def _update(self, params, carry, z, mixed):
        """The rest of the step."""
        del mixed
        return self.step(params, carry, z)

    def _backward(self) -> Literal["recompute", "store"]:
        """What "auto" stands for."""
        return "recompute"


def _stepped(cell: Cell, found: Any, carry: Any, rows: int) -> tuple[Any, Any]:
    """What a step returned, refused unless it is a carry like the one before, and an output."""
    if not (isinstance(found, tuple) and len(found) == 2):
        raise ValueError(
            f"{cell}: expected a step to return two things, the new carry and the output; got "
            f"{type(found).__name__}"
        )
    check_like("a step's new carry", found[0], carry, str(cell))
    check_rows("a step's output", found[1], (rows,), str(cell))
    return found


def keep_dtype(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new`, in the dtype that the carry came with."""
    floating = jnp.issubdtype(old.dtype, jnp.floating)
    return new.astype(old.dtype) if floating and new.dtype != old.dtype else new


def _as_wide(leaf: jax.Array, natural: jax.Array) -> jax.Array:
    """A leaf of a carry that a step can take: of at least the dtype that the cell's own has."""
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(at_least_float32(leaf, natural)) if floating else leaf


def draw_held(key: jax.Array, rate: float, carry: Any, steps: int) -> list[jax.Array | None]:
    """Which numbers of the carry stay at which step: `[T, ...]` bool, None for what is no float."""
    leaves = jax.tree.leaves(carry)
    return [
        jax.random.bernoulli(k, rate, (steps, *leaf.shape))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else None
        for k, leaf in zip(jax.random.split(key, len(leaves)), leaves)
    ]


def _zone_out(rate, old, new, y, held):
    """Keeps some numbers of the old carry, or without noise the mean of keeping and not.

    An output that is a part of the carry, like the h of an LSTM, is so after this too.
    """
    olds, (news, structure) = jax.tree.leaves(old), jax.tree.flatten(new)
    kept = []
    for i, (o, n) in enumerate(zip(olds, news)):
        if not jnp.issubdtype(n.dtype, jnp.floating):
            kept.append(n)
        elif held is None:
            kept.append(rate * o + (1 - rate) * n)
        else:
            kept.append(jnp.where(held[i], o, n))
    ys = [next((k for n, k in zip(news, kept) if n is leaf), leaf) for leaf in jax.tree.leaves(y)]
    return jax.tree.unflatten(structure, kept), jax.tree.unflatten(jax.tree.structure(y), ys)


class AffineCell(Cell[DenseCarryT]):
    """What the other kinds share: an affine projection of the input, one part per gate.

    Attributes:
        features: H.
        learned_carry: the first state is a parameter (begun at zero) rather than zero.
    """

    features: int
    learned_carry: bool = dataclasses.field(default=False, kw_only=True)

    gates: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        gates = getattr(self, "gates", None)
        if not (isinstance(gates, tuple) and all(isinstance(gate, str) for gate in gates)):
            raise ValueError(
                f"{type(self).__name__}.gates: expected a tuple of names, one for each part of the "
                f'input\'s projection, such as ("r", "z"); got {gates!r}'
            )
        if self.features < 1:
            raise ValueError(
                f"{type(self).__name__}.features: expected at least 1, got {self.features}"
            )

    def init(self, key: jax.Array, in_features: int) -> Params:
        """Draws parameters: `input.kernel` `[D, G * H]`, LeCun normal; `input.bias` `[G * H]`, 0.

        G * H stands for the sum of `gate_widths`.

        `carry`, the first state, is there if `learned_carry` is set.
        """
        width = sum(self.gate_widths())
        params: Params = {
            "input": {
                "kernel": initializers.lecun_normal()(key, (in_features, width)),
                "bias": jnp.zeros(width),
            }
        }
        if self.learned_carry:
            params["carry"] = self.zero_carry((), params["input"]["kernel"].dtype)
        return params

    def gate_widths(self) -> tuple[int, ...]:
        """Widths of the parts of the input's projection, in the order of `gates`: H each."""
        return (self.features,) * len(self.gates)

    def zero_carry(self, batch_shape: tuple[int, ...], dtype: Any) -> DenseCarryT:
        """The zero state; overridden by a cell whose state is not one `[*batch_shape, H]` array."""
        return Carry(h=jnp.zeros((*batch_shape, self.features), dtype))  # type: ignore[return-value]

    def initial_carry(self, params: Params, batch_shape: Sequence[int] = ()) -> DenseCarryT:
        """Zeros in at least float32, or the learned first state in every row."""
        batch_shape = tuple(batch_shape)
        dtype = at_least_float32(*jax.tree.leaves(params))
        if not self.learned_carry:
            return self.zero_carry(batch_shape, dtype)
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(jnp.array(leaf, dtype), batch_shape + leaf.shape),
            params["carry"],
        )

    def in_features(self, params: Params) -> int | None:
        """D, read off the input kernel, if there is one."""
        return params["input"]["kernel"].shape[0] if "input" in params else None


class SeparableCell(AffineCell[DenseCarryT]):
    """A cell whose input kernel may be left to the layers before it, as published blocks do.

    Attributes:
        input_kernel: whether the cell multiplies its input by a kernel. If not, the input is what
            the kernel would have made of it: the parts of all gates, side by side in the order of
            `gates`, to which the biases are added.
    """

    input_kernel: bool = dataclasses.field(default=True, kw_only=True)

    def init(self, key: jax.Array, in_features: int) -> Params:
        """As its kind, with or without the kernel."""
        width = sum(self.gate_widths())
        if not self.input_kernel and in_features != width:
            raise ValueError(
                f"{self}: expected {width} features, the parts of {', '.join(self.gates)}, since "
                f"it has no input kernel; got {in_features}"
            )
        params = super().init(key, in_features)
        if not self.input_kernel:
            del params["input"]["kernel"]
        return params

    def in_features(self, params: Params) -> int | None:
        """D, read off the kernel; without one, the width of all parts."""
        return super().in_features(params) if self.input_kernel else sum(self.gate_widths())


class DenseCell(AffineCell[DenseCarryT]):
    """A cell whose state meets recurrent kernels, then an update: write `gates` and `update`.

    `mix` says which products are taken; by default the carry's first field times one fused kernel.
    Parameters: `input.kernel` `[D, G * H]`, `input.bias` `[G * H]`, `recurrent.kernel`
    `[H, G * H]`, the parts of a gate side by side in the order of `gates`.
    """

    def init(self, key: jax.Array, in_features: int) -> Params:
        """Draws parameters: LeCun normal input kernel, orthogonal recurrent kernels, zero biases.

        Orthogonal kernels keep the norm of a signal that is passed from step to step (Saxe et al.
        2014, arXiv 1312.6120); one is drawn for each gate.
        """
        input_key, recurrent_key = jax.random.split(key)
        params = super().init(input_key, in_features)
        params["recurrent"] = self.init_recurrent(recurrent_key)
        return params

    def init_recurrent(self, key: jax.Array) -> Params:
        """What `params["recurrent"]` begins as; overridden by a cell of other kernels."""
        shape = (self.features, self.features)
        kernels = [
            initializers.orthogonal()(k, shape) for k in jax.random.split(key, len(self.gates))
        ]
        return {"kernel": jnp.concatenate(kernels, axis=1)}

    def project(
        self, params: Params, xs: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """The input's part of every gate: `u`, a tuple of `[..., H]` in the order of `gates`."""
        del key
        return gate_projection(params["input"], xs, len(self.gates))

    def mix(
        self, params: Params, carry: DenseCarryT, u: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, ...]:
        """The pre-activations `z`: the input's part of every gate and the state's, added.

        Returns:
            A tuple of `[..., H]` in the order of `gates`. All that `update` needs of the input is
            here: this is what a backward may store, so the sum is better than its parts.
        """
        products = dot(jax.tree.leaves(carry)[0], params["recurrent"]["kernel"])
        return tuple(map(jnp.add, u, jnp.split(products, len(self.gates), axis=-1)))

    @abc.abstractmethod
    def update(
        self, params: Params, carry: DenseCarryT, z: tuple[jax.Array, ...]
    ) -> tuple[DenseCarryT, jax.Array]:
        """The new carry and the output from the pre-activations `z` that `mix` returned."""

    def recurrent_kernel(self, params: Params, gate: str) -> jax.Array:
        """The recurrent kernel of one gate, `[H, H]`, for a `mix` of one's own."""
        start = self.gates.index(choose(gate, self.gates, "gate")) * self.features
        return params["recurrent"]["kernel"][:, start : start + self.features]

    def step(
        self, params: Params, carry: DenseCarryT, z: tuple[jax.Array, ...]
    ) -> tuple[DenseCarryT, jax.Array]:
        """`update` after `mix`; as in every kind, `z` is here what `project` returned."""
        return self.update(params, carry, self.mix(params, carry, z))

    def _in_two_parts(self) -> bool:
        """Whether a step is `update` after `mix`, and not one of the author's own."""
        return type(self).step is DenseCell.step

    def _mix(self, params, carry, z):
        return self.mix(params, carry, z) if self._in_two_parts() else ()

    def _update(self, params, carry, z, mixed):
        if self._in_two_parts():
            return self.update(params, carry, mixed)
        return self.step(params, carry, z)

    def _backward(self) -> Literal["recompute", "store"]:
        return "recompute" if self.features < STORE_FROM else "store"


def dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` in the kernel's dtype, accumulated and returned in at least float32.

    The dtype of the parameters is the dtype of the computation: cast them to bfloat16 and every
    product runs in bfloat16, while states and sums stay float32.

    Args:
        x: `[..., D]`.
        kernel: `[D, K]`.

    Returns:
        `[..., K]`.
    """
    accumulate = at_least_float32(kernel)
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=accumulate)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """`[..., N * K]` to `[..., N, K]`; leading axes may be empty, where a size cannot be -1."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def lecun(key: jax.Array, *shape: int) -> jax.Array:
    """A LeCun normal kernel, `[D, K]`: outputs have the variance of the inputs."""
    return initializers.lecun_normal()(key, shape)


def gate_projection(params: Params, xs: jax.Array, gates: int) -> tuple[jax.Array, ...]:
    """The affine projection of the input, one array per gate.

    Args:
        params: `kernel` `[D, G * H]`, which a `SeparableCell` may lack, and `bias` `[G * H]`.
        xs: `[..., D]`.
        gates: G.

    Returns:
        G arrays `[..., H]`, taken apart here: slices of one fused array that are taken inside the
        loop stop it from vectorising on XLA:CPU.
    """
    return tuple(jnp.split(affine(params, xs), gates, axis=-1))


def finite_exp(x: jax.Array) -> jax.Array:
    """`exp(x)`, or a very large number where that would overflow: zero times it is zero, not NaN.

    Its bound leaves room for a product with a number of ordinary size.
    """
    largest = 0.8 * float(np.log(np.finfo(x.dtype).max))
    return jnp.exp(jnp.minimum(x, largest))


def affine(params: Params, xs: jax.Array) -> jax.Array:
    """`x W + b` in at least float32, or without a kernel `x + b`."""
    if "kernel" in params:
        xs = dot(xs, params["kernel"])
    return add(xs, params["bias"])
