"""The transfer syntaxes that images may come in: those that intake decodes."""

from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian

from service.intake.dicom import is_decodable


def decodable_syntaxes() -> list[str]:
    """Those that a decoder is installed for, uncompressed ones first."""
    found = [
        syntax
        for syntax in AllTransferSyntaxes
        if syntax == DeflatedExplicitVRLittleEndian or is_decodable(syntax)
    ]
    return sorted(map(str, found), key=lambda syntax: UID(syntax).is_compressed)
