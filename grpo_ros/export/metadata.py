"""What a policy file says about itself, and the hash that any change of a byte breaks."""

from __future__ import annotations

import hashlib

from grpo_ros.contract import Contract

CONTRACT_KEY = "metadata"
CONTRACT_HASH_KEY = "contract_sha256"
FILE_HASH_KEY = "file_sha256"
COMPANIONS_KEY = "companions"
"""Of a policy in several files: what lies beside it; see `companions`."""
FILE_HASH_BLANK = "0" * 64
NOISE_INPUT = "noise"
ACTION_OUTPUT = "action"
FEATURES = "features"
"""What goes from the backbone's graph to the head's."""


def policy_metadata(contract: Contract, companions: str = "") -> dict[str, str]:
    """Return the metadata of a policy file, whose own hash is still blank.

    `metadata` holds the contract as one JSON value. The plain keys are those that mjlab-style
    controllers read: lists as comma-separated values, numbers at full precision.

    Args:
        contract: of the policy.
        companions: the list of the files that belong to it; empty where there are none.
    """
    beside = {COMPANIONS_KEY: companions} if companions else {}
    return {
        **beside,
        CONTRACT_KEY: contract.to_json(),
        CONTRACT_HASH_KEY: contract.sha256,
        FILE_HASH_KEY: FILE_HASH_BLANK,
        "joint_names": ",".join(contract.joint_names),
        "action_scale": ",".join(repr(s) for field in contract.action for s in field.scale),
        "observation_names": ",".join(field.name for field in contract.observation),
        "control_rate_hz": repr(contract.control_rate_hz),
    }


def sealed(data: bytes) -> bytes:
    """Return a serialised model with its blank hash replaced by the hash of all its bytes.

    file_sha256 = SHA-256 of the file in which file_sha256 itself reads 64 zeros.
    """
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(FILE_HASH_BLANK.encode(), digest.encode(), 1)


def is_seal_intact(data: bytes, digest: str) -> bool:
    """Return whether `digest` is the hash that `sealed` gave to these bytes."""
    blank = data.replace(digest.encode(), FILE_HASH_BLANK.encode(), 1)
    return len(digest) == 64 and hashlib.sha256(blank).hexdigest() == digest
