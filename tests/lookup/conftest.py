from tests.proxy.conftest import fast_ticks
from tests.redis_server import redis_server

__all__ = ["fast_ticks", "redis_server"]
