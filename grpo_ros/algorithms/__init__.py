"""How a policy learns: behaviour cloning, GRPO, PPO and hybrids of both."""

from grpo_ros.algorithms.base import Algorithm
from grpo_ros.algorithms.behaviour_cloning import BehaviourCloningConfig, fit
from grpo_ros.algorithms.grpo import Grpo, GrpoConfig
from grpo_ros.algorithms.hybrid import Hybrid, HybridSettings
from grpo_ros.algorithms.mixing import HybridConfig
from grpo_ros.algorithms.ppo import Ppo, PpoConfig
from grpo_ros.algorithms.registry import AlgorithmConfig, make_algorithm

__all__ = [
    "Algorithm",
    "AlgorithmConfig",
    "BehaviourCloningConfig",
    "Grpo",
    "GrpoConfig",
    "Hybrid",
    "HybridConfig",
    "HybridSettings",
    "Ppo",
    "PpoConfig",
    "fit",
    "make_algorithm",
]
