"""Trainer: demonstrations, cloning, group-relative learning, evaluation, export.

The trainer owns the loop and the state. All that decides what an iteration gives is in
`Trainer.state()`, which a checkpoint holds; the simulator's state does not outlive an iteration.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from grpo_ros import configuration
from grpo_ros.algorithms import make_algorithm
from grpo_ros.algorithms.histograms import Histogram
from grpo_ros.distributed.ranks import ONE_RANK, Ranks, own_share
from grpo_ros.distributed.rollouts import of_all_ranks, of_one_length
from grpo_ros.distributed.tensors import placed_tree, whole_tree
from grpo_ros.errors import TrainingError
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.files import write_atomically
from grpo_ros.policies import make_policy
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.simulators.base import unwatched
from grpo_ros.simulators.remote.channel import Connector
from grpo_ros.tasks.registry import make_task
from grpo_ros.training import run_directory
from grpo_ros.training.averaging import PolicyAverage
from grpo_ros.training.checkpoint import checkpoints, state_hash
from grpo_ros.training.checkpoint_keeper import CheckpointKeeper
from grpo_ros.training.collector import GroupCollector
from grpo_ros.training.demonstrations import DEMONSTRATION, fit_statistics
from grpo_ros.training.demonstrations.cloning import clone
from grpo_ros.training.demonstrations.of_run import demonstrations_of, provenance
from grpo_ros.training.evaluation import CURVE_SEED, Evaluation, evaluate, held_out_keys
from grpo_ros.training.failures.store import FailureStore
from grpo_ros.training.group_paths import PathTrace
from grpo_ros.training.metrics import rollout_histograms, rollout_metrics
from grpo_ros.training.observer import Observers, RunSummary, TrainingObserver
from grpo_ros.training.placement import Losses, place_simulator
from grpo_ros.training.requests import Requests
from grpo_ros.training.resume import Resumed, open_run_on_ranks
from grpo_ros.training.rollout import Rollout
from grpo_ros.training.run_directory import CONTRACT_FILE, RunDirectory, point_latest
from grpo_ros.training.run_record import RunRecord
from grpo_ros.training.run_terms import circumstances, origin_of, write_capabilities, write_terms
from grpo_ros.training.settings import TrainConfig
from grpo_ros.training.starts.starts import make_starts

NOT_MEASURED = -1.0
"""In place of a success."""


class Trainer:
    """One training run.

    Args:
        config: what to train, and how.
        run: its folder; None opens or resumes one as `config.resume` says.
        observers: told about progress, in this thread.
        connector: finds the bridge of a separate placement; None: a process is started for it.
        ranks: the processes of this run, each with a trainer, a simulator and a share of the
            groups. What is decided is decided by the first, which alone has observers and writes.

    `run()` blocks; `requests` may be used from any thread meanwhile.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory | None = None,
        *,
        observers: Sequence[TrainingObserver] = (),
        connector: Connector | None = None,
        ranks: Ranks = ONE_RANK,
    ) -> None:
        self.config, self.requests, self.ranks = config, Requests(), ranks
        self.observers = Observers(observers if ranks.is_first else ())
        # More intra-op threads than free cores make a small update many times slower.
        torch.set_num_threads(1)
        say = self.observers.on_message
        resumed = open_run_on_ranks(config, say, ranks) if run is None else Resumed(run)
        self.run_directory = resumed.run
        with resumed.run.failing() if run is None else contextlib.nullcontext():
            self._set_up(resumed, connector)

    def _set_up(self, resumed: Resumed, connector: Connector | None) -> None:
        config, is_first = self.config, self.ranks.is_first
        self._build(connector)
        self.keeper = CheckpointKeeper(resumed.run.checkpoints, config.checkpoint, is_first)
        self.iteration = self.env_steps = self.gradient_steps = 0
        self.start: dict[str, Any] = {}
        self._curve: Evaluation | None = None
        self._success = NOT_MEASURED
        self._is_trained = resumed.state is not None
        self.run_record = RunRecord(
            resumed.run, self.observers, config.collection.env_steps, is_first
        )
        if resumed.state is not None:
            self.load_state(resumed.state)
            self.run_record.resume()

    def _build(self, connector: Connector | None) -> None:
        config = self.config
        self.task = make_task(config.task, configuration.section(config, "task"))
        collection = config.collection
        groups = own_share(collection.num_groups, self.ranks)
        num_envs = len(groups) * collection.group_size
        say = self.observers.on_message
        self.simulator = place_simulator(config, self.task, num_envs, connector, say)
        self.losses = Losses(self.simulator, config.bridge.max_restarts, say)
        self.simulator.watch = self.observers.on_step if self.observers.observers else None
        self.contract = self.simulator.contract
        self.policy = self._new_policy()
        self.deployed = PolicyAverage(self.policy, config.collection.averaging)
        self.algorithm = make_algorithm(
            configuration.algorithm_settings(config),
            self.policy,
            torch_generator("critic_weights", Key(config.seed)),
            self.ranks,
            self.simulator.task.reward_names,
            collection.group_size,
        )
        self.ranks.shard(self.deployed.policy)
        self.starts = make_starts(config, self.simulator, self.policy, self.ranks)
        trace = PathTrace(self.simulator, lambda: self.observers.wants_paths)
        keep_mb = config.failures.keep_mb
        self.collector = GroupCollector(
            self.simulator,
            len(groups),
            collection.group_size,
            collection.antithetic,
            groups.start,
            self.starts,
            trace if self.observers.observers and trace.is_possible else None,
            FailureStore(self.run_directory.failures, keep_mb) if keep_mb else None,
        )

    def _new_policy(self) -> ChunkPolicy:
        generator = torch_generator("policy_weights", Key(self.config.seed))
        return make_policy(configuration.section(self.config, "policy"), self.contract, generator)

    # ---------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Return everything that decides what the next iteration gives."""
        return {
            "policy": whole_tree(self.policy.state_dict()),
            "deployed": whole_tree(self.deployed.state_dict()),
            "algorithm": whole_tree(self.algorithm.state_dict()),
            "starts": self.starts.state_dict(),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "gradient_steps": self.gradient_steps,
            "best_success": self.keeper.best,
            "success": self._success,
            "start": self.start,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take a state that `state` gave."""
        self.policy.load_state_dict(placed_tree(state["policy"], self.policy.state_dict()))
        self.deployed.load_state_dict(state["deployed"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.starts.load_state_dict(state["starts"])
        self.iteration = state["iteration"]
        self.env_steps = state["env_steps"]
        self.gradient_steps = state["gradient_steps"]
        self.keeper.best = state["best_success"]
        self._success = state.get("success", NOT_MEASURED)
        self.start = state["start"]

    def state_hash(self) -> str:
        """Return the hash of the state."""
        return state_hash(self.state())

    # ---------------------------------------------------------------- run

    def run(self) -> RunSummary:
        """Train to the end or until asked to stop; return what was written."""
        self.run_directory.hold()
        try:
            with self.run_directory.failing():
                return self._run()
        finally:
            self.requests.refuse_all(TrainingError("training has ended"))
            self.run_record.close()
            self.simulator.close()
            self.run_directory.release()

    def _run(self) -> RunSummary:
        if self.ranks.is_first:
            point_latest(Path(self.config.output), self.run_directory.path)
        if not self._is_trained:
            self._bootstrap()
        self._train()
        return self._stopped() if self._is_stopping() else self._finish()

    def _bootstrap(self) -> None:
        """Clone the demonstrator and measure where learning starts."""
        config, say = self.config, self.observers.on_message
        keys = held_out_keys(config.evaluation.final_episodes)
        if self.ranks.is_first:
            say(write_capabilities(self.run_directory, self.simulator, self.losses))
            write_terms(self.run_directory, self.contract, self.task, keys)
        began = time.monotonic()
        data = demonstrations_of(
            config, self.contract, self.run_directory, self.simulator, self.losses, self.observers
        )
        with unwatched(self.simulator):
            self.losses.redo(lambda: self.starts.begin(config.demonstrations.action_noise))
        if data is not None:
            clone(self.policy, data, config, self.observers, self._clone_success, self.ranks)
        else:
            rollout = self._rollout(DEMONSTRATION, size=1)  # of as many states as can be
            fit_statistics(rollout, self.policy, self.ranks)
            self.env_steps += of_all_ranks(rollout, self.ranks).num_env_steps
            say("no demonstrations: learning from scratch")
        self.run_record.elapsed_s += time.monotonic() - began
        self.deployed.start(self.policy)
        self.algorithm.start()
        self._film("before")
        start = self._evaluate(self.deployed.policy, keys)
        self.start = start.to_json()
        say(f"start: success {start} on held-out initial states")
        self._evaluate_curve()
        self._write_iteration({}, {"collect_s": 0.0, "update_s": 0.0, "cpu_s": 0.0})
        self.save()

    def _clone_success(self) -> float:
        keys = held_out_keys(self.config.evaluation.episodes, CURVE_SEED)
        return self._evaluate(self.policy, keys).success_rate

    def _train(self) -> None:
        config = self.config
        while self.env_steps < config.collection.env_steps and not self._is_stopping():
            if self.requests.serve(self.save, self.export, self.ranks) or self._is_stopping():
                continue
            if self._success >= config.evaluation.target:
                self.observers.on_message(f"target reached: success {self._success:.3f}")
                self.save()
                return
            self._iterate()

    def _iterate(self) -> None:
        """Collect, update, record; one iteration."""
        config, began, began_cpu = self.config, time.monotonic(), time.process_time()
        rollout = self._rollout(self.iteration)
        collected = time.monotonic()
        key = Key(config.seed, self.iteration)
        metrics = self.algorithm.update(rollout, key)
        self.deployed.update(self.policy)
        metrics |= self.starts.learn(rollout, key)
        if self.collector.trace is not None and self.collector.trace.is_noted:
            self.observers.on_groups(self.collector.trace.paths(rollout, self.iteration))
        updated, cpu_s = time.monotonic(), time.process_time() - began_cpu
        rollout = of_all_ranks(rollout, self.ranks)
        self.iteration += 1
        self.env_steps += rollout.num_env_steps
        self.gradient_steps += int(metrics.get("gradient_steps", 0))
        metrics = {**rollout_metrics(rollout), **metrics, "gradient_steps": self.gradient_steps}
        self.run_record.elapsed_s += updated - began
        for decision in self.algorithm.decisions():
            self.run_record.decision(self.iteration, decision)
        is_last = self.env_steps >= config.collection.env_steps
        self._curve, self._success = None, NOT_MEASURED
        if self.iteration % config.evaluation.every_iterations == 0 or is_last:
            self._evaluate_curve()
        histograms = {**rollout_histograms(rollout), **self.algorithm.histograms()}
        timing = {"collect_s": collected - began, "update_s": updated - collected, "cpu_s": cpu_s}
        self._write_iteration(metrics, timing, histograms)
        if self.iteration % config.checkpoint.every_iterations == 0 or is_last:
            self.save()

    def _rollout(self, iteration: int, size: int | None = None) -> Rollout:
        """Roll out this rank's groups, with as many decisions as all ranks have."""
        if size is None:
            size = self.algorithm.rollouts_per_state(self.collector.group_size)
        with self.policy.gathered():
            rollout = self.losses.redo(
                lambda: self.collector.collect(self.policy, self.config.seed, iteration, size),
                self.simulator.num_envs // size,
            )
        return of_one_length(rollout, self.ranks)

    def _evaluate_curve(self) -> None:
        keys = held_out_keys(self.config.evaluation.episodes, CURVE_SEED)
        began = time.monotonic()
        self._curve = self.run_record.latest = self._evaluate(self.deployed.policy, keys)
        self.run_record.elapsed_s += time.monotonic() - began
        self._success = self._curve.success_rate
        self.keeper.offer(self._success, self.state)

    def _evaluate(self, policy: ChunkPolicy, keys: list[Key]) -> Evaluation:
        """Evaluate, each rank on its share of the initial states, with nobody watching."""
        own = keys[self.ranks.share(len(keys))]
        with policy.gathered(), unwatched(self.simulator):
            outcomes = self.losses.redo(lambda: evaluate(self.simulator, policy.mode, own))
        return outcomes.of_all_ranks(self.ranks)

    def _write_iteration(
        self,
        metrics: dict[str, float],
        timing: dict[str, float],
        histograms: Mapping[str, Histogram] | None = None,
    ) -> None:
        entry: dict[str, Any] = {"iteration": self.iteration, "env_steps": self.env_steps}
        entry.update(metrics)
        if self._curve is not None:
            low, high = self._curve.wilson_95
            entry.update(eval_success=self._curve.success_rate, eval_low=low, eval_high=high)
        lost = {"lost_bridges": self.losses.bridges, "dropped_groups": self.losses.groups}
        self.run_record.iteration(entry, {**timing, **lost}, histograms)

    # ---------------------------------------------------------------- requests

    def _is_stopping(self) -> bool:
        return self.ranks.broadcast(self.requests.is_stopping)

    def save(self) -> Path:
        """Write a checkpoint; return its folder."""
        return self.keeper.save(self.iteration, self.state())

    def export(self, path: Path | None = None, **entries: Any) -> Path:
        """Write the averaged policy as ONNX with its contract; return its path."""
        path = path or self.run_directory.policy
        policy, state = self.deployed.policy, whole_tree(self.deployed.policy.state_dict())
        if not self.ranks.is_first:
            return path
        if policy.shards is not None:  # they hook into what would be traced
            policy = self._new_policy()
            policy.load_state_dict(state)
        origin = {**origin_of(self.config, self.env_steps), **provenance(self.run_directory)}
        contract = policy.annotate(self.contract).with_provenance(**origin, **entries)
        example = self.losses.redo(self.simulator.observe)
        limit = round(1e6 * self.config.export.one_file_mb)
        report = export_policy(policy, contract, path, example, limit)
        write_atomically(path.with_name(CONTRACT_FILE), contract.to_json().encode())
        self.observers.on_message(
            f"exported {path} (differs from torch by at most {report.max_abs_difference:.1e})"
        )
        return path

    # ---------------------------------------------------------------- end

    def _stopped(self) -> RunSummary:
        path = self.save()
        self.requests.serve(self.save, self.export, self.ranks)
        self.run_directory.set_state("stopped", iteration=self.iteration)
        files = {"checkpoint": str(path)}
        return RunSummary("stopped", str(self.run_directory.path), files, {})

    def _finish(self) -> RunSummary:
        """Evaluate on held-out states, export, film and report."""
        config, run = self.config, self.run_directory
        self.observers.on_message(f"evaluating {config.evaluation.final_episodes} episodes")
        keys = held_out_keys(config.evaluation.final_episodes)
        final = self._evaluate(self.deployed.policy, keys)
        evaluation = {
            **final.to_json(),
            "start": self.start,
            "env_steps": self.env_steps,
            "gradient_steps": self.gradient_steps,
            **circumstances(config, self.task.sample(keys), self.run_record.elapsed_s),
        }
        files = {"evaluation": str(run.write_json("evaluation.json", evaluation))}
        self.observers.on_message(f"held-out success {final}")
        saved = self.ranks.broadcast([str(path) for path in checkpoints(run.checkpoints)])
        files["checkpoint"] = saved[-1] if saved else str(self.save())
        files["policy"] = str(self.export(evaluation=final.to_json()))
        run.write_json("outcomes.json", {"outcome": [int(o) for o in final.outcome.tolist()]})
        self._film("after")
        if self.ranks.is_first:
            from grpo_ros.report import write_report

            files["report"] = str(write_report(run.path))
        run.set_state(run_directory.FINISHED, iteration=self.iteration)
        return RunSummary(run_directory.FINISHED, str(run.path), files, evaluation)

    def _film(self, name: str) -> None:
        if not self.config.film:
            return
        from grpo_ros.report.film import film_episodes

        policy, path = self.deployed.policy, self.run_directory.path / "films" / f"{name}.webp"
        with policy.gathered(), unwatched(self.simulator):
            if not self.ranks.is_first:
                return
            problem = self.losses.redo(lambda: film_episodes(self.simulator, policy.mode, path))
        if problem:
            self.observers.on_message(f"no film: {problem}")
