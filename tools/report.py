"""One or several run folders as one HTML file, to be printed or mailed: python -m tools.report RUN [RUN ...]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from src.files import replace_text
from src.report.page import write_page


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.report", description="Run folders as one HTML file.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder; several are set side by side")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the first run folder")
    parser.add_argument(
        "--without-ecg",
        action="store_true",
        help="read no record: masks stand on empty paper; the map keeps a point for each record",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and say where it is; a folder that is no run ends as one sentence and exit code 1."""
    parsed = parse(arguments)
    output = parsed.output or parsed.runs[0] / "report.html"
    try:
        replace_text(output, write_page(parsed.runs, show_ecg=not parsed.without_ecg))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {output} can't be written ({error.strerror}); name another file with --output", file=sys.stderr)
        return 1
    print(f"the report is in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
