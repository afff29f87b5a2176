"""An evaluation as one HTML file that needs nothing beside it."""

from functools import cache

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from service.evaluation import plots, table
from service.evaluation.figures import Figures
from service.evaluation.folder import ResultsFolder

REPORT = "report.html"
CAPTIONS = {
    "roc": "Sensitivity against specificity, per label.",
    "calibration": "How often a label holds, against the probability said of it.",
    "confusion": "What holds, against what is named; cases.",
    "strata": "What each system gains over the generalist alone, by how divided the panel is.",
    "arbitration": "What became of first answers, right and wrong.",
    "selective": "Accuracy when the least sure cases are left to people.",
}


def write(figures: Figures, folder: ResultsFolder) -> None:
    """report.html, and its pictures as files of their own."""
    drawn = plots.plots(figures)
    for name, svg in drawn.items():
        folder.write(f"plots/{name}.svg", svg)
    folder.write(REPORT, html(figures, drawn))


def html(figures: Figures, drawn: dict[str, str]) -> str:
    """The page; all texts are escaped, the pictures are our own."""
    pictures = [(CAPTIONS[name], Markup(_inline(svg))) for name, svg in drawn.items()]  # noqa: S704
    blocks = list(_blocks(table.markdown(figures)))
    return _template().render(title=figures.measured.task, blocks=blocks, pictures=pictures)


def _blocks(markdown: str) -> list[tuple[str, list[list[str]]]]:
    """Our own Markdown, which has headings, paragraphs, quotations and tables only."""
    found: list[tuple[str, list[list[str]]]] = []
    for line in markdown.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            if not found or found[-1][0] != "table":
                found.append(("table", []))
            if not cells[0].startswith("---"):
                found[-1][1].append(cells)
        elif line.startswith("# "):
            found.append(("heading", [[line[2:]]]))
        elif line.startswith("> "):
            found.append(("warning", [[line[2:]]]))
        else:
            found.append(("text", [[line]]))
    return [(kind, rows) for kind, rows in found if rows != [[""]]]


def _inline(svg: str) -> str:
    """Without the declarations that only a file of its own may have."""
    return svg[svg.index("<svg") :]


@cache
def _template() -> Template:
    environment = Environment(loader=PackageLoader("service.evaluation", "pages"), autoescape=True)
    return environment.get_template("report.html")
