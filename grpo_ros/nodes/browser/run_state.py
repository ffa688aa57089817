"""What is known of a run from its diagnostics: progress, success, rewards, alarms, trials."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from grpo_ros.training.statistics import wilson_interval

LEARNER, SERVER = "learner: training", "policy_server"
OK, WARN, ERROR, STALE = range(4)
MAX_POINTS = 400
"""Points of a curve that are kept; of a longer one, every second."""
ENDED = ("finished", "failed")
QUIET_S = 5.0
"""A publisher of 1 Hz that has said nothing for so long is gone or stuck."""


@dataclasses.dataclass(frozen=True)
class Success:
    """A success rate with its 95 % interval."""

    rate: float
    low: float
    high: float


class RunState:
    """Takes diagnostic values as they come, and keeps what a viewer wants to see.

    Attributes:
        kind: "" before anything came; training | deployment.
        run: task and algorithm.
        level, alarm: of the newest status, and what it says beside the state.
        state, phase: as the publisher names them.
        iteration, env_steps, share_done, steps_per_s, time_left: where training is.
        success: on the initial states of the curve, or of the trials.
        train_success: of the newest rollouts.
        rewards: counts of the newest rollouts by score, in bins of 0.1; the last: exactly 1.
        curve: (environment steps, success); rollouts: (environment steps, train_success).
        trials: episode -> success, of a deployment.
        tells: other values, by name.
    """

    def __init__(self) -> None:
        self.kind, self.run, self.state, self.phase = "", "", "", ""
        self.alarm, self.level = "", OK
        self.heard_s: float | None = None
        self._forget()

    def _forget(self) -> None:
        self.iteration, self.env_steps, self.share_done = 0, 0, 0.0
        self.steps_per_s, self.time_left = 0.0, ""
        self.success: Success | None = None
        self.train_success: float | None = None
        self.rewards: tuple[int, ...] = ()
        self.curve: list[tuple[int, Success]] = []
        self.rollouts: list[tuple[int, float]] = []
        self.trials: dict[int, bool] = {}
        self.tells: dict[str, str] = {}

    def is_quiet(self, now_s: float) -> bool:
        """Whether nothing has come for too long from a node that has not said that it ends."""
        is_over = self.state in ENDED
        return self.heard_s is not None and not is_over and now_s - self.heard_s > QUIET_S

    def take_status(
        self, name: str, level: int, message: str, values: Mapping[str, str], now_s: float
    ) -> None:
        """Take one diagnostic status; those of other nodes are passed over."""
        if name not in (LEARNER, SERVER):
            return
        self.heard_s, self.level = now_s, level
        self.state = values.get("state", message)
        self.phase = values.get("phase", "")
        self.alarm = ""
        if level != OK:
            self.alarm = re.sub(
                f"^({re.escape(self.state)}|{re.escape(self.phase)})(; |$)", "", message
            )
        if name == LEARNER:
            self.kind = "training"
            self.run = values.get("run", "")
            self._take_training(values)
        else:
            self.kind = "deployment"
            self.tells = {
                key: values[key]
                for key in ("periods", "missed_periods", "tracking_error", "inference_ms.p50")
                if key in values
            }

    def take_episode(self, phase: str, values: Mapping[str, str]) -> None:
        """Take what a simulated robot says of its episode; failed ones do not count."""
        if phase == "finished" and "success" in values and not values.get("error"):
            self.trials[whole(values.get("episode"))] = values["success"] == "True"
            successes, num = sum(self.trials.values()), len(self.trials)
            self.success = Success(successes / num, *wilson_interval(successes, num))

    def _take_training(self, values: Mapping[str, str]) -> None:
        env_steps = whole(values.get("env_steps"))
        if env_steps < self.env_steps:
            self._forget()  # another run
        is_new, self.env_steps = env_steps != self.env_steps, env_steps
        self.iteration = whole(values.get("iteration"))
        self.share_done = min(1.0, real(values.get("share_done"), 0.0))
        self.steps_per_s = real(values.get("steps_per_s"), 0.0)
        self.time_left = "" if self.state in ENDED else values.get("time_left", "")
        self.rewards = counts(values.get("reward_histogram", ""))
        self.success = success_of(values)
        if "train_success" in values:
            self.train_success = real(values["train_success"], 0.0)
        if not is_new and self.curve:
            return
        if self.success is not None and (not self.curve or self.curve[-1][1] != self.success):
            self.curve = thinned([*self.curve, (env_steps, self.success)])
        if self.train_success is not None:
            self.rollouts = thinned([*self.rollouts, (env_steps, self.train_success)])


def success_of(values: Mapping[str, str]) -> Success | None:
    """Return the success rate and its interval that diagnostic values tell, if they do."""
    numbers = [float(each) for each in re.findall(r"\d\.\d+", values.get("success_wilson_95", ""))]
    if "success" not in values or len(numbers) != 2:
        return None
    return Success(real(values["success"], 0.0), numbers[0], numbers[1])


def counts(text: str) -> tuple[int, ...]:
    """Return the counts of a histogram written as "3 0 12"; () where it is not one."""
    words = text.split()
    return tuple(map(int, words)) if all(word.isdecimal() for word in words) else ()


def whole(text: str | None) -> int:
    """Return a whole number; 0 where it is none."""
    return int(real(text, 0.0))


def real(text: str | None, default: float) -> float:
    """Return a finite number, or the default."""
    try:
        value = float(text or "")
    except ValueError:
        return default
    return value if abs(value) < 1e300 else default


def thinned[T](points: list[T]) -> list[T]:
    """Return the points, or every second where there are too many; the last one stays."""
    return points if len(points) <= MAX_POINTS else [*points[:-1:2], points[-1]]
