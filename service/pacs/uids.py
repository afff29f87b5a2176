"""Identifiers derived from the result, so that a retry writes the same objects."""

from uuid import NAMESPACE_URL, UUID, uuid5

_RESULTS = uuid5(NAMESPACE_URL, "urn:gsco:results")


def uuid_of(*names: str) -> UUID:
    """The UUID (version 5) that these names have in every process, on every day."""
    return uuid5(_RESULTS, "\x1f".join(names))


def uid_of(*names: str) -> str:
    """The DICOM unique identifier of these names, under the root for UUIDs (PS3.5 section B.2)."""
    return f"2.25.{uuid_of(*names).int}"
