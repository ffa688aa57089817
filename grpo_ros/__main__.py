"""`python -m grpo_ros` and `torchrun ... -m grpo_ros`: the command `grpo-ros`."""

import sys

from grpo_ros.cli import main

sys.exit(main())
