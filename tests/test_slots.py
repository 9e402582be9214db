"""Objects of the request path have no ``__dict__``: one forgotten base class costs memory and time."""

from __future__ import annotations

import pytest

from authgate_fast import is_compiled
from authgate_fast.auth.api_key import ApiKeyAuthenticator
from authgate_fast.auth.basic import BasicAuthenticator, PasswordLookup
from authgate_fast.auth.bff import BffAuthenticator, SessionLookup
from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Denial, Lookup
from authgate_fast.auth.jwt import JwtAuthenticator, SigningKeysLookup
from authgate_fast.auth.oauth2 import IntrospectionLookup, IssuerKeysLookup, OAuth2Authenticator
from authgate_fast.auth.session import Session
from authgate_fast.auth.token_cache import TokenCache
from authgate_fast.balance.budget import RetryBudget
from authgate_fast.balance.group import Group
from authgate_fast.balance.member import Member
from authgate_fast.decision import Allowed, Client, Forward, HeadParts, Local, Pending, Refusal
from authgate_fast.http.chunked import ChunkedDecoder
from authgate_fast.http.request import RequestHead
from authgate_fast.http.response import ResponseHead
from authgate_fast.http.websocket import FrameTracker
from authgate_fast.limits import Limits
from authgate_fast.proxy.context import Context, Counters
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.farewell import Farewell
from authgate_fast.proxy.groups import Groups
from authgate_fast.proxy.heads import RequestReader, ResponseReader, _RequestSink, _ResponseSink
from authgate_fast.proxy.names import Name, Names
from authgate_fast.proxy.pace import Pace
from authgate_fast.proxy.placement import Placement
from authgate_fast.proxy.pool import Pool, Pools
from authgate_fast.proxy.tunnel import Tunnel, TunnelSide
from authgate_fast.proxy.upstream import Upstream
from authgate_fast.proxy.waiting import LocalExchange, Waiting
from authgate_fast.routing.path_policy import PathPolicy
from authgate_fast.routing.trie import Node, Trie
from authgate_fast.snapshot import (
    Balancing,
    Gateway,
    HealthCheck,
    Identity,
    Leaf,
    Route,
    Service,
    Snapshot,
    Target,
    TimeoutSettings,
    User,
)

HOT: list[type] = [
    BasicAuthenticator,
    BffAuthenticator,
    Denial,
    FailureGuard,
    JwtAuthenticator,
    Local,
    LocalExchange,
    Lookup,
    PasswordLookup,
    Pending,
    Session,
    SessionLookup,
    SigningKeysLookup,
    User,
    Waiting,
    Allowed,
    Balancing,
    Group,
    Groups,
    HeadParts,
    HealthCheck,
    Member,
    Name,
    Names,
    Placement,
    Pools,
    RetryBudget,
    ApiKeyAuthenticator,
    ChunkedDecoder,
    Client,
    Context,
    Counters,
    Identity,
    Downstream,
    Exchange,
    Forward,
    Gateway,
    IntrospectionLookup,
    IssuerKeysLookup,
    Leaf,
    Limits,
    Node,
    OAuth2Authenticator,
    PathPolicy,
    Pace,
    Pool,
    Refusal,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
    Route,
    Service,
    Snapshot,
    Target,
    TimeoutSettings,
    TokenCache,
    Trie,
    Tunnel,
    TunnelSide,
    FrameTracker,
    Farewell,
    Upstream,
    _RequestSink,
    _ResponseSink,
]


INTERPRETED = (FailureGuard,)
"""Never compiled (setup.py): no request with a known credential asks it."""


@pytest.mark.parametrize("hot", HOT, ids=lambda hot: hot.__name__)
def test_instances_have_slots_only(hot: type) -> None:
    """A class of the compiled build has no ``__slots__``; its fields are a C struct, which it lists."""
    listing = "__mypyc_attrs__" if is_compiled() and hot not in INTERPRETED else "__slots__"
    for base in hot.__mro__[:-1]:
        assert listing in vars(base), f"{base.__name__} has no {listing}"
        assert "__dict__" not in vars(base)
    assert hot.__dictoffset__ == 0
