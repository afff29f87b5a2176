"""An image for diagnosis, whichever door it came through: an upload, a source, STOW-RS, C-STORE."""

import hmac
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from uuid import UUID

import structlog

from service.api import replies
from service.api.dependencies import Serving
from service.domain import Case, Diagnosis, Instance
from service.errors import GscoError, InvalidInput, NotFound, Overloaded, UnreadableImage
from service.intake.choice import chosen_task
from service.intake.deidentify import pseudonym
from service.intake.result import IntakeResult
from service.progress import Tell, nobody
from specialists.errors import SpecialistsError
from specialists.task import Task

ADDRESS = "/v1/diagnoses"

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """The bytes of one image, and what whoever sent them said of it.

    Without a `task` one is chosen by the tasks' rules. `sender` is an AE title, or the name of a
    DICOMweb source; `study` the one that the image was said to belong to. `requested_by` is who
    handed it over, for the audit.
    """

    data: bytes = field(repr=False)
    task: str | None = None
    frame: int | None = None
    group: str | None = None
    sender: str | None = None
    study: str | None = field(default=None, repr=False)
    requested_by: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """An arrival after intake, and the task it is for."""

    arrival: Arrival
    task: Task
    decoded: IntakeResult
    seconds: float

    @property
    def instance(self) -> Instance | None:
        """Which DICOM instance it is, and who sent it."""
        return self.decoded.instance

    @property
    def is_from_pacs(self) -> bool:
        """Whether a PACS holds the image, and waits for an answer."""
        return self.arrival.sender is not None and self.decoded.header is not None


@dataclass(frozen=True, slots=True)
class Received:
    """An instance that has a diagnosis."""

    instance: Instance
    diagnosis_id: str


async def take_in(serving: Serving, arrival: Arrival) -> Taken:
    """The image decoded and its task known; raises what intake raises, and UnknownTask."""
    named = arrival.task and await replies.task_asked_at(serving, ADDRESS, arrival.task)
    decoded, seconds = await replies.decoded(serving, arrival.data, arrival.frame)
    instance = decoded.instance
    if arrival.study and (instance is None or instance.study_instance_uid != arrival.study):
        raise InvalidInput("the instance is not of the study that was named")
    known = (await serving.tasks.all()).values()
    decoded = replace(decoded, instance=instance and replace(instance, sender=arrival.sender))
    return Taken(arrival, named or chosen_task(decoded.attributes, known), decoded, seconds)


async def diagnose(serving: Serving, taken: Taken, id: str, tell: Tell = nobody) -> Diagnosis:
    """The image's diagnosis, stored and counted."""
    made = await serving.parts.pipeline.diagnose(case_of(id, taken), tell)
    return replies.counted(serving, made, taken.seconds)


async def receive(serving: Serving, arrival: Arrival) -> Received:
    """What a PACS sent: diagnosed, stored, and handed over to be answered.

    A PACS that is not sure sends again: the same instance is diagnosed once for a task.
    """
    taken = await take_in(serving, arrival)
    instance = taken.instance
    if instance is None or taken.decoded.header is None:
        raise UnreadableImage("the file is no DICOM instance with all its identifiers")
    if taken.task.name in serving.tasks.loading:  # a diagnosis without them would stay
        raise Overloaded(f"the specialists of {taken.task.name} are being loaded: send it again")
    id = _id_of(serving, taken, instance)
    async with serving.turns.of(id):  # it may be sent again while it is being diagnosed
        diagnosis, outcome = await _diagnosed_once(serving, taken, id)
        await answer(serving, taken, diagnosis)
    log.info(
        "instance received", task=taken.task.name, outcome=outcome, **_named(serving, instance)
    )
    return Received(instance, diagnosis.id)


async def _diagnosed_once(serving: Serving, taken: Taken, id: str) -> tuple[Diagnosis, str]:
    """Its diagnosis, and whether it was there."""
    with suppress(NotFound):
        return await serving.parts.store.get(Diagnosis, id), "known already"
    with serving.admission.enter():
        return await diagnose(serving, taken, id), "diagnosed"


async def answer(serving: Serving, taken: Taken, diagnosis: Diagnosis) -> None:
    """The PACS that holds the image is going to be told, for certain; raises Overloaded."""
    await serving.parts.deliver(diagnosis, taken.decoded)


def log_failure(error: Exception) -> None:
    """What went wrong with an instance that a PACS sent; whose it is, only the PACS learns."""
    if isinstance(error, GscoError | SpecialistsError):
        log.warning("instance not taken", reason=type(error).__name__)
    else:
        log.error("instance not taken", exc_info=error)


def case_of(id: str, taken: Taken) -> Case:
    """The case of an arrival, under this id."""
    arrival = taken.arrival
    more = {"instance": taken.instance, "requested_by": arrival.requested_by}
    return replies.case_of(id, taken.task, taken.decoded, arrival.group, **more)


def _id_of(serving: Serving, taken: Taken, instance: Instance) -> str:
    """An id that is the same for the same frame and task; nobody makes it from the UID alone.

    Without a key it is made of the file's content, which a PACS sends unchanged.
    """
    key = _key(serving)
    what = instance.sop_instance_uid if key else taken.decoded.image.sha256
    text = f"{what}/{instance.frame_number}/{taken.task.name}"
    return str(UUID(bytes=hmac.new(key, text.encode(), sha256).digest()[:16], version=4))


def _named(serving: Serving, instance: Instance) -> dict[str, str | None]:
    """What a log may say of the instance: nothing that can be turned back."""
    key = _key(serving)
    return {
        "instance": pseudonym(key, instance.sop_instance_uid),
        "study": pseudonym(key, instance.study_instance_uid),
        "sender": instance.sender,
    }


def _key(serving: Serving) -> bytes:
    return serving.settings.pseudonym_key.get_secret_value().encode()
