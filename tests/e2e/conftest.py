"""What the stories of the whole product share."""

from pathlib import Path

import pytest

from service.demo import home as demo_home
from service.settings import read_settings


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's home folder. Prepared once, and left as it is: stories use copies."""
    folder = tmp_path_factory.mktemp("demonstration") / "home"
    demo_home.prepare(read_settings(home=folder), lambda task: None)
    return folder
