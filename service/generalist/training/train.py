"""Training MedDr-nano from nothing: first to see, then to answer and to arbitrate.

Everything is kept in a work folder as it comes to exist: drawn images, the panels that stand in,
their evidence, the state of each stage. An interrupted training, started again, goes on there and
ends with the same weights.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.errors import Misconfigured
from service.generalist import checkpoint, template
from service.generalist.architecture import InternVLChat
from service.generalist.chat import SYSTEM
from service.generalist.checkpoint import Checkpoint
from service.generalist.template import Template
from service.generalist.training import (
    arbitrating,
    batches,
    examples,
    gather,
    initialise,
    judging,
    plot,
    seeing,
)
from service.generalist.training.arbitrating import Curriculum, Reader
from service.generalist.training.examples import Dialogue, Taught
from service.generalist.training.gather import Drawn, Hospital
from service.generalist.training.lessons import Lesson
from service.generalist.training.optimisation import OnProgress, Progress
from service.generalist.training.panels import Material
from service.generalist.training.recipe import Recipe, configuration
from specialists.task import Task

STAGES = (seeing.NAME, *arbitrating.STAGES)
REPEATED = 8
"""A recurring sentence counts as often in the tokenizer's corpus, against what was said once."""
MIXED = (0.25, 0.5, 0.75)
"""Shares of what a base became, with the rest of it as it was: fine-tuned weights so averaged often
keep what either can (Wortsman et al. 2022, arXiv 2109.01903)."""


@dataclass(frozen=True, eq=False)
class Sources:
    """What there is to learn from. `told` are the report and question tasks of the phantoms."""

    hospitals: tuple[Hospital, ...]
    demos: tuple[Drawn, ...]
    told: tuple[Task, ...]
    dialogues: tuple[Dialogue, ...]
    specialists: Path  # of the demo tasks: <task>/<backbone>
    trunks: Mapping[str, Path] = field(default_factory=dict)  # what other specialists begin from
    taught: tuple[Taught, ...] = ()

    @property
    def labelled(self) -> tuple[Task, ...]:
        return (*(one.task for one in self.hospitals), *(one.task for one in self.demos))


Note = Callable[[str], None]


def train(
    sources: Sources,
    recipe: Recipe,
    work: Path,
    out: Path,
    on_progress: OnProgress,
    note: Note,
    base: Checkpoint | None = None,
) -> list[dict[str, Any]]:
    """A checkpoint in `out`, the best by judgement; returns all judgements of arbitration.

    With a `base` only the last stage: that checkpoint learns anew whom to trust. It is itself among
    those judged, as step 0, and so are mixtures of it and what it became.
    """
    pools = [_materials(one, sources, recipe, work, note) for one in _all(sources)]
    learned, judged = [one for one, _ in pools], [one for _, one in pools]
    curriculum = _curriculum(sources, recipe, learned)
    torch.manual_seed(recipe.seed)
    stages = recipe.arbitrations()
    if base is None:
        model, tokenizer = _begun(corpus(curriculum, sources), recipe, work)
        _learn_to_see(model, sources, recipe, work, on_progress, note)
    else:
        model, tokenizer = base.model.to(batches.fastest()), base.tokenizer
        stages = stages[-1:]
    contest = Contest(Reader(model, tokenizer), curriculum.rich, judged, work, note)
    as_it_was = {name: value.clone() for name, value in model.state_dict().items()}
    if base is not None:
        contest.enter(0)
    history: list[Progress] = []
    done = 0
    for name, stage in stages:
        state = work / f"{name}.safetensors"
        if not state.exists():
            contest.forget_after(done)
        taken = arbitrating.learn_to_arbitrate(
            model,
            tokenizer,
            replace(curriculum, shares=recipe.shares[name], evidence=recipe.evidence[name]),
            stage,
            recipe.seed,
            on_progress,
            state,
            lambda step, done=done: contest.enter(done + step),  # type: ignore[misc]
            name,
        )
        history += [replace(at, step=done + at.step) for at in taken]
        done += stage.steps
    if base is not None:
        contest.enter_mixed(done, as_it_was)
    contest.crown(model)
    checkpoint.save(model, tokenizer, model.config, out)
    plot.progress(history, contest.judgements, out / "training.png")
    return contest.judgements


def _begun(texts: list[str], recipe: Recipe, work: Path) -> tuple[InternVLChat, Any]:
    """A model that has learned nothing, and a tokenizer of what it will read."""
    tokenizer = checkpoint.create_tokenizer(texts, recipe.model.vocabulary)
    model = checkpoint.create(work / "begun", configuration(recipe.model), tokenizer, recipe.seed)
    initialise.initialise(model)
    initialise.know_numbers(model, tokenizer)
    return model.to(batches.fastest()), tokenizer


def take_up(folder: Path, recipe: Recipe) -> Checkpoint:
    """A trained checkpoint for `train`; raises Misconfigured, InvalidCheckpoint."""
    loaded = checkpoint.load(folder)
    sees = loaded.config.force_image_size
    if sees != recipe.model.image_size:
        raise Misconfigured(
            f"'{folder}' sees {sees} pixels, the recipe {recipe.model.image_size}: give --recipe"
        )
    return loaded


def corpus(curriculum: Curriculum, sources: Sources) -> list[str]:
    """The words of prompts and answers, the recurring ones several times, for the tokenizer."""
    recurring: set[str] = {f"system\n{SYSTEM}", "user\n", "assistant\n"}
    for one in (curriculum.rich, curriculum.plain):
        for task in (*sources.labelled, *sources.told, *(d.task for d in sources.dialogues)):
            recurring.update(examples.corpus(one, task))
    numbers = [f" {percent}%{comma}" for percent in range(101) for comma in ("", ",", ".")]
    reports = {report for pool in curriculum.materials for report in pool.reports[:400] if report}
    told: tuple[Dialogue | Taught, ...] = (*sources.dialogues, *sources.taught)
    dialogues = [text for one in told for _, *texts in one.rows for text in texts]
    return [*sorted(recurring) * REPEATED, *numbers * REPEATED, *sorted(reports), *dialogues]


def _all(sources: Sources) -> Iterable[Hospital | Drawn]:
    return (*sources.hospitals, *sources.demos)


def _materials(
    one: Hospital | Drawn, sources: Sources, recipe: Recipe, work: Path, note: Note
) -> tuple[Material, Material]:
    folder = work / "materials"
    note(f"asking the panel of {one.task.name}")
    if isinstance(one, Hospital):

        def asked() -> tuple[Material, Material]:
            panels = work / "panels"
            panel = gather.stand_ins(one, recipe.material, sources.trunks, panels, note)
            return gather.of_hospital(one, panel, recipe)

        return gather.kept(one.task, folder, asked)
    panel = sources.specialists / one.task.name
    return gather.kept(one.task, folder, lambda: gather.of_phantoms(one, panel, recipe))


def _curriculum(sources: Sources, recipe: Recipe, materials: Sequence[Material]) -> Curriculum:
    names = [pool.task.name for pool in materials]
    return Curriculum(
        rich=template.find("rich"),
        plain=template.find("paper"),
        materials=tuple(materials),
        weights=tuple(recipe.material_weights.get(name, 1.0) for name in names),
        told=tuple((task, names.index(task.consults)) for task in sources.told),
        dialogues=sources.dialogues,
        looks=gather.looks(recipe, sources.hospitals),
        few=frozenset(range(len(sources.hospitals))),  # they come first
        shares=recipe.shares[arbitrating.NAME],
        evidence=recipe.evidence[arbitrating.NAME],
        taught=sources.taught,
    )


def _learn_to_see(
    model: InternVLChat,
    sources: Sources,
    recipe: Recipe,
    work: Path,
    on_progress: OnProgress,
    note: Note,
) -> None:
    """Once done, the tower's weights are kept by themselves, and no lesson is drawn again."""
    done = work / "seeing.safetensors"
    parts = {"vision_model": model.vision_model, "mlp1": model.mlp1}
    if not done.exists():
        note("drawing what to see")
        taught = list(gather.lessons(recipe, sources.hospitals, sources.demos, sources.dialogues))
        _see(model, taught, recipe, work, on_progress)
        weights = {
            f"{part}.{name}": value
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        }
        fresh = done.with_suffix(".part")
        save_file(weights, fresh)
        fresh.replace(done)
    kept = load_file(done)
    for part, module in parts.items():
        module.load_state_dict({n: kept[f"{part}.{n}"] for n in module.state_dict()})


def _see(
    model: InternVLChat, taught: Sequence[Lesson], recipe: Recipe, work: Path, shown: OnProgress
) -> None:
    file = work / "vision.safetensors"
    seeing.learn_to_see(model, taught, recipe.vision, recipe.seed, shown, file)


class Contest:
    """Keeps the weights of the best checkpoint so far, and what was judged of each."""

    def __init__(
        self, reader: Reader, rich: Template, judged: Sequence[Material], work: Path, note: Note
    ) -> None:
        self._reader, self._rich, self._judged, self._note = reader, rich, judged, note
        self._best = work / "best.safetensors"
        self._log = work / "judgements.json"
        self.judgements: list[dict[str, Any]] = []
        if self._log.exists():
            self.judgements = [{"share": 1.0, **one} for one in json.loads(self._log.read_text())]

    def forget_after(self, step: int) -> None:
        """What was judged later belongs to an earlier training of the stage that begins now."""
        self.judgements = [one for one in self.judgements if one["step"] <= step]

    def enter(self, step: int, share: float = 1.0) -> None:
        """Judge the model as it is: after a step, or mixed with a `share` of what it became."""
        if any((one["step"], one["share"]) == (step, share) for one in self.judgements):
            return  # judged before an interruption; what is best may have come later
        found = [judging.judge(self._reader, self._rich, pool) for pool in self._judged]
        score = judging.overall(found)
        if score > max((one["score"] for one in self.judgements), default=-np.inf):
            fresh = self._best.with_suffix(".part")
            save_file({k: v.contiguous() for k, v in self._state().items()}, fresh)
            fresh.replace(self._best)
        tasks = judging.as_documents(found)
        document = {"step": step, "share": share, "score": score, "tasks": tasks}
        self.judgements = [*self.judgements, document]
        fresh = self._log.with_suffix(".part")
        fresh.write_text(json.dumps(self.judgements, indent=1))
        fresh.replace(self._log)
        mixed = "" if share == 1 else f", {share:.0%} of what it became"
        self._note(f"step {step}{mixed}: judged {score:.3f}")

    def enter_mixed(self, step: int, before: Mapping[str, Tensor]) -> None:
        """Judge the shares `MIXED` of what the model became, the rest as it was before."""
        self._reader.model.eval()
        after = {name: value.clone() for name, value in self._state().items()}
        for share in MIXED:
            mixture = {name: torch.lerp(before[name], after[name], share) for name in after}
            self._reader.model.load_state_dict(mixture)
            self.enter(step, share)

    def crown(self, model: InternVLChat) -> None:
        model.load_state_dict(load_file(self._best))
        model.cpu().eval()

    def _state(self) -> dict[str, Tensor]:
        return dict(self._reader.model.state_dict())
