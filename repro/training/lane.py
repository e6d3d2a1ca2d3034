"""Where a run trains: on the whole machine, or on a share of it while others train on theirs."""

from collections.abc import Sequence


class Lane:
    """The whole machine, for one run: nothing has to wait, and every step counts.

    `study.seat.Seat` is the share of it that a run of a study has.
    """

    count = 1
    """Lanes on which runs train at the same time."""

    def train(self) -> None:
        """Say that a training step follows; wait until it is this run's turn."""

    def rest(self) -> None:
        """Say that something else follows: loading, an evaluation, a checkpoint; wait as in `train`."""

    def is_fair(self) -> bool:
        """Tell, after a step, whether the machine was loaded as for every run that it is compared with."""
        return True

    def neighbours(self) -> Sequence[str]:
        """Return the ids of the runs that trained beside this one in its last step."""
        return ()

    def partners(self) -> Sequence[str]:
        """Return the ids of the runs that have trained between the steps of this one."""
        return ()


ALONE = Lane()
