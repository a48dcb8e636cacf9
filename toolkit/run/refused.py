"""A refused input leaves no run: directories that were made for one, and in which nothing was computed, go again."""

from pathlib import Path

from toolkit.run.files import LOCK_FILE

_TRACES = {"config.yaml", "manifest.json", "README.md", LOCK_FILE}
"""What stands in a run's directory before anything was computed."""
_DATA = "data"
"""What was prepared may be used again, and stays."""
_made: dict[Path, list[Path]] = {}
"""Directory of a run → those that had to be made for it, the innermost first."""


def will_make(directory: Path) -> None:
    """Call before a run's directory is made."""
    directory = directory.absolute()
    absent = [place for place in (directory, *directory.parents) if not place.exists()]
    if absent:
        _made.setdefault(directory, absent)


def forget_runs() -> None:
    """Remove what was made for runs in this process, unless something was computed."""
    for directory, made in reversed(_made.items()):
        files = [path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink()]
        own = [path for path in files if path.relative_to(directory).parts[0] != _DATA]
        if all(path.name in _TRACES for path in own):
            for path in own:
                path.unlink(missing_ok=True)
            folders = sorted((path for path in directory.rglob("*") if path.is_dir() and not path.is_symlink()),
                             key=lambda path: -len(path.parts))
            for folder in (*folders, *made):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
    _made.clear()
