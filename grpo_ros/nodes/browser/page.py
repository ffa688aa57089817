"""The page: viser's server on a port of this machine. No other module imports viser."""

from __future__ import annotations

import contextlib
import io
import socket
from typing import Any

import numpy as np

from grpo_ros.errors import ConfigurationError
from grpo_ros.extras import import_extra

FIRST_PORT = 8080
"""Where a free port is looked for, where none is asked for."""
NUM_PORTS = 100
PANEL_PIXELS = 390
TOP, BOTTOM = (58, 66, 79), (22, 26, 32)
"""Of the background, which goes from one to the other."""


def open_page(host: str, port: int, title: str) -> Any:
    """Return a viser.ViserServer that listens; it serves the client that viser's package holds.

    Args:
        host: address to listen at. port: 0 takes the next free one.
        title: of the panel.

    Raises:
        MissingExtraError: viser is not installed.
        ConfigurationError: the port is taken, or the address is not this machine's.
    """
    viser = import_extra("viser", "the browser view", extra="browser")
    if port:
        check_free(host, port)
    else:
        port = free_port(host)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a frame with the address
        server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
    if server.get_port() != port:  # somebody was faster, and viser went on to another
        server.stop()
        raise _taken(host, port, "address already in use")
    server.gui.configure_theme(
        dark_mode=True, show_logo=False, show_share_button=False, brand_color=(86, 168, 245)
    )
    server.gui.main_panel.dock_right()
    server.gui.main_panel.set_width(PANEL_PIXELS)
    server.scene.set_background_image(background(), format="png")
    server.scene.world_axes.visible = False
    return server


def close_page(server: Any) -> None:
    """Stop serving."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.stop()


def background(height: int = 256) -> Any:
    """Return a picture (height, 16, 3) uint8 that goes from the top's colour to the bottom's."""
    share = np.linspace(0.0, 1.0, height)[:, None, None]
    column = (1.0 - share) * np.array(TOP) + share * np.array(BOTTOM)
    return np.broadcast_to(np.rint(column), (height, 16, 3)).astype(np.uint8)


def check_free(host: str, port: int) -> None:
    """Raise ConfigurationError where nothing can listen at an address and port."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as problem:
            raise _taken(host, port, str(problem.strerror or problem)) from problem


def free_port(host: str) -> int:
    """Return the first port from `FIRST_PORT` on at which nobody listens.

    Raises:
        ConfigurationError: all of them are taken, or the address is not this machine's.
    """
    for port in range(FIRST_PORT, FIRST_PORT + NUM_PORTS):
        with contextlib.suppress(ConfigurationError):
            check_free(host, port)
            return port
    raise _taken(host, FIRST_PORT, f"nor at the {NUM_PORTS - 1} ports after it")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _taken(host: str, port: int, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the browser view cannot listen at {host}, port {port} ({why})",
        expected="an address of this machine and a port that is free",
        remedy="give another one, as parameter `port` or with browser_port:=N; 0 takes the next "
        "that is free",
    )
