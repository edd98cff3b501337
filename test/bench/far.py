#!/usr/bin/python3
"""A broker that is some way off: passes TCP connections on, each direction so many milliseconds late.

far.py PORT TO_PORT MILLISECONDS; says a line when it listens.
"""

import contextlib
import socket
import sys
import threading
import time


def pass_on(source, target, seconds):
    """What comes while an earlier part waits goes with the next one, up to twice as late."""
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 20):
            time.sleep(seconds)
            target.sendall(part)
    for end in source, target:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main(port, to_port, milliseconds):
    with socket.create_server(('127.0.0.1', port)) as listener:
        print('listening', flush=True)
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(('127.0.0.1', to_port))
            for source, target in (near, far), (far, near):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pass_on, args=(source, target, milliseconds / 1000), daemon=True).start()


main(*map(int, sys.argv[1:]))
