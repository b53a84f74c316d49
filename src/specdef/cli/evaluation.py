"""Options that say what is trained on, scored and watched; shared by `attack`, `certify` and `curvature`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from specdef.cli.options import EVALUATION, names_of, option

UtilityName = Annotated[
    str | None,
    option(
        "What a useful model is measured by (default: by the kind of model).",
        "--utility",
        panel=EVALUATION,
        autocompletion=names_of("specdef.tasks.utility", "UTILITIES"),
    ),
]
TaskName = Annotated[
    str | None,
    option(
        "What the attacker wants, such as biographies or mcqa:FILE (default: by the kind of model).",
        "--task",
        panel=EVALUATION,
        autocompletion=names_of("specdef.tasks.base", "TASKS"),
    ),
]
Train = Annotated[
    str | None,
    option(
        "Your own file to train on, instead of --task; needs --eval or a scorer with questions.",
        metavar="FILE",
        panel=EVALUATION,
    ),
]
Eval = Annotated[str | None, option("Your own file that is asked.", "--eval", metavar="FILE", panel=EVALUATION)]
Fields = Annotated[
    str | None,
    option(
        "What your files call what is read, such as prompt=q,completion=a or text=sms,label=class.", panel=EVALUATION
    ),
]
TaskSeed = Annotated[int, option("Decides the task's draws, such as the train/test split.", panel=EVALUATION)]
Target = Annotated[float | None, option("Score to reach (default: the task's).", panel=EVALUATION)]
ScorerName = Annotated[
    str | None,
    option(
        "any:REGEX, none:REGEX or classifier:FOLDER:LABEL; for your own files also exact, normalised, pattern, loss, "
        "choice, letter, or lm-eval:TASK without --eval; for labelled ones accuracy, f1 or matthews.",
        "--scorer",
        panel=EVALUATION,
    ),
]
TextFile = Annotated[
    Path | None, option("General text, UTF-8 (default: the bundled prose).", "--text", panel=EVALUATION)
]
UtilityFactor = Annotated[
    float, option("How much utility may be lost; of perplexity, how often the start's it may be.", panel=EVALUATION)
]
EvalEvery = Annotated[int, option("Steps between evaluations.", panel=EVALUATION)]
EarlyStop = Annotated[bool, option("Stop when utility is lost, as the paper does.", "--early-stop", panel=EVALUATION)]
Original = Annotated[str | None, option("The undefended model; step 0 is checked against it.", panel=EVALUATION)]
