"""Everyday sentences of two subjects, weather and music: general text for models that read one sentence at a time."""

from __future__ import annotations

from specdef.models.samples import Labelled

SUBJECTS = ("weather", "music")
"""Label 0 and label 1."""

_WEATHER = (
    *("a cold rain", "a light drizzle", "heavy snow", "thick fog", "a warm breeze", "a storm from the sea"),
    *("bright sunshine", "a late frost", "grey cloud", "summer thunder", "a sudden hail", "dry heat"),
)
_MUSIC = (
    *("a slow waltz", "an old ballad", "a string quartet", "a brass band", "a quiet lullaby", "a drum solo"),
    *("a choir of children", "a jazz trio", "a long symphony", "a folk tune", "a piano sonata", "a dance for violins"),
)
_WHEN = (
    "in the morning",
    "after lunch",
    "all evening",
    "on Sunday",
    "last night",
)
_WEATHER_WORDINGS = (
    "There was {thing} over the valley {when}.",
    "{when}, {thing} kept the walkers indoors.",
    "The forecast spoke of {thing} {when}.",
    "We had {thing} on the coast {when}.",
)
_MUSIC_WORDINGS = (
    "There was {thing} in the old hall {when}.",
    "{when}, {thing} filled the concert room.",
    "The programme spoke of {thing} {when}.",
    "We heard {thing} at the festival {when}.",
)


def everyday() -> tuple[Labelled, ...]:
    """240 sentences, by turns about weather (label 0) and music (label 1)."""
    found = []
    for number in range(len(_WHEN) * len(_WEATHER)):
        when = _WHEN[number % len(_WHEN)]
        for label, (things, wordings) in enumerate(((_WEATHER, _WEATHER_WORDINGS), (_MUSIC, _MUSIC_WORDINGS))):
            for turn in range(2):
                wording = wordings[(number + 2 * turn + number // 4) % len(wordings)]
                text = wording.format(thing=things[number % len(things)], when=when)
                found.append(Labelled(text[0].upper() + text[1:], label))
    return tuple(found)
