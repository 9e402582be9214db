"""Addresses and the listening sockets of a node: opened by the supervisor, or passed by systemd.

One socket for each worker slot and address, all in one SO_REUSEPORT group, so that the kernel spreads
connections over the workers. Whoever holds a socket keeps its queue: a connection that waits there outlives the
worker. Nothing here imports the request path.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

from authgate_fast.server.unix_listening import UnixAddress, open_unix

BACKLOG = 2_048
"""Connections that may wait in one queue; the kernel cuts it to net.core.somaxconn."""
FIRST_PASSED_FD = 3
"""Where systemd's sockets begin (sd_listen_fds(3))."""


class ListenError(Exception):
    """An address cannot be listened on; the text says which, why and what to do."""


@dataclass(slots=True, frozen=True)
class Address:
    """A host and a port to listen on; ``plain`` means without TLS, even where there are certificates."""

    host: str
    port: int
    plain: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Passed:
    """The sockets that systemd passed: those for traffic, and those named ``ops``."""

    traffic: list[socket.socket]
    ops: list[socket.socket]


def open_slots(address: Address, count: int, option: str = "--listen") -> list[list[socket.socket]]:
    """Bind `count` sockets to each address that the host name has; return a list for each slot.

    They do not listen yet: until a worker can answer, a connection is better refused than kept waiting. Port 0
    takes a free one. Raises ListenError.
    """
    opened: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(
            address.host or None,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        slots: list[list[socket.socket]] = [[] for _ in range(count)]
        port = address.port
        for family, name in dict.fromkeys((family, name) for family, _, _, _, name in infos):
            where = (name[0], port, *name[2:])
            if port:
                _bind(
                    family, where, shared=False
                ).close()  # else another gateway would share its traffic with us
            for slot in slots:
                one = _bind(family, where, shared=True)
                opened.append(one)
                slot.append(one)
                port = one.getsockname()[1]
                where = (name[0], port, *name[2:])
    except OSError as error:
        for one in opened:
            one.close()
        raise listen_error(option, address, error) from error
    return slots


def _bind(family: int, where: tuple[object, ...], *, shared: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(where)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def listen_error(option: str, address: Address, error: OSError) -> ListenError:
    """Say in a sentence why `address` cannot be had."""
    why = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE or "address already in use" in str(error).lower():
        why = "address already in use: another program listens there"
    elif isinstance(error, socket.gaierror):
        why = f"the name has no address ({why})"
    return ListenError(f"cannot listen on {address}: {why}. Choose another address with {option} HOST:PORT.")


def take_passed(environment: MutableMapping[str, str], first: int = FIRST_PASSED_FD) -> Passed | None:
    """Return the sockets of socket activation (sd_listen_fds(3)), or None; the variables are taken away.

    Raises ListenError for a socket that is none to listen on.
    """
    pid, count, names_text = (
        environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not (count.isascii() and count.isdecimal()) or not int(count):
        return None
    names = names_text.split(":") if names_text else []
    passed = Passed([], [])
    for number in range(int(count)):
        name = names[number] if number < len(names) else ""
        (passed.ops if name == "ops" else passed.traffic).append(_take_fd(first + number, name))
    return passed


def _take_fd(fd: int, name: str) -> socket.socket:
    what = f"the socket that was passed as file descriptor {fd}" + (f" ({name})" if name else "")
    try:
        one = socket.socket(fileno=fd)
        listens = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise ListenError(f"{what} cannot be used: {error.strerror or error}") from error
    if not listens or one.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        one.close()
        raise ListenError(
            f"{what} is no stream socket that listens; the unit needs ListenStream=ADDRESS:PORT or a path"
        )
    one.setblocking(False)
    one.set_inheritable(False)
    return one


def address_of(one: socket.socket) -> Address | UnixAddress:
    """Return where a socket is bound."""
    if one.family == socket.AF_UNIX:
        return UnixAddress(os.fsdecode(one.getsockname()))
    host, port = one.getsockname()[:2]
    return Address(host, port)


def open_all(addresses: Sequence[Address | UnixAddress], count: int) -> tuple[list[list[socket.socket]], str]:
    """Open every address; return a list of sockets for each of `count` slots, and where that is in words.

    A Unix socket has one queue, from which all slots accept. Raises ListenError.
    """
    slots: list[list[socket.socket]] = [[] for _ in range(count)]
    said = []
    try:
        for address in addresses:
            if isinstance(address, UnixAddress):
                with _open_unix(address) as one:
                    for slot in slots:
                        slot.append(one.dup())
                said.append(str(address))
                continue
            opened = open_slots(address, count)
            for slot, sockets in zip(slots, opened, strict=True):
                slot.extend(sockets)
            said.append(str(Address(address.host, opened[0][0].getsockname()[1])))
    except ListenError:
        for one in (one for slot in slots for one in slot):
            one.close()
        raise
    return slots, " and ".join(said)


def _open_unix(address: UnixAddress) -> socket.socket:
    try:
        return open_unix(address)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            why = "another program listens there, or the file is no socket"
        raise ListenError(
            f"cannot listen on {address}: {why}. Choose another path with --listen unix:PATH."
        ) from error
