"""The exceptions for mistakes that the user can correct."""


class InputError(ValueError):
    """A wrong path, file, option or number; `main` prints the message without a traceback.

    The message says what was expected, what came, what is allowed and what to do next.
    """


class NoEffectError(InputError):
    """The chosen weights do not change any image."""


class OptionError(InputError):
    """An invalid option, which the caller may know by another name.

    option: the name inside this package. reason: the message without the name.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason
