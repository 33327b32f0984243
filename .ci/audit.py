"""`python .ci/audit.py [--may-skip]`: every installed package looked up among known vulnerabilities, by pip-audit.

pip-audit ends with 0 and "No known vulnerabilities found" also when its service knows none of the packages, as behind a mirror.
Here that is no success. Ends with 0 when packages were looked up and none is vulnerable; 1 when one is; 3 when nothing was
looked up, which `--may-skip` turns into 0, and a line that says SKIPPED.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NOTHING_LOOKED_UP = 3


def main(arguments: list[str]) -> int:
    """The exit code."""
    tool = os.environ.get("PIP_AUDIT") or str(Path(sys.executable).with_name("pip-audit"))
    command = [tool, "--local", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return skipped(f"pip-audit could not ask: {said[:300]}", arguments)
    looked_up = [each for each in packages if "skip_reason" not in each]
    if not looked_up:
        return skipped(f"the service knows none of the {len(packages)} packages installed here", arguments)
    found = [(each["name"], each["version"], bad["id"]) for each in looked_up for bad in each["vulns"]]
    for name, version, bad in found:
        print(f"audit: {name} {version} is vulnerable: {bad}")
    unknown = ", ".join(each["name"] for each in packages if each not in looked_up)
    print(f"audit: {len(looked_up)} packages looked up, {len(found)} vulnerabilities; not known there: {unknown or 'none'}")
    return int(bool(found))


def skipped(reason: str, arguments: list[str]) -> int:
    """Said where it cannot be overlooked."""
    print(f"audit: SKIPPED, nothing was looked up: {reason}", file=sys.stderr)
    return 0 if "--may-skip" in arguments else NOTHING_LOOKED_UP


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
