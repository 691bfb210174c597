"""What a compiled program does, read from its text: products, loops, kernels, collectives.

XLA's own count of operations takes the body of a loop once, and is missing for a GPU. Here every
loop is counted as often as it runs.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

__all__ = ["Counts", "count"]

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# What starts no kernel: it names, groups or waits for something, or runs other computations.
NO_KERNEL = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call"),
    *("conditional", "after-all", "partition-id", "replica-id", "opt-barrier", "iota"),
}
NOT_RUN = ("AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape")

HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|called_computations)=\{?%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
INTEGER = re.compile(r"= [su]\d+\[\]\S* constant\((\d+)\)")
BYTES = {"pred": 1, "bf16": 2, "f16": 2}


@dataclasses.dataclass
class Counts:
    """What a program does on one device.

    Attributes:
        operations: multiplications and additions of its matrix products.
        unknown: kernels by another compiler, such as Pallas, whose operations are not in it.
        loops: `while` loops in its text.
        kernels: for each loop without another loop inside, the kernels of one step.
        collectives: how often each kind runs.
        wire_bytes: what the device hands to collectives.
    """

    operations: float = 0.0
    unknown: int = 0
    loops: int = 0
    kernels: list[int] = dataclasses.field(default_factory=list)
    collectives: dict[str, int] = dataclasses.field(default_factory=dict)
    wire_bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: its result, what it does, and with what."""

    name: str
    result: str
    opcode: str
    operands: tuple[str, ...]
    line: str


def count(text: str) -> Counts:
    """Counts in the text of a compiled program (`compiled.as_text()`).

    Raises:
        ValueError: the text has no entry computation.
    """
    entry, computations = _parse(text)
    counts = Counts(collectives=collections.Counter())
    if entry is None:
        raise ValueError("expected the text of a compiled program; got one without ENTRY")

    @functools.cache
    def has_loop(name: str) -> bool:
        instructions = computations.get(name, [])
        return any(
            each.opcode == "while" or any(map(has_loop, _called(each))) for each in instructions
        )

    def visit(name: str, times: float) -> None:
        shapes = {each.name: each.result for each in computations.get(name, [])}
        for each in computations.get(name, []):
            kind = each.opcode.removesuffix("-start")
            if each.opcode == "while":
                counts.loops += 1
                condition, body = _part(each, "condition"), _part(each, "body")
                if not has_loop(body):
                    counts.kernels.append(_kernels(computations, body))
                visit(body, times * _trips(each, computations.get(condition, [])))
                continue
            if kind in COLLECTIVES:
                counts.collectives[kind] += round(times)
                counts.wire_bytes += times * sum(_bytes(shapes[x]) for x in each.operands)
            elif kind != "reduce":  # what a reduction applies is no program of its own
                for inner in _called(each):
                    visit(inner, times)
            operations = _operations(each, shapes)
            if operations is None:
                counts.unknown += round(times)
            else:
                counts.operations += times * operations

    visit(entry, 1)
    counts.collectives = dict(sorted(counts.collectives.items()))
    return counts


def _parse(text: str) -> tuple[str | None, dict[str, list[Instruction]]]:
    entry, current = None, ""
    computations: dict[str, list[Instruction]] = {}
    for line in text.splitlines():
        header = HEADER.match(line)
        if header:
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif current and (match := LINE.match(line)):
            computations[current].append(_instruction(match[1], match[2]))
    return entry, computations


def _instruction(name: str, rest: str) -> Instruction:
    # A result is a type or a tuple of types, and types have parentheses in their layouts.
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    result, rest = rest[:end], rest[end:].strip()
    opcode, _, _ = rest.partition("(")
    inside = rest[len(opcode) + 1 : _closing(rest, len(opcode))]
    return Instruction(name, result, opcode, tuple(re.findall(r"%([\w.\-]+)", inside)), rest)


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)


def _part(each: Instruction, name: str) -> str:
    match = re.search(rf"\b{name}=%?([\w.\-]+)", each.line)
    return match[1] if match else ""


def _called(each: Instruction) -> Iterator[str]:
    yield from CALLED.findall(each.line)
    for names in BRANCHES.findall(each.line):
        yield from re.findall(r"%?([\w.\-]+)", names)


def _trips(each: Instruction, condition: list[Instruction]) -> int:
    known = TRIPS.search(each.line)
    if known:
        return int(known[1])
    # A TPU's text does not say it. Loops of jax.lax.scan count up to a constant.
    limits = [int(m[1]) for one in condition if (m := INTEGER.search(f"= {one.result} {one.line}"))]
    return max(limits, default=1)


def _kernels(computations: dict[str, list[Instruction]], name: str) -> int:
    total = 0
    for each in computations.get(name, []):
        if each.opcode in ("call", "conditional"):
            total += sum(_kernels(computations, inner) for inner in _called(each))
        elif each.opcode != "fusion" and re.match(r"\w+\[\]", each.result):
            pass  # a number, such as the count of the loop
        elif each.opcode not in NO_KERNEL and not each.opcode.endswith(("-done", "-update")):
            total += not any(target in each.line for target in NOT_RUN)
    return total


def _operations(each: Instruction, shapes: dict[str, str]) -> float | None:
    """Of one product; None: not known."""
    if each.opcode == "dot":
        left = _axes(shapes[each.operands[0]])
        contracted = _numbers(each.line, "lhs_contracting_dims")
        return 2.0 * math.prod(_axes(each.result)) * math.prod(left[i] for i in contracted)
    if each.opcode == "convolution":
        return _convolution(each, *(_axes(shapes[name]) for name in each.operands))
    if each.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', each.line)
        name = target[1] if target else ""
        if "gemm" in name or "matmul" in name:
            left = _axes(shapes[each.operands[0]])
            contracted = re.search(r'"lhs_contracting_dimensions":\["(\d+)"', each.line)
            axis = int(contracted[1]) if contracted else -1
            return 2.0 * math.prod(_axes(each.result)) * left[axis]
        return None if "tpu_custom_call" in name or "triton" in name or "mosaic" in name else 0.0
    return 0.0


def _convolution(each: Instruction, inputs: list[int], kernel: list[int]) -> float:
    """Of a convolution, which is what a TPU makes of a product.

    An axis of the batch becomes an axis of space, with strides, dilation and padding such that each
    output has one input. So what meets padding or holes does not count.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.line)
    if labels is None:
        return 0.0
    of_inputs, of_kernel, of_result = labels.groups()
    result, window = _axes(each.result), re.search(r"window=\{([^}]*)\}", each.line)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    total = 2.0 * result[of_result.index("b")] * result[of_result.index("f")]
    total *= kernel[of_kernel.index("i")]
    for axis in range(len(inputs) - 2):

        def field(name: str, default: int, axis: int = axis) -> int:
            return int(fields[name].split("x")[axis]) if name in fields else default

        pad = int(fields["pad"].split("x")[axis].split("_")[0]) if "pad" in fields else 0
        total *= _pairs(
            inputs[of_inputs.index(str(axis))],
            kernel[of_kernel.index(str(axis))],
            result[of_result.index(str(axis))],
            (field("stride", 1), pad, field("lhs_dilate", 1), field("rhs_dilate", 1)),
        )
    return total


@functools.cache
def _pairs(inputs: int, kernel: int, outputs: int, window: tuple[int, int, int, int]) -> int:
    """How many pairs of an output and a place of the kernel meet an input, along one axis."""
    stride, pad, input_dilation, kernel_dilation = window
    places = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel) * kernel_dilation
    inside = (places >= 0) & (places <= (inputs - 1) * input_dilation)
    return int((inside & (places % input_dilation == 0)).sum())


def _axes(type_: str) -> list[int]:
    """Of a type; of the first one in a tuple."""
    match = SHAPE.search(type_)
    return [int(x) for x in match[2].split(",") if x] if match else []


def _bytes(type_: str) -> int:
    total = 0
    for dtype, axes in SHAPE.findall(type_):
        bits = re.search(r"\d+", dtype)
        size = BYTES.get(dtype) or (int(bits[0]) // 8 if bits else 0)
        total += size * math.prod(int(x) for x in axes.split(",") if x)
    return total


def _numbers(line: str, name: str) -> list[int]:
    match = re.search(rf"{name}=\{{([\d,]*)\}}", line)
    return [int(x) for x in match[1].split(",") if x] if match else []
