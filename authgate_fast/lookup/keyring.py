"""PLACEHOLDER"""


class Keyrings:
    def __init__(self, *parts: object) -> None:
        pass
