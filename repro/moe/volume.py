"""Sequences, tokens and pairs of positions that a model has to process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Volume:
    """How much a model has to process; sums over sequences, so volumes add up.

    An encoder-only model has no decoder tokens, a decoder-only model no encoder tokens.
    """

    sequences: int = 0
    encoder: int = 0
    """Tokens of the encoder stack."""
    decoder: int = 0
    """Tokens of the decoder stack."""
    encoder_pairs: int = 0
    """Pairs of positions that the encoder's self-attention compares: squared lengths."""
    decoder_pairs: int = 0
    cross_pairs: int = 0
    """Pairs of a decoder and an encoder position."""

    @staticmethod
    def of(lengths: Mapping[str, Sequence[int]]) -> "Volume":
        """Measure sequences of these lengths, by stack (`encoder`, `decoder`).

        With both stacks, equal places belong to one sequence. Causal attention counts as full: that
        is what is computed.
        """
        encoder, decoder = lengths.get("encoder", ()), lengths.get("decoder", ())
        cross = zip(encoder, decoder, strict=True) if encoder and decoder else ()
        return Volume(
            sequences=max(len(encoder), len(decoder)),
            encoder=sum(encoder),
            decoder=sum(decoder),
            encoder_pairs=sum(length * length for length in encoder),
            decoder_pairs=sum(length * length for length in decoder),
            cross_pairs=sum(source * target for source, target in cross),
        )

    @property
    def tokens(self) -> int:
        """Tokens of all stacks."""
        return self.encoder + self.decoder

    def of_stack(self, stack: str) -> int:
        """Return the tokens of `encoder` or `decoder`."""
        return {"encoder": self.encoder, "decoder": self.decoder}[stack]

    def __add__(self, other: "Volume") -> "Volume":
        # `dataclasses.astuple` copies every value deeply, which took a quarter of the records of a step.
        names = self.__dataclass_fields__
        return Volume(**{name: getattr(self, name) + getattr(other, name) for name in names})
