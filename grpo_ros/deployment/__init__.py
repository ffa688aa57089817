"""What runs a policy on a robot, without ROS: observations, chunks, safety gate, runner."""
