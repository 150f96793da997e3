"""These tests need the real sets, in every form, in COURSE_DATA: without it they are not collected."""

import os

collect_ignore_glob = [] if os.environ.get("COURSE_DATA") else ["test_*.py"]
