"""Everybody's loop: each example trains to the same bits tracked and not, and its run is whole."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from fishlens import InputError, Tracker, estimate_fisher, find_blocks, load_runs, watching
from tests.tracking.test_processes import PROCESSES, together

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """An example as a module, by its name; skipped where its library is not installed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    made = []

    def load(name, library):
        pytest.importorskip(library)
        for each in (name, "plain_loop"):
            monkeypatch.delitem(sys.modules, each, raising=False)
            made.append(each)
        return importlib.import_module(name)

    yield load
    for name in made:
        sys.modules.pop(name, None)


def reset():
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def trained(module, run):
    torch.manual_seed(5)
    model = module.train(run)
    reset()
    return [p.detach().clone() for p in model.parameters()]


def assert_right(module, run):
    """The run is whole, and its first probe is what `estimate_fisher` says of the first batch."""
    runs = load_runs(run)
    assert runs.runs.status.tolist() == ["finished"]
    assert sorted(set(runs.fisher.step)) == [0, 4, 8, 12]
    model, batches = module.make_model(), module.make_batches()
    first = {"input": batches[0][0]}
    expected = estimate_fisher(model, first, blocks=find_blocks(model, by="module"), output="classification")
    at_start = runs.fisher[runs.fisher.step == 0]
    assert dict(zip(at_start.block, at_start.trace, strict=True)) == pytest.approx(expected.trace, rel=1e-6)
    return runs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "library", "logs"),
    [
        ("plain_loop", "torch", False),
        ("accelerate_loop", "accelerate", True),
        ("lightning_loop", "lightning", True),
        ("fabric_loop", "lightning", False),
    ],
)
def test_an_example_trains_to_the_same_bits_tracked_and_not_and_its_numbers_are_right(
    example, tmp_path, name, library, logs
):
    module = example(name, library)
    tracked, plain = trained(module, str(tmp_path / "run")), trained(module, None)
    assert all(torch.equal(a, b) for a, b in zip(tracked, plain, strict=True))
    runs = assert_right(module, tmp_path / "run")
    assert len(runs.training.loss) >= 3 if logs else not len(runs.training)


@pytest.mark.filterwarnings("ignore")
def test_ray_train_trains_to_the_same_bits_and_its_numbers_are_right(example, tmp_path):
    """In this process; with two workers by `python benchmarks/loops.py`."""
    train = pytest.importorskip("ray.train.torch", reason="needs Ray (pip install 'fishlens[ray]')")
    from ray.train import ScalingConfig

    module, weights = example("ray_train", "ray"), []

    def in_a_worker(config):
        weights.append(trained(module, config["run"]))

    for run in (str(tmp_path / "run"), None):
        try:
            one = ScalingConfig(num_workers=0)
        except ValueError:
            pytest.skip("this Ray has no local mode")
        train.TorchTrainer(in_a_worker, train_loop_config={"run": run}, scaling_config=one).fit()
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert_right(module, tmp_path / "run")


# -- two processes of Lightning's -------------------------------------------------------------------------------------


def _lightning_in_two(rank, folder):
    import fabric_loop
    import lightning_loop
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy as FabricShards
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import ModelParallelStrategy

    from fishlens.lightning import FisherCallback

    for loop in (lightning_loop, fabric_loop):
        weights = []
        for run in (str(folder / loop.__name__), None):
            torch.manual_seed(5)
            weights.append([p.detach().clone() for p in loop.train(run, PROCESSES).parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True)), loop

    class Sharded(lightning_loop.Classifier):
        def configure_model(self):
            fully_shard(self.net[0], mesh=self.device_mesh["data_parallel"])

    shares = {"data_parallel_size": PROCESSES, "tensor_parallel_size": 1}
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    on_two = {"accelerator": "cpu", "devices": PROCESSES}
    options = {"run": folder / "sharded", "blocks": "module", "output": "classification"}
    for part in (None, "net"):
        trainer = Trainer(
            max_epochs=1,
            strategy=ModelParallelStrategy(**shares),
            callbacks=[FisherCallback(model=part, **options)],
            **on_two,
            **quiet,
        )
        with pytest.raises(InputError, match=r"0\.weight' is sharded"):
            trainer.fit(
                Sharded(), torch.utils.data.DataLoader(lightning_loop.make_batches(), batch_size=None)
            )

    def shard(model, mesh):
        fully_shard(model[0], mesh=mesh["data_parallel"])
        return model

    fabric = Fabric(strategy=FabricShards(parallelize_fn=shard, **shares), **on_two)
    fabric.launch()
    prepared = fabric.setup(fabric_loop.make_model())
    for way in (lambda **options: Tracker(prepared, torch.zeros(4, 16), **options), watching):
        with pytest.raises(InputError, match=r"0\.weight' is sharded"):
            way(**({"model": prepared} if way is watching else {}), **options)
    assert not (folder / "sharded").exists()
    (folder / f"done-{rank}").touch()


@pytest.mark.filterwarnings("ignore")
def test_lightning_in_two_processes_is_measured_by_the_first_and_refused_by_both_where_it_shards(
    example, tmp_path
):
    pytest.importorskip("lightning", reason="needs Lightning (pip install lightning)")
    of_trainer, of_fabric = (example(name, "lightning") for name in ("lightning_loop", "fabric_loop"))
    together(_lightning_in_two, tmp_path)
    assert len(list(tmp_path.glob("done-*"))) == PROCESSES
    assert_right(of_trainer, tmp_path / "lightning_loop")
    assert_right(of_fabric, tmp_path / "fabric_loop")


@pytest.mark.filterwarnings("ignore")
def test_a_part_of_a_lightning_module_that_is_not_there_is_refused_by_name(example, monkeypatch):
    module = example("lightning_loop", "lightning")
    from fishlens.lightning import FisherCallback

    callback = FisherCallback(model="encoder")
    with pytest.raises(InputError, match="Classifier has no module 'encoder'"):
        callback.on_train_start(None, module.Classifier())


def _deepspeed_in_two(rank, folder):
    import deepspeed
    import deepspeed_engine

    tracked, plain = (trained(deepspeed_engine, run) for run in (str(folder / "run"), None))
    assert all(torch.equal(a, b) for a, b in zip(tracked, plain, strict=True))
    model = deepspeed_engine.make_model()
    config = {
        "train_micro_batch_size_per_gpu": 8,
        "zero_optimization": {"stage": 3},
        "zero_allow_untested_optimizer": True,
    }
    engine, _, _, _ = deepspeed.initialize(
        model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2), config=config
    )
    options = {"run": folder / "sharded", "blocks": "module", "output": "classification"}
    with pytest.raises(InputError, match=r"0\.weight' is sharded"):
        watching(engine, **options)
    with pytest.raises(InputError, match=r"0\.weight' is sharded"):
        Tracker(engine, torch.zeros(4, 16), **options)
    (folder / f"done-{rank}").touch()


@pytest.mark.filterwarnings("ignore")
def test_deepspeeds_engine_trains_to_the_same_bits_in_two_processes_and_zero_3_is_refused_by_both(
    example, tmp_path, monkeypatch
):
    """In processes of their own: what DeepSpeed knows of a group outlives the group."""
    deepspeed = pytest.importorskip("deepspeed", reason="needs DeepSpeed (pip install deepspeed)")
    # its kernels for several processes of one machine would be compiled now: most of a minute
    monkeypatch.setitem(deepspeed.ops.__compatible_ops__, "deepspeed_shm_comm", False)
    module = example("deepspeed_engine", "deepspeed")
    together(_deepspeed_in_two, tmp_path)
    assert len(list(tmp_path.glob("done-*"))) == PROCESSES and not (tmp_path / "sharded").exists()
    assert_right(module, tmp_path / "run")
