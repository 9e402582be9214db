"""Whether the caller of what takes long may still go on: asked about once a second, of tunnels and long exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.plan import still_admitted

if TYPE_CHECKING:
    from authgate_fast.decision import Forward
    from authgate_fast.proxy.context import Context


def lost_access(context: Context, forward: Forward) -> str:
    """Return what ended the caller's access, or ""; on a PUBLIC route there is none to end."""
    identity = forward.identity
    if identity is None:
        return ""
    if identity.session is not None and context.resolver.has_ended(identity.session):
        return "the browser session ended"
    if not still_admitted(forward, identity, context.snapshot, context.wall_s):
        return "the caller's access ended"
    return ""
