"""Killed at any moment, a split loses nothing and is finished by the same call."""

import random
import subprocess
import sys
import time

import pytest

from layerkit.splitting import split_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]

# The imports are over before the clock starts.
TRIAL = """
print('ready', flush=True)
sys.stdin.readline()
split_folder(sys.argv[2], sys.argv[3], mode=sys.argv[4], progress=False)
"""


@pytest.mark.parametrize("mode", ["copy", "hardlink", "move"])
def test_killed_at_random(make_folder, contents, run_alone, tmp_path, mode):
    """After each kill every picture is whole, in one place at least; the same call finishes."""
    rng = random.Random(mode)
    source = make_folder(cat=60, dog=60)
    (source / "dog" / "again.jpg").write_text("dog 1")
    original = contents(source)
    interrupted = 0
    for trial in range(8):
        here, dest = tmp_path / f"here{trial}", tmp_path / f"dest{trial}"
        for path, text in original.items():
            (here / path).parent.mkdir(parents=True, exist_ok=True)
            (here / path).write_text(text)
        process = run_alone(TRIAL, here, dest, mode, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        interrupted += process.wait() < 0
        process.stdin.close()
        process.stdout.close()
        placed = (
            {path.partition("/")[2]: text for path, text in contents(dest).items()} if dest.exists() else {}
        )
        assert original.items() >= placed.items()
        assert {**contents(here), **placed} == original
        split_folder(here, dest, mode=mode, progress=False)
        assert {path.partition("/")[2]: text for path, text in contents(dest).items()} == original
        assert contents(here) == ({} if mode == "move" else original)
    assert interrupted
