"""Bytes that a forward pass keeps for its backward pass, counted layer by layer from what autograd saves.

Of a layer with width D, hidden width F, H heads, E experts (k of them for a token), by position of the padded
batch. c is the bytes of a number in products: 4, or 2 in bf16. Between layers numbers stay in fp32 under
autocast, so norms and router keep 4 bytes. An entry of a dropout mask has m bytes: 1 on a GPU, on the CPU as
many as what it masks; there is one if the rate is above 0.

| what | bytes |
| --- | --- |
| input of the projections | c D; in bf16 three projections keep a copy each, 6 D |
| queries, keys, values | 3 c D, also where several queries share keys and values: they are copied |
| output of attention, also the input of the last projection | c D |
| sums of the softmax of fused attention | 4 H |
| dropout mask of attention | m D |
| input of a norm, with its mean and deviation; two norms a layer | 2 (4 D + 8) |
| of RMS norms, which are several operations, what they scale, too | 2 (8 D + 4) |
| input of the router, without padding | 4 D |
| probabilities, selection and weights of experts | about 14 E |
| k rows of experts: input, before and behind the activation, output; indices | k c (2 D + 2 F) + 32 k |
| k rows that came back from other processes, where experts are spread | k c D |
| a dense feed-forward network instead: input, before and behind the activation | c (D + 2 F) |
| of gated experts 3 F instead of 2 F, of a dense gated network 4 F | c F, 2 c F more |
| dropout mask of the feed-forward network | m D |

By pair of positions that attention compares:

* fused: c, once for all heads: the mask of padding, which each layer converts for itself; none for a batch of
  one sequence. On the CPU attention with dropout is not fused: 12 H, in fp32 even under autocast.
* not fused (FSMT): the softmax, 4 H (on the CPU c H), and in bf16 on a GPU its copy, 2 H; with dropout the
  mask, m H, and what it leaves, c H, instead of the copy.

A decoder's attention to an encoder keeps, by position of the decoder, its input and queries (2 c D), output
(c D), mask (m D), sums (4 H) and norm (4 D + 8); by position of the encoder keys and values (2 c D), and in
bf16 two copies of their input (4 D); and its pairs, as above.

In bf16 the copies of a layer's matrices are kept, too, 2 bytes a number: 4 D^2 numbers for each attention,
2 D F for each expert that is held here, 3 D F for a gated one.

Outside the layers: the input of the embeddings' norm and their dropout mask; a final norm; the input of the
head, c D; with a vocabulary of V tokens log-probabilities in fp32, 4 V, and in bf16 the copy of the head,
2 D V bytes in all.

What is in work comes on top where memory is fullest. Behind the loss: the gradients of log-probabilities and
logits, 8 V, and 2 V more in bf16. In the backward pass of one layer: gradients of experts' rows,
k c (2 F + 3 D), of gated ones 3 F, and of attention that is not fused, 8 H a pair.

With low-rank additions of rank r (`moe.lora`) all other weights are frozen, of 4 bytes or, in bf16, of 2:

* The weights of a layer's experts are made anew in every pass, W + B A, and kept: c a number. So are GPT-2's
  matrices of attention. Others are copied only if products have another type than the weights.
* The input of the head is not kept; that of other products is, by additions. Each of 4 linear layers keeps
  c r more a position, and in bf16 there are copies of the matrices of additions. With weights in bf16 but
  without autocast additions are computed in fp32: 4 D more. RMS norms keep 4 D + 4.
* In the backward pass of a layer there is the gradient of the weights made anew, in their type, and its copy
  where products have another. Between layers numbers have the type of the weights.

With gradient checkpointing a layer keeps its input alone, 4 D, and all of the above for one layer at a time.

Rows of experts are those of the back-end `grouped`; loads are taken as even over processes. What ReLU spares,
whose input need not be kept, is counted all the same. Sources: the modules of transformers 5.23 and
torch 2.13; `tests/test_memory.py` measures all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.moe.flops import Architecture, FFNSize
from repro.moe.numerics import Frozen, Numerics
from repro.moe.volume import Volume

_STREAM = 4
"""Bytes of a number between layers, in norms and in the router."""
_INDICES = 32
"""Bytes of indices and weight of one row of an expert."""


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes for one forward and backward pass in one process."""

    layers: tuple[float, ...]
    """Kept by each layer, in the order of computation."""
    inputs: tuple[float, ...]
    """Of each layer's input, which is all that it keeps with gradient checkpointing."""
    ends: float
    """Kept by embeddings, head and loss."""
    loss_work: float
    """In work when the backward pass begins."""
    layer_work: float
    """In work in the backward pass of the largest layer."""

    def kept(self, *, checkpointing: bool) -> float:
        """Return what is kept at the end of the forward pass."""
        return sum(self.inputs if checkpointing else self.layers) + self.ends

    def peak(self, *, checkpointing: bool) -> float:
        """Return what is there where memory is fullest."""
        if not checkpointing:
            return self.kept(checkpointing=False) + max(self.loss_work, self.layer_work)
        return sum(self.inputs) + max(self.ends + self.loss_work, max(self.layers) + self.layer_work)


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """A model and the part of a batch that one process computes at a time."""

    architecture: Architecture
    volume: Volume
    """Of the padded part."""
    experts: float
    """Mean experts of a token."""
    numerics: Numerics
    parallel: int = 1
    """Processes over which experts are spread."""
    frozen: Frozen | None = None
    """None: all weights are trained, in fp32."""

    def activations(self) -> Activations:
        """Count what is kept, as this module's docstring derives it."""
        ffns = self.architecture.ffns
        return Activations(
            layers=tuple(self._layer(ffn) for ffn in ffns),
            inputs=tuple(self._stream * ffn.d_model * self._positions(ffn.stack) for ffn in ffns),
            ends=self._ends(),
            loss_work=self._positions(ffns[-1].stack) * self._vocabulary * (10 if self._bf16 else 8),
            layer_work=max(self._work(ffn) for ffn in ffns),
        )

    @property
    def _stream(self) -> int:
        """Bytes of a number between layers."""
        return _STREAM if self.frozen is None else self.frozen.number

    @property
    def _product(self) -> int:
        """Bytes of a number in products, which are in bf16 with weights in bf16, too."""
        return min(self.numerics.product, self._stream)

    @property
    def _bf16(self) -> bool:
        return self._product < _STREAM

    @property
    def _is_cast(self) -> bool:
        """Whether products take copies of the weights, in another type."""
        return self._product < self._stream

    def _positions(self, stack: str) -> int:
        return self.volume.of_stack(stack)

    def _pairs(self, stack: str) -> int:
        return {"encoder": self.volume.encoder_pairs, "decoder": self.volume.decoder_pairs}[stack]

    @property
    def _width(self) -> int:
        return self.architecture.ffns[0].d_model

    @property
    def _vocabulary(self) -> int:
        """Columns of the logits of every position; 0 where none are kept for each."""
        generates = self.architecture.head in ("causal-language-model", "sequence-to-sequence")
        return int(self.architecture.config.vocab_size) if generates else 0

    def _rate(self, option: str | None) -> float:
        return 0.0 if option is None else float(getattr(self.architecture.config, option))

    @property
    def _norm(self) -> float:
        """Bytes that a norm keeps, by position."""
        if self.architecture.backbone.LAYOUT.rms_norm:
            return (2 if self.frozen is None else 1) * _STREAM * self._width + 4
        return _STREAM * self._width + 8

    def _heads(self, stack: str) -> int:
        return int(getattr(self.architecture.config, self.architecture.backbone.LAYOUT.heads[stack]))

    def _is_fused(self) -> bool:
        """Whether attention keeps no weights: on the CPU dropout takes it apart."""
        layout = self.architecture.backbone.LAYOUT
        taken_apart = self.numerics.device == "cpu" and self._rate(layout.attention_dropout) > 0
        return layout.fused_attention and not taken_apart

    def _crosses(self, ffn: FFNSize) -> bool:
        return ffn.stack == "decoder" and any(other.stack == "encoder" for other in self.architecture.ffns)

    def _layer(self, ffn: FFNSize) -> float:
        number, width = self._product, ffn.d_model
        total = self._self_attention(ffn) + self._feed_forward(ffn)
        total += 2 * self._positions(ffn.stack) * self._norm
        if self._crosses(ffn):
            total += self._cross_attention(ffn)
        networks = self._networks(ffn)
        if self._is_cast:
            total += number * ((8 if self._crosses(ffn) else 4) * width * width + networks * ffn.row_macs)
        elif self.frozen is not None:
            total += number * self._made_anew(ffn)
        if self.frozen is not None:
            rank, ffn_widths = self.frozen.rank, (3 if ffn.is_gated else 2) * ffn.d_hidden
            total += 4 * number * rank * self._positions(ffn.stack)
            if self.numerics.bf16:
                total += number * rank * (8 * width + networks * (2 * width + ffn_widths))
            elif self._bf16:
                total += 4 * number * width * self._positions(ffn.stack)
        return total

    def _networks(self, ffn: FFNSize) -> float:
        """Feed-forward networks of a layer that are held here."""
        return self.architecture.experts / self.parallel if ffn.converted else 1

    def _made_anew(self, ffn: FFNSize) -> float:
        """Numbers of the weights of a layer to which additions are added in every pass."""
        are_stacked = self.architecture.backbone.LAYOUT.projections == 1  # as experts are, for the library
        experts = self._networks(ffn) * ffn.row_macs if ffn.converted or are_stacked else 0
        return experts + (4 * ffn.d_model**2 if are_stacked else 0)

    def _self_attention(self, ffn: FFNSize) -> float:
        layout, number, width = self.architecture.backbone.LAYOUT, self._product, ffn.d_model
        copies = layout.projections if self._bf16 else 1
        kept = number * copies * width + self._output(ffn)
        if self._is_fused() or not layout.fused_attention:
            kept += 3 * number * width
        else:
            # Scaled queries and keys are new tensors in fp32; values hold what they were projected with.
            together = layout.projections == 1 and not self._bf16
            kept += 3 * _STREAM * width + (2 * _STREAM * width if together else 0)
        return self._positions(ffn.stack) * kept + self._pairs(ffn.stack) * self._pair(ffn.stack)

    def _cross_attention(self, ffn: FFNSize) -> float:
        number, width = self._product, ffn.d_model
        of_decoder = 2 * number * width + self._output(ffn) + _STREAM * width + 8
        of_encoder = 2 * number * width + (2 * number * width if self._bf16 else 0)
        total = self.volume.decoder * of_decoder + self.volume.encoder * of_encoder
        return total + self.volume.cross_pairs * self._pair(ffn.stack)

    def _output(self, ffn: FFNSize) -> float:
        """Output of an attention, its dropout mask and its sums, by position."""
        number = self._product
        masked = self._rate(self.architecture.backbone.LAYOUT.dropout) > 0
        sums = 4 * self._heads(ffn.stack) if self._is_fused() else 0
        return number * ffn.d_model + (self.numerics.mask(number) * ffn.d_model if masked else 0) + sums

    def _pair(self, stack: str) -> float:
        """Bytes for a pair of positions."""
        layout, number = self.architecture.backbone.LAYOUT, self._product
        heads, rate = self._heads(stack), self._rate(layout.attention_dropout)
        if self._is_fused():
            return number if self.volume.sequences > 1 else 0
        if layout.fused_attention:
            return 12 * heads
        softmax = _STREAM if self.numerics.device == "cuda" else number
        if rate:
            return heads * (softmax + self.numerics.mask(softmax) + number)
        return heads * (softmax + (number if number < softmax else 0))

    def _feed_forward(self, ffn: FFNSize) -> float:
        number, width = self._product, ffn.d_model
        if ffn.converted:
            row = number * (2 * width + (3 if ffn.is_gated else 2) * ffn.d_hidden) + _INDICES
            row += number * width if self.parallel > 1 else 0
            kept = _STREAM * width + 14 * self.architecture.experts + self.experts * row
        else:
            kept = number * (width + (4 if ffn.is_gated else 2) * ffn.d_hidden)
        if self._rate(self.architecture.backbone.LAYOUT.dropout):
            kept += self.numerics.mask(_STREAM if ffn.converted else number) * width
        return self._positions(ffn.stack) * kept

    def _ends(self) -> float:
        layout, width, number = self.architecture.backbone.LAYOUT, self._width, self._product
        total = 0.0
        for stack in {ffn.stack for ffn in self.architecture.ffns}:
            kept = 8 + (_STREAM * width + 8 if layout.embedding_norm else 0)
            kept += self.numerics.mask(_STREAM) * width if self._rate(layout.dropout) else 0
            total += self._positions(stack) * kept
        last = self.architecture.ffns[-1]
        if self._crosses(last):
            total += _STREAM * width * self.volume.encoder  # what the encoder gives to all layers
        if layout.final_norm:
            total += self._positions(last.stack) * self._norm
        if self._vocabulary:
            of_head = number * width if self.frozen is None else 0
            total += self._positions(last.stack) * (of_head + 4 * self._vocabulary + 8)
            total += number * width * self._vocabulary if self._is_cast else 0
        elif self.architecture.head == "question-answering" or not self._bf16:
            # A classifier reads the first position, and in fp32 holds all of them with it.
            total += self._positions(last.stack) * number * width
        return total

    def _work(self, ffn: FFNSize) -> float:
        number, width = self._product, ffn.d_model
        rows = self.experts if ffn.converted else 1
        row = (3 if ffn.is_gated else 2) * ffn.d_hidden + 3 * width
        total = self._positions(ffn.stack) * rows * number * row
        if not self._is_fused():
            crossed = self.volume.cross_pairs if self._crosses(ffn) else 0
            total += 8 * self._heads(ffn.stack) * (self._pairs(ffn.stack) + crossed)
        if self.frozen is not None:
            total += (self.frozen.number + (number if self._is_cast else 0)) * self._made_anew(ffn)
        return total
