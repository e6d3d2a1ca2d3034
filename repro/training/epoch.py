"""What an epoch leaves for the order of the next: the complexity vectors of its samples (paper, 3.3)."""

import torch
from accelerate.utils import gather_object

from repro.moe.routing import RoutingTape
from repro.training.curriculum import place_ratio_correlation
from repro.training.loop import Loop


def remember_ratios(loop: Loop, tape: RoutingTape, indices: list[int]) -> None:
    """Keep the complexity vectors that this forward pass gave for free (paper eq. 5)."""
    if not tape.entries:
        return
    state, samples = loop.state, len(loop.data.train)
    ratios_BL = tape.ratios_BL().float().cpu()
    if state.next_ratios_NL is None or state.next_num_multi_expert_N is None or state.next_seen_N is None:
        state.next_ratios_NL = torch.zeros(samples, ratios_BL.shape[1])
        state.next_num_multi_expert_N = torch.zeros(samples, dtype=torch.int64)
        state.next_seen_N = torch.zeros(samples, dtype=torch.bool)
    state.next_seen_N[indices] = True
    state.next_ratios_NL[indices] = ratios_BL
    state.next_num_multi_expert_N[indices] = tape.num_multi_expert_BL().sum(1).cpu()


def share_ratios(loop: Loop) -> None:
    """Let every process have what all have kept of the epoch so far; the checkpoint is of one of them.

    A sample is seen by one process at most, and the others hold zeros for it, or what they were told of it.
    """
    state = loop.state
    if loop.placement.processes == 1:
        return
    parts = gather_object([(state.next_ratios_NL, state.next_num_multi_expert_N, state.next_seen_N)])
    # A process that has had no sample yet has kept nothing.
    parts = [part for part in parts if part[0] is not None]
    if not parts:
        return
    ratios, counts, seen = (torch.stack(kept).amax(0) for kept in zip(*parts, strict=True))
    state.next_ratios_NL, state.next_num_multi_expert_N, state.next_seen_N = ratios, counts, seen


def end_epoch(loop: Loop) -> None:
    """Make this epoch's ratios those of the epoch before, and keep what its own order came to."""
    state, order = loop.state, loop.config.training.curriculum
    state.epoch_ends.append(state.step)
    state.place_ratio_correlations.append(place_ratio_correlation(order, state, loop.data.lengths_N))
    share_ratios(loop)
    state.ratios_NL, state.next_ratios_NL = state.next_ratios_NL, None
    state.num_multi_expert_N, state.next_num_multi_expert_N = state.next_num_multi_expert_N, None
    state.seen_N, state.next_seen_N = state.next_seen_N, None
    state.epoch += 1
    state.position = 0
