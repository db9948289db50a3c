import os
import sys

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS

from layerkit.splitting import is_hidden, is_picture, list_pictures
from layerkit.splitting.pictures import PICTURE_EXTENSIONS, scan_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names or links")


def test_extensions_are_torchvisions_and_four_more():
    """A picture is what ImageFolder takes, and GIF, AVIF and HEIF."""
    assert {*IMG_EXTENSIONS, ".gif", ".avif", ".heic", ".heif"} == PICTURE_EXTENSIONS


@pytest.mark.parametrize("name", ["a.jpg", "a.JPeG", "b/c.Webp", "d.e.heic", ".b/c.png"])
def test_pictures(name):
    """The suffix decides, in any case, and only the last one."""
    assert is_picture(name)


@pytest.mark.parametrize("name", ["a", "jpg", "a.jpg.txt", ".jpg", "._a.jpg", "a.mp4", "a.jpg/", ""])
def test_no_pictures(name):
    """Other suffixes and hidden names are no pictures."""
    assert not is_picture(name)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".DS_Store", "Thumbs.db", "desktop.ini"])
def test_hidden(name):
    """What systems and notebooks leave behind is hidden."""
    assert is_hidden(name)


def test_listing_is_sorted_by_the_whole_path(tmp_path):
    """The order is that of the paths as strings, whatever order the system lists folders in."""
    names = ["b/2.jpg", "b/1.jpg", "b.jpg", "a/z/1.png", "a/Z.png", "a.b/1.gif"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert list_pictures(tmp_path) == sorted(names)


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    """A checkpoint folder and a system's own files are neither pictures nor named as left out."""
    for name in [
        "a/.ipynb_checkpoints/1-checkpoint.png",
        "a/.DS_Store",
        "a/Thumbs.db",
        "a/._1.jpg",
        ".x/1.jpg",
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert scan_folder(tmp_path) == ([], {}, set(), [])


def test_other_files_are_named(tmp_path):
    """A file that is no picture is left out with its reason."""
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.jpg").mkdir()
    assert scan_folder(tmp_path) == ([], {}, set(), [("notes.txt", "not a picture")])


@posix
def test_odd_files_with_a_pictures_name_are_left_out(tmp_path):
    """A broken link and a pipe are no pictures, whatever their names say."""
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert scan_folder(tmp_path).skipped == [("gone.jpg", "broken link"), ("pipe.jpg", "not a regular file")]


@posix
def test_linked_folders_are_followed_but_never_in_circles(tmp_path):
    """A link to a folder shows its pictures, and one to a parent adds nothing."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "1.jpg").write_text("1")
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "2.jpg").write_text("22")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "outside" / "back").symlink_to(tmp_path / "root" / "b")
    listing = scan_folder(tmp_path / "root")
    assert listing == (["a/2.jpg", "b/1.jpg"], {"a/2.jpg": 2, "b/1.jpg": 1}, {"b/1.jpg"}, [])


@posix
def test_names_with_newlines_and_other_scripts(tmp_path):
    """Every name that the file system allows is listed as it is."""
    names = ["a\nb.jpg", "größe.jpg", "写真.jpg", "a\rb,\"c'.jpg"]
    for name in names:
        (tmp_path / name).touch()
    assert list_pictures(tmp_path) == sorted(names)


def test_missing_folder_and_file_instead_of_folder(tmp_path):
    """A wrong path is told apart from a file given as a folder."""
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*expected a folder of pictures"):
        list_pictures(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="is a file"):
        list_pictures(tmp_path / "file")
