"""The kinds of damage that a folder of pictures may have: how bad each is, and how to mend it."""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]


class Kind(NamedTuple):
    """How bad a kind of damage is, what it means, and how to mend it.

    An "error" stops training, leaks, or teaches what is wrong; a "warning" needs a person's eye; a "note" is
    handled by layerkit, but perhaps not by other tools.
    """

    severity: Severity
    meaning: str
    remedy: str


# In the order of the report: what stops training first.
KINDS: dict[str, Kind] = {
    "no_pictures": Kind("error", "there is nothing to train on", "check the path"),
    "missing_part": Kind(
        "error", "training needs a part that is not there", "split the pictures with split_folder"
    ),
    "two_valid_parts": Kind("error", "validation has two folders", "remove or rename one of them"),
    "empty_file": Kind("error", "the file has 0 bytes", "get the picture again, or remove the file"),
    "unreadable": Kind("error", "no picture can be read from the file", "remove or replace it"),
    "truncated": Kind(
        "error",
        "the picture is cut short, or cannot be decoded to its end",
        "get the picture again, or remove it",
    ),
    "no_permission": Kind("error", "you may not read the file", "change its permissions or its owner"),
    "broken_link": Kind("error", "a symbolic link leads nowhere", "mend the link, or remove it"),
    "leak": Kind("error", "the same bytes are on two sides", "remove one of the two, or split anew"),
    "two_labels": Kind("error", "the same bytes have two labels", "remove the wrong one"),
    "missing_class": Kind(
        "error", "a part lacks a class of the training part", "add pictures of it, or rename the folder"
    ),
    "extra_class": Kind(
        "error", "a part has a class that training never sees", "remove or rename the folder, or train on it"
    ),
    "empty_class": Kind("error", "a class folder has no picture", "add pictures, or remove the folder"),
    "other_side": Kind(
        "error", "a picture is on another side than split_folder put it", "put it back, or split anew"
    ),
    "damaged_manifest": Kind(
        "error", "the record of split_folder cannot be read", "split into another folder"
    ),
    "near_leak": Kind(
        "warning",
        "pictures on two sides look the same",
        'look at them; split anew with duplicates="near", or name what belongs together with `group`',
    ),
    "near_duplicate": Kind(
        "note",
        "pictures that are on one side, or not split yet, look the same",
        'look at them; split with duplicates="near", or name what belongs together with `group`',
    ),
    "duplicate": Kind("warning", "the same bytes twice", "remove one of the two"),
    "single_picture": Kind("warning", "a class has one picture only", "add pictures of it"),
    "imbalance": Kind(
        "warning",
        "a class has a tenth of the largest or less",
        'add pictures, or weigh the classes: Multiclass(class_weight="balanced"), Binary(pos_weight=...)',
    ),
    "tiny": Kind("warning", "the picture is very small", "get it in its full size, or remove it"),
    "extreme_aspect": Kind(
        "warning", "a square crop shows a fifth of the picture or less", "crop it by hand, or remove it"
    ),
    "wrong_extension": Kind(
        "warning",
        "the suffix names another format than the contents",
        "rename it; layerkit reads it all the same",
    ),
    "animated": Kind(
        "warning", "only the first of several frames is used", "save the frame that shows the label"
    ),
    "sixteen_bit": Kind(
        "warning",
        "16 bits a channel or more become 8",
        "scale 10- or 12-bit pictures to the whole range, or they come out nearly black",
    ),
    "cmyk": Kind("warning", "inks for print become RGB, in other colours", "save it as RGB"),
    "unknown_suffix": Kind(
        "warning", "a picture is passed over for its suffix", "rename it, such as to .jpg or .png"
    ),
    "not_a_picture": Kind("warning", "a file beside the pictures is none", "move it elsewhere"),
    "loose": Kind("warning", "pictures lie in no class folder, and are not used", "move them into one"),
    "same_name": Kind(
        "warning",
        "names differ only in case or in how accents are coded, as not every system sees",
        "rename one of them",
    ),
    "missing_file": Kind(
        "warning",
        "a picture that split_folder recorded is gone",
        "call split_folder again, which puts it back, or remove it from the source too",
    ),
    "unrecorded": Kind(
        "warning", "split_folder has not put the picture here", "add it to the source, and split that again"
    ),
    "rotated": Kind(
        "note", "EXIF turns the picture; layerkit does so, other tools may not", "save it upright"
    ),
    "transparent": Kind(
        "note", "transparency is dropped, and shows what colours lie below", "put it on a background"
    ),
}
