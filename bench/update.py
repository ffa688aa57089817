"""One PPO update against stable-baselines3's and rsl_rl's: same batch size, networks and steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import rsl_rl.algorithms
import stable_baselines3
import torch
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage
from stable_baselines3.common.logger import configure
from tensordict import TensorDict

from bench.timing import interleave
from grpo_ros.algorithms import PpoConfig, make_algorithm
from grpo_ros.algorithms.value_learner import CriticConfig
from grpo_ros.contract import ActionField, Contract, ObservationField, Source
from grpo_ros.policies import GaussianConfig, make_policy, stack_samples
from grpo_ros.randomness import Key
from grpo_ros.training.rollout import Rollout

Row = tuple[str, str, str]
NUM_ENVS, NUM_STEPS, NUM_OBS, NUM_ACTIONS = 16, 128, 24, 6
NUM_EPOCHS, MINIBATCH, HIDDEN, RATE = 10, 64, (64, 64), 3e-4


def ppo(rounds: int = 20) -> Iterator[Row]:
    """Time updates of 2048 samples: 320 minibatch steps of actor and critic, one thread.

    Ours computes its advantages within the timed call, the peers before it.
    """
    prepare, ours = _ours()
    contenders = {
        "prepare": prepare,
        "grpo_ros": ours,
        "stable-baselines3": _stable_baselines3(),
        "rsl_rl": _rsl_rl(),
    }
    timings = interleave(contenders, rounds)
    peers = np.minimum(timings["stable-baselines3"].seconds, timings["rsl_rl"].seconds)
    for name in ("grpo_ros", "stable-baselines3", "rsl_rl"):
        timing = timings[name]
        spread = f"{timing.quantile(0.1) * 1e3:.0f} to {timing.quantile(0.9) * 1e3:.0f} ms"
        yield name, f"{timing.median * 1e3:.0f} ms", spread
    ratio = timings["grpo_ros"].seconds / peers
    spread = f"{np.quantile(ratio, 0.1):.3f} to {np.quantile(ratio, 0.9):.3f}"
    yield "grpo_ros / faster peer", f"{np.median(ratio):.3f}", spread


def _ours() -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what puts the weights back, and the update."""
    names = tuple(f"a{i}" for i in range(NUM_ACTIONS))
    contract = Contract(
        task="bench",
        instruction="",
        embodiment="none",
        robot_sha256="",
        observation=(ObservationField("state", (NUM_OBS,), Source("joint_position")),),
        action=(ActionField("arm", "joint_delta", names, (0.1,) * NUM_ACTIONS),),
        chunk_size=1,
        num_executed=1,
    )
    policy = make_policy(GaussianConfig(hidden=HIDDEN, initial_std=1.0), contract)
    config = PpoConfig(
        num_epochs=NUM_EPOCHS,
        minibatch_size=MINIBATCH,
        learning_rate=RATE,
        kl_target=0.0,
        critic=CriticConfig(HIDDEN, "silu", RATE, NUM_EPOCHS, MINIBATCH),
    )
    algorithm = make_algorithm(config, policy)
    random = torch.Generator().manual_seed(0)
    obs = torch.randn(NUM_ENVS, NUM_STEPS, NUM_OBS, generator=random)
    noise = torch.randn(NUM_ENVS, NUM_STEPS, 1, NUM_ACTIONS, generator=random)
    with torch.no_grad():
        samples = [policy.act({"state": obs[:, t]}, noise[:, t]) for t in range(NUM_STEPS)]
    ended = torch.ones(NUM_ENVS, dtype=torch.bool)
    rollout = Rollout(
        obs={"state": obs},
        sample=stack_samples(samples),
        executed=torch.ones(NUM_ENVS, NUM_STEPS, 1, dtype=torch.bool),
        reward_terms=torch.randn(NUM_ENVS, NUM_STEPS, 1, 1, generator=random),
        terminated=~ended,
        truncated=ended,
        final_obs={"state": obs[:, -1]},
        outcome=torch.rand(NUM_ENVS, generator=random),
        score=torch.zeros(NUM_ENVS),
        step_count=torch.zeros(NUM_ENVS, dtype=torch.long),
        time_limit=100,
        num_groups=NUM_ENVS,
        group_size=1,
        reward_names=("reward",),
    )
    weights = {name: value.clone() for name, value in policy.state_dict().items()}

    def update() -> None:
        metrics = algorithm.update(rollout, Key(0))
        assert metrics["gradient_steps"] == NUM_EPOCHS * NUM_ENVS * NUM_STEPS // MINIBATCH

    return lambda: policy.load_state_dict(weights), update


class _Box(gymnasium.Env):
    """An environment of the right sizes, never stepped."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (NUM_OBS,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (NUM_ACTIONS,))


def _stable_baselines3() -> Callable[[], object]:
    env = stable_baselines3.common.vec_env.DummyVecEnv([_Box] * NUM_ENVS)
    model = stable_baselines3.PPO(
        "MlpPolicy",
        env,
        learning_rate=RATE,
        n_steps=NUM_STEPS,
        batch_size=MINIBATCH,
        n_epochs=NUM_EPOCHS,
        policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": torch.nn.SiLU},
        device="cpu",
        seed=0,
    )
    model.set_logger(configure(None, []))
    random = np.random.default_rng(0)
    obs = random.standard_normal((NUM_STEPS, NUM_ENVS, NUM_OBS)).astype(np.float32)
    reward = random.standard_normal((NUM_STEPS, NUM_ENVS))
    done = np.zeros(NUM_ENVS)
    buffer = model.rollout_buffer
    for t in range(NUM_STEPS):
        with torch.no_grad():
            action, value, log_prob = model.policy(torch.as_tensor(obs[t]))
        buffer.add(obs[t], action.numpy(), reward[t], done, value, log_prob)
    buffer.compute_returns_and_advantage(value, done)
    return model.train


def _rsl_rl() -> Callable[[], object]:
    torch.manual_seed(0)
    seen = [
        TensorDict({"policy": torch.randn(NUM_ENVS, NUM_OBS)}, batch_size=[NUM_ENVS])
        for _ in range(NUM_STEPS)
    ]
    groups = {"actor": ["policy"], "critic": ["policy"]}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0}
    actor = MLPModel(
        seen[0], groups, "actor", NUM_ACTIONS, HIDDEN, "swish", distribution_cfg=gaussian
    )
    critic = MLPModel(seen[0], groups, "critic", 1, HIDDEN, "swish")
    storage = RolloutStorage("rl", NUM_ENVS, NUM_STEPS, seen[0], (NUM_ACTIONS,))
    algorithm = rsl_rl.algorithms.PPO(
        actor,
        critic,
        storage,
        num_learning_epochs=NUM_EPOCHS,
        num_mini_batches=NUM_ENVS * NUM_STEPS // MINIBATCH,
        learning_rate=RATE,
        schedule="fixed",
    )
    never = torch.zeros(NUM_ENVS, dtype=torch.long)
    for obs in seen:
        algorithm.act(obs)
        algorithm.process_env_step(obs, torch.randn(NUM_ENVS), never, {})
    algorithm.compute_returns(seen[-1])
    return algorithm.update
