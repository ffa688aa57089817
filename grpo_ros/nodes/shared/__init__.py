"""What nodes share: parameters, QoS, messages, markers, transforms, processes, lifecycles."""
