"""PLACEHOLDER"""


class ConsumerLogin:
    def __init__(self, *parts: object) -> None:
        pass
