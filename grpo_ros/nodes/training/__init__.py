"""The ROS side of training: the learner's services and view, and the exchange with a bridge."""
