"""What the pages name is there: links, settings, and commands with their options."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from service.cli.main import app
from service.settings import PREFIX, Settings, unknown_variables

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
COMPOSE = (ROOT / "docker" / "compose.yaml").read_text("utf-8")
NO_SETTINGS = {*re.findall(r"\$\{(GSCO_\w+)", COMPOSE), "GSCO_TEST_DATA"}  # compose's, the tests'
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
_VARIABLE = re.compile(r"\bGSCO_[A-Z_]*[A-Z]\b")
_CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`|^ {4}([^\n]+)$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(
    r"(?<!generic )(?<!install )\bgsco (?=[a-z])((?:(?!  |&&)[^#\n|])*)"  # Kubernetes' are names
)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    titles = _HEADING.findall(page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code_of(page: Path) -> str:
    """All that is set as code; a command that goes on in the next line is one line."""
    found = _CODE.findall(page.read_text("utf-8"))
    return "\n".join("".join(parts) for parts in found).replace("\\\n", " ")


def table_of_settings() -> set[str]:
    """Every variable of the table; `_MODEL` beside `GSCO_GENERALIST_URL` shares its beginning."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    section = text.partition("## Settings")[2].partition("\n## ")[0]
    return {name for row in re.findall(r"^\|(.*?)\|", section, re.MULTILINE) for name in _row(row)}


def _row(row: str) -> Iterator[str]:
    first, *others = re.findall(r"`(\w+)`", row) or [""]
    yield first
    words = first.split("_")
    for other in others:
        beginnings = ("_".join(words[:n]) for n in range(1, len(words)))
        yield from [other] if other.startswith(PREFIX) else (b + other for b in beginnings)


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        if page.parent.name != "decisions":
            for words in _COMMAND.findall(code_of(page)):
                yield page.name, words


def mistake_in(words: str) -> str | None:
    """What of `specialists list --json` is not there: a verb, or an option."""
    verb: Any = typer.main.get_command(app)
    options: set[str] = set()
    for word in words.replace("[", " ").replace("]", " ").split():
        options |= {name for one in verb.params for name in (*one.opts, *one.secondary_opts)}
        verbs = getattr(verb, "commands", {})
        if word.startswith("--"):
            if word.rstrip(".,;:)") not in {"--help", *options}:
                return f"no option {word}"
        elif verbs:
            first = re.split("[|,]", word)[0]
            if first not in verbs:
                return f"no command {first!r}"
            verb = verbs[first]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_is_a_setting(page: Path) -> None:
    named = set(_VARIABLE.findall(page.read_text("utf-8"))) - NO_SETTINGS

    assert unknown_variables(dict.fromkeys(named, "")) == {}


def test_every_setting_is_in_the_table() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}

    assert settings - table_of_settings() == set()


def test_every_command_is_there_with_its_options() -> None:
    mistakes = {f"{page}: gsco {words}": mistake_in(words) for page, words in commands()}

    assert len(mistakes) > 50
    assert {where: what for where, what in mistakes.items() if what} == {}
