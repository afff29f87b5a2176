"""Errors of retrieval.

RetrievalError
├── InvalidReferenceCase   a case to be ingested cannot be used
├── IndexMismatch          index and vector come from different encoders, or differ in size
├── IndexUnavailable       no usable index (never built, or its files are damaged)
├── CannotPublish          an index cannot be written; the former one stays in use
├── NoReferenceCases       nothing to build an index from
└── NothingToAssess        too few or unsuitable cases to tell whether retrieval helps
"""


class RetrievalError(Exception):
    """Base of everything this package raises on purpose."""


class InvalidReferenceCase(RetrievalError):
    """A case to be ingested cannot be used."""


class IndexMismatch(RetrievalError):
    """An index and a vector come from different encoders or have different sizes."""


class IndexUnavailable(RetrievalError):
    """No usable index: never built, or its files are damaged."""


class NoReferenceCases(RetrievalError):
    """Nothing to build an index from."""


class CannotPublish(RetrievalError):
    """An index cannot be written; the former one stays in use."""


class NothingToAssess(RetrievalError):
    """Too few or unsuitable cases to tell whether retrieval helps."""
