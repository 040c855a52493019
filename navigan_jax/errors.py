"""The one exception that means: the user can mend this."""


class InputError(ValueError):
    """A wrong path, file, option or number, told in one message that `main` prints as it is.

    The text says what was expected, what came, what is allowed and what to do next.
    """
