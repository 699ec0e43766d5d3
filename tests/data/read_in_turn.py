"""Reads the files that it is told of, one a line, and answers with what came of each; see test_fuzz.py."""

import os
import pickle
import resource
import sys

from zoo.data.source import open_source

#: A damaged length must not take the machine's memory.
MEMORY = 6 * 2**30


def main() -> None:
    # libraries may print, which must not come between the answers
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        try:
            answer = open_source(line.rstrip("\n")).read()
        except (ValueError, OSError) as error:
            answer = str(error)
        except BaseException as error:
            answer = error.__class__.__name__, str(error)
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
