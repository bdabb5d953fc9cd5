"""The study's journals as small files: python analysis/studies/transfer/collect.py [RUNS ...]

RUNS are folders of runs, by default runs/transfer and runs/transfer-tlm.

Writes data/*.parquet (`fishlens export`) beside this file, without the paths of the machine that ran it.
"""

import sys
from dataclasses import replace
from pathlib import Path

from fishlens.analysis.selection import folder_name

from fishlens.journal import export_runs, load_runs

HERE = Path(__file__).parent


def main() -> None:
    loaded = load_runs(sys.argv[1:] or ["runs/transfer", "runs/transfer-tlm"])
    table = loaded.runs
    names = {name: table[name].map(folder_name) for name in ("path", "model")}
    counts = export_runs(replace(loaded, runs=table.assign(**names)), HERE / "data")
    sys.stdout.write(f"{counts} rows in {HERE / 'data'}\n")


if __name__ == "__main__":
    main()
