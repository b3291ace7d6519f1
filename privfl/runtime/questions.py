"""Questions from a peer's bytes: training by this package, all others by what is installed beside it."""

from __future__ import annotations

from privfl.codec import decode
from privfl.errors import Malformed
from privfl.learn import Task
from privfl.learn.planning import Descriptor
from privfl.learn.updates import UpdateDescriptor, UpdateQuestion
from privfl.tasks import Question
from privfl.tasks.plugins import plugin

__all__ = ["question_from"]

GROUP = "privfl.questions"


def question_from(descriptor: bytes) -> Question:
    """Rebuild a question; every sensitivity, length and cost is computed again, nothing is believed.

    Raises:
        Malformed: no descriptor, of a kind that is not installed here, or one that does not hold together.
        Refused: a release that breaks a rule of noise.
    """
    match decode(descriptor):
        case (Descriptor.TAG, *_):
            return Task.from_descriptor(descriptor)
        case (UpdateDescriptor.TAG, *_):
            return UpdateQuestion.from_descriptor(descriptor)
        case (str(tag), *_):
            try:
                make = plugin(GROUP, tag)
            except KeyError:
                raise Malformed(f"no part of this installation answers questions of kind {tag!a:.80}") from None
            found: Question = make(descriptor)
            return found
        case _:
            raise Malformed("this is no description of a question")
