"""Returns on Gymnasium tasks: our PPO, stable-baselines3's and rsl_rl's at equal steps.

All three get the same networks, batches, epochs, rates, clips, discounts, observations and steps;
first weights are each one's own, and the peers' own classes train. What is compared is the mean
undiscounted return of the deterministic policy on fresh episodes. Ours is measured twice: the
last iterate, as the peers', and the running average of iterates, which the learner deploys.
"""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import rsl_rl.algorithms
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage
from stable_baselines3.common.vec_env import DummyVecEnv
from tensordict import TensorDict
from torch import Tensor

from grpo_ros.algorithms import PpoConfig, make_algorithm
from grpo_ros.algorithms.value_learner import CriticConfig
from grpo_ros.contract import ActionField, Contract, ObservationField, Source
from grpo_ros.policies import ActionSample, GaussianConfig, Policy, make_policy
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.training.averaging import PolicyAverage
from grpo_ros.training.rollout import Rollout
from grpo_ros.training.settings import CollectionConfig

Row = tuple[str, str, str]
Decide = Callable[[np.ndarray], np.ndarray]
"""Observations (N, O) -> actions (N, A) in [-1, 1]."""
Trained = dict[str, Decide]
"""What a training gave, by name."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A task, and what all three are given for it.

    Attributes:
        name: of the environment. total_steps: of all N environments together.
        num_envs: N. num_steps: per environment and rollout.
        discount: gamma. trace_decay: lambda. rate: first learning rate, of policy and critic.
        reward_scale: factor on the reward that is learned from.
    """

    name: str
    total_steps: int
    num_envs: int = 8
    num_steps: int = 256
    num_epochs: int = 10
    minibatch: int = 64
    discount: float = 0.99
    trace_decay: float = 0.95
    rate: float = 3e-4
    reward_scale: float = 1.0
    maximum_grad_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)

    @property
    def num_iterations(self) -> int:
        """Rollouts within the budget."""
        return self.total_steps // (self.num_envs * self.num_steps)


PENDULUM = Setting("Pendulum-v1", 102_400, discount=0.9, rate=1e-3, reward_scale=0.1)
DOUBLE_PENDULUM = Setting("InvertedDoublePendulum-v5", 102_400, reward_scale=0.1)
TASKS = (PENDULUM, DOUBLE_PENDULUM)


def make_env(setting: Setting) -> gymnasium.Env:
    """Return the environment with actions in [-1, 1] and scaled rewards, never beyond."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env: gymnasium.Env = gymnasium.make(setting.name)
    env = gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)
    clip, space = (lambda action: np.clip(action, -1.0, 1.0)), env.action_space
    env = gymnasium.wrappers.TransformAction(env, clip, space)
    return gymnasium.wrappers.TransformReward(env, lambda r: setting.reward_scale * r)


def episode_returns(setting: Setting, decide: Decide, episodes: int, seed: int) -> np.ndarray:
    """Return the undiscounted, unscaled returns (episodes,) of a policy."""
    envs = [make_env(setting) for _ in range(episodes)]
    obs = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)]).astype(np.float32)
    total, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while running.any():
        actions = decide(obs)
        for i in np.flatnonzero(running):
            obs[i], reward, terminated, truncated, _ = envs[i].step(actions[i])
            total[i] += float(reward) / setting.reward_scale
            running[i] = not (terminated or truncated)
    return total


class Envs:
    """N environments that go on with a new episode at once; each step tells what it ended in."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.vector = SyncVectorEnv(
            [lambda: make_env(setting)] * setting.num_envs, autoreset_mode=AutoresetMode.SAME_STEP
        )
        self.obs = self._tensor(self.vector.reset(seed=seed)[0])
        self.num_obs = self.obs.shape[1]
        self.num_actions = int(self.vector.single_action_space.shape[0])

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return rewards, terminated, truncated (N,) and what followed before a reset (N, O)."""
        obs, rewards, terminated, truncated, info = self.vector.step(actions.numpy())
        self.obs = self._tensor(obs)
        following = self.obs.clone()
        for i in np.flatnonzero(terminated | truncated):
            following[i] = self._tensor(info["final_obs"][i])
        ended = torch.from_numpy(terminated), torch.from_numpy(truncated & ~terminated)
        return self._tensor(rewards), *ended, following

    @staticmethod
    def _tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, dtype=np.float32).copy())


def train_ours(setting: Setting, seed: int) -> Trained:
    """Train our PPO; every window is cut where an episode ends, and each piece is an episode."""
    envs = Envs(setting, seed)
    names = tuple(f"a{i}" for i in range(envs.num_actions))
    contract = Contract(
        task=setting.name,
        instruction="",
        embodiment="none",
        robot_sha256="",
        observation=(ObservationField("state", (envs.num_obs,), Source("joint_position")),),
        action=(ActionField("arm", "joint_delta", names, (1.0,) * len(names)),),
        chunk_size=1,
        num_executed=1,
    )
    start = torch_generator("policy_weights", Key(seed))
    gaussian = GaussianConfig(setting.hidden, "tanh", initial_std=1.0)
    policy = make_policy(gaussian, contract, start)
    critic = CriticConfig(
        hidden=setting.hidden,
        activation="tanh",
        learning_rate=setting.rate,
        num_epochs=setting.num_epochs,
        minibatch_size=setting.minibatch,
        clip=0.0,
        maximum_grad_norm=setting.maximum_grad_norm,
    )
    config = PpoConfig(
        objectives=("reward",),
        num_epochs=setting.num_epochs,
        minibatch_size=setting.minibatch,
        learning_rate=setting.rate,
        kl_target=0.0,
        warmup_steps=0,
        maximum_grad_norm=setting.maximum_grad_norm,
        discount=setting.discount,
        trace_decay=setting.trace_decay,
        critic=critic,
    )
    algorithm = make_algorithm(config, policy, torch_generator("critic_weights", Key(seed)))
    random = torch_generator("policy_noise", Key(seed))
    deployed = PolicyAverage(policy, CollectionConfig().averaging)
    deployed.start(policy)
    for iteration in range(setting.num_iterations):
        window = []
        for _ in range(setting.num_steps):
            obs = envs.obs
            noise = torch.randn(setting.num_envs, *policy.noise_shape, generator=random)
            with torch.no_grad():
                sample = policy.act({"state": obs}, noise)
            window.append((obs, sample, *envs.step(sample.chunk[:, 0])))
        algorithm.update(as_rollout(window), Key(seed, iteration))
        deployed.update(policy)
    return {"grpo_ros": _mode(policy), "grpo_ros, running average": _mode(deployed.policy)}


def _mode(policy: Policy) -> Decide:
    @torch.no_grad()
    def decide(obs: np.ndarray) -> np.ndarray:
        return policy.mode({"state": torch.from_numpy(obs)})[:, 0].numpy()

    return decide


def as_rollout(window: list[tuple]) -> Rollout:
    """Return a window of T steps of N environments as a rollout of episodes' pieces.

    Args:
        window: per step (obs, sample, rewards, terminated, truncated, following).
    """
    num_steps, num_envs = len(window), len(window[0][0])
    obs, rewards, terminated, truncated, following = (
        torch.stack([step[i] for step in window]) for i in (0, 2, 3, 4, 5)
    )
    chunk = torch.stack([step[1].chunk for step in window])
    log_prob = torch.stack([step[1].log_prob for step in window])
    pieces = []
    for env in range(num_envs):
        first = 0
        for t in range(num_steps):
            if terminated[t, env] or truncated[t, env] or t == num_steps - 1:
                pieces.append((env, first, t + 1))
                first = t + 1
    length = max(end - first for _, first, end in pieces)

    def gather(values: Tensor) -> Tensor:
        rows = values.new_zeros(len(pieces), length, *values.shape[2:])
        for row, (env, first, end) in enumerate(pieces):
            rows[row, : end - first] = values[first:end, env]
        return rows

    ends = [(end - 1, env) for env, _, end in pieces]
    has_terminated = torch.stack([terminated[end] for end in ends])
    ones = torch.ones(num_steps, num_envs, 1, dtype=torch.bool)
    return Rollout(
        obs={"state": gather(obs)},
        sample=ActionSample(gather(chunk), gather(log_prob)),
        executed=gather(ones),
        reward_terms=gather(rewards[..., None, None]),
        terminated=has_terminated,
        truncated=~has_terminated,
        final_obs={"state": torch.stack([following[end] for end in ends])},
        outcome=torch.zeros(len(pieces)),
        score=torch.zeros(len(pieces)),
        step_count=torch.zeros(len(pieces), dtype=torch.long),
        time_limit=num_steps,
        num_groups=len(pieces),
        group_size=1,
        reward_names=("reward",),
    )


def train_stable_baselines3(setting: Setting, seed: int) -> Trained:
    """Train stable-baselines3's PPO."""
    model = stable_baselines3.PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: make_env(setting)] * setting.num_envs),
        learning_rate=setting.rate,
        n_steps=setting.num_steps,
        batch_size=setting.minibatch,
        n_epochs=setting.num_epochs,
        gamma=setting.discount,
        gae_lambda=setting.trace_decay,
        max_grad_norm=setting.maximum_grad_norm,
        policy_kwargs={"net_arch": list(setting.hidden)},
        device="cpu",
        seed=seed,
    )
    model.learn(setting.num_iterations * setting.num_envs * setting.num_steps)

    def decide(obs: np.ndarray) -> np.ndarray:
        return np.clip(model.predict(obs, deterministic=True)[0], -1.0, 1.0)

    return {"stable-baselines3": decide}


def train_rsl_rl(setting: Setting, seed: int) -> Trained:
    """Train rsl_rl's PPO."""
    torch.manual_seed(seed)
    envs = Envs(setting, seed)

    def seen(obs: Tensor) -> TensorDict:
        return TensorDict({"policy": obs}, batch_size=[len(obs)])

    groups = {"actor": ["policy"], "critic": ["policy"]}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0}
    first, hidden = seen(envs.obs), setting.hidden
    actor = MLPModel(
        first, groups, "actor", envs.num_actions, hidden, "tanh", distribution_cfg=gaussian
    )
    critic = MLPModel(first, groups, "critic", 1, hidden, "tanh")
    storage = RolloutStorage("rl", setting.num_envs, setting.num_steps, first, (envs.num_actions,))
    algorithm = rsl_rl.algorithms.PPO(
        actor,
        critic,
        storage,
        num_learning_epochs=setting.num_epochs,
        num_mini_batches=setting.num_envs * setting.num_steps // setting.minibatch,
        gamma=setting.discount,
        lam=setting.trace_decay,
        learning_rate=setting.rate,
        schedule="fixed",
        value_loss_coef=0.5,
        entropy_coef=0.0,
        use_clipped_value_loss=False,
        max_grad_norm=setting.maximum_grad_norm,
    )
    for _ in range(setting.num_iterations):
        with torch.inference_mode():
            for _ in range(setting.num_steps):
                actions = algorithm.act(seen(envs.obs))
                rewards, terminated, truncated, _ = envs.step(actions)
                ended = (terminated | truncated).long()
                extras = {"time_outs": truncated}
                algorithm.process_env_step(seen(envs.obs), rewards, ended, extras)
            algorithm.compute_returns(seen(envs.obs))
        algorithm.update()

    def decide(obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.clip(actor(seen(torch.from_numpy(obs))).numpy(), -1.0, 1.0)

    return {"rsl_rl": decide}


CONTENDERS = (train_ours, train_stable_baselines3, train_rsl_rl)


def returns(seeds: int = 5, episodes: int = 100) -> Iterator[Row]:
    """Train each on each task with each seed; yield mean and spread of the seeds' returns."""
    for setting in TASKS:
        for train in CONTENDERS:
            found: dict[str, list[float]] = collections.defaultdict(list)
            for seed in range(seeds):
                for name, decide in train(setting, seed).items():
                    mean = episode_returns(setting, decide, episodes, 10_000).mean()
                    found[name].append(float(mean))
            for name, means in found.items():
                spread = f"{min(means):.1f} to {max(means):.1f}"
                yield f"{setting.name}: {name}", f"{np.mean(means):.1f}", spread
