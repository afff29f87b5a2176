"""The service with models that answer from memory: what is left is its own work.

python -m tests.load.without_models HOME PORT

Intake, retrieval, SQL, the audit and HTTP are the real ones. The models answer the first case of a
task, and repeat that for all others.
"""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from service import composition
from service.app import create_app
from service.domain import Completion, Prompt
from service.settings import Settings
from specialists.prediction import Consultation, Hear, Pixels, unheard
from specialists.task import Task


class Repeating:
    """Specialists and generalist that have answered; all else is asked of the real ones."""

    def __init__(self, models: Any) -> None:
        self._models = models
        self._said: dict[object, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    async def consult(self, pixels: Pixels, task: Task, hear: Hear = unheard) -> Consultation:
        if task.name not in self._said:
            self._said[task.name] = await self._models.consult(pixels, task, hear)
        return self._said[task.name]

    async def answer(self, prompt: Prompt) -> Completion:
        if prompt.choices not in self._said:
            self._said[prompt.choices] = await self._models.answer(prompt)
        return self._said[prompt.choices]


def main(home: Path, port: int) -> None:
    settings = Settings(home=home)
    with ExitStack() as stack:
        parts = composition._make_parts(settings, stack)
        panel, generalist = Repeating(parts.specialists), Repeating(parts.generalist)
        pipeline = replace(parts.pipeline, specialists=panel, generalist=generalist)
        parts = replace(parts, specialists=panel, generalist=generalist, pipeline=pipeline)
        app = create_app(settings, parts)
        uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
