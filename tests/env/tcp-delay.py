#!/usr/bin/env python3
"""A longer wire: forwards TCP and delivers every byte a fixed time after it came, both ways.

  tcp-delay.py TARGET_HOST:PORT MILLISECONDS

Listens on a free loopback port and prints DELAY_PORT=N. What is sent waits MILLISECONDS on its way there and as long on its way
back, so a request takes twice that longer; a handshake of TLS, which goes through as it is, does too. Nothing is
throttled: what waits is as much as the sender gives, up to 64 MiB a connection and direction (more would be read
later). Stays in the foreground until it is ended.
"""
import asyncio, collections, sys

READ = 1 << 20
WAITING = 64 << 20


class Direction:
    """One way of one connection: a queue of (when it is due, bytes), read and written side by side."""

    def __init__(self, reader, writer, delay):
        self.reader, self.writer, self.delay = reader, writer, delay
        self.queue, self.waiting = collections.deque(), 0
        self.come, self.gone = asyncio.Event(), asyncio.Event()

    async def take(self):
        loop = asyncio.get_running_loop()
        while True:
            try:
                piece = await self.reader.read(READ)
            except OSError:
                piece = b""
            self.queue.append((loop.time() + self.delay, piece))
            self.waiting += len(piece)
            self.come.set()
            if not piece:
                return
            while self.waiting > WAITING:
                self.gone.clear()
                await self.gone.wait()

    async def give(self):
        loop = asyncio.get_running_loop()
        while True:
            while not self.queue:
                self.come.clear()
                await self.come.wait()
            due, piece = self.queue.popleft()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            self.waiting -= len(piece)
            self.gone.set()
            if not piece:
                # The end of what one side says; the other may go on.
                self.writer.write_eof()
                return
            self.writer.write(piece)
            await self.writer.drain()


async def serve(host, port, delay):
    tasks = set()  # asyncio itself keeps no hold of them

    async def client(reader, writer):
        tasks.add(asyncio.current_task())
        up_writer, steps = None, []
        try:
            up_reader, up_writer = await asyncio.open_connection(host, port, limit=READ)
            ways = [Direction(reader, up_writer, delay), Direction(up_reader, writer, delay)]
            steps = [asyncio.create_task(step) for way in ways for step in (way.take(), way.give())]
            await asyncio.gather(*steps)
        except OSError:
            pass
        finally:
            tasks.discard(asyncio.current_task())
            for step in steps:
                step.cancel()
            for each in filter(None, (writer, up_writer)):
                each.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, limit=READ, backlog=512)
    print(f"DELAY_PORT={server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main():
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__.strip())
        return
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    host, _, port = sys.argv[1].rpartition(":")
    try:
        asyncio.run(serve(host, int(port), float(sys.argv[2]) / 1000))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
