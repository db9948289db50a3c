"""The contributor's front door: ``nox --list`` names every session, ``nox -s tests`` runs one.

An environment with torch takes gigabytes, so all sessions but ``bench``, ``build`` and ``tests_oldest`` run in
the environment that nox itself is installed in: ``pip install -e ".[dev,docs]"`` makes it.
"""

import os
import sysconfig
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "typing", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHON_VERSIONS = nox.project.python_versions(PYPROJECT)

# The sessions without an environment of their own must find the tools that stand beside nox, also where
# that environment is not activated.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


def lower_bounds(requirements: list[str]) -> list[str]:
    """Pin each requirement that has a lower bound to exactly that bound, its marker kept."""
    pins = []
    for requirement in map(Requirement, requirements):
        bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
        marker = f"; {requirement.marker}" if requirement.marker else ""
        pins += [f"{requirement.name}=={version}{marker}" for version in bounds]
    return pins


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests, and every code block of the README and the docs."""
    # A file's tests stay in one process, since the blocks of a page build on each other.
    shared_out = ("-n", "2", "--dist", "loadfile")
    session.run("pytest", *shared_out, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check the code's style, its formatting, and that imports point one way."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session(venv_backend="none")
def typing(session: nox.Session) -> None:
    """Check the types of the package, and of a few calls as a user would write them."""
    session.run("mypy", *session.posargs)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the docs into docs/_build/html; a missing reference or any warning is an error."""
    session.run("sphinx-build", "-n", "-T", "-W", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Train, save and show a model on the pictures that the package carries."""
    session.run("layerkit", "demo", *session.posargs)


@nox.session(python=PYTHON_VERSIONS[0])
def bench(session: nox.Session) -> None:
    """Measure layerkit beside other libraries; "-- --quick" takes minutes, "-- --help" names the choices."""
    session.install("-r", "benchmarks/peers/requirements.txt", ".")
    session.run("python", "benchmarks/peers/run.py", *session.posargs)


@nox.session(python=PYTHON_VERSIONS[0])
def build(session: nox.Session) -> None:
    """Build wheel and sdist, check their metadata, and import each in a clean environment."""
    dist = Path(session.create_tmp(), "dist").resolve()
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    packages = [str(path) for path in sorted(dist.iterdir())]
    session.run("twine", "check", "--strict", *packages)
    for package in packages:
        session.install("--force-reinstall", "--no-deps", package)
        session.install(package)
        session.chdir(session.create_tmp())  # away from the sources, which must not be what is imported
        session.run("python", "-c", "import layerkit; print(layerkit.__version__, layerkit.__file__)")


@nox.session(python=PYTHON_VERSIONS[0])
def tests_oldest(session: nox.Session) -> None:
    """Run the tests on exactly the lower bounds that pyproject.toml states."""
    project = PYPROJECT["project"]
    pins = lower_bounds(project["dependencies"] + project["optional-dependencies"]["dev"])
    session.install(*pins, ".[dev]")
    # Old releases warn of newer ones beside them, which is theirs to mend and has been mended since.
    theirs = (
        "default::DeprecationWarning",
        "default::FutureWarning",
        "default:The given buffer is not writable",
    )
    ignored = [word for warning in theirs for word in ("-W", warning)]
    session.run("pytest", *ignored, *session.posargs)
