"""Starts one PostgreSQL program as another user, perhaps with one capability, perhaps detached.

Executed as a file, `python -I -S launch.py JOB`, JOB being the JSON of `Job` in processes.py: a fork of our own process
could not do this safely once it has threads. Standard library only. Ends with 0 and for `probe` with the first
path that cannot be reached on standard output; anything else is a failure, told on standard error.

Why a capability: as root the server runs as an unprivileged user, for which the programs (a virtual environment below
/root) or the data directory may be out of reach, and the modes of directories that are not ours stay as they are.
CAP_DAC_READ_SEARCH lets it pass and read, nothing more. PostgreSQL also asks access(2), which looks at the effective
capabilities of a user other than root only under SECBIT_NO_SETUID_FIXUP.
"""

import ctypes
import json
import os
import sys
from typing import Any

# linux/prctl.h, linux/securebits.h, linux/capability.h
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522


def main(job: dict[str, Any]) -> None:
    os.umask(0o077)
    if job["uid"] is not None:
        become(job["uid"], job["gid"], job["groups"], job["capability"])
    if job["probe"]:
        sys.stdout.write(next((path for path, mode in job["probe"] if not os.access(path, mode)), ""))
        return
    if job["log"]:
        redirect(job["log"])
    if job["detach"] and os.fork():
        return  # the child belongs to init now and outlives whoever started it
    os.execve(job["argv"][0], job["argv"], job["environment"])


def become(uid: int, gid: int, groups: list[int], capability: int | None) -> None:
    """Raises OSError: not permitted here, as in a container that withholds the capability."""
    libc = ctypes.CDLL(None, use_errno=True)
    if capability is not None:
        check(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)
    if capability is not None:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        bit = 1 << capability  # both that are used lie in the first of the two words
        data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable, twice
        check(libc.capset(header, data))
        check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def redirect(log: str) -> None:
    """Standard output and error go to the file from now on; it is begun anew."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for stream in (1, 2):
        os.dup2(target, stream)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as failure:
        sys.exit(f"{failure.strerror}: {failure.filename or 'setting the user and its capability'}")
