"""Learner: trains a policy, and can be watched and steered over ROS meanwhile.

One process holds two nodes: `learner`, and the training view `simulator_bridge`
(nodes/training/training_view.py). The trainer runs in the main thread, the executor beside it.

Services:
    ~/pause (std_srvs/SetBool): hold training after the present iteration, or go on.
    ~/save_checkpoint (std_srvs/Trigger): message = the folder that was written.
    ~/export_policy (std_srvs/Trigger): message = the ONNX file that was written.
Publishes:
    ~/metrics (pal_statistics_msgs/Statistics), where that package is: one message per iteration.
    /diagnostics (diagnostic_msgs/DiagnosticArray), 1 Hz: run, state, iteration, success, speed,
        and the counts of `reward_histogram`.
Subscribes:
    <bridge.attach>/port (std_msgs/String, latched), where the simulator is in a `batch_bridge`.
Parameters: every setting of `TrainConfig` by its dotted name, e.g. collection.group_size; they are
    read-only, and stand above the presets and below settings on the command line.

SIGINT or SIGTERM: training stops after the present iteration with a checkpoint; again, some
seconds later: at once. Exit code 0: finished, or stopped with a checkpoint.

    ros2 run grpo_ros learner seed=1 group_size=16
    ros2 run grpo_ros learner --ros-args -p collection.group_size:=16
"""

from __future__ import annotations

import argparse
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.experimental import EventsExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from grpo_ros.configuration import check_is_for_learner, load_config
from grpo_ros.distributed.process_ranks import refuse_several
from grpo_ros.errors import GrpoRosError
from grpo_ros.interrupts import Interrupts
from grpo_ros.nodes.shared.parameters import declare_parameters, given_parameters
from grpo_ros.nodes.shared.process import leave
from grpo_ros.nodes.training.batch_port import BatchPort
from grpo_ros.nodes.training.learner_interface import Learner
from grpo_ros.nodes.training.training_view import TrainingView
from grpo_ros.report.summary import interrupted_line, summary_line
from grpo_ros.training.observer import RunSummary
from grpo_ros.training.settings import TrainConfig

JOIN_TIMEOUT_S = 5.0


def main(args: Sequence[str] | None = None) -> int:
    """Train as parameters and command line say; return the exit code."""
    interrupts = Interrupts()
    argv = list(sys.argv if args is None else [sys.argv[0], *args])
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    options = _options(remove_ros_args(argv)[1:])
    node = Learner(automatically_declare_parameters_from_overrides=True)
    view = TrainingView()
    executor = EventsExecutor()
    for each in (node, view):
        executor.add_node(each)
    thread = threading.Thread(target=executor.spin, name="executor", daemon=True)
    thread.start()
    code, line = 1, ""
    try:
        refuse_several("the node `learner`")
        if options.config:
            check_is_for_learner(Path(options.config))
        config = load_config(options.settings, options.config, given_parameters(node))
        declare_parameters(node, config)
        code, line = _train(config, node, view, interrupts, options.paused)
    except GrpoRosError as problem:
        line = str(problem)
    except SystemExit as end:
        code, line = int(end.code or 1), interrupted_line(None)
    except Exception as problem:
        line = f"{type(problem).__name__}: {problem}"
        node.get_logger().error(traceback.format_exc())
    finally:
        interrupts.ignore()  # launch may deliver SIGINT twice
        node.finish(line if code else "")
        (node.get_logger().info if code == 0 else node.get_logger().fatal)(line)
        executor.shutdown()
        thread.join(JOIN_TIMEOUT_S)
        for each in (node, view):
            each.destroy_node()
        rclpy.try_shutdown()
    return code


def _train(
    config: TrainConfig, node: Learner, view: TrainingView, interrupts: Interrupts, paused: bool
) -> tuple[int, str]:
    """Run the trainer; return the exit code and the last line."""
    from grpo_ros.training.trainer import Trainer

    is_attached = config.bridge.placement == "separate" and config.bridge.attach
    connector = BatchPort(node, config.bridge) if is_attached else None
    trainer = Trainer(config, observers=[node, view], connector=connector)
    node.attach(trainer.requests, f"{config.task} {config.algorithm}")
    view.show(trainer.task)
    trainer.requests.pause(paused)
    interrupts.attach(trainer.requests.stop, can_keep=lambda: bool(trainer.start))
    try:
        summary: RunSummary = trainer.run()
    except SystemExit as end:
        return int(end.code or 1), interrupted_line(trainer.run_directory)
    finally:
        view.close()
    return 0, summary_line(summary)


def _options(argv: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog="learner", description="Train a policy, over ROS.")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of training")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings")
    parser.add_argument("--paused", action="store_true", help="begin paused, after cloning")
    return parser.parse_args(argv)


if __name__ == "__main__":
    leave(main())
