"""Train robot policies with group-relative reinforcement learning; deploy them over ROS 2."""

__version__ = "0.1.0"
