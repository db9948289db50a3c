import contextlib
import subprocess
import sys
import time

import pytest

from layerkit.splitting import list_pictures, read_manifest, split_folder
from layerkit.splitting.lock import LOCK_NAME, folder_lock


def test_two_identical_calls_at_once(make_folder, tmp_path, run_alone):
    """Of several processes, one splits and the others find the work done; all return the same."""
    source = make_folder(cat=150, dog=150)
    code = "print(ascii(split_folder(sys.argv[2], sys.argv[3], mode='move', progress=False).rows))"
    processes = [run_alone(code, source, tmp_path / "new" / "dest", stdout=subprocess.PIPE) for _ in range(4)]
    answers = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(answers) == 1
    assert len(list_pictures(tmp_path / "new" / "dest")) == 300
    assert list_pictures(source) == []


def test_a_killed_process_leaves_no_stale_lock(source, tmp_path, run_alone):
    """The lock of a killed process is free at once, though its file is still there."""
    dest = tmp_path / "dest"
    code = (
        "from pathlib import Path; from layerkit.splitting.lock import folder_lock; import time\n"
        "with folder_lock(Path(sys.argv[2]), keep=Path(sys.argv[2], 'x')):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = run_alone(code, dest, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert (dest / LOCK_NAME).exists()
    started = time.monotonic()
    split_folder(source, dest, progress=False)
    assert time.monotonic() - started < 30


def test_waiting_is_announced(source, tmp_path, run_alone):
    """Whoever waits longer than a second is told for what."""
    dest = tmp_path / "dest"
    code = "split_folder(sys.argv[2], sys.argv[3])"
    with folder_lock(dest, keep=dest / "x"):
        process = run_alone(code, source, dest, stderr=subprocess.PIPE)
        line = process.stderr.readline()
    assert line == f"waiting for another process that is splitting into {dest}\n"
    process.communicate()
    assert process.returncode == 0
    assert len(read_manifest(dest)) == 50


def test_a_failing_call_hands_over_to_the_one_that_waits(make_folder, tmp_path, run_alone):
    """If the first of two calls fails and takes the folder away again, the second starts afresh."""
    dest = tmp_path / "new" / "dest"
    with contextlib.suppress(RuntimeError), folder_lock(dest, keep=dest / "x"):
        process = run_alone(
            "split_folder(sys.argv[2], sys.argv[3])", make_folder(cat=9, dog=9), dest, stderr=subprocess.PIPE
        )
        assert process.stderr.readline().startswith("waiting")
        raise RuntimeError("on purpose")
    process.communicate()
    assert process.returncode == 0
    assert len(list_pictures(dest)) == 18


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_failing_block_takes_its_folders_away(tmp_path):
    """Folders made for the lock go again, others stay."""
    (tmp_path / "old").mkdir()
    dest = tmp_path / "old" / "a" / "b"
    with pytest.raises(RuntimeError, match="on purpose"), folder_lock(dest, keep=dest / "x"):
        raise RuntimeError("on purpose")
    assert list((tmp_path / "old").iterdir()) == []
