"""The stateful test's end of the line to the process that lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.property.state_model import Row


class Process:
    """The child: one process that forks a life for each `open`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.property.state_child"]
        root, told = Path(__file__).parents[2], os.environ | {"PYTHONHASHSEED": "0"}  # an example that failed has to fail again
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root, env=told)

    def ask(self, **order: Any) -> Row:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        return self.hear()

    def hear(self) -> Row:
        assert self._child.stdout is not None
        answer: Row = json.loads(self._child.stdout.readline())
        assert answer.get("ended", 0) in (0, -9), "the life failed by itself"
        return answer

    def close(self) -> None:
        with self._child:
            self._child.kill()
