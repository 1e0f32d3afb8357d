"""The network room is an extra: without it, its tests are skipped."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers that these tests share

NEEDED = ("fastapi", "uvicorn", "httptools", "httpx", "http_message_signatures")
collect_ignore_glob = [] if all(map(importlib.util.find_spec, NEEDED)) else ["test_*.py", "*/test_*.py"]
