"""Make speed.md and speed.svg of the results that `run.py` left in a folder.

python report.py FOLDER
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

About = dict[str, Any]


@dataclass
class Figure:
    """One column of a table: what it is called, and which way is better."""

    title: str
    digits: int = 1
    times: bool = True
    """Whether how many times as fast as `bare` is worth a column."""
    rate: bool = False


TITLES = {
    "loop": "The loop itself, tiny network, one thread",
    "finetune": "Fine-tuning resnet18, one epoch with validation",
    "frozen": "A new head on a frozen resnet18, with validation",
    "loading": "Reading JPEGs of 500 x 375, one process",
    "loading_workers": "Reading JPEGs of 500 x 375, two workers (layerkit: threads)",
    "loading_large": "Reading JPEGs of 4000 x 3000, one process",
    "splitting": "Splitting a folder",
    "imports": "Importing, after torch and torchvision (`bare`: these two)",
}
RATES = {
    "eval": Figure("eval, pictures/s", 0, rate=True),
    "train": Figure("train, pictures/s", 0, rate=True),
}
FIGURES = {
    "loop": {
        "added_us": Figure("added a step, µs", 0, times=False),
        "added_processor_us": Figure("of the processor's", 0, times=False),
        "ms_step": Figure("ms a step", 2),
    },
    "finetune": {"seconds": Figure("s"), "accuracy": Figure("accuracy", 2, times=False)},
    "frozen": {
        "ten_epochs": Figure("10 epochs, s"),
        "first_epoch": Figure("1 epoch, s"),
        "accuracy": Figure("accuracy", 2, times=False),
    },
    "loading": RATES,
    "loading_workers": RATES,
    "loading_large": RATES,
    "splitting": {"files_second": Figure("files/s", 0, rate=True)},
    "imports": {
        "seconds": Figure("s", 2, times=False),
        "processor_import_seconds": Figure("of the processor's", 2, times=False),
        "added_mb": Figure("MB", 0, times=False),
    },
}  # fmt: skip


def write(folder: Path) -> str:
    """Write both files, and give the text of the first."""
    found = [Path(folder, f"{job}.json") for job in TITLES]
    jobs = [json.loads(file.read_text()) for file in found if file.exists()]
    lines = [line for about in jobs for line in section(about)]
    lines += dict.fromkeys(installed(about) for about in jobs)  # one line, unless the jobs' versions differ
    text = "\n".join(lines)
    Path(folder, "speed.md").write_text(text + "\n")
    plot(jobs, Path(folder, "speed.svg"))
    return text


def section(about: About) -> Iterator[str]:
    """Yield the lines of one job's table, and what must be known to read it."""
    job = about["job"]
    measured = by_peer(about, lambda result: "fail" not in result and "skip" not in result)
    columns = ["peer", *headings(job), "peak MB", "with workers", "rounds"]
    yield f"## {TITLES[job]}\n"
    yield f"| {' | '.join(columns)} |"
    yield "|---|" + "--:|" * (len(columns) - 1)
    for peer in sorted(measured, key=lambda peer: order(job, measured[peer])):
        memory = [megabytes(measured[peer], key) for key in ("peak_mb", "with_workers_mb")]
        cells = [*figures(job, measured, peer), *memory, str(len(measured[peer]))]
        yield f"| {peer} | {' | '.join(cells)} |"
    yield f"\n{about['date']}; {about['machine']}. {settings(about)}"
    yield disturbance(measured)
    for peer, reason in left_out(about).items():
        yield f"Left out: {peer} ({reason})."
    yield ""


def megabytes(results: dict[int, About], key: str) -> str:
    """Give the median; of runs of less than a second, and where the system does not tell, nothing is known."""
    known = [one[key] for one in results.values() if one.get(key)]
    return f"{statistics.median(known):,.0f}" if known else "?"


def installed(about: About) -> str:
    return "Versions: " + ", ".join(f"{name} {one}" for name, one in about["versions"].items()) + "."


def by_peer(about: About, wanted: Callable[[About], bool]) -> dict[str, dict[int, About]]:
    """Sort the results by peer and round."""
    found: dict[str, dict[int, About]] = {}
    for result in filter(wanted, about["results"]):
        found.setdefault(result["peer"], {})[result["round"]] = result
    return found


def headings(job: str) -> Iterator[str]:
    for figure in FIGURES[job].values():
        yield figure.title
        if figure.times:
            yield "times as fast as bare"


def figures(job: str, measured: dict[str, dict[int, About]], peer: str) -> Iterator[str]:
    """Yield a peer's cells: medians over the rounds, of quotients taken within a round."""
    for key, figure in FIGURES[job].items():
        yield f"{statistics.median(one[key] for one in measured[peer].values()):,.{figure.digits}f}"
        if figure.times:
            quotients = times_as_fast(figure, key, measured[peer], measured.get("bare", {}))
            yield spread(quotients) if quotients else "?"


def times_as_fast(figure: Figure, key: str, mine: dict[int, About], base: dict[int, About]) -> list[float]:
    """Compare with the bare turns in the same process where there are some, else with the same round's."""
    pairs = [(one[key], one.get(f"bare_{key}", base.get(n, {}).get(key))) for n, one in mine.items()]
    quotients = [value / bare for value, bare in pairs if bare]
    return quotients if figure.rate else [1 / quotient for quotient in quotients]


def spread(values: list[float]) -> str:
    median = f"{statistics.median(values):.2f}"
    return median if len(values) == 1 else f"{median} ({min(values):.2f} to {max(values):.2f})"


def order(job: str, rounds: dict[int, About]) -> float:
    """Sort the best first."""
    key, figure = next(iter(FIGURES[job].items()))
    median = statistics.median(one[key] for one in rounds.values())
    return -median if figure.rate else median


def settings(about: About) -> str:
    return "; ".join(f"{name}: {value:,}" for name, value in about["settings"].items())


def disturbance(measured: dict[str, dict[int, About]]) -> str:
    shares = [one["others"] for rounds in measured.values() for one in rounds.values() if "others" in one]
    if not shares:
        return "How busy the machine was with other things is not known."
    return (
        f"Other processes took {statistics.median(shares):.0%} of the processors meanwhile "
        f"(median of the runs; at most {max(shares):.0%})."
    )


def left_out(about: About) -> dict[str, str]:
    """Name the peers that gave no figures, and why."""
    return {
        result["peer"]: result.get("skip", "it failed")
        for result in about["results"]
        if "skip" in result or "fail" in result
    }


def plot(jobs: list[About], file: Path) -> None:
    """Draw the first figure of each job, a bar a peer, with the least and the most as a line."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    figure, all_axes = plt.subplots(len(jobs), 1, figsize=(8, 3 * len(jobs)), squeeze=False)
    for axes, about in zip(all_axes[:, 0], jobs, strict=True):
        job = about["job"]
        measured = by_peer(about, lambda result: "fail" not in result and "skip" not in result)
        key, column = next(iter(FIGURES[job].items()))
        peers = sorted(measured, key=lambda peer: order(job, measured[peer]), reverse=True)
        values = [[one[key] for one in measured[peer].values()] for peer in peers]
        medians = [statistics.median(row) for row in values]
        least_and_most = [
            [median - min(row) for median, row in zip(medians, values, strict=True)],
            [max(row) - median for median, row in zip(medians, values, strict=True)],
        ]
        colors = ["tab:orange" if "layerkit" in peer else "tab:gray" for peer in peers]
        axes.barh(peers, medians, xerr=least_and_most, color=colors, ecolor="black", error_kw={"lw": 0.8})
        axes.set_title(f"{TITLES[job].replace('`', '')}", fontsize=10, loc="left")
        axes.set_xlabel(f"{column.title} ({'more' if column.rate else 'less'} is better)")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
