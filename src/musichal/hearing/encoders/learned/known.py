"""What is known of published weights, so that what arrives can be held against it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownCheckpoint:
    """Published weights: where they are, which revision is meant, their bytes, and their licence."""

    name: str
    revision: str
    weights_bytes: int
    weights_sha256: str
    licence: str


# The licence that the model card states today; cards of 2023 said MIT for the same bytes, the stricter one counts here.
MERT = KnownCheckpoint(
    name="m-a-p/MERT-v1-95M",
    revision="12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
    weights_bytes=377_552_987,
    weights_sha256="a2b8b747f72c06e0595aeae41ae5473f4364938c6b39b2c58be38c48e6bd3fcd",
    licence="CC-BY-NC-4.0",
)
_KNOWN = (MERT,)


def known_by_name(name: str) -> KnownCheckpoint | None:
    """Return what is known of a name on the hub."""
    return next((known for known in _KNOWN if known.name.lower() == name.lower()), None)


def known_by_weights(sha256: str) -> KnownCheckpoint | None:
    """Return what is known of the weights with this SHA-256."""
    return next((known for known in _KNOWN if known.weights_sha256 == sha256), None)
