"""The Ray engine: the same runs over two nodes, one of which is lost in the middle."""

from threading import Thread

import pandas as pd
import pytest

from fishlens import load_runs
from fishlens.sweep.local import run_locally
from fishlens.sweep.on_ray import _run_on_a_node, run_on_ray
from fishlens.sweep.plan import Status, plan, state_of
from fishlens.sweep.study import load_study

ray = pytest.importorskip("ray", reason="needs Ray (pip install 'fishlens[ray]')")

CLOCKS = ["time", "seconds", "overhead"]
LAST = 200  # steps: long enough to be in the middle of


@pytest.fixture
def cluster():
    """A head without CPUs and two nodes of one CPU each, on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.doomed = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def study(study_file):
    study = load_study(study_file)
    study.set.update({"train.steps": LAST, "checkpoint.every": 10, "evaluate.every": 60})
    study.grids[0].vary["seed"] = [0]
    return study


def test_a_node_lost_in_the_middle_loses_nothing_and_the_journals_are_those_of_one_machine(
    cluster, study, tmp_path, wait_until
):
    list(run_locally(plan(study, tmp_path / "here"), jobs=2))
    planned = plan(study, tmp_path / "there")

    def lose_a_node():
        wait_until(lambda: all(steps_done(run.folder) >= 25 for run in planned))
        cluster.remove_node(cluster.doomed, allow_graceful=False)

    accident = Thread(target=lose_a_node)
    accident.start()
    outcomes = list(run_on_ray(planned, address=cluster.address, threads=1))
    accident.join()
    assert {one.name: one.error for one in outcomes} == {run.name: None for run in planned}
    assert len(outcomes) == len(planned)

    here, there = load_runs(tmp_path / "here"), load_runs(tmp_path / "there")
    assert sorted(there.runs["attempts"]) == [1, 2], "the accident did not hit a run in the middle"
    for frame in ("fisher", "training", "evaluation", "unfreezing"):
        pd.testing.assert_frame_equal(timeless(getattr(there, frame)), timeless(getattr(here, frame)))


def test_a_run_kept_in_an_object_store_goes_on_from_there_on_another_node(study, tmp_path):
    run = plan(study, tmp_path / "runs")[0]
    kept = f"file://{tmp_path}/store/{run.name}"
    outcome = _run_on_a_node(run.name, str(run.folder), {**run.recipe, "train": {"steps": 0}}, 1, kept)
    assert "train" in outcome.error, "a wrong recipe is refused with its field"
    outcome = _run_on_a_node(run.name, str(run.folder), run.recipe, 1, kept)
    assert outcome.error is None
    assert not run.folder.exists(), "the node works in scratch space"
    assert state_of(tmp_path / "store" / run.name)[0] is Status.FINISHED


def steps_done(folder):
    path = folder / "journal-1.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


def timeless(frame):
    """Rows in one order, without what clocks say and without where the run lay."""
    kept = frame.drop(columns=[c for c in CLOCKS if c in frame])
    keys = [c for c in ("run", "step", "block", "language", "metric", "position") if c in kept]
    return kept.sort_values(keys, kind="stable").reset_index(drop=True).astype({"run": str})
