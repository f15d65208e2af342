"""Runs one Python program again and again, each time in a fork that has its imports already.

Standard input: a line of JSON for each run, its arguments. Standard output: a line for each run,
`[exit status, standard error]`.
"""

import json
import os
import runpy
import sys
import tempfile

PROGRAM = sys.argv[1]

runpy.run_path(PROGRAM)  # once, for its imports
for line in sys.stdin:
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.argv = [PROGRAM, *json.loads(line)]
            runpy.run_path(PROGRAM, run_name="__main__")
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        print(json.dumps([status, errors.read().decode()]), flush=True)
