"""The command: `python -m tests.demo`, by $CLUSTER and $CONTEXT."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from tests.demo.ground import CannotBegin, NotClean, ground
from tests.demo.narrator import Narrator
from tests.demo.story import StepFailed, Story
from tests.support.binary import BuildError
from tests.support.controlplane import ControlPlaneError

OK, FAILED, CANNOT_BEGIN, INTERRUPTED = 0, 1, 2, 130


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _tell(narrator: Narrator) -> None:
    with ground(narrator) as chosen:
        story = Story(chosen, narrator)
        try:
            story.tell()
        except StepFailed as error:
            narrator.failed(str(error))
            if chosen.operator is not None:
                narrator.said("the end of the operator's log:")
                narrator.log(chosen.operator.log_tail(40))
            raise
        finally:
            # From here on only cleaning up: a second Ctrl-C must not leave half of it behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            narrator.step("Cleaning up")
            story.stop()
    narrator.said("nothing runs any more, and everything the demo made is gone")


def main() -> int:
    """Tells the story; the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    narrator = Narrator()
    try:
        _tell(narrator)
    except StepFailed:
        narrator.said("nothing runs any more; the demo FAILED at the step above")
        return FAILED
    except NotClean as error:
        narrator.failed(f"not everything could be removed: {error}")
        return FAILED
    except (CannotBegin, BuildError, ControlPlaneError) as error:
        narrator.failed(str(error))
        return CANNOT_BEGIN
    except KeyboardInterrupt:
        narrator.failed("interrupted; what was started is ended, what was made is removed")
        return INTERRUPTED
    narrator.step(f"All of it happened, in {narrator.elapsed:.0f} s.")
    return OK


if __name__ == "__main__":
    sys.exit(main())
