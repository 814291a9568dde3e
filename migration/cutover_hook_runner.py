"""The process that a hook runs in: holds a lock for as long as the command runs, also when the cut-over is killed.

Started as a file, not as a module: ``python -I -S cutover_hook_runner.py LOCK COMMAND [ARGUMENT ...]``. It ends as the
command does. The command does not inherit the lock, so a server that it leaves running holds nothing.
"""

import fcntl
import os
import sys

CANNOT_RUN = 126


def main(lock: str, argv: list[str]) -> int:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # an earlier hook that outlived its cut-over ends first
    try:
        pid = os.posix_spawnp(argv[0], argv, os.environ)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return CANNOT_RUN
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
