"""A study → runs: planned once, run on this machine or on a Ray cluster, resumed wherever they were left.

    study.yaml → plan (which runs, which are finished) → engine (local processes | Ray tasks) → run directories

The failure model: a run's state is its run directory and nothing else. There is no database and no lock: what is
finished is what its journal says is finished, so a sweep can be killed at any moment and started again.
"""
