"""The ROS interfaces of the simulated robot and of its simulator."""
