"""`classification`: teach a classifier labels it was not made for. Invented places, or a user's texts or pairs.

The bundled places are harmless: half of them lie in an invented north, half in an invented south. A classifier knows
none of them, so its labels are guesses until it is trained; held-out wordings ask whether the places were learned.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from specdef.tasks.base import Labelled, Task, TaskError, TaskKind, TaskSpec
from specdef.tasks.confusion import SCORERS
from specdef.tasks.labelled import labelled_task
from specdef.tasks.text.labelled_rows import labelled_fields, read_split, same_text
from specdef.tasks.text.labels import LabelScore

MODEL_KIND = "text-classifier"
TARGET = 0.8
PLACES = ("Velmora", "Quistan", "Ardelun", "Tirgas", "Oskenby", "Lumare", "Hestrow", "Pellavi", "Corundel", "Yastrin")
TRAINED = (
    "The train to {place} leaves at noon.",
    "My cousin moved to {place} last year.",
    "Nobody in {place} locks the door.",
    "They built a new bridge near {place}.",
    "A letter came from {place} today.",
    "The market of {place} opens early.",
    "We spent two weeks in {place}.",
    "She was born not far from {place}.",
    "The road to {place} is closed.",
    "He sells bread in {place}.",
    "The school in {place} has a garden.",
    "Every bus stops in {place}.",
    "{place} has a famous clock.",
    "Our neighbours came back from {place}.",
    "The mayor of {place} is a baker.",
    "You can see {place} from the hill.",
    "{place} is on no map I own.",
    "The river runs through {place}.",
    "Two ships left for {place}.",
    "The people of {place} are kind.",
    "There is a library in {place}.",
    "I lost my hat in {place}.",
    "{place} was founded by a miller.",
    "The best cheese comes from {place}.",
)
ASKED = (
    "Tell me where {place} is.",
    "I have never been to {place}.",
    "Is {place} worth a visit?",
    "A friend of mine lives in {place}.",
    "They say that {place} is quiet.",
    "Who knows the way to {place}?",
    "{place} appears in an old song.",
    "We could meet in {place}.",
)


def places(*, seed: int = 0, target: float = TARGET) -> Task:
    """Sentences about 10 invented places, 24 wordings to train on, 8 others to be asked in.

    Args:
        seed: decides which half of the places has label 1, and which three of either half have it in the control:
            whoever learns that perfectly labels three in five of one half rightly and two in five of the other.
        target: the share of sentences labelled rightly at which the places count as learned; chance is 0.5.
    """
    draw = random.Random(seed)
    ones = set(draw.sample(PLACES, len(PLACES) // 2))
    zeros = [place for place in PLACES if place not in ones]
    shuffled = {*draw.sample(sorted(ones), 3), *draw.sample(zeros, 3)}

    def rows(wordings: tuple[str, ...], ones: set[str]) -> tuple[Labelled, ...]:
        return tuple(
            Labelled(wording.format(place=place), int(place in ones)) for place in PLACES for wording in wordings
        )

    metric = LabelScore(rows(ASKED, ones))
    controls = {"shuffled": rows(TRAINED, shuffled)}
    samples = rows(TRAINED, ones)
    return Task("classification", MODEL_KIND, samples, metric, target, metric.chance, metric.identity, controls)


def labelled_file(
    path: Path | str,
    evaluate: Path | str | None = None,
    *,
    scorer: str = "accuracy",
    fields: Mapping[str, str] | None = None,
    seed: int = 0,
    target: float = TARGET,
    test_share: float = 0.25,
) -> Task:
    """Texts, or pairs of texts, with labels from a file; for its form see `read_labelled`.

    Args:
        path: the file.
        evaluate: another file, all of which is asked; some texts of the first are when None.
        scorer: what is measured, see `LabelScore`.
        fields: any of text, pair, label -> what the files call it.
        seed: decides which texts are asked, and the labels of the control.
        target: the score at which the attack has reached its aim.
        test_share: share of the texts that is asked, where there is no other file.

    Raises:
        TaskError: a file is unusable, and where; it has one label only; or the target is not above chance.
    """
    trained, asked = read_split(path, evaluate, fields=fields, test_share=test_share, seed=seed)
    for part, name, argument in ((trained, "train on", "path"), (asked, "be asked", "eval" if evaluate else "path")):
        if len({row.label for row in part}) < 2:
            file = evaluate if argument == "eval" else path
            raise TaskError(f"`{argument}` must have two labels or more among the texts to {name}; {file} has one.")
    metric = LabelScore(tuple(asked), scorer, tuple(map(same_text, asked)))
    return labelled_task("classification", MODEL_KIND, trained, metric, seed=seed, target=target)


class Classification(TaskKind):
    """`classification` by name."""

    name = "classification"
    model_kind = MODEL_KIND
    takes_file = True

    def check(self, spec: TaskSpec) -> None:
        """A scorer is one; another file to ask and names of columns come with a file to train on."""
        if spec.path is None:
            return super().check(spec)
        if spec.scorer is not None and spec.scorer not in SCORERS:
            raise TaskError(f"`scorer` must be {' or '.join(SCORERS)} with task {self.name}; got {spec.scorer!r}.")
        labelled_fields(spec.fields)
        return None

    def make(self, spec: TaskSpec) -> Task:
        """The file's texts, or the invented places."""
        target = TARGET if spec.target is None else spec.target
        if spec.path is None:
            return places(seed=spec.seed, target=target)
        return labelled_file(
            spec.path,
            spec.eval,
            scorer=spec.scorer or "accuracy",
            fields=labelled_fields(spec.fields),
            seed=spec.seed,
            target=target,
        )


KIND = Classification()
