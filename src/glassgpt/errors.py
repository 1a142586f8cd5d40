"""The errors a user can meet. Each says what was expected, what was got, and the cure.

The library raises; only the command line turns an error into a line and an exit code:
`UsageError` ends a command with 2 (it was asked for wrongly), every other `GlassGPTError` with 1 (the work failed).
"""


class GlassGPTError(Exception):
    """Anything GlassGPT refuses or fails to do, in one or two sentences meant for a person.

    `is_told`: whether another process of the same training has told the person already.
    """

    is_told = False


class UsageError(GlassGPTError, ValueError):
    """An argument that cannot be meant: outside its range, of the wrong shape, or naming what does not exist."""


class TooLargeError(GlassGPTError):
    """More memory would be needed than there is; raised before anything is allocated."""


class DamagedFileError(GlassGPTError):
    """A file that is missing, truncated, altered, or not what its neighbours say it is."""


class WriteError(GlassGPTError):
    """A file that the system would not write, move or take away: a full disk, a dead one, no permission."""


class UnsupportedError(GlassGPTError):
    """A sound file of a kind that GlassGPT doesn't read: another architecture, number format or tokenizer."""


class NumericalError(GlassGPTError):
    """Numbers that mean nothing: NaN weights or logits, an infinite loss, a row that allows no token."""
