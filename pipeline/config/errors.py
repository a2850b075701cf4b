"""What a user did wrong."""


class UserError(Exception):
    """A mistake of the user's: one line naming the file, key or value and what would be right."""
