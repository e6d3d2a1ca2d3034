"""Hand the padding mask and the token ids of a forward pass to the MoE layers inside a stack."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from repro.moe.backbones.base import Stack


class StackInputs:
    """Padding mask and token ids that a stack was last called with.

    A layer gets neither from `transformers`, so a hook before the stack's forward pass keeps them. They stay
    until the next call: gradient checkpointing runs the layers again after this one. A copy has none.
    """

    def __init__(self, stack: Stack, time_major: bool) -> None:
        self._time_major = time_major
        self._mask = stack.mask
        parameters = inspect.signature(stack.module.forward).parameters.values()
        self._names = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        self._mask_BS: Tensor | None = None
        self._ids_BS: Tensor | None = None
        # A method, not a function inside this one: the model can be copied and pickled.
        stack.module.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = dict(zip(self._names, args, strict=False)) | kwargs
        self._mask_BS = self._mask(call)
        self._ids_BS = call.get("input_ids")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mask_BS": None, "_ids_BS": None}

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
