"""Command that copies or prints the files; it needs no settings and no database."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from morango_celery.contrib.deployment import kit


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0, or 1 if a file is there already and was left as it is."""
    parser = argparse.ArgumentParser(
        prog="python -m morango_celery.contrib.deployment",
        description="Copy the files that deploy a project, or print one of them. No file is overwritten.",
        epilog=f"files: {', '.join(kit.names())}",
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="the folder of manage.py")
    parser.add_argument(
        "--project",
        default=kit.PROJECT,
        metavar="NAME",
        help="the project's package, with its settings.py, celery.py and wsgi.py (default: %(default)s)",
    )
    parser.add_argument("--print", metavar="FILE", dest="printed", help="print this file instead")
    chosen = parser.parse_args(arguments)
    if (chosen.folder is None) == (chosen.printed is None):
        parser.error("name a folder, or a file to --print")
    if not kit.is_project(chosen.project):
        parser.error("--project must be the name of a package: small letters, digits and underscores")
    if chosen.printed is not None:
        try:
            sys.stdout.write(kit.text(chosen.printed, chosen.project))
        except kit.UnknownFileError as error:
            parser.error(str(error))
        return 0
    if not chosen.folder.is_dir():
        parser.error(f"there is no folder {chosen.folder}")
    return _copy(chosen.folder, chosen.project)


def _copy(folder: Path, project: str) -> int:
    left = 0
    for name in kit.names():
        path = kit.target(folder, name, project)
        path.parent.mkdir(exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(kit.text(name, project))
        except FileExistsError:
            left += 1
            sys.stderr.write(f"{path} is there already, and was left as it is.\n")
        else:
            sys.stdout.write(f"{path}\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
