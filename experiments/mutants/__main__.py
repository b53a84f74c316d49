"""`make mutants SCOPE=locks`: try faults of single tokens in one part, and write its page.

``SAMPLE`` mutants are drawn at random by ``SEED``; ``SAMPLE=all`` tries every one. With ``AGAIN=1`` the drawn mutants
that no test saw are tried once more, with the tests of now.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from experiments.locked import HERE
from experiments.mutants.scopes import SCOPES, Scope
from experiments.mutants.table import KILLED, changed_lines, outcomes, page
from specdef.certify.environment import commit

ROOT = HERE.parent
PLACE = ROOT / "mutants"
"""One folder a scope; not committed."""


def settings(scope: Scope) -> str:
    """The project's file with mutmut's table for one scope."""
    left_out = [word for test in scope.but_tests for word in ("--deselect", test)]
    table = {
        "source_paths": ["src"],
        "only_mutate": [f"src/specdef/{name}" for name in scope.files],
        "do_not_mutate": [f"src/specdef/{name}" for name in scope.but_files],
        "pytest_add_cli_args_test_selection": list(scope.tests),
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-x", *left_out],
        "also_copy": ["experiments"],
        "process_isolation": "forkserver",
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    return "\n".join([(ROOT / "pyproject.toml").read_text(), "[tool.mutmut]", *lines, ""])


def draw(mutants: list[str], number: int | None, seed: int) -> list[str]:
    """A sample in the order of names; everything where the number is None or more than there are."""
    if number is None or number >= len(mutants):
        return sorted(mutants)
    return sorted(random.Random(seed).sample(sorted(mutants), number))


def main() -> None:
    arguments = parsed()
    scope, folder = SCOPES[arguments.scope], PLACE / arguments.scope
    if not arguments.again:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("src", "tests", "experiments"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "pyproject.toml").write_text(settings(scope))
    # Makes the mutants, and says which test reaches what; a run that also tries mutants would not know new tests yet.
    _mutmut(folder, ["nothing.*"], arguments.jobs)
    found = outcomes(folder / "mutants")
    mutants = [key for of_module in found.values() for key in of_module]
    if not (folder / "mutants" / "mutmut-stats.json").exists():
        print(f"A test fails without any fault, or mutmut does; see the end of {folder / 'log.txt'}.", file=sys.stderr)
        sys.exit(1)
    number = {"": scope.sample, "all": None}.get(arguments.sample, -1)
    wanted = draw(mutants, int(arguments.sample) if number == -1 else number, arguments.seed)
    if arguments.again:
        wanted = _unseen(found, wanted)
    if wanted:
        _mutmut(folder, wanted, arguments.jobs)
    found = outcomes(folder / "mutants")
    first = folder / "first.json"
    again = first.exists()  # where it does not, a run that was cut off goes on
    if not again:
        tried = [outcome for of_module in found.values() for outcome in of_module.values() if outcome]
        first.write_text(json.dumps([tried.count(KILLED), len(tried)]))
    unseen = _unseen(found, [key for of_module in found.values() for key, value in of_module.items() if value])
    command = f"`make mutants SCOPE={arguments.scope}{f' SAMPLE={arguments.sample}' if arguments.sample else ''}"
    command += f" SEED={arguments.seed}`{', then `AGAIN=1`' if again else ''}, commit {commit()}"
    path = HERE / "results" / scope.page
    path = path if arguments.seed == 0 else path.with_stem(f"{path.stem}-seed{arguments.seed}")
    changes = {key: changed_lines(folder, key) for key in unseen}
    path.write_text(page(found, changes, command, json.loads(first.read_text()) if again else None))
    print(path.read_text())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="experiments.mutants")
    parser.add_argument("scope", choices=SCOPES)
    parser.add_argument("--sample", default="", help="how many mutants, or `all`; the scope's own number otherwise")
    parser.add_argument("--seed", type=int, default=0, help="draws the sample")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="only what no test saw last time")
    return parser.parse_args()


def _mutmut(folder: Path, mutants: list[str], jobs: int) -> None:
    """Run mutmut; what it prints, mostly a spinner, goes into a file."""
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(jobs), *mutants]
    with (folder / "log.txt").open("a") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False)


def _unseen(found: Mapping[str, Mapping[str, str | None]], wanted: list[str]) -> list[str]:
    by_key = {key: outcome for of_module in found.values() for key, outcome in of_module.items()}
    return [key for key in wanted if by_key[key] != KILLED]


if __name__ == "__main__":
    main()
