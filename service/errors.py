"""Errors of the service.

GscoError
├── InvalidInput               what the caller sent cannot be used
│   ├── UnreadableImage        not an image, or a damaged one
│   ├── ImageTooLarge          more pixels, frames or bytes than allowed
│   └── UnsupportedImage       an image we understand but cannot diagnose
│       └── OwnResult          what this project wrote itself: no new image
├── NotFound                   no such diagnosis, job, task or specialist
├── Conflict                   what is asked does not go with what is there already
│   ├── JobEnded               too late: the job has ended
│   ├── KeyInUse               the request with this idempotency key is still being answered
│   └── KeyReused              the idempotency key belongs to another request
├── Unauthenticated            no credentials, or none that hold
├── Forbidden                  the caller is known, and may not do this
├── RateExceeded               the caller asks more than allowed
├── IssuerUnavailable          whose keys would tell who the caller is
├── AuditBroken                the audit's chain does not hold
├── GeneralistUnavailable      the generalist cannot answer now: nobody answers in its name
│   ├── ComputationLost        what computed the answer ended, or did not come to an end
│   └── PromptTooLong          more tokens than its context holds
├── SourceUnavailable          a DICOMweb source does not answer, or not as one
├── UnparsableAnswer           the generalist answered outside what was asked
├── InvalidCheckpoint          a generalist's folder is incomplete or damaged
├── Overloaded                 a bounded queue is full: try again later
├── JobLost                    the job was cancelled, or another worker has it
├── DeliveryFailed             what was to be sent did not arrive
│   └── DeliveryRefused        and never will
└── Misconfigured              settings that cannot work together
"""


class GscoError(Exception):
    """Base of everything this package raises on purpose."""


class InvalidInput(GscoError):
    """What the caller sent cannot be used."""


class UnreadableImage(InvalidInput):
    """Not an image, or a damaged one."""


class ImageTooLarge(InvalidInput):
    """More pixels, frames or bytes than allowed."""


class UnsupportedImage(InvalidInput):
    """An image we understand but cannot diagnose."""


class OwnResult(UnsupportedImage):
    """What this project wrote itself: no new image, and diagnosing it would never end."""


class NotFound(GscoError):
    """No such diagnosis, job, task or specialist."""


class Conflict(GscoError):
    """What is asked does not go with what is there already."""


class JobEnded(Conflict):
    """Too late: the job has ended."""


class KeyInUse(Conflict):
    """The request with this idempotency key is still being answered."""


class KeyReused(Conflict):
    """The idempotency key belongs to another request."""


class Unauthenticated(GscoError):
    """No credentials, or none that hold."""


class Forbidden(GscoError):
    """The caller is known, and may not do this."""


class RateExceeded(GscoError):
    """The caller asks more than allowed: try again later."""


class IssuerUnavailable(GscoError):
    """The issuer of tokens, whose keys would tell who the caller is, does not answer."""


class AuditBroken(GscoError):
    """The audit's chain does not hold."""


class GeneralistUnavailable(GscoError):
    """The generalist cannot answer now: nobody answers in its name."""


class ComputationLost(GeneralistUnavailable):
    """What computed the answer ended, or did not come to an end: perhaps because of the prompt."""


class PromptTooLong(GeneralistUnavailable):
    """The prompt has more tokens than the generalist's context holds."""


class SourceUnavailable(GscoError):
    """A DICOMweb source does not answer, or not as one."""


class UnparsableAnswer(GscoError):
    """The generalist answered outside what was asked."""


class InvalidCheckpoint(GscoError):
    """A generalist's folder is incomplete or damaged."""


class Overloaded(GscoError):
    """A bounded queue is full: try again later."""


class JobLost(GscoError):
    """The job was cancelled, or another worker has it: what was made is void."""


class DeliveryFailed(GscoError):
    """What was to be sent did not arrive."""


class DeliveryRefused(DeliveryFailed):
    """What was to be sent did not arrive and never will."""


class Misconfigured(GscoError):
    """Settings that cannot work together."""
