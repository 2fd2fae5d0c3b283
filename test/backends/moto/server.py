"""Starts moto's servers of S3 and SQS for tests, in one process on 127.0.0.1 and the
port given as the only argument; prints READY when it listens, and ends with standard
input, so that it dies with its parent."""

import logging
import os
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    # Requests would otherwise fill the log.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"READY endpoint=http://{host}:{port}", flush=True)
    sys.stdin.read()
    # Nobody needs the data any more.
    os._exit(0)


main()
