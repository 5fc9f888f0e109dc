"""Whether what an extra brings is installed, found out without importing it."""

import importlib.util


def first_missing(packages) -> str | None:
    """Return the first package that is not installed, None if all are."""
    for package in packages:
        try:
            found = importlib.util.find_spec(package)
        except ValueError:  # it is marked as missing
            found = None
        if found is None:
            return package
    return None
