"""The dependency audit of CI: never green when nothing was looked up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLEAN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found"}


def audited(folder, said, *arguments, code=0):
    """Ends as the script does when pip-audit says this."""
    tool = folder / "pip-audit"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\necho 'ERROR: no route' >&2\nexit {code}\n")
    tool.chmod(0o755)
    command = [sys.executable, str(ROOT / ".ci/audit.py"), *arguments]
    return subprocess.run(command, env=os.environ | {"PIP_AUDIT": str(tool)}, capture_output=True, text=True, check=False)


def told(*packages):
    return json.dumps({"dependencies": packages, "fixes": []})


def test_packages_that_were_looked_up_are_counted_and_the_others_named(tmp_path):
    done = audited(tmp_path, told(CLEAN, UNKNOWN))
    assert (done.returncode, done.stdout) == (0, "audit: 1 packages looked up, 0 vulnerabilities; not known there: c\n")


@pytest.mark.parametrize("arguments", [(), ("--may-skip",)])
def test_a_vulnerable_package_fails(tmp_path, arguments):
    done = audited(tmp_path, told(CLEAN, BAD), *arguments, code=1)
    assert done.returncode == 1
    assert "audit: b 2 is vulnerable: CVE-1" in done.stdout


@pytest.mark.parametrize("said", [told(UNKNOWN), told(), "", "not JSON"])
def test_nothing_looked_up_is_no_success_and_says_so(tmp_path, said):
    for arguments, code in ((), 3), (("--may-skip",), 0):
        done = audited(tmp_path, said, *arguments)
        assert done.returncode == code
        assert done.stderr.startswith("audit: SKIPPED, nothing was looked up: ")


def test_ci_runs_it():
    assert "make audit AUDIT=--may-skip" in (ROOT / ".ci/run").read_text()
