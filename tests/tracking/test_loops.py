"""Everybody's loop: each example trains to the same bits tracked and not, and its run is whole."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from fishlens import InputError, estimate_fisher, find_blocks, load_runs

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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "library"),
    [("plain_loop", "torch"), ("lightning_loop", "lightning"), ("accelerate_loop", "accelerate")],
)
def test_an_example_trains_to_the_same_bits_tracked_and_not_and_its_numbers_are_right(
    example, tmp_path, name, library
):
    module = example(name, library)
    tracked, plain = trained(module, str(tmp_path / "run")), trained(module, None)
    assert all(torch.equal(a, b) for a, b in zip(tracked, plain, strict=True))
    runs = load_runs(tmp_path / "run")
    assert runs.runs.status.tolist() == ["finished"]
    assert sorted(set(runs.fisher.step)) == [0, 4, 8, 12]

    model, batches = module.make_model(), module.make_batches()
    first = {"input": batches[0][0]}
    expected = estimate_fisher(model, first, blocks=find_blocks(model, by="module"), output="classification")
    at_start = runs.fisher[runs.fisher.step == 0]
    assert dict(zip(at_start.block, at_start.trace, strict=True)) == pytest.approx(expected.trace, rel=1e-6)
    if name != "plain_loop":
        assert len(runs.training.loss) >= 3


@pytest.mark.filterwarnings("ignore")
def test_a_part_of_a_lightning_module_that_is_not_there_is_refused_by_name(example, monkeypatch):
    module = example("lightning_loop", "lightning")
    from fishlens.lightning import FisherCallback

    callback = FisherCallback(model="encoder")
    with pytest.raises(InputError, match="Classifier has no module 'encoder'"):
        callback.on_train_start(None, module.Classifier())
