"""Benchmarks that compare side by side in one run: `make bench ARGS="end-to-end --json"`.

end-to-end   one warm diagnosis, against the published procedure with the same models
generalist   an arbitration after its initial diagnosis, and without, on both engines (minutes)
panel        ten full-size specialists, against the published procedure (a quarter of an hour)
agreement    the labels of trained nano specialists in 8-bit integers and in float32 (a minute)
swap         latency of other consultations while a specialist is replaced (minutes)
evaluation   GSCo against every other system, deceptions, ablations, other hospitals (an hour)
retrieval    1k to 1M reference cases: recall, latency, memory, additions (a quarter of an hour)
features     pooled against unpooled features, one retriever against all, on real data (minutes)
index-kinds  flat, inverted lists and graphs on the same vectors (minutes at 100,000)
burned-in    text printed on real images: found, and found in vain (two minutes)
jobs         what durable jobs cost, and who goes on when a process dies (two minutes)
audit        what recording an event costs, and checking many (seconds)
spans        what timing a stretch of work costs, with figures and with traces (seconds)
page         first paint, and from the drop of a demo case to its answer in Chromium (two minutes)
gradcam      pointing game of every specialist's heat map on phantoms, against chance (a minute)
"""

import argparse
from dataclasses import fields
from pathlib import Path

from specialists.catalogue import PANEL, Scale
from tests.benchmarks import (
    agreement,
    audit,
    burned_in,
    end_to_end,
    evaluation,
    features,
    generalist,
    gradcam,
    index_kinds,
    jobs,
    page,
    panel,
    retrieval,
    spans,
    swap,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_subparsers(dest="benchmark", required=True)
    warm = chosen.add_parser("end-to-end")
    warm.add_argument("--cases", type=int, default=30)
    warm.add_argument("--json", action="store_true")
    shares = chosen.add_parser("generalist")
    shares.add_argument("--cases", type=int, default=30)
    shares.add_argument("--json", action="store_true")
    decides = chosen.add_parser("evaluation")
    decides.add_argument("--data", type=Path, help="folder of cxr_kermany/, busi/ and cxr_nih/")
    decides.add_argument("--home", type=Path, required=True, help="home folder to work in")
    decides.add_argument("--out", type=Path, help="Markdown file to write")
    finds = chosen.add_parser("features")
    finds.add_argument("--home", type=Path, required=True, help="home folder with the specialists")
    finds.add_argument("--task", required=True)
    finds.add_argument("--data", type=Path, required=True)
    finds.add_argument("--split", default="test")
    finds.add_argument("--json", action="store_true")
    kinds = chosen.add_parser("index-kinds")
    kinds.add_argument("--size", type=int, default=100_000)
    kinds.add_argument("--json", action="store_true")
    points = chosen.add_parser("gradcam")
    points.add_argument("--cases", type=int, default=100)
    points.add_argument("--json", action="store_true")
    opened = chosen.add_parser("page")
    opened.add_argument("--times", type=int, default=10)
    opened.add_argument("--json", action="store_true")
    full = chosen.add_parser("panel")
    full.add_argument("--images", type=int, default=64)
    full.add_argument("--published-images", type=int, default=2, help="in each round")
    full.add_argument("--references", type=int, default=546)
    full.add_argument("--rounds", type=int, default=5)
    full.add_argument("--scale", type=Scale, default=Scale.FULL, choices=list(Scale))
    full.add_argument("--device", default="cpu")
    full.add_argument("--specialists", type=Path, help="a trained panel, instead of random weights")
    full.add_argument("--backbones", nargs="+", default=list(PANEL), help="some: only their table")
    full.add_argument("--numbers", action="store_true", help="graphs in all numbers, too")
    full.add_argument("--compiler", action="store_true", help="torch.compile, too")
    full.add_argument("--json", action="store_true")
    agrees = chosen.add_parser("agreement")
    agrees.add_argument("--images", type=int, default=1000)
    agrees.add_argument("--json", action="store_true")
    changes = chosen.add_parser("swap")
    changes.add_argument("--scale", type=Scale, default=Scale.FULL, choices=list(Scale))
    changes.add_argument("--rounds", type=int, default=5)
    changes.add_argument("--pace", type=float, default=1.0, help="seconds between two images")
    changes.add_argument("--json", action="store_true")
    near = chosen.add_parser("retrieval")
    near.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    near.add_argument("--folder", type=Path, help="where the temporary homes go (5 GB at 1M)")
    near.add_argument("--json", action="store_true")
    prints = chosen.add_parser("burned-in")
    prints.add_argument("--data", type=Path, required=True, help="as of evaluation")
    prints.add_argument("--json", action="store_true")
    durable = chosen.add_parser("jobs")
    durable.add_argument("--engine", choices=jobs.ENGINES, default="ours")
    durable.add_argument("--count", type=int, default=100)
    durable.add_argument("--json", action="store_true")
    costs = chosen.add_parser("audit")
    costs.add_argument("--events", type=int, default=300)
    costs.add_argument("--database", help="URL of an empty one; default: SQLite, gone afterwards")
    costs.add_argument("--json", action="store_true")
    spanned = chosen.add_parser("spans")
    spanned.add_argument("--count", type=int, default=2000)
    spanned.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.benchmark == "end-to-end":
        end_to_end.main(options.cases, as_json=options.json)
    elif options.benchmark == "generalist":
        generalist.main(options.cases, as_json=options.json)
    elif options.benchmark == "panel":
        panel.main(_panel_options(options), as_json=options.json)
    elif options.benchmark == "agreement":
        agreement.main(options.images, as_json=options.json)
    elif options.benchmark == "swap":
        swap.main(options.scale, options.rounds, options.pace, as_json=options.json)
    elif options.benchmark == "gradcam":
        gradcam.main(options.cases, as_json=options.json)
    elif options.benchmark == "index-kinds":
        index_kinds.main(options.size, as_json=options.json)
    elif options.benchmark == "features":
        features.main(options.home, options.task, options.data, options.split, as_json=options.json)
    elif options.benchmark == "burned-in":
        burned_in.main(options.data, as_json=options.json)
    elif options.benchmark == "jobs":
        jobs.main(options.engine, options.count, as_json=options.json)
    elif options.benchmark == "audit":
        audit.main(options.events, options.database, as_json=options.json)
    elif options.benchmark == "spans":
        spans.main(options.count, as_json=options.json)
    elif options.benchmark == "page":
        page.main(options.times, as_json=options.json)
    elif options.benchmark == "retrieval":
        retrieval.main(options.sizes, options.folder, as_json=options.json)
    else:
        evaluation.main(options.data, options.home, options.out)


def _panel_options(given: argparse.Namespace) -> panel.Options:
    names = [field.name for field in fields(panel.Options)]
    chosen = {name: getattr(given, name) for name in names}
    return panel.Options(**{**chosen, "backbones": tuple(given.backbones)})


if __name__ == "__main__":
    main()
