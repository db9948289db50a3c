"""Every picture held out once."""

import os
from pathlib import Path

from layerkit.errors import SplitError, count_of
from layerkit.splitting.assignment import assign, join, shuffled
from layerkit.splitting.balancing import Goal
from layerkit.splitting.kinship import find_kin
from layerkit.splitting.labels import Rule
from layerkit.splitting.pictures import scan_folder
from layerkit.splitting.planning import draft_of, off_share, warn_of
from layerkit.splitting.quotas import fold_quotas
from layerkit.splitting.request import Duplicates, Request, check_whole
from layerkit.splitting.table import Split, SplitRow


def k_fold(
    source: str | os.PathLike[str],
    k: int,
    *,
    label: Rule = "folder",
    group: Rule | None = None,
    stratify: bool = True,
    duplicates: Duplicates = "together",
    seed: int = 0,
) -> list[Split]:
    r"""Plan k splits of a folder, so that each picture is held out in exactly one of them.

    Parameters
    ----------
    source : str or PathLike
        The folder.
    k : int
        The number of splits, 2 or more.
    label, group, stratify, duplicates, seed
        As in `plan_split`.

    Returns
    -------
    list of Split
        In the i-th, fold i is ``valid`` and the others are ``train``.

    Raises
    ------
    SplitError
        As in `plan_split`; if a class has fewer than `k` pictures, or fewer than `k` groups.
    ValueError, TypeError
        If an argument makes no sense.

    Warns
    -----
    LayerkitWarning
        As in `plan_split`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for n in range(10):
    ...     _ = (folder / f"{'cat' if n % 2 else 'dog'}.{n}.jpg").write_text(str(n))
    >>> folds = k_fold(folder, 5, label=r"(cat|dog)\.")
    >>> [fold.counts["valid"] for fold in folds][:2]
    [{'cat': 1, 'dog': 1}, {'cat': 1, 'dog': 1}]
    """
    if check_whole("k", k) < 2:
        raise ValueError(f"`k` is {k}; expected at least 2 folds: 5 or 10 are usual")
    request = Request(0, 0, label, group, stratify, duplicates, seed)
    listing = scan_folder(source, sizes=duplicates != "ignore")
    draft, skipped, notes = draft_of(Path(source), listing, request)
    kin = find_kin(draft, request, {})
    names = draft.pictures
    labels = draft.labels if stratify else [""] * len(names)
    classes = sorted(set(labels))
    index = {label: c for c, label in enumerate(classes)}
    class_of = [index[label] for label in labels]
    quotas = fold_quotas(_sizes(class_of, classes, k), k)
    goal = Goal(quotas, [sum(quota) for quota in quotas])
    leader = join(names, kin.clusters)
    fold_of = assign(shuffled(names, request.seed), class_of, leader, goal, {})
    notes = [*notes, *kin.notes, *_shortfalls(fold_of, class_of, classes, goal)]
    warn_of(notes)
    return [
        Split(
            tuple(
                SplitRow(name, label, "valid" if part == fold else "train", group, hash)
                for name, label, part, group, hash in zip(
                    names, draft.labels, fold_of, draft.groups, kin.hashes, strict=True
                )
            ),
            Path(source).absolute(),
            skipped,
            tuple(notes),
            kin.near,
            {**request.describe(), "k": k, "fold": fold},
            kin.stamps,
        )
        for fold in range(k)
    ]


def _sizes(class_of: list[int], classes: list[str], k: int) -> list[int]:
    sizes = [0] * len(classes)
    for c in class_of:
        sizes[c] += 1
    least = min(sizes)
    if least < k:
        name = classes[sizes.index(least)]
        # Without stratification all is one class, which has no name.
        what = f"class {name!r}" if name else "the folder"
        raise SplitError(
            f"{what} has {count_of(least, 'picture')} for {k} folds; expected at least one for each: "
            f"{f'pass k={least} at most' if least > 1 else 'leave that class out'}, or add pictures to it"
        )
    return sizes


def _shortfalls(fold_of: list[int], class_of: list[int], classes: list[str], goal: Goal) -> list[str]:
    counts = [[0] * len(classes) for _ in goal.quotas]
    for fold, c in zip(fold_of, class_of, strict=True):
        counts[fold][c] += 1
    for fold, row in enumerate(counts):
        for c, n in enumerate(row):
            if not n:
                what = (
                    f"class {classes[c]!r} is missing from fold {fold}"
                    if classes[c]
                    else f"fold {fold} is empty"
                )
                raise SplitError(
                    f"{what}, since groups and duplicates stay together; expected at least {len(counts)} groups"
                    f"{' in each class' if classes[c] else ''}: pass a smaller k"
                )
    sizes = [sum(row) for row in counts]
    notes = [] if sizes == goal.asked else [f"the folds have {sizes} pictures instead of {goal.asked}"]
    if len(classes) > 1:
        totals = (sum(column) for column in zip(*counts, strict=True))
        shares = {label: total / len(counts) for label, total in zip(classes, totals, strict=True)}
        notes += [note for fold, row in enumerate(counts) for note in off_share(f"fold {fold}", row, shares)]
    return [f"{'; '.join(notes)}: groups and duplicates cannot be divided"] if notes else []
