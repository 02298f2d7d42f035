"""A way to an origin that takes time: TCP with half of MILLISECONDS in each direction, and as many bytes per second as there are.

    delay.py LISTEN_HOST:PORT ORIGIN_HOST:PORT MILLISECONDS

What a handshake of TCP takes is waited for, too: the connection to the origin begins a round trip late.
"""
import asyncio
import sys

CHUNK = 256 << 10
# Chunks on their way in one direction of one connection: more than any that is asked for fits in.
ON_THE_WAY = 256


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Every chunk arrives `delay` seconds after it was sent, in order."""
    clock = asyncio.get_running_loop().time
    way: asyncio.Queue = asyncio.Queue(ON_THE_WAY)

    async def depart() -> None:
        try:
            while chunk := await reader.read(CHUNK):
                await way.put((clock() + delay, chunk))
        except OSError:
            pass
        await way.put((clock() + delay, b""))

    async def arrive() -> None:
        while True:
            at, chunk = await way.get()
            await asyncio.sleep(at - clock())
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    departing = asyncio.create_task(depart())
    try:
        await arrive()
    except OSError:
        pass
    finally:
        departing.cancel()


async def main(listen: str, origin: str, milliseconds: str) -> None:
    delay = float(milliseconds) / 2000
    host, port = listen.rsplit(":", 1)
    origin_host, origin_port = origin.rsplit(":", 1)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(2 * delay)
            far_reader, far_writer = await asyncio.open_connection(origin_host, int(origin_port), limit=CHUNK)
            await asyncio.gather(carry(reader, far_writer, delay), carry(far_reader, writer, delay))
            far_writer.close()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, host, int(port), limit=CHUNK)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
