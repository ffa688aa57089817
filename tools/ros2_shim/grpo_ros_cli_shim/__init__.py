"""What a ROS 2 installation without ros2cli's executable and without ros2launch lacks."""
