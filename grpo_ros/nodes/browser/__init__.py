"""Parts of the browser view: what is known of a run, the panel, the scene. No rclpy."""
