"""Model configurations: each builds a model for a task."""

from __future__ import annotations

import dataclasses
from typing import Literal

from longlag.attention import Additive, Attention, DotProduct, Multiplicative
from longlag.core.cell import Cell
from longlag.core.spec import Spec, choose, refuse_idle
from longlag.models.building import build
from longlag.models.seq2seq import Seq2Seq
from longlag.models.sequence import SequenceModel, WholeSequenceModel
from longlag.nn.containers import Residual, Stack
from longlag.nn.layer import Layer
from longlag.nn.pointwise import Dropout, Norm
from longlag.nn.recurrent import Bidirectional, Recurrent
from longlag.runs.registry import kebab, task_name
from longlag.tasks import Task
from longlag.tasks.pairs import PairTask

__all__ = [
    "AnyArchitecture",
    "Architecture",
    "Captioner",
    "EncoderDecoder",
    "Transcriber",
    "architecture_class",
    "architecture_name",
]


class Architecture(Spec):
    """The model around the cell. An option without effect is refused (`longlag.models.build`).

    Attributes:
        attention: the attention over the past: none, additive, multiplicative, window or full.
        placement: where the attention is: read (its context joins the output of the cell) or block
            (a block of its own). auto means read for additive and multiplicative attention, and
            block for the others.
        width: features of every block, and of the cell unless --cell.features differs.
        depth: number of blocks. An attention block replaces the middle one.
        heads: number of heads of window and full attention.
        window: number of positions that window attention reads.
        positions: position encoding of window and full attention: rotary, alibi, learned or none.
        pattern: middle (one attention block) or interleaved (cell and attention in turn).
        convolution: width of a short causal convolution before every mixer. 0 means none.
        mlp: inner width of each block's MLP. 0 means none.
        dropout: dropout rate after every mixer and MLP.
        mixer_parameters: number of parameters of each mixer, reached within 5% by its inner width.
            0 leaves the widths as they are.
    """

    attention: Literal["none", "additive", "multiplicative", "window", "full"] = "none"
    placement: Literal["auto", "read", "block"] = "auto"
    width: int = 64
    depth: int = 2
    heads: int = 4
    window: int = 16
    positions: Literal["rotary", "alibi", "learned", "none"] = "rotary"
    pattern: Literal["middle", "interleaved"] = "middle"
    convolution: int = 0
    mlp: int = 0
    dropout: float = 0.0
    mixer_parameters: int = 0

    def build(self, task: Task, cell: Cell | None) -> SequenceModel:
        """Builds the model for a task."""
        if isinstance(task, PairTask):
            raise ValueError(
                f"task {task_name(type(task))}: expected an encoder and a decoder (EncoderDecoder, "
                "Captioner; as the experiments on translation and captions have)"
                ", since source and target are two sequences"
            )
        return build(
            inputs=task.inputs_kind,
            in_features=task.in_features,
            out_features=task.out_features,
            cell=cell,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
        )


class EncoderDecoder(Spec):
    """Sequence to sequence: an encoder of the source, and a decoder that may attend to it.

    Attributes:
        attention: what the decoder reads the source by: none, additive, multiplicative, or full
            (scaled dot products of several heads).
        width: of the embeddings and the attentional state.
        depth: layers of the encoder, and of the decoder.
        heads: of full attention.
        bidirectional: the encoder reads the source from both ends.
        input_feeding: each step of the decoder is told what the last one read.
        dropout: rate after every layer.
    """

    attention: Literal["none", "additive", "multiplicative", "full"] = "none"
    width: int = 128
    depth: int = 1
    heads: int = 4
    bidirectional: bool = True
    input_feeding: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choose(self.attention, ("none", "additive", "multiplicative", "full"), "attention")
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name}: expected at least 1, got {getattr(self, name)}")
        if self.attention != "full":
            why = f"with attention {self.attention!r}"
            refuse_idle("model heads", self.heads, EncoderDecoder.heads, why)

    def build(self, task: Task, cell: Cell | None) -> Seq2Seq:
        """Builds the model for a task whose answers are words of the target."""
        if cell is None:
            raise ValueError("model cell: expected a cell for encoder and decoder, got None")
        dropout = (Dropout(self.dropout),) if self.dropout else ()
        read = Bidirectional(cell) if self.bidirectional else Recurrent(cell)
        return Seq2Seq(
            inputs=task.inputs_kind,
            in_features=task.in_features,
            out_features=task.out_features,
            width=self.width,
            encoder=(read, *dropout) * self.depth,
            decoder=(Recurrent(cell), *dropout) * self.depth,
            attention=_over_source(self.attention, self.width, self.heads),
            input_feeding=self.input_feeding,
        )


class Captioner(Spec):
    """Image captioning: a convolutional encoder, and a decoder that may attend to its regions.

    Attributes:
        attention: what the decoder reads the regions by: none (their mean is all that it is told),
            additive or multiplicative.
        width: of the regions, the embedding and the attentional state.
        dropout: rate after the regions and after the decoder.

    Reference: Xu et al. 2015, "Show, Attend and Tell", arXiv 1502.03044, their soft attention; what
    is not the same there: the decoder reads what was attended to before its state moves on, and its
    first state is made of the mean.
    """

    attention: Literal["none", "additive", "multiplicative"] = "none"
    width: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choose(self.attention, ("none", "additive", "multiplicative"), "attention")

    def build(self, task: Task, cell: Cell | None) -> Seq2Seq:
        """Builds the model for a task of pictures whose answers are words of the target."""
        if cell is None:
            raise ValueError("model cell: expected a cell for the decoder, got None")
        dropout = (Dropout(self.dropout),) if self.dropout else ()
        return Seq2Seq(
            inputs="pictures",
            in_features=task.in_features,
            out_features=task.out_features,
            width=self.width,
            encoder=dropout,
            decoder=(Recurrent(cell), *dropout),
            attention=_over_source(self.attention, self.width),
            summary="mean",
        )


class Transcriber(Spec):
    """Transcription: bidirectional layers with an answer at every step.

    For tasks of transcripts: what a step belongs to is often known only when more was heard.

    Attributes:
        attention: "full" puts scaled dot products with the past in the place of the last of the
            layers, whose inputs have been read from both ends; or "none".
        width: of all layers.
        depth: number of layers.
        heads: of the attention.
        dropout: rate after every layer.

    Reference: Graves and Schmidhuber 2005, Graves et al. 2006 (bidirectional LSTM and CTC).
    """

    attention: Literal["none", "full"] = "none"
    width: int = 128
    depth: int = 2
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choose(self.attention, ("none", "full"), "attention")
        least = 1 if self.attention == "none" else 2
        if self.depth < least:
            raise ValueError(f"model depth: expected at least {least}, got {self.depth}")
        if self.attention == "none":
            refuse_idle("model heads", self.heads, Transcriber.heads, "without attention")

    def build(self, task: Task, cell: Cell | None) -> WholeSequenceModel:
        """Builds the model for a task. Each direction has this cell, half as wide as the layers."""
        both = None if cell is None else Bidirectional(cell)
        if both is None or both.out_features(self.width) != self.width:
            raise ValueError(
                f"model cell: expected one of {self.width // 2} outputs, half of width "
                f"{self.width}, for each direction; got {cell}"
            )
        mixers: list[Layer] = [both] * self.depth
        if self.attention == "full":
            mixers[-1] = DotProduct(self.width, heads=self.heads)
        dropout = (Dropout(self.dropout),) if self.dropout else ()
        return WholeSequenceModel(
            inputs=task.inputs_kind,
            in_features=task.in_features,
            width=self.width,
            layers=tuple(Residual(Stack((Norm(), mixer, *dropout))) for mixer in mixers),
            out_features=task.out_features,
        )


AnyArchitecture = Architecture | EncoderDecoder | Captioner | Transcriber


def _over_source(attention: str, width: int, heads: int = 1) -> Attention | None:
    """What reads what an encoder left, by its name."""
    return {
        "none": lambda: None,
        "additive": lambda: Additive(width),
        "multiplicative": lambda: Multiplicative(width),
        "full": lambda: DotProduct(width, heads=heads, positions="none"),
    }[attention]()


def architecture_class(name: str | None) -> type[AnyArchitecture]:
    """The architecture class of a name. None means `Architecture`."""
    if name is None:
        return Architecture
    others = {kebab(cls.__name__): cls for cls in (EncoderDecoder, Captioner, Transcriber)}
    return others[choose(name, others, "architecture")]


def architecture_name(architecture: AnyArchitecture) -> str | None:
    """The name of an architecture in `config.json`. None for `Architecture`."""
    return None if type(architecture) is Architecture else kebab(type(architecture).__name__)
