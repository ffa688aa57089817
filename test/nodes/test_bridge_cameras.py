"""The simulator bridge's cameras: images as in training, where they are seen from, and when."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from bridge_in_process import Bridge, bridge_in_process  # noqa: E402
from played_robot import until  # noqa: E402
from seeing_policy import export_seeing  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from grpo_ros import rotations  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.simulated.camera_output import image  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.simulators.mujoco import renderer  # noqa: E402
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator  # noqa: E402
from grpo_ros.tasks.camera import Camera  # noqa: E402
from grpo_ros.tasks.reach import MARKER, Reach, ReachConfig  # noqa: E402
from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
renders = pytest.mark.skipif(bool(renderer.rendering_problem()), reason="nothing renders here")
IMAGES, INFOS = "top/image_raw", "top/camera_info"


def stamp_of(message: Image | CameraInfo | JointState) -> int:
    return messages.to_ns(message.header.stamp)


def pixels_of(message: Image) -> np.ndarray:
    assert (message.encoding, message.step) == ("rgb8", 3 * message.width)
    pixels = np.frombuffer(message.data, np.uint8)
    return pixels.reshape(message.height, message.width, 3)


def drawn(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the cameras that the bridge draws from now on."""
    names: list[str] = []
    simulator = bridge.bridge.sim.simulator
    render = simulator.render

    def noted(env_ids: object = None, camera: str = "overview") -> torch.Tensor:
        names.append(camera)
        return render(env_ids, camera)

    monkeypatch.setattr(simulator, "render", noted)
    return names


@renders
def test_in_lock_step_the_image_of_a_state_is_that_of_training_and_has_its_stamp() -> None:
    (key,) = held_out_keys(1)
    simulator = MujocoSimulator(Reach(ReachConfig()), 1, MujocoConfig(num_threads=1))
    expected = simulator.reset(simulator.task.sample([key]), None, [key])["top_image"][0].numpy()
    simulator.close()
    with bridge_in_process(SimulatorBridge, task="reach", lock_step=True) as client:
        client.listen(Image, IMAGES, qos.STATE)
        client.listen(CameraInfo, INFOS, qos.STATE)
        until(lambda: client.bridge.count_subscribers(IMAGES) == 1, "the listener")
        begun = json.loads(client.call(Trigger, "simulator_bridge/reset").message)
        seen = client.wait_for(IMAGES, lambda m: stamp_of(m) == begun["stamp_ns"])
        assert np.array_equal(pixels_of(seen), expected)
        client.wait_for(INFOS, lambda m: stamp_of(m) == begun["stamp_ns"])
        assert {stamp_of(m) for m in client.heard(IMAGES)} == {begun["stamp_ns"]}


@renders
def test_free_running_images_come_at_their_rate_and_are_drawn_where_somebody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bridge_in_process(SimulatorBridge, task="reach", camera_rate_hz=10.0) as client:
        names = drawn(client, monkeypatch)
        client.listen(JointState, "joint_states", qos.STATE)
        client.look(client.bridge.reset)
        until(lambda: len(client.heard("joint_states")) > 50, "joint states")
        assert names == [], "observations are not drawn, nor what nobody listens to"
        client.listen(Image, IMAGES, qos.STATE)
        until(lambda: len(client.heard(IMAGES)) > 5, "images")
        stamps = [stamp_of(m) for m in client.heard(IMAGES)[:6]]
        period_ns = client.bridge.sim.simulator.contract.period_s * 1e9
        assert period_ns == 50_000_000 and set(names) == {"top"}
        assert np.diff(stamps).tolist() == [100_000_000] * 5


@renders
def test_what_is_seen_lies_where_camera_info_and_transform_say() -> None:
    """A ray through the middle of each pixel meets the marker where its image shows it."""
    with bridge_in_process(SimulatorBridge, task="reach") as client:
        client.listen(Image, IMAGES, qos.STATE)
        client.listen(CameraInfo, INFOS, qos.STATE)
        client.listen(TFMessage, "/tf_static", qos.LATCHED)
        client.look(client.bridge.reset)
        info, seen = client.wait_for(INFOS), client.wait_for(IMAGES)
        still = client.wait_for("/tf_static").transforms
        sim = client.bridge.sim
        goal = client.look(lambda: sim.scene.poses[MARKER][0].numpy().copy())
        marker = next(body for body in sim.simulator.task.bodies() if body.name == MARKER)
    (frame,) = [t for t in still if t.child_frame_id == seen.header.frame_id]
    assert info.header.frame_id == seen.header.frame_id == "top_optical_frame"
    assert frame.header.frame_id == sim.robot.base_frame
    eye, rotation = eye_and_rotation(frame)
    assert rotation[2, 2] < 0.0 and rotation[2, 1] < 0.0, "it looks down, and down is down"
    rows, columns = np.mgrid[: info.height, : info.width].astype(float)
    ahead = (
        np.stack([columns, rows, np.ones_like(rows)], -1)
        @ np.linalg.inv(np.array(info.k).reshape(3, 3)).T
    )
    rays = ahead @ rotation.T
    top = goal[2] + marker.size[1]
    meets = eye + rays * ((top - eye[2]) / rays[..., 2:])
    expected = np.hypot(*(meets - goal[:3])[..., :2].transpose(2, 0, 1)) < marker.size[0]
    seen_pixels = pixels_of(seen).astype(int)
    red = seen_pixels[..., 0] - seen_pixels[..., 1:].max(axis=-1) > 60
    assert expected.sum() > 20
    assert abs(int(red.sum()) - int(expected.sum())) <= 0.2 * expected.sum()
    apart = np.argwhere(red).mean(axis=0) - np.argwhere(expected).mean(axis=0)
    assert np.abs(apart).max() < 0.2, "pixels; half of one would be another middle"


def eye_and_rotation(transform: object) -> tuple[np.ndarray, np.ndarray]:
    shift, turn = transform.transform.translation, transform.transform.rotation
    quaternion = torch.tensor([[turn.x, turn.y, turn.z, turn.w]], dtype=torch.float64)
    unit = torch.eye(3, dtype=torch.float64)
    columns = [rotations.rotate(quaternion, axis[None])[0] for axis in unit]
    return np.array([shift.x, shift.y, shift.z]), torch.stack(columns, dim=1).numpy()


def test_pixels_go_out_as_bytes() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = image(5, Camera("c", (1.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=4, height=2), pixels)
    assert isinstance(message.data, array) and message.data.typecode == "B"
    assert np.array_equal(pixels_of(message), pixels)


def test_without_a_renderer_only_a_policy_that_sees_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sighted = export_seeing(tmp_path / "policy.onnx", horizon=4)
    monkeypatch.setattr(renderer, "rendering_problem", lambda: "no library; install one")
    with bridge_in_process(SimulatorBridge, task="reach") as client:
        client.listen(JointState, "joint_states", qos.STATE)
        client.wait_for("joint_states")
        assert client.bridge.count_publishers(IMAGES) == 0
    with (
        pytest.raises(SystemExit),
        bridge_in_process(SimulatorBridge, policy=str(sighted)),
    ):
        pass
    problem = "the policy sees images of 'top': cannot render: no library; install one"
    assert problem in capfd.readouterr().err
