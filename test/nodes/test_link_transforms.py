"""Transforms of links, joints that mimic others included."""

import numpy as np

from grpo_ros.nodes.shared.link_transforms import LinkTransforms

URDF = """<robot name="gripper"><link name="hand"/><link name="left"/><link name="right"/>
<joint name="grip" type="prismatic"><parent link="hand"/><child link="left"/>
  <axis xyz="0 1 0"/><limit lower="0" upper="0.04" velocity="0.1" effort="30"/></joint>
<joint name="other" type="prismatic"><parent link="hand"/><child link="right"/>
  <axis xyz="0 1 0"/><limit lower="-0.04" upper="0.01" velocity="0.1" effort="30"/>
  <mimic joint="grip" multiplier="-0.5" offset="0.01"/></joint></robot>"""


def test_a_joint_that_mimics_stands_where_its_multiplier_and_offset_say():
    places = {
        child: value[:3]
        for _, child, value in LinkTransforms(URDF, "x.urdf").moving(["grip"], np.array([0.04]))
    }
    np.testing.assert_allclose(places["left"], [0.0, 0.04, 0.0])
    np.testing.assert_allclose(places["right"], [0.0, -0.5 * 0.04 + 0.01, 0.0], atol=1e-15)
