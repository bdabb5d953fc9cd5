"""An example is an example: in whatever form a batch comes, and however many documents share a row."""

import inspect
import math
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fishlens import InputError, estimate_fisher, find_blocks
from fishlens.fisher.batches import Batch, as_batch, batches_of

from .architectures import tiny
from .models import sentences

IDS = torch.randint(4, 60, (4, 6), generator=torch.Generator().manual_seed(0))


def test_a_list_from_a_loader_is_one_batch_of_inputs_and_labels():
    model = nn.Sequential(nn.Linear(3, 3)).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randint(0, 3, (8,))
    blocks = find_blocks(model, by="module")
    listed = next(iter(DataLoader(TensorDataset(x, y), batch_size=8)))
    assert isinstance(listed, list)
    found = estimate_fisher(model, listed, blocks=blocks, labels="empirical")
    assert found.examples == 8
    assert found.trace == estimate_fisher(model, (x, y), blocks=blocks, labels="empirical").trace


@pytest.mark.parametrize(
    "data",
    [
        [IDS, torch.ones_like(IDS)],
        [IDS, torch.ones_like(IDS), torch.zeros(4, dtype=torch.long)],
        [torch.randn(4, 3), torch.randn(4, 3)],
        [(IDS, torch.ones_like(IDS))],
    ],
)
def test_tensors_whose_meaning_cannot_be_told_are_asked_for(data):
    with pytest.raises(InputError, match=r"'attention_mask'"):
        list(batches_of(data))


def test_batches_of_inputs_alone_are_batches():
    assert [b.size for b in batches_of([torch.randn(4, 3) for _ in range(3)])] == [4, 4, 4]
    assert [b.size for b in batches_of([IDS, IDS[:2]])] == [4, 2]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (
            {"input_ids_chosen": IDS, "input_ids_rejected": IDS},
            "holds pairs .input_ids_chosen, input_ids_rej",
        ),
        ({"input_ids": IDS[0]}, "a single row; expected"),
        ((IDS, IDS, IDS), "a batch is a tuple of 3"),
    ],
)
def test_what_is_not_a_batch_of_examples_is_named(item, says):
    with pytest.raises(InputError, match=says):
        as_batch(item)


def test_columns_that_the_model_does_not_take_are_left_out_with_a_note():
    model, batch = tiny("Bert"), sentences()
    if any(p.kind == p.VAR_KEYWORD for p in inspect.signature(model.forward).parameters.values()):
        pytest.skip("this transformers takes any column")
    plain = estimate_fisher(model, batch)
    more = estimate_fisher(model, batch | {"idx": torch.arange(5), "text": ["a"] * 5})
    assert more.trace == plain.trace
    assert "idx: the model's forward does not take it; left out" in more.meta["notes"]
    assert "text: the model's forward does not take it; left out" in more.meta["notes"]


def packed(how: str) -> dict[str, torch.Tensor]:
    """Three documents of 3, 5 and 4 tokens in one row."""
    lengths = [3, 5, 4]
    row = {"input_ids": torch.cat([IDS[n, :length] for n, length in enumerate(lengths)])[None]}
    numbers = torch.cat([torch.full((length,), n) for n, length in enumerate(lengths)])[None]
    if how == "position_ids":
        row[how] = torch.cat([torch.arange(length) for length in lengths])[None]
    elif how == "attention_mask":
        row[how] = numbers + 1
    elif how == "cu_seq_lens_q":
        row[how] = torch.tensor([0, 3, 8, 12])
    else:
        row[how] = numbers
    return row


@pytest.mark.parametrize("how", ["position_ids", "attention_mask", "seq_idx", "cu_seq_lens_q"])
def test_documents_that_share_a_row_are_the_examples(how):
    model = tiny("Llama", "ForCausalLM", vocab_size=60).double()
    alone = [{"input_ids": IDS[n : n + 1, :length]} for n, length in enumerate([3, 5, 4])]
    found = estimate_fisher(model, packed(how), labels="mc")
    expected = estimate_fisher(model, alone, labels="mc")
    assert found.examples == 3
    for block, values in expected.per_example.items():
        torch.testing.assert_close(found.per_example[block], values, rtol=1e-9, atol=0)


MASKS = {
    "added": lambda allowed: torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -1e9),
    "boolean": lambda allowed: allowed,
}


def in_pairs(how, causal, padding=2):
    """Documents of 3, 5 and 4 tokens in a row, with padding behind, as a mask `[1, 1, T, T]` says."""
    lengths = [3, 5, 4]
    ids = torch.cat([IDS[n, :length] for n, length in enumerate(lengths)] + [IDS[3, :padding]])
    of = torch.repeat_interleave(torch.arange(4), torch.tensor([*lengths, padding]))
    allowed = (of.unsqueeze(0) == of.unsqueeze(1)) & (of < 3)
    if causal:
        allowed = allowed.tril()
    positions = torch.cat([torch.arange(length) for length in [*lengths, padding]])
    return {
        "input_ids": ids.unsqueeze(0),
        "attention_mask": MASKS[how](allowed)[None, None],
        "position_ids": positions.unsqueeze(0),
    }


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("how", MASKS)
def test_a_mask_in_which_no_token_sees_another_document_says_which_are_the_examples(how, labels):
    model = tiny("Llama", "ForCausalLM", vocab_size=60, attn_implementation="sdpa").double()
    alone = [{"input_ids": IDS[n : n + 1, :length]} for n, length in enumerate([3, 5, 4])]
    item = in_pairs(how, causal=True)
    if labels:
        item["labels"] = item["input_ids"].clone()
    found = estimate_fisher(model, item, labels="mc")
    expected = estimate_fisher(model, alone, labels="mc")
    assert found.examples == 3
    for block, values in expected.per_example.items():
        torch.testing.assert_close(found.per_example[block], values, rtol=1e-9, atol=0)


def test_documents_by_a_mask_alone_have_no_positions_and_a_mask_of_one_document_a_row_is_left_as_it_is():
    item = in_pairs("added", causal=False)
    assert as_batch(item).size == 3
    positions = item.pop("position_ids")
    with pytest.raises(InputError, match=r"3 in 1 rows, says attention_mask .* expected position_ids"):
        as_batch(item)
    row = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    row[1, :, :, 3:] = False
    plain = {"input_ids": IDS[:2, :5], "attention_mask": row}
    assert as_batch(plain).size == 2 and as_batch(plain).inputs["attention_mask"] is row
    assert positions.shape == (1, 14)


def test_a_column_that_belongs_to_no_token_of_packed_rows_is_named():
    with pytest.raises(InputError, match=r"'scores' of shape \[1, 3\] is not one value a token"):
        as_batch(packed("position_ids") | {"scores": torch.zeros(1, 3)})


def test_positions_of_padding_on_the_left_are_no_documents():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    item = {
        "input_ids": IDS[:2, :4],
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
    assert as_batch(item).size == 2


def test_one_example_has_no_standard_error_and_a_note():
    found = estimate_fisher(tiny("Bert"), {k: v[:1] for k, v in sentences().items()})
    assert math.isnan(found.stderr["head"]) and "one example has no standard error" in found.meta["notes"]


class Nested(nn.Module):
    """Takes one argument that holds the tensors of a batch."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale, self.out = nn.Linear(4, 6), nn.Parameter(torch.randn(6)), nn.Linear(6, 3)

    def forward(self, batch):
        x, mask = (batch["x"], batch["more"]["mask"]) if isinstance(batch, dict) else batch
        hidden = torch.tanh(self.inner(x)) * mask[..., None] * self.scale
        return self.out(torch.sort(hidden, 1).values.mean(1))


class Pair(NamedTuple):
    x: torch.Tensor
    mask: torch.Tensor


@pytest.mark.parametrize("how", ["mapping", "list", "tuple", "named tuple"])
def test_examples_in_nested_arguments_are_taken_out_one_by_one(how):
    torch.manual_seed(0)
    model = Nested().double()
    x, mask = torch.randn(5, 7, 4).double(), torch.rand(5, 7).double()
    given = {
        "mapping": {"x": x, "more": {"mask": mask}}, "list": [x, mask], "tuple": (x, mask), "named tuple": Pair(x, mask)
    }[how]  # fmt: skip
    batch = Batch((given,), {}, {}, 5)
    blocks = find_blocks(model, by="module")
    found = estimate_fisher(model, batch, blocks=blocks, labels="exact")
    for block in blocks:
        for n in range(5):
            log_p = model((x[n : n + 1], mask[n : n + 1])).log_softmax(-1)[0]
            right = sum(
                log_p[c].exp().item() * gradient.square().sum().item()
                for c in range(3)
                for gradient in torch.autograd.grad(
                    log_p[c], list(block.parameters.values()), retain_graph=True
                )
            )
            assert found.per_example[block.name][n].item() == pytest.approx(right, rel=1e-9)


def test_a_nested_tensor_is_refused_in_one_sentence():
    ragged = torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(2, 4)])
    with pytest.raises(InputError, match="nested tensor; expected padded rows"):
        as_batch(ragged)
