"""PLACEHOLDER"""


class PasswordPool:
    def __init__(self, *parts: object) -> None:
        pass
