"""Questions and reports through the product's own pipeline, and what is kept of each."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from service.domain import Answer, Case, Image, Report, pixels_sha256
from service.errors import Misconfigured
from service.evaluation import trials
from service.evaluation.cases import CHUNK
from service.evaluation.folder import ResultsFolder
from service.evaluation.prepared import Panel
from service.evaluation.record import TextRecord
from service.evaluation.run import Forgetful
from service.evaluation.sources import TextCase, TextCases
from service.pipeline import Pipeline
from specialists.prediction import Pixels
from specialists.task import Task, TaskKind

NEAREST = "report of the nearest case"


@dataclass(frozen=True, eq=False)
class TextMeasurement:
    """Cases, who is asked about them, and where the records go."""

    pipeline: Pipeline
    panel: Panel | None  # where the task consults one
    task: Task
    consulted: Task | None
    cases: TextCases
    folder: ResultsFolder

    async def run(self, on_case: Callable[[], None]) -> None:
        """A record of every case; `on_case` after each, whether finished earlier or now."""
        ids = self.ids()
        finished = {one.id for one in self.folder.records_of(TextRecord)}
        clusters: dict[str, int] = {}
        numbers = [clusters.setdefault(one.cluster, len(clusters)) for one in self.cases.cases]
        for start in range(0, len(self.cases), CHUNK):
            places = range(start, min(start + CHUNK, len(self.cases)))
            left = [place for place in places if ids[place] not in finished]
            for _ in range(len(places) - len(left)):
                on_case()
            if left:
                async for place, made in self._made(list(places), left):
                    one = self.cases.cases[place]
                    self.folder.add([_record(one, ids[place], numbers[place], made)])
                    on_case()

    def ids(self) -> tuple[str, ...]:
        """Cases are named by their place in the split: names of files may be those of patients."""
        return tuple(f"{self.task.name}-{place}" for place in range(len(self.cases)))

    async def first(self) -> Answer | Report:
        """What becomes of the first case: it shows who answers, and by which weights."""
        async for _, made in self._made([0], [0]):
            return made
        raise Misconfigured("there is no case to measure")

    async def _made(
        self, places: Sequence[int], left: Sequence[int]
    ) -> AsyncIterator[tuple[int, Answer | Report]]:
        """Specialists see all of `places` together, as they did before an interruption."""
        pictures = {place: self.cases.images[place] for place in places}
        pipeline = replace(self.pipeline, store=Forgetful())
        if self.panel and self.consulted:
            prepared = await self.panel.prepare(list(pictures.values()), self.consulted)
            pipeline = replace(pipeline, specialists=prepared)
        for place in left:
            yield place, await self._asked(pipeline, self.cases.cases[place], pictures[place])

    async def _asked(self, pipeline: Pipeline, one: TextCase, pixels: Pixels) -> Answer | Report:
        image = Image(pixels, pixels_sha256(pixels), "application/octet-stream")
        case = Case(
            one.id, self.task, image, one.group,
            consulted=self.consulted, question=one.question, choices=one.choices,
        )  # fmt: skip
        if self.task.kind is TaskKind.REPORT:
            return await pipeline.report(case)
        return await pipeline.answer(case)


def _record(one: TextCase, id: str, patient: int, made: Answer | Report) -> TextRecord:
    written = {trials.ALONE: made.initial_text, trials.GSCO: made.text}
    if isinstance(made, Report):
        nearest = next((n.case.report for n in made.evidence.rad if n.case.report), None)
        if nearest is not None:
            written = {NEAREST: nearest, **written}
    return TextRecord(
        id=id,
        patient=patient,
        reference=one.report or one.answer,
        question=one.question,
        choices=one.choices,
        written=written,
        review_reasons=made.review_reasons,
        missing=tuple(missing.part for missing in made.evidence.missing),
    )
