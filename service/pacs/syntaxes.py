"""The transfer syntaxes that images may come in: those that intake decodes."""

from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
)


def decodable_syntaxes() -> list[str]:
    """Those that a decoder is installed for, uncompressed ones first."""
    found = [syntax for syntax in AllTransferSyntaxes if _is_decodable(syntax)]
    return sorted(map(str, found), key=lambda syntax: UID(syntax).is_compressed)


def _is_decodable(syntax: UID) -> bool:
    if syntax == DeflatedExplicitVRLittleEndian:
        return True
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False
