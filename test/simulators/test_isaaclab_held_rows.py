"""What Isaac Lab's engine holds is known after a picture as well as after a step."""

from types import SimpleNamespace

import pytest
import torch

from grpo_ros.simulators.isaaclab.names import camera_asset
from grpo_ros.simulators.isaaclab.physics import IsaacLabPhysics

NUM_ENVS = 4
EVERY = torch.arange(NUM_ENVS)
PLACED, CONTROL = torch.zeros(NUM_ENVS, 0, 7), torch.zeros(NUM_ENVS, 1, 1)


class Arm:
    """An engine of one joint per environment, which moves by 1 in a step; its own picture."""

    def __init__(self):
        self.position = torch.zeros(NUM_ENVS, 1)
        self.data = SimpleNamespace(
            joint_pos=SimpleNamespace(torch=self.position),
            joint_vel=SimpleNamespace(torch=torch.zeros(NUM_ENVS, 1)),
            output={},
        )
        command = SimpleNamespace(set_position_index=lambda **_: None)
        self.actuators = SimpleNamespace(target_command=command)

    def write_joint_position_to_sim_index(self, position, env_ids):
        self.position[env_ids.long()] = position

    def write_joint_velocity_to_sim_index(self, velocity, env_ids):
        pass

    def update(self, dt, force_recompute):
        picture = self.position.view(NUM_ENVS, 1, 1, 1).expand(NUM_ENVS, 1, 1, 4)
        self.data.output["rgb"] = SimpleNamespace(torch=picture.clone())


class Scene(dict):
    """Its parts by name."""

    def write_data_to_sim(self):
        pass

    def update(self, dt):
        pass


@pytest.fixture
def physics():
    """IsaacLabPhysics with the rows of this engine and nothing else."""
    physics, arm = IsaacLabPhysics.__new__(IsaacLabPhysics), Arm()
    physics._arm, physics._scene = arm, Scene({camera_asset("top"): arm})
    physics._sim = SimpleNamespace(
        step=lambda render: arm.position.add_(1.0), forward=lambda: None
    )
    physics._solver = SimpleNamespace(
        read_warm_start=lambda: torch.zeros(NUM_ENVS, 0), write_warm_start=lambda ids, rows: None
    )
    physics._dynamic, physics._placed, physics._mimics, physics._body_columns = [], [], [], {}
    physics._num_joints, physics._driven, physics.state_size = 1, torch.tensor([0]), 2
    physics._warm_columns = slice(2, 2)
    physics._device, physics._timestep_s = torch.device("cpu"), 0.01
    physics.capabilities = SimpleNamespace(cameras=("top",))
    physics._held = torch.full((NUM_ENVS, 2), torch.nan)
    physics._held_placed = torch.full((NUM_ENVS, 0, 7), torch.nan)
    return physics


def test_a_state_that_was_stepped_to_is_exact_after_a_picture_of_another(physics):
    stepped = physics.simulate(EVERY, torch.zeros(NUM_ENVS, 2), CONTROL, PLACED)()
    other = stepped.clone()
    other[1:3, 0] = 5.0
    assert torch.equal(physics.render(EVERY, other, PLACED, "top")[:, 0, 0, 0], other[:, 0])
    assert torch.equal(physics.render(EVERY, stepped, PLACED, "top")[:, 0, 0, 0], stepped[:, 0])
    physics.render(EVERY[1:3], other[1:3], PLACED[1:3], "top")
    following = physics.simulate(EVERY, stepped, CONTROL, PLACED)()
    assert torch.equal(following[:, 0], stepped[:, 0] + 1.0)
