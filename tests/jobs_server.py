"""The service in a process of its own, to be killed: real HTTP, intake, spool and SQL; fake models.

python tests/jobs_server.py HOME PORT, with settings in the environment.
"""

import sys
from pathlib import Path

import uvicorn
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists

from service.api.dependencies import Parts
from service.app import create_app
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.jobs.queue import Queue
from service.persistence.database import open_engine, upgrade
from service.persistence.keys import SqlKeys
from service.persistence.store import SqlStore
from service.persistence.trail import SqlTrail
from service.pipeline import Pipeline
from service.settings import read_settings

ANSWER_SECONDS = 0.02


def main(home: Path, port: int) -> None:
    settings = read_settings(home=home)
    engine = open_engine(settings.database_url)
    upgrade(engine)
    panel, retriever = FakeSpecialists(), FakeRetriever()
    generalist, store = FakeGeneralist(delay_seconds=ANSWER_SECONDS), SqlStore(engine)
    pipeline = Pipeline(panel, retriever, generalist, store)
    intake, queue = Sandbox(Limits()), Queue(engine)
    kept = queue, SqlKeys(engine), SqlTrail(engine)
    parts = Parts(pipeline, panel, retriever, generalist, store, intake, *kept)
    uvicorn.run(create_app(settings, parts), port=port, log_config=None, access_log=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
