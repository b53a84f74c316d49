"""What is written is what the edits say: every tensor, its digests, the index, and the other files."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file, save_file

from specdef.checkpoint import blocks as reading
from specdef.checkpoint.digests import Digests, file_digest, read_digests
from specdef.checkpoint.edits import NewTensor, ShardEdits, edits_by_shard
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.layout import INDEX
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.checkpoint.small_files import changed_index, copy_others, json_bytes
from specdef.checkpoint.writer import write_shards
from specdef.errors import CheckpointError
from specdef.linalg.exponent import Stored

FIRST = {"kept": torch.arange(6.0).reshape(2, 3), "scaled": torch.arange(1.0, 9.0).reshape(4, 2)}
SECOND = {"replaced": torch.ones(5), "gone": torch.ones(2, 2), "count": torch.arange(3)}
THIRD = {"other": torch.full((3,), 7.0)}
WRITTEN = {"replaced": torch.tensor([2.0, 3.0]).bfloat16(), "new": torch.tensor([4.0, 5.0, 6.0])}
INDEXED = {
    name: f"{letter}.safetensors" for letter, held in zip("abc", (FIRST, SECOND, THIRD), strict=True) for name in held
}


@pytest.fixture
def model(tmp_path: Path) -> Checkpoint:
    """A folder of three shards."""
    folder = tmp_path / "model"
    folder.mkdir()
    for letter, held in zip("abc", (FIRST, SECOND, THIRD), strict=True):
        save_file(held, folder / f"{letter}.safetensors", {"format": "pt", "letter": letter})
    total = sum(t.numel() * t.element_size() for held in (FIRST, SECOND, THIRD) for t in held.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": INDEXED}))
    (folder / "config.json").write_text("{}")
    return open_checkpoint(folder)


def new_tensor(name: str) -> NewTensor:
    value = WRITTEN[name]
    dtype = {torch.float32: "F32", torch.bfloat16: "BF16"}[value.dtype]
    return NewTensor(dtype, tuple(value.shape), lambda: value.view(torch.uint8).numpy().tobytes())


def changed(model: Checkpoint) -> dict[str, ShardEdits]:
    return edits_by_shard(
        model,
        replaced={"replaced": new_tensor("replaced")},
        added={"replaced": {"new": new_tensor("new")}},
        dropped=["gone"],
    )


@pytest.mark.parametrize(
    ("edits", "shards"),
    [
        ({"replaced": {"replaced": "R"}}, {"b.safetensors": ShardEdits(replaced={"replaced": "R"})}),
        (
            {"replaced": {}, "added": {"other": {"new": "N", "newer": "M"}}},
            {"c.safetensors": ShardEdits(added={"new": "N", "newer": "M"})},
        ),
        (
            {"replaced": {}, "dropped": ["kept", "gone", "count"]},
            {
                "a.safetensors": ShardEdits(dropped=frozenset({"kept"})),
                "b.safetensors": ShardEdits(dropped=frozenset({"gone", "count"})),
            },
        ),
        ({"replaced": {}}, {}),
    ],
)
def test_an_edit_goes_to_the_shard_of_its_tensor(
    edits: dict[str, object], shards: dict[str, ShardEdits], model: Checkpoint
) -> None:
    assert edits_by_shard(model, **edits) == shards  # type: ignore[arg-type]


def test_tensors_are_replaced_added_and_dropped_and_the_rest_is_copied(model: Checkpoint, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    read: list[int] = []
    found = write_shards(model, target, changed(model), progress=read.append)
    (target / INDEX).write_bytes(changed_index(model, changed(model))[INDEX])
    (target / "config.json").write_text("{}")
    written = {name: load_file(target / name) for name in model.shards}
    wanted = {
        "a.safetensors": FIRST,
        "b.safetensors": {"replaced": WRITTEN["replaced"], "count": SECOND["count"], "new": WRITTEN["new"]},
        "c.safetensors": THIRD,
    }
    for shard, tensors in wanted.items():
        assert written[shard].keys() == tensors.keys()
        assert all(torch.equal(written[shard][name], tensor) for name, tensor in tensors.items())
    for shard in ("a.safetensors", "c.safetensors"):
        assert (target / shard).read_bytes() == (model.folder / shard).read_bytes()
    assert sum(read) == sum(tensor.num_bytes for header in model.shards.values() for tensor in header.tensors)
    again = open_checkpoint(target)
    assert again.shards["b.safetensors"].metadata == {"format": "pt", "letter": "b"}
    for shard, digests in found.items():
        there = blake3((target / shard).read_bytes()).hexdigest()
        assert digests == Digests(
            source=blake3((model.folder / shard).read_bytes()).hexdigest(),
            target=there,
            tensors={
                tensor.name: blake3((target / shard).read_bytes()[tensor.start : tensor.end]).hexdigest()
                for tensor in again.shards[shard].tensors
            },
        )
        assert read_digests(again)[shard] == Digests(there, there, digests.tensors)
        assert file_digest(target / shard) == there


def test_the_index_follows_the_edits(model: Checkpoint) -> None:
    index = json.loads(changed_index(model, changed(model))[INDEX])
    assert index["weight_map"] == {k: v for k, v in INDEXED.items() if k != "gone"} | {"new": "b.safetensors"}
    before = json.loads((model.folder / INDEX).read_text())["metadata"]["total_size"]
    assert index["metadata"]["total_size"] == before - 5 * 4 + 2 * 2 + 3 * 4 - 4 * 4
    assert json.loads(changed_index(model, {})[INDEX]) == json.loads((model.folder / INDEX).read_text())


@pytest.mark.parametrize(
    ("edits", "names"),
    [
        (ShardEdits(added={"new": new_tensor("new")}), ["count", "gone", "new", "replaced"]),
        (ShardEdits(dropped=frozenset({"gone"})), ["count", "replaced"]),
        (ShardEdits(replaced={"gone": new_tensor("new")}), ["count", "gone", "replaced"]),
    ],
)
def test_one_kind_of_edit_alone_changes_the_header(
    edits: ShardEdits, names: list[str], model: Checkpoint, tmp_path: Path
) -> None:
    write_shards(model, tmp_path, {"b.safetensors": edits})
    written = load_file(tmp_path / "b.safetensors")
    assert sorted(written) == names
    for name in names:
        changed_here = name == "new" or name in edits.replaced
        assert torch.equal(written[name], WRITTEN["new"] if changed_here else SECOND[name])


@pytest.mark.parametrize(
    ("shape", "by_rows", "blocks"),
    [
        ((5, 3), True, [(0, 24), (2, 24), (4, 12)]),
        ((5, 3), False, [(0, 24), (24, 24), (48, 12)]),
        ((2, 10), True, [(0, 40), (1, 40)]),
        ((2, 10), False, [(0, 24), (24, 24), (48, 24), (72, 8)]),
        ((9,), True, [(0, 24), (6, 12)]),
        ((), True, [(0, 4)]),
        ((0, 3), True, []),
        ((3, 0), True, []),
        ((3, 0), False, []),
    ],
)
def test_blocks_are_whole_rows_or_any_bytes(
    shape: tuple[int, ...], by_rows: bool, blocks: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 24)
    data = bytes(range(4 * math.prod(shape)))
    tensor, whole, counts = TensorInfo("x", "F32", shape, 0, len(data)), blake3(), []
    found = [
        (first, bytes(block))
        for first, block in reading.read_blocks(io.BytesIO(data), tensor, whole, counts.append, by_rows=by_rows)
    ]
    assert [(first, len(block)) for first, block in found] == blocks
    assert b"".join(block for _, block in found) == data
    assert (counts, whole.hexdigest()) == ([size for _, size in blocks], blake3(data).hexdigest())


def test_a_file_that_shrinks_while_it_is_read() -> None:
    tensor = TensorInfo("x\x1b", "F32", (5, 3), 0, 60)
    with pytest.raises(CheckpointError) as caught:
        list(reading.read_blocks(io.BytesIO(bytes(59)), tensor, blake3(), [].append, by_rows=True))
    assert str(caught.value) == r"Tensor x\x1b ended early while it was read. Is the file changing?"


@pytest.mark.parametrize("metadata", [None, {"total_size": "many"}, {"note": 1}, 5])
def test_an_index_without_a_size_keeps_what_it_has(metadata: object, model: Checkpoint) -> None:
    (model.folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": INDEXED}))
    assert json.loads(changed_index(model, changed(model))[INDEX])["metadata"] == metadata


def test_an_index_whose_map_is_gone_is_refused(model: Checkpoint) -> None:
    (model.folder / INDEX).write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        changed_index(model, {})
    assert str(caught.value) == f"File {model.folder / INDEX} must hold a `weight_map`. Download it again."
    (model.folder / INDEX).unlink()
    assert changed_index(Checkpoint(model.folder, {}, model.shards, ()), changed(model)) == {}


def test_blocks_are_edited_in_place_with_their_rows_and_seen_before(model: Checkpoint, tmp_path: Path) -> None:
    def times_ten(values: Stored, first: int) -> None:
        assert (values.shape, first) == ((4, 2), 0)
        values *= 10

    seen: dict[tuple[str, str], list[float]] = {}

    def check(shard: str, tensor: TensorInfo, values: Stored) -> None:
        seen[shard, tensor.name] = values.tolist()

    write_shards(
        model, tmp_path, {"a.safetensors": ShardEdits(blocks={"scaled": times_ten})}, check=check, num_workers=1
    )
    assert torch.equal(load_file(tmp_path / "a.safetensors")["scaled"], 10 * FIRST["scaled"])
    assert torch.equal(load_file(tmp_path / "a.safetensors")["kept"], FIRST["kept"])
    everything = {**FIRST, **SECOND, **THIRD}
    floats = [name for name in everything if name != "count"]  # integers are no numbers of the model's function
    assert seen == {(INDEXED[name], name): everything[name].flatten().tolist() for name in floats}


def test_a_header_that_is_given_is_written_as_it_is(model: Checkpoint, tmp_path: Path) -> None:
    raw = model.shards["c.safetensors"].raw
    spaced = (int.from_bytes(raw[:8], "little") + 8).to_bytes(8, "little") + raw[8:] + b" " * 8
    write_shards(model, tmp_path, {"c.safetensors": ShardEdits(header=spaced)})
    assert (tmp_path / "c.safetensors").read_bytes()[: len(spaced)] == spaced
    assert torch.equal(load_file(tmp_path / "c.safetensors")["other"], THIRD["other"])


def test_other_files_are_carried_over_with_their_digests_and_modes(model: Checkpoint, tmp_path: Path) -> None:
    (model.folder / "code").mkdir()
    for name, text in (("code/model.py", "x = 1"), ("run.sh", "true"), ("NOTES", "é")):
        (model.folder / name).write_text(text)
    (model.folder / "run.sh").chmod(0o755)
    target = tmp_path / "out"
    target.mkdir()
    (target / "code").mkdir()
    again = open_checkpoint(model.folder)
    digests = copy_others(again, target, skip=[INDEX, "NOTES"])
    assert digests == {
        name: blake3((model.folder / name).read_bytes()).hexdigest()
        for name in ("config.json", "code/model.py", "run.sh")
    }
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()) == sorted(
        digests
    )
    assert all((target / name).read_bytes() == (model.folder / name).read_bytes() for name in digests)
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755


def test_json_is_written_as_hugging_face_writes_it() -> None:
    assert json_bytes({"é": [1, math.inf]}) == '{\n  "é": [\n    1,\n    Infinity\n  ]\n}\n'.encode()


def test_numbers_of_eight_bits_are_not_computed_with(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2, dtype=torch.int8), "none": torch.ones(0, 3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    model = open_checkpoint(tmp_path)
    where: Callable[[str], tuple[str, TensorInfo]] = model.locate().__getitem__
    with pytest.raises(CheckpointError) as caught:
        model.map_tensor(*where("x"))
    assert str(caught.value) == (
        "Tensor x of file model.safetensors is stored as I8; only F16, BF16, F32 and F64 can be computed with. "
        "Give the unquantised model."
    )
    none = model.map_tensor(*where("none"))
    assert (none.shape, none.dtype) == ((0, 3), np.float32)
