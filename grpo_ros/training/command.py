"""The command `grpo-ros train`: one training run in this process, or in several by torchrun."""

from __future__ import annotations

import signal
import sys

from grpo_ros.distributed.process_ranks import ranks_from_environment
from grpo_ros.errors import RankError
from grpo_ros.interrupts import Interrupts
from grpo_ros.progress import terminal_progress
from grpo_ros.report.summary import interrupted_line, summary_line
from grpo_ros.training.run_directory import RunDirectory
from grpo_ros.training.settings import TrainConfig
from grpo_ros.training.trainer import Trainer

INTERRUPTED = 128 + signal.SIGINT


def run_training(config: TrainConfig) -> int:
    """Train, print what was written, and return the exit code: 0 where training is finished.

    The first SIGINT or SIGTERM stops after the present iteration with a checkpoint. It comes to
    all ranks, and the first decides.

    Raises:
        GrpoRosError: of any kind that training raises.
    """
    interrupts = Interrupts()
    run: RunDirectory | None = None
    is_sharding = config.ranks.parameters == "sharded"
    ranks = ranks_from_environment(config.ranks.timeout_s, is_sharding)
    try:
        if ranks.is_first:
            with terminal_progress() as progress:
                trainer = Trainer(config, observers=[progress], ranks=ranks)
                run = trainer.run_directory
                interrupts.attach(trainer.requests.stop, can_keep=lambda: bool(trainer.start))
                summary = trainer.run()
            print(summary_line(summary))
        else:
            interrupts.attach(lambda: None, can_keep=lambda: True)
            trainer = Trainer(config, ranks=ranks)
            run = trainer.run_directory
            summary = trainer.run()
    except SystemExit as end:
        print(interrupted_line(run), file=sys.stderr)
        return int(end.code or INTERRUPTED)
    except RankError:
        if ranks.is_first or not interrupts.has_come:
            raise
        return INTERRUPTED  # rank 0 has left, and says why
    finally:
        ranks.close()
    return 0 if summary.state == "finished" else INTERRUPTED
