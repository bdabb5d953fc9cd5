"""A script is tracked without knowing it: run as Python runs it, and every Trainer it makes has one callback more."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fishlens import FisherCallback, load_runs
from fishlens.tracking import attach
from fishlens.tracking.account import lines, read
from fishlens.tracking.attached import AttachedCallback
from fishlens.tracking.guard import say
from fishlens.tracking.settings import VARIABLE

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_classification.py"
FISHLENS = [sys.executable, "-c", "from fishlens.cli import main; main()"]


def python(arguments, where, **environment):
    return subprocess.run(
        arguments, cwd=where, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


# -- the script itself: Python's own behaviour, to the letter ------------------------------------------------------

SCRIPT = """
import sys, os
print(sys.argv, __name__, __file__, sys.path[0], __spec__ is None, sorted(m for m in sys.modules if "torch" in m))
print(os.getcwd(), flush=True)
if "fail" in sys.argv:
    def inner():
        raise ValueError("from the script")
    inner()
sys.exit(7 if "seven" in sys.argv else None)
"""


@pytest.mark.parametrize(
    "arguments", [[], ["--every", "3", "-m", "--", "x y", "--help"], ["fail"], ["seven"]], ids=str
)
@pytest.mark.parametrize("as_module", [False, True])
def test_a_script_sees_what_it_would_see_under_python(tmp_path, arguments, as_module):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "script.py").write_text(SCRIPT)
    target = ["-m", "package.script"] if as_module else ["package/script.py"]
    plain = python([sys.executable, *target, *arguments], tmp_path)
    tracked = python([*FISHLENS, "track", "--run", "run", *target, *arguments], tmp_path)
    assert tracked.returncode == plain.returncode
    assert tracked.stdout == plain.stdout
    said = [
        line for line in tracked.stderr.splitlines() if not line.startswith("fishlens: NOTHING WAS TRACKED")
    ]
    assert said == plain.stderr.splitlines()
    assert "NOTHING WAS TRACKED" in tracked.stderr


def test_children_are_reached_and_keep_their_own_sitecustomize(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.mine = 'kept'\n")
    (tmp_path / "launch.py").write_text(
        "import multiprocessing, subprocess, sys\n"
        "look = 'import sys; print(mine, [type(f).__name__ for f in sys.meta_path][:1], sys.path[1:2])'\n"
        "def work(): print('spawned', __name__, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    subprocess.run([sys.executable, '-c', look], check=True)\n"
        "    child = multiprocessing.get_context('spawn').Process(target=work); child.start(); child.join()\n"
        "    sys.exit(child.exitcode)\n"
    )
    found = python([*FISHLENS, "track", "--run", "run", "launch.py"], tmp_path, PYTHONPATH=str(tmp_path))
    assert found.returncode == 0, found.stderr
    child, spawned = found.stdout.splitlines()
    assert child == f"kept ['_WhenImported'] [{str(tmp_path)!r}]" and spawned == "spawned __mp_main__"
    assert found.stderr.count("NOTHING WAS TRACKED") == 1  # once, by the process that was started


# -- the Trainers it makes -----------------------------------------------------------------------------------------


def test_a_python_without_fishlens_says_nothing(tmp_path):
    """A child of another environment: the interpreter that this environment was made from."""
    startup = Path(attach.__file__).parent / "startup"
    place = {"PYTHONPATH": str(startup), "FISHLENS_TRACK": '{"process": 0}', "PATH": os.environ["PATH"]}
    other = [sys._base_executable, "-c", "import sys; print('fishlens' in sys.modules)"]
    done = subprocess.run(other, env=place, cwd=tmp_path, capture_output=True, text=True, check=True)
    if "True" in done.stdout:
        pytest.skip("that interpreter has fishlens, too")
    assert done.stderr == ""


@pytest.fixture
def attached(tmp_path, monkeypatch):
    """This process as `fishlens track --run <tmp>/run` would have made it; gives the function that attaches."""
    settings = {
        "run": str(tmp_path / "run"),
        "every": "4",
        "examples": 8,
        "labels": "auto",
        "factors": {"script": "x"},
    }
    account = tmp_path / "account.jsonl"
    account.touch()
    monkeypatch.setenv(VARIABLE, json.dumps({**settings, "process": -1, "account": str(account)}))
    monkeypatch.setattr(
        transformers.trainer, "DEFAULT_CALLBACKS", list(transformers.trainer.DEFAULT_CALLBACKS)
    )
    integrations = transformers.integrations.integration_utils
    monkeypatch.setattr(integrations, "INTEGRATION_TO_CALLBACK", dict(integrations.INTEGRATION_TO_CALLBACK))
    attach.attach()
    return tmp_path / "run"


def account(run):
    """What would be said at the end."""
    return lines(read(run.with_name("account.jsonl")))


def test_every_trainer_is_tracked_each_in_a_run_of_its_own(attached, make_model, make_trainer):
    for name in ("one", "two"):
        make_trainer(model := make_model(), output=name).train()
    kind = type(model).__name__
    assert account(attached) == [
        "2 trainings began, 2 tracked",
        f"training 1 ({kind}) tracked in {attached}",
        f"training 2 ({kind}) tracked in {attached}-2",
    ]
    runs = load_runs(attached.parent)
    assert set(runs.runs.run) == {"run", "run-2"} and set(runs.runs.script) == {"x"}
    assert runs.fisher.groupby("run", observed=True).step.unique().map(list).tolist() == [[0, 4, 8]] * 2


def test_report_to_fishlens_does_not_track_twice(attached, make_model, make_trainer):
    trainer = make_trainer(make_model(), report_to=["fishlens"])
    trainer.train()
    assert account(attached) == [f"tracked in {attached}"]
    assert len(load_runs(attached).fisher) == 3 * 4


def test_a_script_with_a_callback_of_its_own_is_left_to_it(attached, tmp_path, make_model, make_trainer):
    make_trainer(make_model(), [FisherCallback(every=8, run=tmp_path / "own", examples=8)]).train()
    assert account(attached) == [f"tracked in {tmp_path / 'own'}"] and not attached.exists()
    assert len(load_runs(tmp_path / "own").runs) == 1


def test_a_training_that_cannot_be_tracked_goes_on_and_is_said_to_be_untracked(
    attached, capsys, make_model, make_trainer
):
    model = make_model()
    trainer = make_trainer(model, max_steps=1)
    trainer.callback_handler.callbacks = [c for c in trainer.callback_handler.callbacks if c is not None]
    (callback,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, AttachedCallback))
    callback.options["labels"] = "zebra"
    trainer.train()
    assert "this training is NOT TRACKED, because labels='zebra' is unknown" in capsys.readouterr().err
    assert trainer.state.global_step == 1 and not attached.exists()
    nothing, why = account(attached)
    assert nothing == "NOTHING WAS TRACKED" and why.startswith("NOT TRACKED, because labels='zebra'")


def test_a_script_that_empties_its_environment_is_tracked_and_accounted_for(
    attached, monkeypatch, make_model, make_trainer
):
    settings = json.loads(os.environ[VARIABLE])
    monkeypatch.setattr(
        "fishlens.tracking.settings._at_start", settings
    )  # as `attach` leaves it in its process
    monkeypatch.delenv(VARIABLE)
    make_trainer(make_model(), max_steps=1).train()
    assert account(attached) == [f"tracked in {attached}"]


def test_a_training_that_is_tried_again_with_smaller_batches_is_one_training(
    attached, make_model, make_trainer
):
    model = make_model()
    real = model.forward

    def forward(input_ids, **others):
        if len(input_ids) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return real(input_ids=input_ids, **others)

    model.forward = forward
    trainer = make_trainer(model, max_steps=2, auto_find_batch_size=True, remove_unused_columns=False)
    trainer.train()
    assert trainer.state.train_batch_size == 2
    assert account(attached) == [f"tracked in {attached}"]


def test_nothing_is_said_on_standard_output_where_there_is_no_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    say("a word")
    assert capsys.readouterr().out == ""


# -- a public-style script, tracked and untracked ------------------------------------------------------------------


@pytest.fixture
def task_folder(tmp_path):
    """A pretrained model's folder and two .tsv files, as somebody might have them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: i for i, word in enumerate([*special.values(), *(f"w{i}" for i in range(40))])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, **shape)
    BertModel(config).save_pretrained(tmp_path / "model")
    rng = random.Random(0)
    for name, count in (("train", 64), ("dev", 16)):
        rows = [[rng.randrange(40) for _ in range(rng.randint(3, 8))] for _ in range(count)]
        lines = [f"{'abc'[row[0] % 3]}\t{' '.join(f'w{i}' for i in row)}" for row in rows]
        (tmp_path / f"{name}.tsv").write_text("label\ttext\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_an_unmodified_script_ends_in_the_same_bits_tracked_or_not(task_folder):
    """Adapter training with dropout, two workers and accumulation: weights, optimizer and random states."""
    pytest.importorskip("adapters", reason="the script trains an adapter of the library adapters")
    arguments = [
        "--model_name_or_path",
        "model",
        "--train_file",
        "train.tsv",
        "--validation_file",
        "dev.tsv",
        "--do_train",
        "--do_eval",
        "--max_steps",
        "6",
        "--per_device_train_batch_size",
        "4",
        "--gradient_accumulation_steps",
        "2",
        "--dataloader_num_workers",
        "2",
        "--report_to",
        "none",
        "--use_cpu",
        "--disable_tqdm",
        "true",
        "--learning_rate",
        "1e-2",
        "--logging_steps",
        "2",
        "--adapter",
        "seq_bn",
        "--output_dir",
    ]
    plain = python([sys.executable, EXAMPLE, *arguments, "plain"], task_folder)
    (task_folder / "de.txt").write_text("".join(f"w{i} w{i + 1}\n" for i in range(30)))
    options = ["--every", "2", "--run", "run", "--languages", "de=de.txt"]
    tracked = python([*FISHLENS, "track", *options, EXAMPLE, *arguments, "tracked"], task_folder)
    assert plain.returncode == tracked.returncode == 0, tracked.stderr
    assert "fishlens: tracked in" in tracked.stderr
    places = [task_folder / name / "checkpoint-6" for name in ("plain", "tracked")]
    for name in ("task/pytorch_adapter.bin", "task/pytorch_model_head.bin", "optimizer.pt", "scheduler.pt"):
        one, other = ((place / name).read_bytes() for place in places)
        assert one == other, name
    one, other = (torch.load(place / "rng_state.pth", weights_only=False) for place in places)
    assert one["python"] == other["python"] and torch.equal(one["cpu"], other["cpu"])
    assert str(one["numpy"]) == str(other["numpy"])
    numbers = re.compile(r"eval_(accuracy|loss) += +(\S+)")
    assert numbers.findall(plain.stdout) == numbers.findall(tracked.stdout)
    runs = load_runs(task_folder / "run")
    assert runs.runs.status[0] == "finished" and sorted(set(runs.fisher.step)) == [0, 2, 4, 6]
    assert set(runs.fisher.block) == {"layer.0", "layer.1", "head"}
    german = runs.fisher_series[runs.fisher_series.language == "de"]
    assert sorted(set(german.step)) == [0, 2, 4, 6] and set(german.examples) == {30}
    accuracy = runs.evaluation[runs.evaluation.metric == "accuracy"]
    # fractions of a known metric are points in the journal
    assert accuracy.value.tolist() == [100 * float(dict(numbers.findall(tracked.stdout))["accuracy"])]
