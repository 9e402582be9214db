"""PLACEHOLDER"""


class BffEndpoints:
    def __init__(self, *parts: object) -> None:
        pass
