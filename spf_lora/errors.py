"""One family of errors: what went wrong, where, and the next step.

Everything a user can cause is an `SpfError`; `spf_lora.cli.app.main` is the one place that turns
it into text on stderr and an exit code. `assert` is for our own mistakes only.
"""

from functools import partial
from typing import Any


class SpfError(Exception):
    """A fault the user can fix.

    What of it came from a file or the command line may hold anything, signs that steer terminals
    among it; only what can be printed stays.

    Attributes:
        message: one sentence, what is wrong and where.
        hint: the next step to take.
        exit_code: what the command returns (1 refused, 3 a check failed).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str) -> None:
        self.message, self.hint = _printable(message), _printable(hint)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it pass between processes, which by default forget the hint."""
        return partial(type(self), hint=self.hint), (self.message,)


def _printable(text: str) -> str:
    """Return a text whose signs that cannot be seen are written out; line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode()
        for sign in text
    )


class RecipeError(SpfError):
    """A recipe, or a setting given on the command line, is wrong."""


class OutputError(SpfError):
    """A file cannot be written where it was asked for."""


class LockedError(SpfError):
    """Another process is changing what is to be changed."""


class DataError(SpfError):
    """Pictures or captions to train on are wrong."""


class BaseModelError(SpfError):
    """The base model is missing, damaged or of an unknown kind."""


class AdapterFileError(SpfError):
    """An adapter file cannot be read whole or written safely."""


class RegistryError(SpfError):
    """A name in the adapter registry is unknown, taken or not allowed."""


class StackError(SpfError):
    """A stack is empty or broken, or an adapter does not fit into it."""


class PromptError(SpfError):
    """A prompt cannot be used as asked."""


class PictureError(SpfError):
    """A drawn picture cannot be read back."""


class CheckpointError(SpfError):
    """A checkpoint is missing, damaged or belongs to another run."""


class TrainingError(SpfError):
    """Training cannot go on."""


class TeacherError(TrainingError):
    """What an adapter draws cannot be taught to another."""


class MeasureError(SpfError):
    """Something cannot be measured as asked."""


class ScorerError(SpfError):
    """A model that scores pictures is absent, damaged or not allowed to judge."""


class HubError(SpfError):
    """The Hugging Face hub refuses, or cannot be reached."""


class CheckFailedError(SpfError):
    """Something was checked and did not pass."""

    exit_code = 3
