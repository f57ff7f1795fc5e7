"""A web server of flags: GIF images of its own drawing, at BASE/br/br.gif, with a set latency, errors and slow answers.

    python examples/flag_server.py --port 8000 --latency 0.1 --error-rate 0.2 --slow-rate 0.1

Serves on this machine only, until its standard input ends. Which countries fail or are slow depends on the seed alone,
so that every way of downloading meets the same ones.
"""

from __future__ import annotations

import argparse
import math
import random
import struct
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WIDTH, HEIGHT = 90, 60

# --- drawing: a layer says which colour a point has, or that it is transparent; points go from (0, 0) to (3, 2) ---

Layer = Callable[[float, float], "str | None"]


def stripes(*colours: str) -> Layer:
    """Horizontal ones, from the top."""
    return lambda x, y: colours[int(y / 2 * len(colours))]


def columns(*colours: str) -> Layer:
    """Vertical ones, from the hoist."""
    return lambda x, y: colours[int(x / 3 * len(colours))]


def box(colour: str, width: float, height: float) -> Layer:
    """At the upper hoist."""
    return lambda x, y: colour if x < width and y < height else None


def disc(colour: str, x0: float, y0: float, radius: float) -> Layer:
    return lambda x, y: colour if math.hypot(x - x0, y - y0) < radius else None


def crescent(colour: str, x0: float, y0: float, radius: float) -> Layer:
    """Open towards the fly."""

    def layer(x: float, y: float) -> str | None:
        inside = math.hypot(x - x0, y - y0) < radius
        return colour if inside and math.hypot(x - x0 - radius / 4, y - y0) >= radius * 0.8 else None

    return layer


def star(colour: str, x0: float, y0: float, radius: float) -> Layer:
    """Five-pointed, one point up."""

    def layer(x: float, y: float) -> str | None:
        distance = math.hypot(x - x0, y - y0)
        angle = math.atan2(x - x0, y0 - y) % (math.tau / 5)
        # The edge runs from a point at `radius` to the notch between two points.
        turn = min(angle, math.tau / 5 - angle)
        notch = radius * 0.382
        px, py = distance * math.sin(turn), distance * math.cos(turn)
        nx, ny = notch * math.sin(math.tau / 10), notch * math.cos(math.tau / 10)
        return colour if px * (radius - ny) < nx * (radius - py) else None

    return layer


def triangle(colour: str) -> Layer:
    """At the hoist."""
    return lambda x, y: colour if x < 1.5 * (1 - abs(y - 1)) else None


def diamond(colour: str) -> Layer:
    return lambda x, y: colour if abs(x - 1.5) / 1.3 + abs(y - 1) / 0.83 < 1 else None


def band(colour: str, width: float) -> Layer:
    """Across, from the lower hoist to the upper fly."""
    return lambda x, y: colour if abs(2 * x + 3 * y - 6) / math.sqrt(13) < width / 2 else None


RED, WHITE, GREEN, BLUE, YELLOW, BLACK = "d7141a", "ffffff", "00843d", "0039a6", "ffd100", "000000"

FLAGS: dict[str, list[Layer]] = {
    "BD": [stripes(GREEN), disc(RED, 1.35, 1, 0.6)],
    "BR": [stripes(GREEN), diamond(YELLOW), disc(BLUE, 1.5, 1, 0.5)],
    "CD": [stripes("007fff"), band(YELLOW, 0.5), band(RED, 0.35), star(YELLOW, 0.5, 0.5, 0.4)],
    "CN": [stripes(RED), star(YELLOW, 0.5, 0.5, 0.3)]
    + [star(YELLOW, x, y, 0.1) for x, y in ((1, 0.2), (1.2, 0.4), (1.2, 0.7), (1, 0.9))],
    "DE": [stripes(BLACK, RED, YELLOW)],
    "EG": [stripes(RED, WHITE, BLACK), disc("c09300", 1.5, 1, 0.2)],
    "ET": [stripes(GREEN, YELLOW, RED), disc(BLUE, 1.5, 1, 0.5), star(YELLOW, 1.5, 1, 0.4)],
    "FR": [columns(BLUE, WHITE, RED)],
    "ID": [stripes(RED, WHITE)],
    "IN": [
        stripes("ff9933", WHITE, GREEN),
        disc(BLUE, 1.5, 1, 0.3),
        disc(WHITE, 1.5, 1, 0.25),
        disc(BLUE, 1.5, 1, 0.06),
    ],
    "IR": [stripes(GREEN, WHITE, RED), disc(RED, 1.5, 1, 0.2)],
    "JP": [stripes(WHITE), disc(RED, 1.5, 1, 0.6)],
    "MX": [columns(GREEN, WHITE, RED), disc("8f6e3b", 1.5, 1, 0.25)],
    "NG": [columns(GREEN, WHITE, GREEN)],
    "PH": [stripes(BLUE, RED), triangle(WHITE), disc(YELLOW, 0.5, 1, 0.25)],
    "PK": [stripes(GREEN), box(WHITE, 0.75, 2), crescent(WHITE, 1.85, 1, 0.55), star(WHITE, 2.2, 0.75, 0.2)],
    "RU": [stripes(WHITE, BLUE, RED)],
    "TR": [stripes(RED), crescent(WHITE, 1, 1, 0.5), star(WHITE, 1.6, 1, 0.25)],
    "US": [stripes(*[RED, WHITE] * 6, RED), box(BLUE, 1.2, 14 / 13)]
    + [star(WHITE, 0.2 + 0.2 * i, 0.18 + 0.18 * j, 0.08) for i in range(5) for j in range(5)],
    "VN": [stripes(RED), star(YELLOW, 1.5, 1, 0.6)],
}


def draw(layers: list[Layer]) -> bytes:
    """The layers on top of each other, as a GIF image."""
    rows = [((x + 0.5) / WIDTH * 3, (y + 0.5) / HEIGHT * 2) for y in range(HEIGHT) for x in range(WIDTH)]
    colours = [next(c for layer in reversed(layers) if (c := layer(x, y)) is not None) for x, y in rows]
    palette = sorted(set(colours))
    return gif(WIDTH, HEIGHT, [bytes.fromhex(colour) for colour in palette], [palette.index(c) for c in colours])


def gif(width: int, height: int, palette: list[bytes], pixels: list[int]) -> bytes:
    """A GIF image (version 87a) of palette indices, row by row."""
    bits = max(2, (len(palette) - 1).bit_length())
    table = b"".join(palette).ljust(3 << bits, b"\0")
    data = compress(pixels, bits)
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    screen = struct.pack("<HHBBB", width, height, 0xF0 | bits - 1, 0, 0)
    image = struct.pack("<BHHHHBB", 0x2C, 0, 0, width, height, 0, bits)
    return b"GIF87a" + screen + table + image + blocks + b"\0\x3b"


def compress(pixels: list[int], bits: int) -> bytes:
    """GIF's variant of LZW: codes grow from `bits` + 1 to 12 bits, the lowest bit first."""
    clear, end = 1 << bits, (1 << bits) + 1
    stream, filled = 0, 0
    codes: dict[tuple[int, ...], int] = {}
    size = bits + 1

    def write(code: int) -> None:
        nonlocal stream, filled
        stream |= code << filled
        filled += size

    def start() -> None:
        nonlocal codes, size
        write(clear)
        codes, size = {(index,): index for index in range(clear)}, bits + 1

    start()
    known: tuple[int, ...] = ()
    for pixel in pixels:
        longer = (*known, pixel)
        if longer in codes:
            known = longer
            continue
        write(codes[known])
        code = len(codes) + 2  # the codes `clear` and `end` stand between the colours and the rest
        codes[longer] = code
        if code == 1 << size:
            size += 1
        if code == 4095:
            start()
        known = (pixel,)
    write(codes[known])
    write(end)
    return stream.to_bytes((filled + 7) // 8, "little")


# --- serving ---


class FlagServer(ThreadingHTTPServer):
    """Answers each request in a thread of its own, after the latency."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", options.port), Handler)
        self.options = options
        self.images = {country: draw(layers) for country, layers in FLAGS.items()}

    def chosen(self, what: str, country: str, rate: float) -> bool:
        return random.Random(f"{self.options.seed} {what} {country}").random() < rate


class Handler(BaseHTTPRequestHandler):
    server: FlagServer

    def do_GET(self) -> None:
        options = self.server.options
        country = self.path.rpartition("/")[2].removesuffix(".gif").upper()
        slow = self.server.chosen("slow", country, options.slow_rate)
        time.sleep(options.slow_for if slow else options.latency)
        image = self.server.images.get(country)
        if image is None or self.path != f"/{country}/{country}.gif".lower():
            self.send_error(HTTPStatus.NOT_FOUND)
        elif self.server.chosen("error", country, options.error_rate):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "image/gif")
            self.send_header("Content-Length", str(len(image)))
            self.end_headers()
            self.wfile.write(image)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds before an answer (default: %(default)s)")
    parser.add_argument("--error-rate", type=float, default=0, help="share of countries that get an error instead")
    parser.add_argument("--slow-rate", type=float, default=0, help="share of countries that are answered slowly")
    parser.add_argument("--slow-for", type=float, default=10, help="seconds that these take (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=18, help="which countries these are")
    server = FlagServer(parser.parse_args())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
