"""Which representation a caller likes best, by its Accept header (RFC 9110 section 12.5.1)."""

from collections.abc import Sequence

from starlette.exceptions import HTTPException


def best(accept: str, kinds: Sequence[str], sentence: str) -> str:
    """One of the media types, the earlier in doubt; 406 with the sentence where none will do."""
    liking = {kind: _liking(accept or "*/*", kind) for kind in kinds}
    chosen = max(kinds, key=lambda kind: liking[kind])
    if liking[chosen] == 0:
        raise HTTPException(406, sentence)
    return chosen


def _liking(accept: str, kind: str) -> float:
    """The weight of the most exact range that covers the kind."""
    weights: dict[str, float] = {}
    for entry in accept.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        weights[name] = _weight(parameters)
    ranges = (kind, kind.split("/")[0] + "/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)


def _weight(parameters: Sequence[str]) -> float:
    given = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    try:
        return min(max(float(given), 0.0), 1.0)
    except ValueError:
        return 0.0
