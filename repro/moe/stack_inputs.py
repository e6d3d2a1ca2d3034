"""Hand the padding mask and the token ids of a forward pass to the MoE layers inside a stack."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from repro.moe.backbones.base import Stack


class StackInputs:
    """Padding mask and token ids that a stack was last called with.

    A layer gets neither from `transformers`, so a hook before the stack's forward pass keeps them. They stay
    until the next call: gradient checkpointing runs the layers again after this one.
    """

    def __init__(self, stack: Stack, time_major: bool) -> None:
        self._time_major = time_major
        self._mask_BS: Tensor | None = None
        self._ids_BS: Tensor | None = None
        signature = inspect.signature(stack.module.forward)

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = signature.bind_partial(*args, **kwargs)
            arguments = {**call.arguments, **call.arguments.get("kwargs", {})}
            self._mask_BS = stack.mask(arguments)
            self._ids_BS = arguments.get("input_ids")

        stack.module.register_forward_pre_hook(keep, with_kwargs=True)

    def mask_T(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        """Return the mask of a layer's tokens: True for real ones, all of them without a padding mask.

        Args:
            shape: the two leading axes of the layer's input.
            device: of the mask.
        """
        if self._mask_BS is None:
            return torch.ones(shape[0] * shape[1], dtype=torch.bool, device=device)
        return self._flat(self._mask_BS, shape).bool()

    def ids_T(self, shape: tuple[int, int]) -> Tensor | None:
        """Return the ids of a layer's tokens; None where the stack was called with embeddings."""
        return None if self._ids_BS is None else self._flat(self._ids_BS, shape)

    def _flat(self, values_BS: Tensor, shape: tuple[int, int]) -> Tensor:
        # With a key/value cache they may cover the cached tokens too; the new ones come last.
        positions = shape[0] if self._time_major else shape[1]
        values_BS = values_BS[:, -positions:]
        values = values_BS.t() if self._time_major else values_BS
        assert values.shape == shape, f"{tuple(values.shape)} values do not fit tokens {shape}"
        return values.reshape(-1)
