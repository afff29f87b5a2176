"""Benchmarks that compare side by side in one run: `make bench ARGS="end-to-end --json"`.

end-to-end   one warm diagnosis, against the published procedure with the same models
generalist   an arbitration after its initial diagnosis, and without, on both engines (minutes)
evaluation   GSCo against every other system, deceptions, ablations, other hospitals (an hour)
"""

import argparse
from pathlib import Path

from tests.benchmarks import end_to_end, evaluation, generalist


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
    options = parser.parse_args()
    if options.benchmark == "end-to-end":
        end_to_end.main(options.cases, as_json=options.json)
    elif options.benchmark == "generalist":
        generalist.main(options.cases, as_json=options.json)
    else:
        evaluation.main(options.data, options.home, options.out)


if __name__ == "__main__":
    main()
