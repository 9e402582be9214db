"""PLACEHOLDER"""


class Session:
    pass
