"""Asks for many names at once and tells of each as soon as its answer is there; `+` marks a name that is known.

usage: python examples/dns_probe.py [DOMAIN ...]    default: Python's short keywords under .dev
"""

import asyncio
import keyword
import socket
import sys

import ropewalk


async def probe(domain: str) -> tuple[str, bool]:
    loop = asyncio.get_running_loop()
    try:
        await loop.getaddrinfo(domain, None)
    except socket.gaierror:
        return domain, False
    return domain, True


async def main(domains: list[str]) -> None:
    for result in asyncio.as_completed([probe(domain) for domain in domains]):
        domain, found = await result
        print(f"{'+' if found else ' '} {domain}")


ropewalk.run(main(sys.argv[1:] or [f"{word}.dev".lower() for word in keyword.kwlist if len(word) <= 4]))
