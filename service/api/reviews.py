"""The worklist of diagnoses, what reviewers say of them, and how often they agree."""

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from service.api import examples, problems, replies
from service.api.access import caller_of, needs
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.diagnoses import ID
from service.api.schemas import TASK_NAME
from service.api.shapes import LabelProbability, probabilities_shape
from service.audit.event import Action
from service.domain import Arbitration, Diagnosis
from service.errors import NotFound
from service.identity.caller import Scope
from service.review import Decision, Review, Reviewed, Wanted, Word, accepted, overridden
from specialists.task import MAX_LABEL_LENGTH, MAX_LABELS

LONGEST_COMMENT = 2000
MOST_WEEKS = 104

router = APIRouter(prefix="/v1", dependencies=[KnownOptions])

LabelName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_LENGTH)]
TaskName = Annotated[str | None, Query(pattern=TASK_NAME)]


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a comment is text without NUL characters")
    return text


class ReviewRequest(BaseModel):
    """Accept the diagnosis, or override it with the labels that hold instead."""

    model_config = ConfigDict(extra="forbid")

    decision: Decision
    labels: list[LabelName] = Field([], max_length=MAX_LABELS, description="of an override")
    comment: Annotated[str, AfterValidator(_storable)] = Field(
        "", max_length=LONGEST_COMMENT, description="nothing that identifies a patient"
    )


class ReviewResponse(BaseModel):
    created_at: datetime
    reviewer: str = Field(description="`key:ID`, `user:SUBJECT` or `anonymous`")
    decision: Decision
    labels: list[str] = Field(description="what the reviewer says holds")
    comment: str


class ReviewsResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reviews": [examples.REVIEW]}]})

    reviews: list[ReviewResponse] = Field(description="the one that counts first")


class ListedDiagnosis(BaseModel):
    """What a worklist shows of a diagnosis; the whole is at `/v1/diagnoses/{id}`."""

    id: str
    created_at: datetime
    task: str
    labels: list[str]
    probabilities: list[LabelProbability]
    arbitration: Arbitration
    needs_review: bool
    review_reasons: list[str]
    review: ReviewResponse | None


class WorklistResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.WORKLIST]})

    diagnoses: list[ListedDiagnosis]
    next_cursor: str | None = Field(description="of the page after; null on the last one")


class WeekResponse(BaseModel):
    """What became of one task's diagnoses of one week."""

    task: str
    week: date = Field(description="its Monday, in UTC")
    diagnoses: int
    needing_review: int
    reviewed: int
    accepted: int
    overridden: int
    agreement: float | None = Field(description="share of the reviewed that were accepted")
    model: str | None = Field(None, description="the generalist, with `by_model`")
    weights_sha256: str | None = Field(None, description="of the generalist, where they are known")


class AgreementResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.AGREEMENT]})

    weeks: list[WeekResponse]


@router.get(
    "/diagnoses",
    tags=["diagnoses"],
    summary="List diagnoses",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(404, 422, 500, 503),
)
async def list_diagnoses(
    request: Request,
    serving: ServingDep,
    task: TaskName = None,
    needs_review: Annotated[bool | None, Query(description="unset: both")] = None,
    reviewed: Annotated[bool | None, Query(description="unset: both")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> WorklistResponse:
    """Newest first. `needs_review=true&reviewed=false` is the worklist."""
    wanted = Wanted(task, needs_review, reviewed)
    # One more than shown tells whether there is a page after this one.
    found = await serving.parts.store.page(wanted, limit + 1, _cursor(cursor))
    shown = found[:limit]
    await replies.record(request, serving, Action.READ, "worklist", task or "every task")
    more = shown[-1].diagnosis.id if len(found) > limit else None
    return WorklistResponse(diagnoses=[_listed(one) for one in shown], next_cursor=more)


@router.post(
    "/diagnoses/{id}/review",
    tags=["reviews"],
    status_code=201,
    summary="Accept or override a diagnosis",
    dependencies=[needs(Scope.CURATE)],
    responses=problems.responses(400, 404, 415, 422, 500, 503),
)
async def create_review(
    id: str, request: Request, asked: ReviewRequest, serving: ServingDep
) -> ReviewResponse:
    """Kept beside the diagnosis, which stays as it was made. Of several reviews the last counts."""
    diagnosis = await _diagnosis(serving, id)
    review = await _made(serving, diagnosis, asked, caller_of(request).name)
    await serving.parts.store.review(review)
    return _review(review)


@router.get(
    "/diagnoses/{id}/review",
    tags=["reviews"],
    summary="Read the reviews of a diagnosis",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(404, 422, 500, 503),
)
async def list_reviews(id: str, serving: ServingDep) -> ReviewsResponse:
    """All of them, newest first: the first is the one that counts."""
    reviews = await serving.parts.store.reviews(_known_form(id))
    return ReviewsResponse(reviews=[_review(one) for one in reviews])


@router.get(
    "/agreement",
    tags=["reviews"],
    summary="How often reviewers agree, by week and task",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(422, 500, 503),
)
async def agreement(
    serving: ServingDep,
    task: TaskName = None,
    weeks: Annotated[int, Query(ge=1, le=MOST_WEEKS)] = 12,
    by_model: Annotated[
        bool, Query(description="each generalist, by its weights, by itself; slower")
    ] = False,
) -> AgreementResponse:
    """Weeks by the time of the diagnosis, oldest first; those without a diagnosis are left out."""
    today = datetime.now(UTC).date()
    found = await serving.parts.store.weeks(weeks, today, task, by_model=by_model)
    return AgreementResponse(
        weeks=[
            WeekResponse(
                task=one.task,
                week=one.week,
                diagnoses=one.diagnoses,
                needing_review=one.needing_review,
                reviewed=one.reviewed,
                accepted=one.accepted,
                overridden=one.overridden,
                agreement=one.accepted / one.reviewed if one.reviewed else None,
                model=one.model,
                weights_sha256=one.weights_sha256,
            )
            for one in found
        ]
    )


async def _made(
    serving: Serving, diagnosis: Diagnosis, asked: ReviewRequest, reviewer: str
) -> Review:
    word = Word(reviewer, tuple(asked.labels), asked.comment.strip(), datetime.now(UTC))
    if asked.decision is Decision.ACCEPT:
        return accepted(diagnosis, word)
    return overridden(diagnosis, await replies.known(serving, diagnosis.task), word)


async def _diagnosis(serving: Serving, id: str) -> Diagnosis:
    return await serving.parts.store.get(Diagnosis, _known_form(id))


def _known_form(id: str) -> str:
    if not ID.fullmatch(id):
        raise NotFound(f"no diagnosis {id[:64]!r}")
    return id


def _cursor(given: str | None) -> str | None:
    return None if given is None else _known_form(given)


def _listed(one: Reviewed) -> ListedDiagnosis:
    diagnosis = one.diagnosis
    return ListedDiagnosis(
        id=diagnosis.id,
        created_at=diagnosis.created_at,
        task=diagnosis.task,
        labels=list(diagnosis.final.labels),
        probabilities=probabilities_shape(diagnosis.label_names, diagnosis.final.probabilities),
        arbitration=diagnosis.arbitration,
        needs_review=diagnosis.needs_review,
        review_reasons=list(diagnosis.review_reasons),
        review=_review(one.review) if one.review else None,
    )


def _review(review: Review) -> ReviewResponse:
    return ReviewResponse(
        created_at=review.created_at,
        reviewer=review.reviewer,
        decision=review.decision,
        labels=list(review.labels),
        comment=review.comment,
    )
