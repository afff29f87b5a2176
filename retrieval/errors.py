"""Errors of retrieval.

RetrievalError
├── InvalidReferenceCase   a case to be ingested cannot be used
├── IndexMismatch          index and vector come from different encoders, or differ in size
├── IndexUnavailable       no usable index (never built, or its files are damaged)
└── NoReferenceCases       nothing to build an index from
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
