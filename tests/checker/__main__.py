"""`python -m tests.checker RUN`: judges what a run left behind (tests/checker/formats.py), with nothing of the product's own code.

Exit code: 0 every required promise HELD, 1 any promise BROKEN, 2 otherwise.
"""

import sys
from pathlib import Path

from tests.checker import report
from tests.checker.judge import judge
from tests.checker.verdicts import HELD


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m tests.checker RUN", file=sys.stderr)
        return 2
    judged = judge(Path(arguments[0]))
    report.write(judged)
    for each in judged.verdicts:
        if each.verdict != HELD and (each.required or each.witness):
            print(f"{each.promise.number:<4}{each.verdict:<10} {each.witness.says if each.witness else '; '.join(each.reasons[:3])}")
    print(f"{judged.verdict}: {sum(each.verdict == HELD for each in judged.verdicts)} of {len(judged.verdicts)} promises held, in {judged.seconds:.1f} s; {judged.run}/report.md")
    return judged.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
