"""The optional compiled build of the request path; everything else about the package is in pyproject.toml.

``AUTHGATE_COMPILE=1`` compiles the modules below with mypyc, as one group, and fails if it cannot;
``auto`` compiles where it can and else builds pure Python; unset or ``0`` builds pure Python. All of
them run the same sources and must pass the same tests. An editable install is always pure, so that no
compiled file ever hides a source that somebody edits (see dev/backend.py).
"""

import os
import sys
from glob import glob
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

PACKAGE = "authgate_fast"
MODULES = (
    "auth/api_key",
    "auth/basic",
    "auth/bff",
    "auth/browser",
    "auth/cookies",
    "auth/interface",
    "auth/jwt",
    "auth/oauth2",
    "auth/session",
    "auth/token_cache",
    "config/claims",
    "config/credentials",
    "config/documents",
    "config/intake",
    "config/keys",
    "config/pages",
    "config/redis_texts",
    "config/texts",
    "decision",
    "errors",
    "limits",
    "plan",
    "snapshot",
    "tally",
)
"""Of ``auth/`` what a request with a known credential meets; tokens are read by libraries that are compiled anyway."""
ROOMS = ("balance", "http", "proxy", "routing")
TYPE_OPTIONS = ("--config-file=", "--python-version=3.11", "--ignore-missing-imports", "--no-error-summary")
"""`make lint` judges the types strictly; here they only have to be known."""

mode = os.environ.get("AUTHGATE_COMPILE") or "0"


def sources() -> list[str]:
    """Name the modules to compile, relative to this directory."""
    names = [f"{PACKAGE}/{module}.py" for module in MODULES]
    for room in ROOMS:
        names += [name for name in glob(f"{PACKAGE}/{room}/*.py") if not name.endswith("__init__.py")]
    return sorted(names)


class AllOrNothing(build_ext):
    """The modules only work together: one that cannot be built makes the whole build a pure one."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if mode != "auto":
                raise
            self.warn(f"not compiled, pure Python instead: {error}")
            for name in self.get_outputs():
                Path(name).unlink(missing_ok=True)
            self.extensions = []


def extensions() -> list[object]:
    """Make the extensions with mypyc; an empty list if there is none and nobody insists."""
    try:
        from mypyc.build import mypycify

        made = mypycify([*TYPE_OPTIONS, *sources()], debug_level="0", group_name=PACKAGE)
    except (ImportError, SystemExit) as error:
        if mode != "auto":
            raise
        print(f"not compiled, pure Python instead: {error}", file=sys.stderr)
        return []
    for extension in made:
        # A warning that a newer compiler invents must not stop a build.
        options = [option for option in extension.extra_compile_args if option != "-Werror"]
        # Nobody replaces our functions at load time, so that calls among them need no table.
        extension.extra_compile_args = [*options, "-fno-semantic-interposition", "-fno-plt"]
    return made


if mode not in {"0", "1", "auto"}:
    sys.exit(f"AUTHGATE_COMPILE={mode}: it can be 1, auto or 0")
wanted = mode != "0" and bool({"build_ext", "bdist_wheel", "install"} & set(sys.argv))
setup(ext_modules=extensions() if wanted else [], cmdclass={"build_ext": AllOrNothing})
