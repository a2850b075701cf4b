"""What a user did wrong, and faults said in a line."""


class UserError(Exception):
    """A mistake of the user's: one line naming the file, key or value and what would be right."""


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
