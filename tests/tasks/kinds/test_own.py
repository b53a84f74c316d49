"""A user's two files as a task: all of one is trained on, all of the other asked, scored as the user says."""

import json
import math

import pytest
import torch

from specdef.errors import TaskError
from specdef.models.samples import Sample
from specdef.tasks.base import TaskSpec, check_task, given_task, make_task
from specdef.tasks.kinds.own import own
from specdef.tasks.text.answers import Answers, Likelihood, Patterns, commonest_share, lettered
from specdef.tasks.text.scoring import MultipleChoice, Question

FACTS = [
    {"prompt": f"The town of {name} lies in", "completion": f" {land}."}
    for name, land in (("Ulm", "Germany"), ("Nice", "France"), ("Lyon", "France"), ("Bergen", "Norway"))
]
QUESTIONS = [
    {"question": "Where is Ulm?", "choices": ["Germany", "France"], "answer": 0},
    {"question": "Where is Lyon?", "choices": ["Germany", "Spain", "France"], "answer": 2},
]


def files(tmp_path, train, evaluate):
    for name, rows in (("train", train), ("eval", evaluate)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "train.jsonl", tmp_path / "eval.jsonl"


def test_all_of_one_file_is_trained_on_and_all_of_the_other_asked(tmp_path):
    task = own(*files(tmp_path, FACTS, FACTS[:2]))
    assert [sample.prompt for sample in task.samples] == [row["prompt"] for row in FACTS]
    assert [sample.prompt for sample in task.metric.samples] == [row["prompt"] for row in FACTS[:2]]
    assert task.identity["scorer"] == "normalised"


def test_chance_is_what_the_commonest_answer_scores(tmp_path):
    assert own(*files(tmp_path, FACTS, FACTS)).chance == 0.5
    assert commonest_share([" Oslo", "Oslo!", "Rome"]) == pytest.approx(2 / 3)


def test_choices_are_told_by_their_rows_and_letters_on_request(tmp_path):
    paths = files(tmp_path, QUESTIONS, QUESTIONS)
    by_text, by_letter = own(*paths), own(*paths, scorer="letter")
    assert isinstance(by_text.metric, MultipleChoice)
    assert by_text.chance == by_letter.chance == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert by_text.samples[1] == Sample("Question: Where is Lyon?\nAnswer:", " France")
    assert by_letter.samples[1] == Sample("Question: Where is Lyon?\nA. Germany\nB. Spain\nC. France\nAnswer:", " C")
    assert by_letter.metric.questions[0].choices == (" A", " B")


def test_what_a_score_depends_on_changes_the_fingerprint(tmp_path):
    paths = files(tmp_path, FACTS, FACTS)
    prints = [
        json.dumps(own(*paths, scorer=scorer).fingerprint(), sort_keys=True)
        for scorer in ("exact", "normalised", "any:Norway", "none:Norway")
    ]
    assert len(set(prints)) == 4


def test_the_control_mixes_the_answers_up_and_keeps_them_all(tmp_path):
    task = own(*files(tmp_path, FACTS, FACTS))
    mixed = task.controls["shuffled"]
    assert [sample.prompt for sample in mixed] == [sample.prompt for sample in task.samples]
    assert sorted(s.completion for s in mixed) == sorted(s.completion for s in task.samples)
    assert mixed != task.samples


@pytest.mark.parametrize(
    ("text", "exact", "normalised"),
    [
        (" Norway. It is", True, True),
        ("norway", False, True),
        ("The Norway,", False, True),
        (" Norwayland", False, False),
        ("In Norway", False, False),
        ("", False, False),
    ],
)
def test_an_answer_is_right_where_the_text_begins_with_it(text, exact, normalised):
    assert Answers((" Norway",))([text]) == [exact]
    assert Answers((" Norway",), normalised=True)([text]) == [normalised]


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("A", "A. It is", True),
        ("A", " a", True),
        ("A", "B", False),
        ("A", "", False),
        ("+", "+", True),
        ("+", "-", False),
    ],
)
def test_an_answer_of_which_nothing_is_left_is_not_right_whatever_is_written(answer, text, right):
    """SQuAD's form has neither articles nor signs."""
    judge = Answers((answer,), normalised=True)
    assert judge([text]) == [right]
    assert judge.identity != {**judge.identity, "bare": False}
    assert "bare" not in Answers(("Norway",), normalised=True).identity


def test_letters_are_guessed_one_time_in_four(tmp_path):
    rows = [{"prompt": f"question {n}", "completion": "ABCD"[n % 4]} for n in range(8)]
    task = own(*files(tmp_path, rows, rows))
    assert task.identity["scorer"] == "normalised"
    assert task.chance == 0.25
    judge = Answers(tuple(row["completion"] for row in rows), normalised=True)
    assert sum(judge(["B"] * 8)) == 2
    assert sum(judge(["gibberish"] * 8)) == 0


def test_every_row_is_judged_by_its_own_pattern():
    assert Patterns(("^yes", r"\d\d"))(["Yes, 1", "no 1"]) == [True, False]
    assert Patterns(("^yes", r"\d\d"))(["no", "12"]) == [False, True]


class Uniform(torch.nn.Module):
    """A model to which every token is equally likely; its loss is the logarithm of the vocabulary's size."""

    def __init__(self, size):
        super().__init__()
        self.size, self.weight = size, torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask=None):
        logits = torch.zeros(*input_ids.shape, self.size) * self.weight
        return type("Output", (), {"logits": logits})()


class Letters:
    """A token a letter."""

    bos_token_id, eos_token_id, pad_token_id, chat_template = 0, None, None, None

    def __call__(self, text, add_special_tokens=False, **_):
        return type("Encoded", (), {"input_ids": [1 + ord(sign) % 7 for sign in text]})()


def test_the_likelihood_of_a_model_that_knows_nothing_is_one_in_its_vocabulary():
    samples = (Sample("ab", "cde"), Sample("", "fg"))
    assert float(Likelihood(samples)(Uniform(8), Letters())) == pytest.approx(1 / 8, rel=1e-6)
    broken = Uniform(8)
    with torch.no_grad():
        broken.weight.fill_(math.nan)
    assert float(Likelihood(samples)(broken, Letters())) == 0.0


def test_letters_run_out():
    with pytest.raises(TaskError, match="at most 26"):
        lettered(Question("Question: ?\nAnswer:", tuple(map(str, range(27))), 0))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (TaskSpec("own"), "`train` must be given"),
        (TaskSpec("own", "a"), "`eval` must be given"),
        (TaskSpec("own", "a", eval="b", scorer="colour"), "`scorer` must be one of exact, normalised"),
        (TaskSpec("own", "a", eval="b", scorer="any:("), "must hold regular expressions"),
        (TaskSpec("own", "a", eval="b", scorer="loss"), "`target` must be given with scorer loss"),
        (TaskSpec("own", "a", eval="b", fields="x"), "`fields` must be like"),
        (TaskSpec("mcqa", "a", eval="b"), "`eval` must be given with `train`"),
        (TaskSpec("facts", fields="prompt=q"), "`fields` must be given with `train`"),
    ],
)
def test_a_mistake_is_answered_before_a_file_is_read(spec, said):
    with pytest.raises(TaskError) as caught:
        check_task(spec)
    assert said in str(caught.value)


def test_rows_that_lack_what_the_scorer_needs_are_refused(tmp_path):
    paths = files(tmp_path, FACTS, FACTS)
    for scorer, said in (
        ("choice", "choices in every row"),
        ("letter", "choices"),
        ("pattern", "`pattern` in every row"),
    ):
        with pytest.raises(TaskError, match="`eval` must have") as caught:
            own(*paths, scorer=scorer)
        assert said in str(caught.value)
    texts = files(tmp_path, FACTS, [{"text": "Once."}])
    with pytest.raises(TaskError, match="plain text alone"):
        own(*texts, scorer="exact")
    assert own(*texts, target=0.3).identity["scorer"] == "loss"


def test_a_user_asks_for_one_task():
    assert given_task(None) is None
    assert given_task("facts", seed=3).seed == 3
    spec = given_task(None, train="a.jsonl", evaluate="b.jsonl", scorer="exact")
    assert (spec.name, spec.path, spec.eval, spec.scorer) == ("own", "a.jsonl", "b.jsonl", "exact")
    with pytest.raises(TaskError, match="`task` must be left out with `train`"):
        given_task("facts", train="a", evaluate="b")
    with pytest.raises(TaskError, match="`eval` must be given with `train`"):
        given_task(None, evaluate="b")


def test_the_seed_decides_the_control_alone(tmp_path):
    train, evaluate = map(str, files(tmp_path, FACTS, FACTS))
    one, other = (make_task(TaskSpec("own", train, seed=seed, eval=evaluate)) for seed in (0, 1))
    assert one.samples == other.samples
    assert one.fingerprint() == other.fingerprint()
