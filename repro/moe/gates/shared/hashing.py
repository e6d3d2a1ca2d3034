"""A hash of token ids that is the same on every machine."""

from torch import Tensor


def hashed(ids_T: Tensor, salt: int) -> Tensor:
    """Mix each id into 32 bits, the same on every machine; int64."""
    bits_T = (ids_T.long() + salt * 0x9E3779B1) & 0xFFFFFFFF
    for _ in range(2):
        bits_T = (((bits_T >> 16) ^ bits_T) * 0x45D9F3B) & 0xFFFFFFFF
    return (bits_T >> 16) ^ bits_T
