"""Which pictures look alike, by perceptual hash."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

from layerkit.splitting.progress import Progress

# Small and lossy copies of a picture differ in 0 to 4 bits, unrelated photographs seldom in fewer than 12. As
# half of the bits are always set, distances are even.
NEAR_BITS = 4
_BANDS = NEAR_BITS + 1
_BAND_BITS = -(-64 // _BANDS)


def perceptual_hashes(
    paths: Sequence[str], locate: Callable[[str], str], progress: Progress | None = None
) -> dict[int, int]:
    """Hash what pictures look like.

    Parameters
    ----------
    paths : sequence of str
        The pictures.
    locate : callable
        Turns a path into one that can be opened.
    progress : Progress, optional
        Told about each picture.

    Returns
    -------
    dict of int to int
        A 64-bit number by index; pictures that cannot be decoded are missing.

    Raises
    ------
    ImportError
        If imagehash is not installed.

    References
    ----------
    The hash is imagehash's `phash <https://github.com/JohannesBuchner/imagehash>`_: the signs of the lowest
    frequencies of a picture's cosine transform.
    """
    try:
        import imagehash
    except ImportError as error:
        raise ImportError(
            'duplicates="near" needs the package imagehash, which is not installed; install it with '
            'pip install "layerkit[near]", or pass duplicates="together" to compare bytes only'
        ) from error
    from PIL import Image, ImageOps

    undecodable = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
    step = progress or Progress.silent()
    hashes: dict[int, int] = {}
    for i, path in enumerate(paths):
        # What Pillow cannot decode has no looks to compare; the caller tells which are missing.
        with contextlib.suppress(*undecodable), Image.open(locate(path)) as opened:
            opened.draft("RGB", (256, 256))
            hashes[i] = int(str(imagehash.phash(ImageOps.exif_transpose(opened))), 16)
        step.add(1)
    return hashes


def near_pairs(hashes: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Find pictures whose hashes differ in 4 bits of 64 at most.

    Parameters
    ----------
    hashes : mapping of int to int
        As `perceptual_hashes` returns it.

    Returns
    -------
    list of (int, int, int)
        Two indices and the number of bits in which they differ. Of several pictures with the same hash,
        each is paired with the first, and only the first with others: the pairs join the same pictures as
        all pairs would.

    Notes
    -----
    Two hashes that differ in 4 bits agree in at least one of five bands of bits, so that only hashes which
    share a band are compared.
    """
    first_with: dict[int, int] = {}
    pairs: list[tuple[int, int, int]] = []
    for i, value in sorted(hashes.items()):
        if value in first_with:
            pairs.append((first_with[value], i, 0))
        else:
            first_with[value] = i
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        buckets: dict[int, list[int]] = {}
        for value in first_with:
            bucket = buckets.setdefault(value >> band * _BAND_BITS & (1 << _BAND_BITS) - 1, [])
            seen.update((other, value) for other in bucket if (other ^ value).bit_count() <= NEAR_BITS)
            bucket.append(value)
    pairs.extend((first_with[a], first_with[b], (a ^ b).bit_count()) for a, b in seen)
    return sorted((min(i, j), max(i, j), distance) for i, j, distance in pairs)
