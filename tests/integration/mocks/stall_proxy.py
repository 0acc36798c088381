#!/usr/bin/env python3
"""An HTTP proxy in front of the store that is hard on GETs of some keys: stall_proxy.py HOST:PORT
A path component that begins with "stall" is never answered (HEADs: one that begins with "hang"), nor "late" when the range begins at 16 MiB or after; "deny" is answered 403 and "throttle" 503 SlowDown.
Prints "listening on http://127.0.0.1:N". GET /-/stalled tells how many requests hang."""
import asyncio
import re
import sys

UPSTREAM_HOST, UPSTREAM_PORT = sys.argv[1].rsplit(":", 1)
stalled = 0


async def relay(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def stalls(path, head):
    found = re.search(rb"\r\nrange: bytes=(\d+)-", head, re.IGNORECASE)
    return b"/stall" in path or (b"/late/" in path and found and int(found[1]) >= 16 << 20)


async def serve(reader, writer):
    global stalled
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
        return
    method, target = head.split(b" ", 2)[:2]
    if target == b"/-/stalled":
        body = str(stalled).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()
        return
    if (method == b"GET" and stalls(target.split(b"?")[0], head)) or (method == b"HEAD" and b"/hang" in target):
        stalled += 1
        await reader.read()
        writer.close()
        return
    for word, status, code in ((b"/deny", b"403 Forbidden", b"AccessDenied"), (b"/throttle", b"503 Slow Down", b"SlowDown")):
        if method == b"GET" and word in target.split(b"?")[0]:
            body = b"<Error><Code>%s</Code><Message>said the proxy</Message><RequestId>42</RequestId></Error>" % code
            writer.write(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            await writer.drain()
            writer.close()
            return
    # One request a connection: the store then closes it, and so do we.
    head = b"\r\n".join(line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"connection:"))
    upstream_reader, upstream_writer = await asyncio.open_connection(UPSTREAM_HOST, int(UPSTREAM_PORT))
    upstream_writer.write(head + b"\r\nConnection: close\r\n\r\n")
    await upstream_writer.drain()
    await asyncio.gather(relay(upstream_reader, writer), relay(reader, upstream_writer))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
