"""Free text against references: every figure against the library, or against a hand calculation."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu.metrics.bleu import BLEU

from service.errors import InvalidInput
from service.evaluation import intervals
from service.evaluation.texts import (
    answer_scores,
    exact_match,
    meteor_exact_stem,
    named_choice,
    report_scores,
    token_f1,
)

REFERENCES = (
    "The lungs are clear. The heart is of normal size.",
    "Small right pleural effusion. No pneumothorax.",
    "Patchy opacity in the left lower lobe, 12 mm nodule in the right upper lobe.",
)
GENERATED = (
    "The lungs are clear and the heart is normal.",
    "Small right effusion.",
    "Patchy opacities in the left lower lobe.",
)


def ngrams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))


def bleu_by_hand(references: tuple[str, ...], generated: tuple[str, ...], order: int) -> float:
    """Papineni et al. 2002, for texts whose tokens are separated by spaces already."""
    pairs = [(r.split(), g.split()) for r, g in zip(references, generated, strict=True)]
    precisions = []
    for n in range(1, order + 1):
        grams = [tuple(ngrams(text, n) for text in pair) for pair in pairs]
        matched = sum(sum((wanted & said).values()) for wanted, said in grams)
        precisions.append(matched / sum(sum(said.values()) for _, said in grams))
    wanted, said = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    brevity = min(1.0, math.exp(1 - wanted / said))
    return brevity * math.exp(sum(map(math.log, precisions)) / order)


# -- questions --


def test_case_articles_and_punctuation_do_not_matter() -> None:
    assert exact_match("The left lung.", "left  Lung")
    assert not exact_match("left lung", "right lung")


def test_token_f1_counts_every_word_as_often_as_it_stands_in_both() -> None:
    # precision 2 of 4, recall 2 of 3: 2 · 1/2 · 2/3 ÷ (1/2 + 2/3)
    assert token_f1("right right lobe", "The right upper lobe nodule") == pytest.approx(4 / 7)
    assert token_f1("yes", "no") == 0


def test_an_empty_answer_is_right_only_where_nothing_was_to_be_said() -> None:
    assert token_f1("", "") == 1
    assert token_f1("the", "") == 1
    assert token_f1("effusion", "") == 0


@given(st.text(), st.text())
def test_token_f1_knows_no_direction_and_stays_within_bounds(one: str, other: str) -> None:
    assert token_f1(one, other) == token_f1(other, one)
    assert exact_match(one, other) <= token_f1(one, other) <= 1


@pytest.mark.parametrize(
    ("answer", "choices", "named"),
    [
        ("Yes, there is no doubt.", ("yes", "no"), "yes"),
        ("There is no effusion.", ("yes", "no"), "no"),
        ("nodule", ("yes", "no"), None),
        ("Yes and no? No: yes", ("no", "yes"), "yes"),
        ("in the right lung", ("right", "right lung", "left"), "right lung"),
        ("either right or left", ("right", "left"), None),
        ("B", ("A", "B"), "B"),
        ("A", ("A", "B"), "A"),
        ("", ("yes", "no"), None),
        ("-", ("+", "-"), "-"),
        ("", ("+", "-"), None),
    ],
)  # fmt: skip
def test_a_choice_is_read_from_what_was_said(
    answer: str, choices: tuple[str, ...], named: str | None
) -> None:
    assert named_choice(answer, choices) == named


def test_closed_questions_are_counted_among_themselves() -> None:
    scores = answer_scores(
        "GSCo",
        references=["Yes", "no", "left", "chest"],
        generated=["yes, small", "yes", "left side", "chest"],
        choices=[(), (), ("left", "right"), ()],
    )

    assert scores.figures()["closed_accuracy"] == pytest.approx(2 / 3)
    assert scores.figures()["exact_match"] == pytest.approx(1 / 4)
    assert np.isnan(scores.closed[3])


def test_without_closed_questions_there_is_no_accuracy() -> None:
    assert answer_scores("GSCo", ["chest"], ["chest"]).figures()["closed_accuracy"] is None


# -- reports --


def test_bleu_is_sacrebleus_on_all_reports_together() -> None:
    figures = report_scores("GSCo", REFERENCES, GENERATED).figures()

    for order in (1, 2, 3, 4):
        library = BLEU(lowercase=True, max_ngram_order=order)
        wanted = library.corpus_score(list(GENERATED), [list(REFERENCES)]).score / 100
        assert figures[f"bleu_{order}"] == pytest.approx(wanted, abs=1e-9)


def test_bleu_punishes_short_reports_as_the_paper_says() -> None:
    references = ("the lungs are clear and the heart is normal", "small effusion on the right side")
    generated = ("the lungs are clear", "small effusion on the left")

    figures = report_scores("GSCo", references, generated).figures()

    for order in (1, 2, 3, 4):
        by_hand = bleu_by_hand(references, generated, order)
        assert figures[f"bleu_{order}"] == pytest.approx(by_hand, abs=1e-9)


def test_rouge_l_is_the_librarys_and_that_of_the_longest_common_subsequence() -> None:
    scores = report_scores("GSCo", ["police killed the gunman"], ["police kill the gunman"])
    library = rouge_scorer.RougeScorer(["rougeL"]).score("a b c d", "a x c")["rougeL"].fmeasure

    assert scores.rouge_l[0] == pytest.approx(3 / 4, abs=1e-9)
    assert report_scores("GSCo", ["a b c d"], ["a x c"]).rouge_l[0] == pytest.approx(library)
    assert library == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4), abs=1e-9)


def test_meteor_matches_words_and_stems_and_punishes_fragments() -> None:
    # "opacity" and "opacities" share a stem; two chunks of two words each.
    found = meteor_exact_stem("patchy opacity of right lung", "right lung patchy opacities")

    precision, recall = 4 / 4, 4 / 5
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 4) ** 3), abs=1e-9)


def test_meteor_does_not_know_synonyms() -> None:
    assert meteor_exact_stem("big heart", "large heart") == pytest.approx(1 / 2 * (1 - 0.5))


def test_a_report_that_was_not_written_scores_nothing() -> None:
    figures = report_scores("GSCo", ["The lungs are clear."], [""]).figures()

    assert set(figures.values()) == {0.0}


def test_a_report_equal_to_its_reference_scores_full_marks() -> None:
    figures = report_scores("GSCo", REFERENCES, REFERENCES).figures()

    assert figures["bleu_4"] == pytest.approx(1)
    assert figures["rouge_l"] == pytest.approx(1)
    assert figures["meteor_exact_stem"] > 0.99  # one chunk of many words still costs a little


# -- intervals --


def test_resampled_figures_are_those_of_the_resampled_texts() -> None:
    weights = intervals.resamples(["a", "b", "c"], count=6)

    found = report_scores("GSCo", REFERENCES, GENERATED).resampled(weights)

    for row, drawn in enumerate(weights.astype(int)):
        again = [place for place, times in enumerate(drawn) for _ in range(times)]
        texts = [[texts[place] for place in again] for texts in (REFERENCES, GENERATED)]
        for name, value in report_scores("GSCo", *texts).figures().items():
            assert found[name][row] == pytest.approx(value, abs=1e-9)


def test_resampled_closed_accuracy_leaves_open_questions_out() -> None:
    scores = answer_scores("GSCo", ["yes", "chest", "no"], ["yes", "head", "yes"])

    found = scores.resampled(np.array([[1.0, 5.0, 1.0], [2.0, 1.0, 0.0], [0.0, 3.0, 0.0]]))

    assert found["closed_accuracy"].tolist()[:2] == [0.5, 1.0]
    assert np.isnan(found["closed_accuracy"][2])


def test_no_texts_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no texts"):
        report_scores("GSCo", [], [])
