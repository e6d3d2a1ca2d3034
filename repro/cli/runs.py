"""`repro train`: one run with its progress, then what it gave."""

from functools import partial

from repro.cli.console import err, print_result, print_time_to_loss
from repro.cli.progress import StopRequest, TrainingDisplay
from repro.config import RunConfig
from repro.results.files import RunPaths
from repro.run.execute import execute
from repro.run.until import execute_until
from repro.tasks.base import load as load_task
from repro.training.state import Progress


def train_and_print(
    config: RunConfig,
    paths: RunPaths,
    *,
    until_loss: float | None,
    fresh: bool,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Do a run, or its trunk until a loss is reached, and print the outcome.

    Args:
        until_loss, fresh, tensorboard: as in `execute_until` and `execute`, whose exceptions it raises.
    """
    stop = StopRequest()
    with TrainingDisplay() as display:

        def report(progress: Progress) -> None:
            stop.training = True
            display.show(f"{config.task} {config.gate}", progress)

        if until_loss is None:
            result = execute(
                config, paths, fresh=fresh, tensorboard=tensorboard, report=report, should_stop=stop
            )
            show = partial(print_result, result, load_task(config.task).TITLE)
            if not stop.training:
                changed = "; ".join(result.environment.changed)
                origin = f" with other code or libraries ({changed})" if changed else ""
                err.print(
                    f"{config.run_id} was finished before{origin}; --fresh trains it again", markup=False
                )
        else:
            reached = execute_until(
                config,
                paths,
                until_loss,
                fresh=fresh,
                tensorboard=tensorboard,
                report=report,
                should_stop=stop,
            )
            show = partial(print_time_to_loss, reached)
    show(as_json)
