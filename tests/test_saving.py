"""Files are whole or absent, and nothing in them is executed."""

import json
import os
import pickle
import stat
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerkit.saving import atomic_path, check_target, copies, pack, read_tensors, unpack, write_tensors

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=10,
)


@given(plain)
def test_plain_state_comes_back_as_it_was(value):
    """Nested dicts (with whole numbers as keys too), lists and tuples survive JSON."""
    tensors = {}
    packed = json.loads(json.dumps(pack(value, tensors, "state")))
    assert unpack(packed, tensors) == value
    assert not tensors


def test_the_state_of_an_optimizer_comes_back(tmp_path):
    """What AdamW remembers goes through a file and back in the same bits."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors = {}
    packed = pack(optimizer.state_dict(), tensors, "optimizer")
    write_tensors(tmp_path / "state", copies(tensors), {"packed": packed})
    read, header = read_tensors(tmp_path / "state")
    back = unpack(header["packed"], read)
    other = torch.optim.AdamW(model.parameters(), lr=1.0)
    other.load_state_dict(back)
    for first, second in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(second[key])) for key, value in first.items()
        )
    assert other.param_groups[0]["lr"] == 0.1


def test_what_is_no_plain_data_is_refused():
    """An object that would need a pickle is named with its place."""
    with pytest.raises(TypeError, match=r"state/a/0 is a object"):
        pack({"a": [object()]}, {}, "state")


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    """No partial file is ever seen under its final name, and no temporary one is left."""
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half(target):
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_permissions_are_those_of_any_new_file(tmp_path):
    """A saved file can be read by whom the umask allows, like one that was opened for writing."""
    (tmp_path / "ordinary").write_text("")
    with atomic_path(tmp_path / "saved") as temporary:
        temporary.write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "saved")]
    assert modes[0] == modes[1]


def test_views_and_layouts_are_saved_by_value(tmp_path):
    """Tensors that share storage, are transposed or channels-last come back equal and contiguous."""
    base = torch.arange(24.0).reshape(1, 2, 3, 4)
    tensors = {"base": base, "view": base[0], "turned": base.transpose(2, 3)}
    tensors["last"] = base.to(memory_format=torch.channels_last)
    write_tensors(tmp_path / "file", copies(tensors), {})
    read, _ = read_tensors(tmp_path / "file")
    for name, value in tensors.items():
        assert torch.equal(read[name], value)
        assert read[name].is_contiguous()


def test_foreign_files_are_refused(tmp_path):
    """A pickle, an empty file and a plain safetensors file each get one ValueError; a missing file its own."""
    from safetensors.torch import save_file

    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    (tmp_path / "pickle").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "empty").write_bytes(b"")
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    for name, message in (
        ("pickle", "is no safetensors file"),
        ("empty", "is no safetensors file"),
        ("plain", "tensors only"),
    ):
        with pytest.raises(ValueError, match=message):
            read_tensors(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_tensors(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_devices_and_folders_are_not_replaced_and_links_are_followed(tmp_path):
    """What is there stays what it is; the file that a link leads to is written."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("real")
    for name, error in (("pipe", "is a device or a pipe"), (".", "is a folder; expected the name of a file")):
        with pytest.raises(OSError, match=error), atomic_path(tmp_path / name):
            pass
    (tmp_path / "file").write_text("old")
    with pytest.raises(NotADirectoryError, match="which is a file; expected a folder"):
        check_target(tmp_path / "file" / "below")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "pipe").is_fifo()


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    """The temporary file beside it has a shorter one."""
    with atomic_path(tmp_path / ("a" * 240 + ".csv")) as temporary:
        temporary.write_text("text")
    assert (tmp_path / ("a" * 240 + ".csv")).read_text() == "text"


def test_the_suffix_of_a_link_is_that_of_the_file_that_is_written(tmp_path):
    """Stores of contents link to names without a suffix, by which plots choose their format."""
    (tmp_path / "curves.png").symlink_to("0123abcd")
    with atomic_path(tmp_path / "curves.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("new")
    assert (tmp_path / "0123abcd").read_text() == "new"
