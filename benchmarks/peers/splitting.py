"""Splitting a folder of two classes, 80% to 20%, into a new one: files a second.

    python splitting.py PEER --folder FOLDER [--files 10000]

The files are random bytes of 16 to 24 KB, made where FOLDER has none and read once in advance: what is measured is
the work, not the disk. Nothing is removed: on ext4, files made soon after others were removed cost several times
more. `bare` copies in a loop and `bare_link` makes hard links; layerkit looks for equal files as well, as it does
by default.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import Clock, Figures, measure

CLASSES = ("cat", "dog")


def make_files(root: Path, count: int) -> None:
    """Write so many files."""
    rng = random.Random(0)
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in range(count // len(CLASSES)):
            (root / label / f"{label}.{number}.jpg").write_bytes(rng.randbytes(rng.randrange(16_000, 24_000)))


def measured(split: Callable[[str, str], object], folder: str, files: int) -> Figures:
    """Time one split to a fresh folder."""
    source = Path(folder, f"files{files}").resolve()
    if not source.exists():
        make_files(source, files)
    os.sync()
    for file in source.rglob("*.jpg"):
        file.read_bytes()
    dest = tempfile.mkdtemp(dir=source.parent)
    clock = Clock()
    split(str(source), f"{dest}/split")
    return {"files_second": round(files / clock())}


def loop_over(operation: Callable[[str, str], object], source: str, dest: str) -> None:
    """Shuffle and call one operation for each file: the least that a script would do."""
    rng = random.Random(0)
    for label in CLASSES:
        names = sorted(entry.name for entry in os.scandir(f"{source}/{label}"))
        rng.shuffle(names)
        cut = int(len(names) * 0.8)
        for part, chosen in (("train", names[:cut]), ("valid", names[cut:])):
            Path(dest, part, label).mkdir(parents=True)
            for name in chosen:
                operation(f"{source}/{label}/{name}", f"{dest}/{part}/{label}/{name}")


def bare(folder: str, files: int) -> Figures:
    return measured(lambda source, dest: loop_over(shutil.copyfile, source, dest), folder, files)


def bare_link(folder: str, files: int) -> Figures:
    return measured(lambda source, dest: loop_over(os.link, source, dest), folder, files)


def layerkit(folder: str, files: int) -> Figures:
    from layerkit import split_folder

    return measured(lambda source, dest: split_folder(source, dest, valid=0.2, seed=1), folder, files)


def layerkit_link(folder: str, files: int) -> Figures:
    from layerkit import split_folder

    return measured(
        lambda source, dest: split_folder(source, dest, valid=0.2, seed=1, mode="hardlink"), folder, files
    )


def split_folders(folder: str, files: int) -> Figures:
    import splitfolders

    return measured(
        lambda source, dest: splitfolders.ratio(source, output=dest, seed=1, ratio=(0.8, 0.2)), folder, files
    )


def ultralytics(folder: str, files: int) -> Figures:
    with tempfile.TemporaryDirectory() as settings:
        os.environ["YOLO_CONFIG_DIR"] = settings
        from ultralytics.data.split import split_classify_dataset

    def split(source: str, dest: str) -> None:
        Path(dest).symlink_to(source)  # it writes beside its source, to `dest` and "_split"
        split_classify_dataset(dest, 0.8)

    return measured(split, folder, files)


if __name__ == "__main__":
    measure(bare, bare_link, layerkit, layerkit_link, split_folders, ultralytics, folder=".", files=10_000)
