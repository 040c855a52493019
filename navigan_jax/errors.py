"""The exceptions that mean: the user can mend this."""


class InputError(ValueError):
    """A wrong path, file, option or number, told in one message that `main` prints as it is.

    The text says what was expected, what came, what is allowed and what to do next.
    """


class NoEffectError(InputError):
    """No image changes with the weights that were chosen."""


class OptionError(InputError):
    """Something is wrong with an option that whoever asked for it may call by another name.

    option: its name here. reason: the message without that name.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason
