"""Files of another user: root, to whom nothing is forbidden, becomes somebody else for a while."""

import contextlib
import os
import tempfile
from pathlib import Path

import pytest


@contextlib.contextmanager
def not_root():
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def another_user():
    """A context in which a file without permissions cannot be read."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no POSIX permissions")
    return not_root() if os.geteuid() == 0 else contextlib.nullcontext()


@pytest.fixture
def shared():
    """A folder that every user of the machine can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
