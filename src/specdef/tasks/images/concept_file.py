"""The file that describes a concept: images of several classes, how each is asked for, and who says what was drawn.

YAML or JSON::

    images: train-images-idx3-ubyte.gz  # or an npz, or a folder of pictures; beside this file, or a whole path
    prompts: [a picture of a shirt, [a picture of a shoe, a photo of one shoe]]  # of label 0, 1, ...
    concept: 1  # the label that is to be learned again
    classifier: judge  # the folder of an image classifier with these labels
    samples: 64  # images of the concept to train on; optional, as all that follows
    drawn: 40  # images that are drawn to be judged
    steps: 20  # of denoising
    guidance: 3.0  # classifier-free

A folder of pictures has a folder a class, or a list with a prompt each; see `specdef.tasks.images.pairs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.core.text import shown
from specdef.core.yaml_data import YamlError, parse_yaml
from specdef.errors import TaskError
from specdef.models.samples import LabelledImage, PromptedImage
from specdef.tasks.images.pairs import list_of, read_pairs
from specdef.tasks.images.read import read_images

NEEDED = ("images", "prompts", "concept", "classifier")
DEFAULTS: dict[str, Any] = {"samples": 64, "drawn": 40, "steps": 20, "guidance": 3.0}


@dataclass(frozen=True)
class ConceptFile:
    """What such a file says, its images read.

    Attributes:
        images: in the order of their file.
        own_prompts: what each image has been described as; None where they take their label's prompts in turn.
        prompts: how each label is asked for.
        concept: the label that is to be learned.
        classifier: folder of the judge.
        samples: most images of the concept that are trained on.
        drawn: images that are drawn to be judged.
        steps: of denoising.
        guidance: see `specdef.models.prompted.drawn`.
    """

    images: tuple[LabelledImage, ...]
    prompts: tuple[tuple[str, ...], ...]
    concept: int
    classifier: Path
    samples: int
    drawn: int
    steps: int
    guidance: float
    own_prompts: tuple[str, ...] | None = None

    def prompted(self, wanted: Callable[[int], bool]) -> list[PromptedImage]:
        """The images of some labels, with their own prompts, or with those of their label in turn."""
        found, seen = [], [0] * len(self.prompts)
        for at, image in enumerate(self.images):
            if wanted(image.label):
                said = self.prompts[image.label]
                prompt = self.own_prompts[at] if self.own_prompts else said[seen[image.label] % len(said)]
                found.append(PromptedImage(image.data, image.dtype, image.shape, prompt))
                seen[image.label] += 1
        return found


def read_concept(path: Path | str, *, argument: str = "path") -> ConceptFile:
    """Read such a file and the images that it names.

    Args:
        path: the file.
        argument: what the user gave it as.

    Raises:
        TaskError: it cannot be read, lacks something, says something else, or its images are unusable.
    """
    path = Path(path)

    def fault(what: str) -> TaskError:
        return TaskError(f"`{argument}` must be a file that describes a concept; {shown(path)} {what}")

    try:
        said = parse_yaml(path.read_bytes())
    except OSError as error:
        raise fault(f"cannot be read ({error.strerror}). Check the path.") from error
    except YamlError as error:
        raise fault(f"is no YAML: {error}.") from error
    if not isinstance(said, dict):
        raise fault(f"holds no names with values. Write {', '.join(NEEDED)}.")
    missing = [name for name in NEEDED if name not in said]
    unknown = sorted(set(said) - {*NEEDED, *DEFAULTS})
    if missing or unknown:
        raise fault(f"says nothing of {missing[0]}." if missing else f"must not have {unknown[0]!r}.")
    numbers = {name: _number(said.get(name, default), name, default, fault) for name, default in DEFAULTS.items()}
    prompts = _prompts(said["prompts"], fault)
    concept = said["concept"]
    if type(concept) is not int or not 0 <= concept < len(prompts):
        raise fault(f"must have a concept from 0 to {len(prompts) - 1}, a label with prompts; it has {concept!r}.")
    classifier, images = (_place(path, said[name], name, fault) for name in ("classifier", "images"))
    if not (classifier / "config.json").is_file():
        raise fault(f"must name the folder of a classifier; {shown(classifier)} has no config.json.")
    read, own = _images(images, argument)
    labels = max(image.label for image in read) + 1
    if labels != len(prompts):
        raise fault(f"must have prompts of every label of its images, 0 to {labels - 1}; it has {len(prompts)}.")
    return ConceptFile(read, prompts, concept, classifier, **numbers, own_prompts=own)


def _images(path: Path, argument: str) -> tuple[tuple[LabelledImage, ...], tuple[str, ...] | None]:
    """The images, and where each is described on its own, as what."""
    listed = list_of(path)
    if listed is None:
        return tuple(read_images(path, argument=argument)), None
    pairs = read_pairs(listed, argument=argument)
    return tuple(image for image, _ in pairs), tuple(text for _, text in pairs)


def _prompts(said: Any, fault: Callable[[str], TaskError]) -> tuple[tuple[str, ...], ...]:
    rows = said if isinstance(said, list) else []
    found = [tuple(row) if isinstance(row, list) else (row,) for row in rows]
    if len(found) < 2 or not all(row and all(isinstance(text, str) and text.strip() for text in row) for row in found):
        raise fault("must have prompts, a text or a list of texts for each of two labels or more.")
    return tuple(found)


def _number(value: Any, name: str, default: float, fault: Callable[[str], TaskError]) -> Any:
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < 1:
        raise fault(f"must have {'a whole number' if whole else 'a number'} of at least 1 as {name}; it has {value!r}.")
    return value


def _place(path: Path, said: Any, name: str, fault: Callable[[str], TaskError]) -> Path:
    if not isinstance(said, str) or not said:
        raise fault(f"must have a path as {name}; it has {said!r}.")
    return path.parent / said
