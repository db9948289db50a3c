import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerkit.errors import LayerkitWarning, PictureError, SplitError
from layerkit.splitting import duplicates, plan_split
from layerkit.splitting.duplicates import find_duplicates
from layerkit.splitting.near import near_pairs, perceptual_hashes
from layerkit.splitting.pictures import scan_folder


def hashes_of(folder, **options):
    pictures, sizes, *_ = scan_folder(folder)
    found = find_duplicates(
        pictures, [sizes[p] for p in pictures], lambda path: f"{folder}/{path}", **options
    )
    return {pictures[i]: digest.hash for i, digest in found.items()}


def test_only_what_could_be_equal_is_read_whole(tmp_path, monkeypatch):
    """Other sizes are never opened; of one size, only files with the same middle are read to the end."""
    body = bytes(range(256)) * 40
    files = {
        "a.jpg": body,
        "b.jpg": body,
        "middle.jpg": body[:5100] + b"!" + body[5101:],
        "end.jpg": body[:-1] + b"!",
        "longer.jpg": body + b"!",
        "empty1.jpg": b"",
        "empty2.jpg": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(Path(path).name) or real(path, *rest))
    assert hashes_of(tmp_path) == {
        name: hashlib.blake2b(files[name], digest_size=16).hexdigest()
        for name in ("a.jpg", "b.jpg", "end.jpg")
    }
    assert sorted(opened) == ["a.jpg", "b.jpg", "end.jpg", "middle.jpg"]


def test_threads_give_the_same(tmp_path, monkeypatch):
    """On a slow disk many threads read, with the same result."""
    for i in range(200):
        (tmp_path / f"{i}.jpg").write_text(str(i % 50 + 100))
    expected = hashes_of(tmp_path)
    monkeypatch.setattr(duplicates, "_SLOW_SECONDS", 0)
    assert hashes_of(tmp_path) == expected
    assert len(expected) == 200
    assert len(set(expected.values())) == 50


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    """The error names the file and the way round."""
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_text("same")

    def refuse(path, *rest):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        PictureError, match=r'0\.jpg. cannot be read \(Permission denied\).*duplicates="ignore"'
    ):
        hashes_of(tmp_path)


def picture(seed):
    """A smooth random picture, as photographs are."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    pytest.importorskip("imagehash")
    for label, start in (("cat", 0), ("dog", 100)):
        (tmp_path / label).mkdir()
        for i in range(12):
            picture(start + i).save(tmp_path / label / f"{i}.png")
    for i in range(4):  # smaller, and compressed with loss
        picture(i).resize((64, 64)).save(tmp_path / "cat" / f"{i}-small.jpg", quality=60)
    return tmp_path


def test_near_duplicates_stay_together(photos):
    """The same scene in another size and format is on the same side, and the pairs are listed."""
    for seed in range(4):
        split = plan_split(photos, duplicates="near", seed=seed)
        parts = {row.path: row.part for row in split.rows}
        pairs = {(pair.first, pair.second) for pair in split.near_duplicates}
        assert pairs == {(f"cat/{i}-small.jpg", f"cat/{i}.png") for i in range(4)}
        assert all(parts[first] == parts[second] for first, second in pairs)
    assert "near duplicates, kept together: 4 pairs" in repr(split)


def test_what_cannot_be_decoded_is_compared_by_its_bytes(photos):
    """A picture that is text is named in a warning, and still split."""
    (photos / "dog" / "text.jpg").write_text("no picture")
    with pytest.warns(LayerkitWarning, match=r"1 picture cannot be decoded.*'dog/text\.jpg'; check_folder"):
        assert len(plan_split(photos, duplicates="near")) == 29


def test_near_pairs_agree_with_comparing_all():
    """Every two hashes within 4 bits end in one chain, and no pair is further apart."""
    rng = np.random.default_rng(0)
    values = [int(v) for v in rng.integers(0, 2**63, 60)]
    values += [
        v ^ (1 << int(a)) ^ (1 << int(b)) ^ (1 << int(c))
        for v, (a, b, c) in zip(values, rng.integers(0, 64, (60, 3)), strict=True)
    ]
    values += values[:5]
    hashes = dict(enumerate(values))
    pairs = near_pairs(hashes)
    assert all((hashes[i] ^ hashes[j]).bit_count() == distance <= 4 for i, j, distance in pairs)
    parent = list(range(len(values)))

    def root(i):
        return i if parent[i] == i else root(parent[i])

    for i, j, _ in pairs:
        parent[root(i)] = root(j)
    for i in hashes:
        for j in hashes:
            if (hashes[i] ^ hashes[j]).bit_count() <= 4:
                assert root(i) == root(j)


def test_without_imagehash(source, monkeypatch):
    """The error says how to get it, and what does without."""
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(
        ImportError, match=r'needs the package imagehash.*layerkit\[near\].*duplicates="together"'
    ):
        perceptual_hashes([], str)


def test_strict_names_both(source):
    """The refusal names the pair."""
    (source / "cat" / "x.jpg").write_text("dog 4")
    with pytest.raises(SplitError, match=r"'cat/x\.jpg' and 'dog/dog\.4\.jpg'"):
        plan_split(source, duplicates="strict")
