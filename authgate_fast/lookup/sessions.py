"""PLACEHOLDER"""


class Sessions:
    def __init__(self, *parts: object) -> None:
        pass
