"""The page of one reader: everything in one file that works without a network."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from string import Template

from PIL import Image as Pillow

from service.errors import GscoError, Misconfigured
from service.evaluation.study_cases import StudyCase
from service.evaluation.study_sheets import Row
from service.intake.decoder import decode
from specialists.prediction import Pixels

LONGEST_SIDE = 1024


def picture(case: StudyCase) -> str:
    """The case's image as a data URL, "" where it has none.

    A PNG of the pixels alone: nothing else of the file, its name included, survives. Raises
    Misconfigured for a file that is no image.
    """
    if case.image is None:
        return ""
    try:
        pixels = decode(case.image.read_bytes()).image.pixels
    except GscoError as error:
        raise Misconfigured(f"case {case.id!r}, image {str(case.image)!r}: {error}") from error
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode("ascii")


def page(rows: Iterable[Row], pictures: Mapping[str, str], systems: int) -> str:
    """The HTML of a sheet's `rows`; `pictures` are data URLs by case number."""
    given = list(rows)
    cases = [
        _case(number, list(of_case), pictures.get(number, ""), systems)
        for number, of_case in groupby(given, key=lambda row: row["case"])
    ]
    return _template().substitute(
        script_hash=_script_hash(),
        study=escape(given[0]["study"]),
        reader=escape(given[0]["reader"]),
        systems=systems,
        cases="\n".join(cases),
    )


def _png(pixels: Pixels) -> bytes:
    image = Pillow.fromarray(pixels)
    if (pixels == pixels[..., :1]).all():
        image = image.convert("L")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _case(number: str, rows: list[Row], image: str, systems: int) -> str:
    seen = (
        f'<button type="button" class="picture" aria-label="Image of case {number}, larger or'
        f' smaller"><img src="{image}" alt=""></button>'
        if image
        else ""
    )
    reference = escape(rows[0]["reference"])
    known = f'<h3>Reference</h3><p class="text reference">{reference}</p>' if reference else ""
    texts = "\n".join(_text(row, systems) for row in rows)
    return (
        f'<section data-case="{number}" aria-labelledby="case-{number}">'
        f'<h2 id="case-{number}">Case {number}</h2>'
        f'<div class="beside"><div class="shown">{seen}{known}</div><div>{texts}</div></div>'
        "</section>"
    )


def _text(row: Row, systems: int) -> str:
    name = f"{row['case']}-{row['letter']}"
    choices = "".join(
        f'<label><input type="radio" name="{name}" value="{rank}"{" checked" * (rank == "")}>'
        f"{rank or '–'}</label>"
        for rank in ["", *map(str, range(1, systems + 1))]
    )
    return (
        f'<article data-letter="{row["letter"]}"><h3>{row["letter"]}</h3>'
        f'<p class="text given">{escape(row["text"])}</p>'
        f"<fieldset><legend>Rank of {row['letter']}</legend>{choices}</fieldset>"
        f'<label class="comment">Comment <input type="text" name="{name}-comment"'
        ' autocomplete="off" maxlength="2000"></label></article>'
    )


@cache
def _template() -> Template:
    return Template(files("service.evaluation").joinpath("study_page.html").read_text("utf-8"))


def _script_hash() -> str:
    """The page runs this script and no other (Content Security Policy, level 3)."""
    script = re.findall(r"<script>(.*?)</script>", _template().template, re.DOTALL)[0]
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
