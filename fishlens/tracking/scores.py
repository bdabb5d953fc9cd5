"""Scores of a Trainer's evaluations: split, language and metric, told from the names under which they come.

transformers gives every number of an evaluation one prefix: `eval`, what the script asks for (`metric_key_prefix`), and
for each set of a dictionary of evaluation sets `eval_<name>`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fishlens.journal.declarations import SCORE

SPLITS = {
    "eval": "validation", "evaluation": "validation", "valid": "validation", "validation": "validation",
    "val": "validation", "dev": "validation", "test": "test", "predict": "test", "prediction": "test",
    "predictions": "test", "train": "train",
}  # fmt: skip
_TIMINGS = (
    "runtime", "samples_per_second", "steps_per_second", "tokens_per_second", "model_preparation_time",
    "jit_compilation_time", "mem_cpu_alloc_delta", "mem_gpu_alloc_delta", "mem_cpu_peaked_delta",
    "mem_gpu_peaked_delta", "num_input_tokens_seen",
)  # fmt: skip
AS_COMPUTED = "as the script computed it"
_COUNTS = ("epoch", "samples", "num_samples", "n_samples", "total_flos")
_BOUNDED = {
    "accuracy", "acc", "f1", "precision", "recall", "auc", "exact", "em", "mcc", "correlation", "pearson",
    "pearsonr", "spearman", "spearmanr", "map", "mrr", "ndcg",
}  # fmt: skip
_TWO_LETTERS = frozenset(
    re.findall(
        r"\w+",
        """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee
    el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is
    it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms
    mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk
    sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi
    yo za zh zu
""",
    )
)
_THREE_LETTERS = frozenset(
    re.findall(
        r"\w+",
        """
    ace acm acq aeb afr ajp aka als amh apc arb arg ars ary arz asm ast awa aym ayr azb azj aze bak bam ban bar
    bbc bbj bcl bel bem ben bho bjn bod bos bre bug bul bxr bzd cat ceb ces ckb ckt cni cop cym dan deu dik div
    dyu dzo ell eng epo ess est eus ewe fao fas fij fil fin fon fra frr fry fuc ful fuv gaz gla gle glg glv got
    grc grn gsw guj hau hat hbo hch heb hin hne hrv hsb hun hye ibo ilo ind isl ita jav jpn kab kac kam kan kas
    kat kaz kbp kea khk khm kik kin kir kmb kmr knc kon kor kpv kri krl kur lao lat lav lij lim lin lit lmo ltg
    ltz lua lug luo lus lvs lzh mad mag mai mal mar mdf mhr min mkd mlg mlt mni mnw mon mos mri msa mya myv nah
    nap nep nde nij nld nno nob npi nso nus nya nyn oci ory orm oto pag pan pap pbt pcm pes plt pms pol por prs
    pus quc que quy ron run rus sag san sat scn sco sdh shn shp sin slk slv sme smo sna snd som sot spa sqi srd
    srp ssw sun swa swe swh szl tam taq tar tat tel tgk tgl tha tir tpi tpn tsn tso tuk tum tur twi tzm uig ukr
    umb urd uzb uzn vec vep vie vls war wol xho ydd yid yor yrl yue zho zsm zul
""",
    )
)


@dataclass(frozen=True)
class Score:
    """One number of an evaluation: `key` as the script has it; `unit` None is points, as
    everywhere in a journal; else it is AS_COMPUTED: nobody can tell."""

    key: str
    split: str
    language: str | None
    metric: str
    value: float
    unit: str | None


class Scores:
    """Reads evaluations; remembers which metrics were seen to be in points."""

    def __init__(self) -> None:
        self._in_points: set[str] = set()

    def of(self, metrics: Mapping[str, Any], default_split: str) -> list[Score]:
        """The scores among `metrics`: without times, memory and counts. Fractions of known metrics become points."""
        prefix = prefix_of(metrics, default_split)
        split, language, rest = named(prefix, default_split)
        found = []
        for key, given in metrics.items():
            value = _number(given)
            if prefix and not key.startswith(f"{prefix}_"):
                continue
            metric = key[len(prefix) + 1 :] if prefix else key.removeprefix("_")  # of an empty prefix
            if value is None or not metric or metric in (*_TIMINGS, *_COUNTS) or metric.endswith(_TIMINGS):
                continue
            found.append((key, f"{rest}_{metric}" if rest else metric, value))
        self._in_points |= {
            metric for _, metric, value in found if _bounded(metric) and abs(value) > 1 + 1e-6
        }
        scale = self._scale([metric for _, metric, _ in found])
        return [
            Score(key, split, language, metric, *_converted(metric, value, scale))
            for key, metric, value in found
        ]

    def records(
        self, metrics: Mapping[str, Any], default_split: str, args: Any, state: Any
    ) -> Iterator[dict[str, Any]]:
        """Fields of a record for each score of a Trainer's evaluation, whose arguments say which is the headline."""
        wanted = args.metric_for_best_model or ""
        wanted = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
        for score in self.of(metrics, default_split):
            headline = score.key == wanted
            yield {
                "split": score.split, "language": score.language, "metric": score.metric, "value": score.value,
                "unit": score.unit, "headline": headline,
                "best": headline and _is_best(args, state, float(metrics[score.key])),
            }  # fmt: skip

    def _scale(self, metrics: list[str]) -> float | None:
        """What makes points of them. None: nobody can tell, as `exact_match` below 1 is points in `squad` and a
        fraction elsewhere."""
        if any(metric in self._in_points for metric in metrics):
            return 1.0
        if any(re.search(r"(^|_)(exact|em)(_|$)", metric) for metric in metrics):
            return None
        return 100.0


def prefix_of(metrics: Mapping[str, Any], default_split: str) -> str:
    """What all names of an evaluation begin with: transformers times every evaluation, which gives it away."""
    for key in metrics:
        if key.endswith("_runtime"):
            return key.removesuffix("_runtime")
    usual = "test" if default_split == "test" else "eval"
    return usual if any(key.startswith(f"{usual}_") for key in metrics) else ""


def named(prefix: str, default_split: str) -> tuple[str, str | None, str]:
    """Split, language and what else a prefix says: `eval_de` is validation in German, `test_pt-BR` and `test_xnli-pt`
    are tests, `eval_mnli_mm` the validation of something called mnli_mm."""
    words = [word for word in re.split(r"[_\s./]+", prefix) if word]
    splits = [SPLITS[word.lower()] for word in words if word.lower() in SPLITS]
    words = [word for word in words if word.lower() not in SPLITS]
    split = splits[-1] if splits else default_split
    tag = "_".join(words)
    if is_language(tag):
        return split, tag, ""
    for at in (-1, 0):
        if len(words) > 1 and is_language(words[at]):
            language = words.pop(at)
            return split, language, "_".join(words)
    rest, dash, last = tag.rpartition("-")
    return (split, last, rest) if dash and is_language(last) else (split, None, tag)


def is_language(tag: str) -> bool:
    """`de`, `pt-BR`, `zh_Hans`, `swh_Latn`: a code of ISO 639 that is in use, perhaps with a script or region."""
    match = re.fullmatch(r"([a-z]{2,3})(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[a-z]{2}))?", tag)
    return match is not None and match[1] in (_TWO_LETTERS if len(match[1]) == 2 else _THREE_LETTERS)


def _bounded(metric: str) -> bool:
    """Is it a metric between 0 and 1 by definition, or between 0 and 100 where somebody counts in points?"""
    words = re.split(r"[_\W]+", metric.lower())
    return any(word in _BOUNDED for word in words) and "loss" not in words


def _converted(metric: str, value: float, scale: float | None) -> tuple[float, str | None]:
    if not _bounded(metric) or not math.isfinite(value) or scale is None:
        return value, AS_COMPUTED
    if not SCORE.hold(scale * value):  # an F1 of 150 is not in points, whatever its name says
        return value, AS_COMPUTED
    return scale * value, None


def _is_best(args: Any, state: Any, value: float) -> bool:
    if state.best_metric is None:
        return True
    return value > state.best_metric if args.greater_is_better else value < state.best_metric


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
