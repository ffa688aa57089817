"""Random numbers belong to their keys."""

import torch

from grpo_ros import randomness
from grpo_ros.randomness import Key


def test_a_row_depends_on_its_key_alone():
    keys = [Key(1, i, g, m) for i in range(3) for g in range(3) for m in range(3)]
    together = randomness.normal("s", keys, (4, 2))
    for row, key in zip(together, keys, strict=True):
        assert torch.equal(row, randomness.normal("s", [key], (4, 2))[0])


def test_no_two_keys_or_streams_share_numbers():
    keys = [
        Key(s, i, g, m) for s in range(3) for i in range(3) for g in range(3) for m in range(3)
    ]
    draws = torch.cat([randomness.normal(stream, keys, (64,)) for stream in ("a", "b")])
    assert len(torch.unique(draws)) == draws.numel()


def test_normal_draws_are_standard_normal():
    draws = randomness.normal("s", [Key(0, 0, 0, m) for m in range(200)], (500,)).double()
    assert abs(float(draws.mean())) < 0.01
    assert abs(float(draws.std()) - 1.0) < 0.01
    correlation = torch.corrcoef(draws[:, :2].T)[0, 1]
    assert abs(float(correlation)) < 0.3
