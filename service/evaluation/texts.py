"""How near free text comes to its reference: answers to questions, and reports.

All figures are shares from 0 to 1. The values of every case are kept, so that intervals and paired
comparisons need no second pass: `resampled` takes the weights of `intervals.resamples`.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nltk.stem import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from service.errors import InvalidInput

Values = NDArray[np.float64]  # (cases,), or (resamples,)

YES_NO = ("yes", "no")
ORDERS = (1, 2, 3, 4)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, eq=False)
class AnswerScores:
    """One system's answers. `closed` is NaN where a question is open."""

    system: str
    exact_match: Values  # (cases,) 0 or 1
    token_f1: Values  # (cases,)
    closed: Values  # (cases,) 1 where the right choice is named, 0 where not, or NaN

    def figures(self) -> dict[str, float | None]:
        """The means; None for closed questions where there are none."""
        closed = self.closed[~np.isnan(self.closed)]
        return {
            "exact_match": float(self.exact_match.mean()),
            "token_f1": float(self.token_f1.mean()),
            "closed_accuracy": float(closed.mean()) if len(closed) else None,
        }

    def resampled(self, weights: Values) -> dict[str, Values]:
        """The figures of each resample; NaN where it has no closed question."""
        return {
            "exact_match": _weighted(weights, self.exact_match),
            "token_f1": _weighted(weights, self.token_f1),
            "closed_accuracy": _weighted(weights, self.closed),
        }


@dataclass(frozen=True, slots=True, eq=False)
class ReportScores:
    """One system's reports. BLEU is that of all reports together; the others are means."""

    system: str
    ngrams: NDArray[np.int64]  # (cases, 10): words written, words of the reference, then of each
    # order from 1 to 4 the n-grams that match, then of each order the n-grams written
    sentence_bleu_4: Values  # (cases,) of each report alone
    rouge_l: Values  # (cases,)
    meteor_exact_stem: Values  # (cases,)

    def figures(self) -> dict[str, float]:
        """BLEU-1 to BLEU-4, ROUGE-L and METEOR."""
        bleu = corpus_bleu(self.ngrams.sum(axis=0))
        return {
            **{f"bleu_{order}": value for order, value in zip(ORDERS, bleu, strict=True)},
            "rouge_l": float(self.rouge_l.mean()),
            "meteor_exact_stem": float(self.meteor_exact_stem.mean()),
        }

    def resampled(self, weights: Values) -> dict[str, Values]:
        """The figures of each resample."""
        totals = weights.astype(np.int64) @ self.ngrams
        bleu = np.array([corpus_bleu(total) for total in totals])
        return {
            **{f"bleu_{order}": bleu[:, order - 1] for order in ORDERS},
            "rouge_l": _weighted(weights, self.rouge_l),
            "meteor_exact_stem": _weighted(weights, self.meteor_exact_stem),
        }


def answer_scores(
    system: str,
    references: Sequence[str],
    generated: Sequence[str],
    choices: Sequence[Sequence[str]] | None = None,
) -> AnswerScores:
    """Exact match and token F1 as in SQuAD, and accuracy on closed questions.

    A question is closed where its choices are given, or where its reference is yes or no. Raises
    InvalidInput where there is nothing to score.
    """
    _require_cases(references)
    offered = choices or [()] * len(references)
    pairs = list(zip(references, generated, strict=True))
    return AnswerScores(
        system,
        np.array([exact_match(*pair) for pair in pairs], dtype=np.float64),
        np.array([token_f1(*pair) for pair in pairs]),
        np.array([_closed(*pair, among) for pair, among in zip(pairs, offered, strict=True)]),
    )


def report_scores(system: str, references: Sequence[str], generated: Sequence[str]) -> ReportScores:
    """BLEU by sacrebleu (case ignored, tokenizer 13a, exponential smoothing), ROUGE-L F1 by
    rouge-score (without stemming), METEOR as `meteor_exact_stem` tells.

    Raises InvalidInput where there is nothing to score.
    """
    _require_cases(references)
    pairs = list(zip(references, generated, strict=True))
    bleu = BLEU(lowercase=True, effective_order=True)
    alone = [bleu.sentence_score(written, [reference]) for reference, written in pairs]
    rouge = RougeScorer(["rougeL"])
    return ReportScores(
        system,
        np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in alone], dtype=np.int64),
        np.array([score.score / 100 for score in alone]),
        np.array([rouge.score(*pair)["rougeL"].fmeasure for pair in pairs], dtype=np.float64),
        np.array([meteor_exact_stem(*pair) for pair in pairs]),
    )


def normalised(text: str) -> str:
    """Small letters without punctuation and articles, one space between words (SQuAD 1.1)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(reference: str, generated: str) -> bool:
    return normalised(reference) == normalised(generated)


def token_f1(reference: str, generated: str) -> float:
    """Harmonic mean of precision and recall of words; of nothing with nothing it is 1 (SQuAD 2)."""
    wanted, said = normalised(reference).split(), normalised(generated).split()
    if not wanted or not said:
        return float(wanted == said)
    shared = sum((Counter(wanted) & Counter(said)).values())
    return 2 * shared / (len(wanted) + len(said))


def named_choice(text: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer begins with, else the only one in it; None where that is unclear.

    Of choices within each other, such as "right" and "right lung", the longest counts.
    """
    plain = text.strip().lower()
    if exact := [choice for choice in choices if choice.strip().lower() == plain]:
        return exact[0]
    said = _spaced(text)
    worded = [choice for choice in choices if _WORD.search(choice)]
    longest_first = sorted(worded, key=lambda choice: -len(_spaced(choice)))
    if first := [choice for choice in longest_first if said.startswith(_spaced(choice))]:
        return first[0]
    named: list[str] = []
    for choice in longest_first:
        if _spaced(choice) in said:
            said = said.replace(_spaced(choice), " | ")
            named.append(choice)
    return named[0] if len(named) == 1 else None


def corpus_bleu(ngrams: NDArray[np.int64]) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4 of summed n-gram counts (10,): see `ReportScores.ngrams`."""
    written, wanted, *counts = ngrams.tolist()
    matched, total = counts[:4], counts[4:]
    return tuple(
        BLEU.compute_bleu(
            matched[:order],
            total[:order],
            written,
            wanted,
            smooth_method="exp",
            max_ngram_order=order,
        ).score
        / 100
        for order in ORDERS
    )


class _NoWordNet:
    """Stands where METEOR looks for synonyms, and knows none."""

    def synsets(self, word: str) -> tuple[()]:
        del word
        return ()


def meteor_exact_stem(reference: str, generated: str) -> float:
    """METEOR by nltk with the matchers "exact" and "stem" (Porter) only.

    Its third matcher needs WordNet's data, which has to be downloaded; without it, synonyms do not
    count, and values are a little lower than of METEOR with all three: never compare the two.
    """
    reference_words, words = _WORD.findall(reference), _WORD.findall(generated)
    score = single_meteor_score(
        reference_words, words, stemmer=PorterStemmer(), wordnet=_NoWordNet()
    )
    return float(score)


def _closed(reference: str, generated: str, choices: Sequence[str]) -> float:
    among = choices or (YES_NO if normalised(reference) in YES_NO else ())
    if not among:
        return float("nan")
    named = named_choice(generated, among)
    return float(named is not None and named == named_choice(reference, among))


def _spaced(text: str) -> str:
    """The words in small letters, a space before and after each."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _weighted(weights: Values, values: Values) -> Values:
    told = ~np.isnan(values)
    drawn = weights[:, told].sum(axis=1)
    sums = weights[:, told] @ values[told]
    return np.asarray(np.divide(sums, drawn, out=np.full(len(sums), np.nan), where=drawn > 0))


def _require_cases(references: Sequence[str]) -> None:
    if not references:
        raise InvalidInput("there are no texts to score")
