"""A policy as one file: ONNX graph, contract inside, verified on both ends."""
