"""The reader study: what readers see, what only the key knows, and the way back."""

import base64
import csv
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from builders import a_picture
from command_line import Gsco, over
from PIL import Image as Pillow
from PIL import PngImagePlugin

from service.evaluation import study, study_key, study_sheets, study_table
from service.evaluation.study_cases import StudyCase, read_cases, telling_cases
from service.evaluation.study_key import balanced_orders

SYSTEMS = ("Alpha-Net", "Beta-Net", "Gamma-Net")
BEST_FIRST = ("Gamma-Net", "Alpha-Net", "Beta-Net")
SECRET = "Doe^Jane"
Row = dict[str, str]


@pytest.fixture
def gsco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gsco:
    return partial(over(tmp_path / "home", capsys), "study")


def a_study_case(number: int = 0, **fields: object) -> dict[str, object]:
    texts = {name: f"finding {number} {place}" for place, name in enumerate(SYSTEMS)}
    return {"id": f"patient-{number}", "systems": texts, **fields}


def written(tmp_path: Path, cases: list[dict[str, object]]) -> Path:
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(map(json.dumps, cases)), "utf-8")
    return file


def a_study(tmp_path: Path, cases: int = 12, readers: int = 3, seed: int = 7) -> Path:
    """The folder of a study of texts alone."""
    found = [
        StudyCase(f"patient-{n}", {s: f"finding {n} {p}" for p, s in enumerate(SYSTEMS)})
        for n in range(cases)
    ]
    key = study_key.drawn([case.id for case in found], SYSTEMS, readers, seed=seed)
    folder = tmp_path / f"study-{seed}"
    study.create(found, key, folder)
    return folder


def rows_of(sheet: Path) -> list[Row]:
    return list(csv.DictReader(StringIO(sheet.read_bytes().decode("utf-8-sig"), newline="")))


def filled(sheet: Path, rank: Callable[[Row], object], **dialect: str) -> Path:
    """The sheet with ranks, saved beside it."""
    rows = [{**row, "rank": str(rank(row))} for row in rows_of(sheet)]
    path = sheet.with_name(f"filled-{sheet.name}")
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), **dialect)
        table.writeheader()
        table.writerows(rows)
    return path


def sheets(folder: Path) -> list[Path]:
    return sorted((folder / "sheets").glob("reader-*.csv"))


def planted_rank(row: Row) -> int:
    """Told from the text alone, as a reader would."""
    return BEST_FIRST.index(SYSTEMS[int(row["text"].split()[-1])]) + 1


def all_filled(folder: Path, rank: Callable[[Row], object] = planted_rank) -> list[Path]:
    return [filled(sheet, rank) for sheet in sheets(folder)]


# -- blinding --


def test_what_readers_get_names_no_system_and_no_case(tmp_path: Path) -> None:
    folder = a_study(tmp_path)

    for file in [*folder.glob("sheets/*"), *folder.glob("pages/*")]:
        given = file.read_text("utf-8")
        assert "finding" in given
        assert not re.search("net|patient-", given.lower().replace("internet", ""))


@pytest.mark.parametrize("count", [1, 12, 50])
@pytest.mark.parametrize("systems", ["ab", "abc", "abcdefg"])
def test_every_system_stands_in_every_place_equally_often(systems: str, count: int) -> None:
    orders = balanced_orders(systems, count, np.random.default_rng(0))

    assert len(orders) == count
    for place in range(len(systems)):
        often = Counter(dict.fromkeys(systems, 0))
        often.update(order[place] for order in orders)
        assert max(often.values()) - min(often.values()) <= 1


def test_readers_meet_other_orders_of_systems_and_of_cases() -> None:
    key = study_key.drawn([str(n) for n in range(20)], SYSTEMS, readers=2, seed=1)

    first, second = ({one.id: one for one in reader} for reader in key.readers)
    assert any(first[id].order != second[id].order for id in first)
    assert any(first[id].number != second[id].number for id in first)
    assert len({one.order for one in key.readers[0]}) > 3


def test_cases_are_shared_out_evenly() -> None:
    key = study_key.drawn([str(n) for n in range(10)], SYSTEMS, readers=4, per_reader=6)

    often = Counter(one.id for reader in key.readers for one in reader)
    assert [len({one.id for one in reader}) for reader in key.readers] == [6] * 4
    assert set(often.values()) == {2, 3}


def test_a_seed_gives_the_same_orders_and_no_seed_never_does() -> None:
    ids = [str(n) for n in range(30)]
    fixed = [study_key.drawn(ids, SYSTEMS, 2, seed=5) for _ in range(2)]
    free = [study_key.drawn(ids, SYSTEMS, 2) for _ in range(2)]

    assert fixed[0].readers == fixed[1].readers
    assert fixed[0].study != fixed[1].study  # it would give the seed away
    assert free[0].readers != free[1].readers


def test_only_its_owner_can_read_the_key(tmp_path: Path) -> None:
    path = a_study(tmp_path) / "key.json"

    assert path.stat().st_mode & 0o077 == 0


def test_a_text_that_names_a_system_is_warned_of(gsco, tmp_path: Path) -> None:
    case = a_study_case(1)
    case["systems"] = {**dict.fromkeys(SYSTEMS, "Clear."), "Beta-Net": "Read by BETA-NET."}
    file = written(tmp_path, [a_study_case(0), case])

    outcome = gsco("create", "--cases", file, "--out", tmp_path / "out")

    assert telling_cases(read_cases(file)) == ["patient-1"]
    assert outcome.code == 0
    assert "texts of 1 cases name a system, such as case 'patient-1'" in outcome.err


# -- images --


def an_image_with_secrets(path: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("PatientName", SECRET)
    exif = Pillow.Exif()
    exif[0x010E] = SECRET
    Pillow.fromarray(a_picture(40, 60)).save(path, pnginfo=notes, exif=exif)


def test_nothing_but_the_pixels_of_an_image_reaches_the_page(gsco, tmp_path: Path) -> None:
    an_image_with_secrets(tmp_path / "Doe.png")
    file = written(tmp_path, [a_study_case(image="Doe.png"), a_study_case(1)])

    gsco("create", "--cases", file, "--out", tmp_path / "out", "--readers", 1)

    page = (tmp_path / "out/pages/reader-1.html").read_text("utf-8")
    encoded = re.findall(r"data:image/png;base64,([^\"]+)", page)
    data = base64.b64decode(encoded[0])
    assert len(encoded) == 1
    assert "Doe" not in page
    assert SECRET.encode() not in data
    assert (np.asarray(Pillow.open(BytesIO(data)).convert("RGB")) == a_picture(40, 60)).all()


def test_the_page_loads_nothing_and_runs_no_script_but_its_own(tmp_path: Path) -> None:
    page = next(a_study(tmp_path).glob("pages/*")).read_text("utf-8")

    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<script ", page)
    assert re.search(r"default-src 'none'.*script-src 'sha256-[A-Za-z0-9+/=]{44}'", page)


RANKS_BY_ITSELF = """
URL.createObjectURL = (blob) => {
  const file = new FileReader();
  file.onload = () => { state.textContent = file.result; };
  file.readAsDataURL(blob);
  return "#";
};
for (const article of document.querySelectorAll("article")) {
  const told = textOf(article, ".given").trim().split(" ").at(-1);
  article.querySelector(`input[value="${{ 2: 1, 0: 2, 1: 3 }[told]}"]`).click();
  article.querySelector("input[type=text]").value = '=1, "x";';
}
download();
"""


@pytest.mark.browser
def test_the_page_hands_back_a_sheet_that_can_be_read(tmp_path: Path) -> None:
    folder = a_study(tmp_path, cases=4, readers=1)
    page = (folder / "pages/reader-1.html").read_text("utf-8")
    allowed = base64.b64encode(sha256(RANKS_BY_ITSELF.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{allowed}' ")
    page = page.replace("</body>", f"<script>{RANKS_BY_ITSELF}</script></body>")
    (tmp_path / "page.html").write_text(page, "utf-8")

    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path}/page.html"],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    sheet = tmp_path / "downloaded.csv"
    sheet.write_bytes(base64.b64decode(re.findall(r"data:text/csv;base64,([^<]+)", shown)[0]))

    found = study.result(folder, [sheet])

    given = [{**row, "rank": "", "comment": ""} for row in rows_of(sheet)]
    assert given == rows_of(folder / "sheets/reader-1.csv")
    assert [row.mean for row in found.agreement.mean_ranks] == [1.0, 2.0, 3.0]
    assert {one.text for one in found.comments} == {'=1, "x";'}


# -- texts of others --


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "＝cmd()"])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    case = StudyCase("1", dict.fromkeys(SYSTEMS, text), reference=text)
    key = study_key.drawn(["1"], SYSTEMS, 1)

    study.create([case], key, tmp_path / "out")

    row = rows_of(tmp_path / "out/sheets/reader-1.csv")[0]
    assert (row["text"], row["reference"]) == (f"'{text}", f"'{text}")


def test_markup_is_shown_not_obeyed(tmp_path: Path) -> None:
    text = "</p><script>alert('x')</script><img src=x onerror=alert(1)> & \"$cases\""
    case = StudyCase("1", dict.fromkeys(SYSTEMS, text), reference=text)

    study.create([case], study_key.drawn(["1"], SYSTEMS, 1), tmp_path / "out")

    page = (tmp_path / "out/pages/reader-1.html").read_text("utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") == 4
    assert page.count("$cases") == 4


def test_control_characters_are_blanked(tmp_path: Path) -> None:
    texts = dict.fromkeys(SYSTEMS, "a\x00b\r\nc\ud800")

    found = read_cases(written(tmp_path, [a_study_case(systems=texts)]))

    assert set(found[0].texts.values()) == {"a b\nc"}


# -- the way back --


def test_a_planted_ranking_is_found_again_in_spite_of_blinding(gsco, tmp_path: Path) -> None:
    file = written(tmp_path, [a_study_case(n) for n in range(12)])
    folder, out = tmp_path / "out", tmp_path / "results.md"
    gsco("create", "--cases", file, "--out", folder, "--cases-per-reader", 8)

    outcome = gsco("import", folder, *all_filled(folder), "--json", "--out", out)

    found = json.loads(outcome.out)
    means = [(row["system"], row["mean"]) for row in found["agreement"]["mean_ranks"]]
    assert outcome.code == 0
    assert means == [("Gamma-Net", 1.0), ("Alpha-Net", 2.0), ("Beta-Net", 3.0)]
    assert found["agreement"]["by_case"]["w"] == pytest.approx(1)
    assert found["agreement"]["readings"] == 24
    assert "| Gamma-Net | Beta-Net | 1.000 (" in out.read_text("utf-8")


def test_a_reader_of_letters_prefers_nobody(tmp_path: Path) -> None:
    folder = a_study(tmp_path, cases=12)

    found = study.result(folder, all_filled(folder, lambda row: "ABC".index(row["letter"]) + 1))

    assert [row.mean for row in found.agreement.mean_ranks] == [2.0] * 3


def test_the_table_says_everything_in_plain_words(tmp_path: Path) -> None:
    folder = a_study(tmp_path, cases=6)

    text = study_table.markdown(study.result(folder, all_filled(folder)[:2]))

    assert text.startswith("12 readings of 6 cases by 2 readers.\n\nNo sheet of reader 3.\n")
    assert "| Gamma-Net | 1.00 (1.00 to 1.00) |" in text
    assert "| across readers, of their mean ranks | 1.000 | 4.00 | 2 | 0.135 |" in text
    assert "| between readers of a case, mean of cases | 1.000 | 24.00 | 12 | 0.020 |" in text
    assert "| Gamma-Net | Alpha-Net | 1.000 (0.541 to 1.000) | 12, 0, 0 | 2 of 2 |" in text
    assert "| Alpha-Net | 0.00 | – | 1.00 |" in text


def as_saved_by_a_spreadsheet_program(sheet: Path) -> Path:
    return filled(sheet, lambda row: f" {planted_rank(row)},0", delimiter=";")


def with_a_line_for_the_separator(sheet: Path) -> Path:
    path = filled(sheet, planted_rank, delimiter=";")
    path.write_bytes(b"sep=;\r\n" + path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    return path


def with_tabs_and_empty_rows(sheet: Path) -> Path:
    path = filled(sheet, planted_rank, delimiter="\t", lineterminator="\n")
    path.write_bytes(path.read_bytes() + b"\t\t\t\t\t\t\t\n\n")
    return path


def without_texts_and_backwards(sheet: Path) -> Path:
    rows = [{**row, "RANK": planted_rank(row)} for row in rows_of(sheet)][::-1]
    path = sheet.with_name(f"short-{sheet.name}")
    with path.open("w", encoding="utf-8", newline="") as file:
        names = ("RANK", "letter", "case", "reader", "study")
        table = csv.DictWriter(file, names, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.mark.parametrize(
    "saved",
    [
        as_saved_by_a_spreadsheet_program,
        with_a_line_for_the_separator,
        with_tabs_and_empty_rows,
        without_texts_and_backwards,
    ],
)
def test_sheets_are_read_as_programs_save_them(
    tmp_path: Path, saved: Callable[[Path], Path]
) -> None:
    folder = a_study(tmp_path, cases=4, readers=1)

    found = study.result(folder, [saved(sheets(folder)[0])])

    assert [row.mean for row in found.agreement.mean_ranks] == [1.0, 2.0, 3.0]
    assert not found.incomplete


def test_cases_without_all_ranks_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = a_study(tmp_path, cases=5, readers=1)

    def rank(row: Row) -> object:
        return "" if (row["case"], row["letter"]) in {("2", "B"), ("4", "A"), ("4", "C")} else 1

    found = study.result(folder, [filled(sheets(folder)[0], rank)])

    assert [(one.case, one.letters) for one in found.incomplete] == [(2, ("B",)), (4, ("A", "C"))]
    assert found.agreement.readings == 3
    assert (
        "3 rows without a rank. Left out: case 2 of reader 1 (B); case 4 of reader 1 (A, C)."
        in study_table.markdown(found)
    )


def test_rows_that_were_deleted_count_as_without_a_rank(tmp_path: Path) -> None:
    folder = a_study(tmp_path, cases=3, readers=1)
    sheet = filled(sheets(folder)[0], planted_rank)
    sheet.write_bytes(b"\r\n".join(sheet.read_bytes().split(b"\r\n")[:-2]))

    found = study.result(folder, [sheet])

    assert [(one.case, one.letters) for one in found.incomplete] == [(3, ("C",))]


def test_comments_are_told_of_the_system_they_are_about(tmp_path: Path) -> None:
    folder = a_study(tmp_path, cases=2, readers=1)
    sheet = filled(sheets(folder)[0], planted_rank)
    gamma = next(row for row in rows_of(sheet) if planted_rank(row) == 1)
    text = sheet.read_text("utf-8-sig").replace(f"{gamma['text']},1,", f"{gamma['text']},1,'=good")

    sheet.write_text(text, "utf-8")
    found = study.result(folder, [sheet])

    assert [(one.system, one.text) for one in found.comments] == [("Gamma-Net", "=good")]


# -- what is refused --


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ([], "cases.jsonl holds no case"),
        ([a_study_case(), a_study_case()], "case 'patient-0' is there twice"),
        ([a_study_case(image="no.png")], "case 'patient-0': there is no image"),
        ([a_study_case(image=".")], "case 'patient-0': there is no image"),
        ([a_study_case(image="cases.jsonl")], "cases.jsonl': the file is none of DICOM, PNG"),
        ([a_study_case(systems={"a": "x"})], "at least two systems"),
        ([a_study_case(systems={"a": "x", "b": " "})], "case 'patient-0': 'b' is missing, empty"),
        ([a_study_case(systems={"a": "x", "b": "\x00"})], "'b' is missing, empty"),
        ([a_study_case(systems={"a": "x", "b": 1})], "'b' is missing, empty or not text"),
        ([a_study_case(systems={"a": "x", " ": "y"})], "a system's name is empty"),
        ([a_study_case(systems={"a": "x", "b": "y" * 32_001})], "longer than 32000 characters"),
        ([a_study_case(systems={str(n): "x" for n in range(27)})], "more than there are letters"),
        (
            [a_study_case(), a_study_case(1, systems={"Alpha-Net": "x", "Delta": "y"})],
            "case 'patient-1' has other systems than case 'patient-0': Beta-Net, Delta, Gamma-Net",
        ),
        ([a_study_case(id="")], "cases.jsonl, line 1: 'id' is missing"),
        ([a_study_case(picture="x.png")], "line 1: unknown field 'picture'"),
        ([["not", "a", "case"]], "line 1: not a JSON object"),
    ],
)
def test_cases_that_cannot_be_used_are_wrong_use(gsco, tmp_path: Path, cases, sentence) -> None:
    outcome = gsco("create", "--cases", written(tmp_path, cases), "--out", tmp_path / "out")

    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_wrong_use(gsco, tmp_path: Path) -> None:
    outcome = gsco("create", "--cases", tmp_path / "none.jsonl", "--out", tmp_path / "out")

    assert outcome.code == 2
    assert "none.jsonl: No such file" in outcome.err


def test_more_cases_per_reader_than_cases_are_wrong_use(gsco, tmp_path: Path) -> None:
    file = written(tmp_path, [a_study_case()])

    outcome = gsco("create", "--cases", file, "--out", tmp_path / "o", "--cases-per-reader", 2)

    assert outcome.code == 2
    assert outcome.err.strip() == "gsco: 2 cases per reader: there are only 1 cases"


def test_a_study_is_never_overwritten(gsco, tmp_path: Path) -> None:
    folder = a_study(tmp_path)
    before = (folder / "key.json").read_bytes()

    outcome = gsco("create", "--cases", written(tmp_path, [a_study_case()]), "--out", folder)

    assert outcome.code == 2
    assert "is not an empty folder" in outcome.err
    assert (folder / "key.json").read_bytes() == before


def with_first_row(sheet: Path, **cells: str) -> Path:
    """The filled sheet with other cells in its first row."""
    rows = rows_of(filled(sheet, planted_rank))
    rows[0] |= cells
    study_sheets.write(sheet, rows)
    return sheet


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"rank": "4"}, "reader-1.csv, case 1, A: rank 4 is not between 1 and 3"),
        ({"rank": "0"}, "rank 0 is not between 1 and 3"),
        ({"rank": "nan"}, "rank nan is not between 1 and 3"),
        ({"rank": "best"}, "case 1, A: 'best' is not a rank"),
        ({"letter": "D"}, "case 1, D: not on the sheet that reader 1 was given"),
        ({"letter": "B"}, "case 1, B: there twice"),
        ({"case": "x"}, "case x, A: not on the sheet"),
        ({"study": "study-0"}, "reader-1.csv is a sheet of another study"),
        ({"reader": "2"}, "reader-1.csv is not the sheet of one reader"),
    ],
)
def test_rows_that_cannot_be_right_are_wrong_use(gsco, tmp_path: Path, cells, sentence) -> None:
    folder = a_study(tmp_path)

    outcome = gsco("import", folder, with_first_row(sheets(folder)[0], **cells))

    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is no sheet: it has no column case, letter, rank, reader, study"),
        (b"study,reader,case,letter\r\n", "it has no column rank"),
        (b"study,reader,case,letter,rank\r\n", "is not the sheet of one reader"),
        ("Lungenödem".encode("cp1252"), "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_sheet_is_wrong_use(gsco, tmp_path: Path, content, sentence) -> None:
    sheet = tmp_path / "x.csv"
    sheet.write_bytes(content)

    outcome = gsco("import", a_study(tmp_path), sheet)

    assert outcome.code == 2
    assert sentence in outcome.err


def test_two_sheets_of_one_reader_are_wrong_use(gsco, tmp_path: Path) -> None:
    folder = a_study(tmp_path)
    sheet = filled(sheets(folder)[0], planted_rank)

    outcome = gsco("import", folder, sheet, sheet)

    assert outcome.code == 2
    assert "are both of reader 1" in outcome.err


def test_a_sheet_of_another_study_is_wrong_use(gsco, tmp_path: Path) -> None:
    folder, other = a_study(tmp_path), a_study(tmp_path, seed=8)

    outcome = gsco("import", folder, *all_filled(other))

    assert outcome.code == 2
    assert "filled-reader-1.csv is a sheet of another study" in outcome.err


def test_sheets_that_nobody_filled_are_wrong_use(gsco, tmp_path: Path) -> None:
    folder = a_study(tmp_path)

    outcome = gsco("import", folder, *sheets(folder))

    assert outcome.code == 2
    assert outcome.err.strip() == "gsco: no case has all its ranks"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_folder_without_a_sound_key_is_wrong_use(
    gsco, tmp_path: Path, content: str | None
) -> None:
    folder = a_study(tmp_path)
    key = folder / "key.json"
    key.unlink() if content is None else key.write_text(content)

    outcome = gsco("import", folder, *sheets(folder))

    assert outcome.code == 2
    assert "key.json" in outcome.err
