"""Whether pictures are where `split_folder` has put them, by the manifest that it wrote."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from layerkit.checking.report import Finding, finding
from layerkit.errors import SplitError, count_of
from layerkit.splitting import Split, read_manifest
from layerkit.splitting.manifest import MANIFEST_NAME
from layerkit.splitting.table import PART_NAMES, destination_of


def check_records(root: Path, pictures: Iterable[str]) -> Iterator[Finding]:
    """Compare the pictures in a folder's parts with its manifest, where there is one."""
    try:
        split = read_manifest(root)
    except SplitError as error:
        yield finding("damaged_manifest", MANIFEST_NAME, str(error).partition("; expected")[0])
        return
    if split is None:
        return
    recorded = set(map(destination_of, split.rows))
    present = {_as_recorded(path): path for path in pictures}
    wrong = _on_other_side(recorded, present)
    for name, path in present.items():
        if name in wrong:
            yield finding("other_side", path, f"recorded as {wrong[name]!r}")
        elif name not in recorded:
            yield finding("unrecorded", path)
    for name in sorted(recorded - present.keys() - set(wrong.values())):
        yield finding("missing_file", name)


def refuse_misplaced(root: Path, pictures: Iterable[str]) -> None:
    """Raise if, by the manifest that `split_folder` wrote, a picture is on a wrong side, or on two.

    This reads one file and opens no picture. Pictures that the manifest does not know may be anywhere.
    """
    split = read_manifest(root)
    if split is None:
        return
    recorded = set(map(destination_of, split.rows))
    present = set(map(_as_recorded, pictures))
    wrong = _on_other_side(recorded, present)
    torn = _on_two_sides(split, present)
    if wrong:
        name, other = next(iter(wrong.items()))
        what = f"stand on another side than split_folder put them on, such as {name!r}, put at {other!r}"
    elif torn:
        name, other = next(iter(torn.items()))
        what = f"stand on two sides with the same bytes, such as {name!r} and {other!r}"
    else:
        return
    raise SplitError(
        f"{count_of(len(wrong or torn), 'picture')} of {root} {what}. Expected each on one side only, for what "
        "was trained on tells nothing when it is held out: put back or remove them "
        f"(layerkit.check_folder({str(root)!r}) names all), or split anew."
    )


def _as_recorded(path: str) -> str:
    """Write a path as the manifest does, which knows validation by one name only."""
    part, _, below = path.partition("/")
    return f"{PART_NAMES.get(part, part)}/{below}"


def _on_other_side(recorded: Collection[str], present: Iterable[str]) -> dict[str, str]:
    """Give the pictures that are recorded on another side than they stand, each with its recorded name."""
    unknown = [name for name in present if name not in recorded]
    if not unknown:
        return {}
    by_place_in_part = {name.partition("/")[2]: name for name in recorded}
    places = ((name, name.partition("/")[2]) for name in sorted(unknown))
    return {name: by_place_in_part[place] for name, place in places if place in by_place_in_part}


def _on_two_sides(split: Split, present: Collection[str]) -> dict[str, str]:
    """Give the pictures whose bytes are recorded on another side as well, each with the first one there."""
    first: dict[str, str] = {}
    torn: dict[str, str] = {}
    for row in split.rows:
        if row.hash and (name := destination_of(row)) in present:
            other = first.setdefault(row.hash, name)
            if other.partition("/")[0] != row.part:
                torn[name] = other
    return torn
