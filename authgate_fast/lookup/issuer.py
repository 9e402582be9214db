"""PLACEHOLDER"""


class Issuers:
    def __init__(self, *parts: object) -> None:
        pass
