#!/usr/bin/env python3
"""What the health check asks with: one ApiVersions request to the broker named, answered without an error. A Java program of Kafka's tools would cost two cores a second each time."""

import socket
import struct
import sys

host, _, port = sys.argv[2].partition(":")
with socket.create_connection((host, int(port)), 5) as broker:
    broker.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
    size, correlation, error = struct.unpack(">iih", broker.recv(10, socket.MSG_WAITALL))
sys.exit((correlation, error) != (1, 0))
