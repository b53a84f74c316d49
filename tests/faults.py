"""Deliberate faults in the rules a verdict rests on, by hand: every one must be seen by the tests named beside it.

``make faults`` puts them into a copy of the source one by one and runs those tests. mutmut (`make mutants`) makes many
more, of single tokens; these are the ones that an audit found to pass, and others that take more than a token.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERDICT = ("tests/certify/test_verdict.py", "tests/certify/test_findings.py")
CONTENTS = ("tests/certify/test_threat_contents.py", "tests/certify/test_threats.py")
OUTCOME = ("tests/training",)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: what is wrong then.
        file: below ``src/specdef``.
        old: the text that is replaced; it stands there once.
        new: the fault.
        tests: paths that must see it.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


T4 = "certify/threats/t4.py"
FAULTS = (
    Fault(
        "most cells crashed still counts as held",
        "certify/verdict.py",
        "2 * len(crashed) > len(cells)",
        "False",
        VERDICT,
    ),
    Fault(
        "the best seed instead of the mean as score",
        "certify/verdict.py",
        "score=mean([best_of(cell).score for cell in same])",
        "score=max(best_of(cell).score for cell in same)",
        VERDICT,
    ),
    Fault(
        "T1 searches one decade less", "certify/threats/t1.py", "range(1, decades + 1)", "range(1, decades)", CONTENTS
    ),
    Fault(
        "T3 does not freeze the locked layers",
        "certify/threats/t3.py",
        "if study.locked_modules:",
        "if False:",
        CONTENTS,
    ),
    Fault("T4 without layer injection", T4, '            Stage("layer injection", layers),\n', "", CONTENTS),
    Fault("T4 without channel rates", T4, '            Stage("a learning rate per channel", [rates]),\n', "", CONTENTS),
    Fault(
        "T4 without a scaled eps",
        T4,
        '{**at_best, **rated, "eps": 1e-8 * study.multiplier}',
        "{**at_best, **rated}",
        CONTENTS,
    ),
    Fault(
        "T4 without pruning",
        T4,
        '            Stage("pruning what looks scaled", [Trial(at_best, (Prune(),))]),\n',
        "",
        CONTENTS,
    ),
    Fault(
        "calibration at one rate is enough",
        "certify/certify_study.py",
        "len(findings.working) >= 2",
        "len(findings.working) >= 1",
        ("tests/certify", "tests/report/test_report.py"),
    ),
    Fault(
        "stages have no control",
        "certify/stages.py",
        "if not any(map(is_broken, found)):\n        findings.drop",
        "if False:\n        findings.drop",
        CONTENTS,
    ),
    Fault(
        "the task's controls are left out",
        "certify/certify_study.py",
        "        stage(TASK_CONTROLS, control_task(study, findings))\n",
        "",
        ("tests/certify/test_task_controls.py",),
    ),
    Fault(
        "controls run at the highest working rate",
        "certify/task_controls.py",
        "min(findings.working)",
        "max(findings.working)",
        ("tests/certify/test_task_controls.py",),
    ),
    Fault(
        "the best evaluation may lie outside the utility budget",
        "training/outcome.py",
        "kept_points = [e for e, kept in zip(evaluations, inside, strict=True) if kept] or [evaluations[0]]",
        "kept_points = list(evaluations)",
        OUTCOME,
    ),
    Fault(
        "a target reached outside the utility budget counts",
        "training/outcome.py",
        "if kept and e.score >= target)",
        "if e.score >= target)",
        OUTCOME,
    ),
    Fault(
        "verify accepts a KL of 1e-2 in float32",
        "models/equivalence.py",
        "FLOAT32_KL = 1e-6",
        "FLOAT32_KL = 1e-2",
        ("tests/models/test_equivalence.py",),
    ),
    Fault(
        "verify accepts 200 times the noise in bfloat16",
        "models/equivalence.py",
        "2 * self.own_noise",
        "200 * self.own_noise",
        ("tests/models/test_equivalence.py",),
    ),
    Fault(
        "verify accepts fewer locked pairs than claimed",
        "locks/kinds/fold/check.py",
        'return Check("lock", missing == 0,',
        'return Check("lock", True,',
        ("tests/locks/kinds/fold/test_check.py",),
    ),
    Fault(
        "verify counts only the pairs that are there",
        "locks/kinds/fold/check.py",
        "missing += number * self.channels - sum(best[:number])",
        "missing += len(best[:number]) * self.channels - sum(best[:number])",
        ("tests/locks/kinds/fold/test_check.py",),
    ),
    Fault(
        "the manifest states the best layer's function error",
        "locks/kinds/inject/plan.py",
        "worst = max(layer.function_error",
        "worst = min(layer.function_error",
        ("tests/locks/kinds/test_inject.py",),
    ),
    Fault(
        "inject's strength may be 40 % off",
        "locks/kinds/inject/check.py",
        "STRENGTH_TOLERANCE = 0.05",
        "STRENGTH_TOLERANCE = 0.4",
        ("tests/locks/kinds/test_inject.py",),
    ),
    Fault(
        "homogeneity ignored for consumers",
        "locks/scaling.py",
        "-sign * exponent * pair.degree",
        "-sign * exponent",
        ("tests/locks/kinds/test_fold.py",),
    ),
    Fault(
        "offset originals written to the wrong row",
        "locks/edits.py",
        "originals[tensor.name][at + first]",
        "originals[tensor.name][at]",
        ("tests/locks/kinds/test_fold.py",),
    ),
    Fault(
        "bytes after the last tensor accepted",
        "checkpoint/header.py",
        "    if position != size:",
        "    if position > size:",
        ("tests/checkpoint",),
    ),
    Fault(
        "a target reached before training is not refused",
        "attacks/run.py",
        "    if kept and start.score >= task.target:",
        "    if False:",
        ("tests/attacks/test_run.py", "tests/attacks/test_finetune.py"),
    ),
    Fault(
        "T5 does not take the base weights back",
        "certify/threats/t5.py",
        '            Stage("the base weights taken back", [Trial(at_best, (Anchor(place, digest, "all"),))]),\n',
        "",
        ("tests/certify/test_t5.py",),
    ),
    Fault(
        "T5 removes no low-rank difference",
        "certify/threats/t5.py",
        "for rank in RANKS",
        "for rank in RANKS[:0]",
        ("tests/certify/test_t5.py",),
    ),
    Fault(
        "T6 without inputs of unit energy",
        "certify/threats/t6.py",
        '            Stage("LoRA with inputs of unit energy", trying(ADAPTER_LR, EnergyLora())),\n',
        "",
        ("tests/certify/test_t6.py",),
    ),
    Fault(
        "T6 averages no gradients",
        "certify/threats/t6.py",
        '            Stage("gradients averaged over many samples", [Trial({**at_best, **OBFUSCATION})]),\n',
        "",
        ("tests/certify/test_t6.py",),
    ),
    Fault(
        "a trained lock's spectra are not compared with the manifest",
        "locks/kinds/trained/check.py",
        "if not _is(value, claimed[name][1])]",
        "if False]",
        ("tests/locks/kinds",),
    ),
    Fault(
        "a trained lock may claim a multiplier that its spectra do not bear out",
        "locks/kinds/trained/check.py",
        "multiplier > 1 and _is(min(after / before for before, after in pairs.values()), multiplier)",
        "multiplier > 1",
        ("tests/locks/kinds",),
    ),
    Fault(
        "a ladder's rungs are counted and not compared",
        "locks/kinds/ladder/check.py",
        "at < len(left) and left[at] <= number + tolerance",
        "at < len(left)",
        ("tests/locks/kinds",),
    ),
    Fault(
        "a convolution's compensation is checked on another reshaping",
        "locks/kinds/inject/check.py",
        "weight.reshape(matrix_shape(weight.shape))",
        "weight.reshape(matrix_shape(weight.shape)[::-1])",
        ("tests/locks/kinds",),
    ),
    Fault(
        "a guess of what is asked next counts as a result",
        "certify/ahead.py",
        "        except _AskedError as asked:",
        "        except KeyError as asked:",
        ("tests/certify/test_ahead.py",),
    ),
    Fault(
        "the gap ratio is of the defended model's likeness",
        "analysis/similarity.py",
        "return (self.undefended - self.defended) / self.undefended",
        "return (self.undefended - self.defended) / self.defended",
        ("tests/analysis/test_similarity.py",),
    ),
)


def with_fault(fault: Fault) -> str:
    """The file with the fault in it.

    Raises:
        ValueError: the text to replace does not stand there exactly once.
    """
    text = (ROOT / "src" / "specdef" / fault.file).read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.file} must hold {fault.old!r} once; it does {text.count(fault.old)} times.")
    return text.replace(fault.old, fault.new)


def source_with(fault: Fault, place: Path) -> Path:
    """A copy of the source with the fault in it."""
    copy = place / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (copy / "specdef" / fault.file).write_text(with_fault(fault))
    return copy


def is_seen(fault: Fault) -> bool:
    """Whether a test fails with the fault."""
    with tempfile.TemporaryDirectory(prefix="specdef-fault-") as scratch:
        source = source_with(fault, Path(scratch))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *fault.tests]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 1


def main() -> None:
    """Try all, or those whose names contain the arguments; exit 1 when one is not seen."""
    wanted = [fault for fault in FAULTS if not sys.argv[1:] or any(word in fault.name for word in sys.argv[1:])]
    missed = 0
    for fault in wanted:
        seen = is_seen(fault)
        missed += not seen
        print(f"{'seen  ' if seen else 'MISSED'} {fault.name} ({fault.file})", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} seen")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
