#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A vhost-user backend whose device does nothing but share objects: backend.py SOCKET [--config]

QEMU connects to SOCKET. With --config the device has a configuration space, all zeros. Commands come as lines of JSON on the standard input, each with one line of JSON as the
answer. UUIDs are in the usual notation, bytes in hexadecimal.

{"do": "add", "uuid": U, "bytes": B}  exports a new file with these bytes: {"refused": bool}
{"do": "remove", "uuid": U}           {"refused": bool}
{"do": "lookup", "uuid": U}           {"refused": bool, "descriptors": n, "bytes": all of the file}
{"do": "send", "request": n, "bytes": B}  a request of any kind and size: {"closed": whether QEMU closed the channel}
{"do": "cut-replies", "after": n}     of objects that QEMU asks for it gets only so many bytes of the reply
{"do": "finish-replies"}              it gets the rest, and whole replies from then on
{"do": "ask-in-part", "uuid": U, "after": n}  sends so many bytes of a lookup
{"do": "finish-asking"}               sends the rest: {"refused": bool}
{"do": "ask-without-reading", "uuid": U}  lookups, until QEMU closes the channel: {"closed": True}
{"do": "wait-for-qemu"}               answers when QEMU has set up the channel for requests of backends
"""

import fcntl
import json
import mmap
import os
import selectors
import socket
import struct
import sys
import uuid as uuid_module

HEADER = struct.Struct("<III")
U64 = struct.Struct("<Q")
VERSION = 1
REPLY = 1 << 2
NEED_REPLY = 1 << 3

GET_FEATURES = 1
GET_PROTOCOL_FEATURES = 15
SET_PROTOCOL_FEATURES = 16
SET_BACKEND_REQ_FD = 21
GET_CONFIG = 24
GET_SHARED_OBJECT = 41

BACKEND_SHARED_OBJECT_ADD = 6
BACKEND_SHARED_OBJECT_REMOVE = 7
BACKEND_SHARED_OBJECT_LOOKUP = 8

VIRTIO_F_VERSION_1 = 1 << 32
VHOST_USER_F_PROTOCOL_FEATURES = 1 << 30
PROTOCOL_F_REPLY_ACK = 1 << 3
PROTOCOL_F_BACKEND_REQ = 1 << 5
PROTOCOL_F_CONFIG = 1 << 9
PROTOCOL_F_SHARED_OBJECT = 1 << 18
PROTOCOL_FEATURES = PROTOCOL_F_REPLY_ACK | PROTOCOL_F_BACKEND_REQ | PROTOCOL_F_SHARED_OBJECT


def receive(connection):
    """Receives a message: request, flags, payload, descriptors; None at the end of the connection."""
    header, fds, _flags, _address = socket.recv_fds(connection, HEADER.size, 8)
    if not header:
        return None
    while len(header) < HEADER.size:
        header += connection.recv(HEADER.size - len(header))
    request, flags, size = HEADER.unpack(header)
    payload = b""
    while len(payload) < size:
        more = connection.recv(size - len(payload))
        if not more:
            return None
        payload += more
    return request, flags, payload, fds


def send(connection, request, flags, payload, fds=()):
    """Sends one message."""
    message = HEADER.pack(request, VERSION | flags, len(payload)) + payload
    socket.send_fds(connection, [message], list(fds))


class Backend:
    """The backend of one device."""

    def __init__(self, path, protocol_features):
        self._protocol_features = protocol_features
        self._selector = selectors.DefaultSelector()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            print(json.dumps({"listening": path}), flush=True)
            self._main, _address = listener.accept()
        self._selector.register(self._main, selectors.EVENT_READ)
        self._channel = None
        self._exports = {}
        self._cut = None
        self._rest = b""
        self._unasked = b""

    def serve(self, until):
        """Answers QEMU until one of the other descriptors can be read; returns which."""
        key = self._selector.register(until, selectors.EVENT_READ)
        try:
            while True:
                ready = [key.fileobj for key, _events in self._selector.select()]
                if self._main in ready:
                    self._answer()
                elif until in ready:
                    return
        finally:
            self._selector.unregister(key.fileobj)

    def _answer(self):
        message = receive(self._main)
        if message is None:
            sys.exit(0)
        request, flags, payload, fds = message
        reply, reply_fds = None, []
        if request == GET_FEATURES:
            reply = U64.pack(VIRTIO_F_VERSION_1 | VHOST_USER_F_PROTOCOL_FEATURES)
        elif request == GET_PROTOCOL_FEATURES:
            reply = U64.pack(self._protocol_features)
        elif request == GET_CONFIG:
            reply = payload[:12] + bytes(len(payload) - 12)
        elif request == SET_BACKEND_REQ_FD:
            self._channel = socket.socket(fileno=fds.pop())
        elif request == GET_SHARED_OBJECT:
            exported = self._exports.get(payload)
            reply, reply_fds = b"", [] if exported is None else [exported]
            if self._cut is not None:
                message = HEADER.pack(request, VERSION | REPLY, 0)
                self._rest += message[self._cut:]
                if self._cut:
                    socket.send_fds(self._main, [message[:self._cut]], reply_fds)
                return
        if reply is None and flags & NEED_REPLY:
            reply = U64.pack(0)
        if reply is not None:
            send(self._main, request, REPLY, reply, reply_fds)
        for fd in fds:
            os.close(fd)

    def _ask(self, request, uuid):
        """Sends a request of the backend. Returns QEMU's answer and descriptors."""
        send(self._channel, request, NEED_REPLY, uuid)
        return self._verdict(request)

    def _verdict(self, request):
        self.serve(until=self._channel)
        message = receive(self._channel)
        if message is None:
            raise ConnectionError("QEMU closed the channel for requests of backends")
        got, flags, payload, fds = message
        if got != request or not flags & REPLY or len(payload) != U64.size:
            raise ValueError(f"request {request}: the reply is {message}")
        return U64.unpack(payload)[0], fds

    def do(self, command):
        """Runs a command, and returns its answer."""
        if command["do"] == "wait-for-qemu":
            while self._channel is None:
                self._answer()
            return {}
        if command["do"] == "send":
            send(self._channel, command["request"], NEED_REPLY, bytes.fromhex(command["bytes"]))
            self.serve(until=self._channel)
            return {"closed": receive(self._channel) is None}
        if command["do"] == "cut-replies":
            self._cut = command["after"]
            return {}
        if command["do"] == "finish-replies":
            self._main.sendall(self._rest)
            self._cut, self._rest = None, b""
            return {}
        if command["do"] == "finish-asking":
            self._channel.sendall(self._unasked)
            return {"refused": self._verdict(BACKEND_SHARED_OBJECT_LOOKUP)[0] != 0}
        uuid = uuid_module.UUID(command["uuid"]).bytes
        if command["do"] == "ask-in-part":
            message = HEADER.pack(BACKEND_SHARED_OBJECT_LOOKUP, VERSION | NEED_REPLY, len(uuid)) + uuid
            self._channel.sendall(message[:command["after"]])
            self._unasked = message[command["after"]:]
            return {}
        if command["do"] == "ask-without-reading":
            try:
                while True:
                    send(self._channel, BACKEND_SHARED_OBJECT_LOOKUP, NEED_REPLY, uuid)
            except (BrokenPipeError, ConnectionResetError):
                return {"closed": True}
        if command["do"] == "add":
            fd = os.memfd_create("shared", os.MFD_CLOEXEC)
            os.write(fd, bytes.fromhex(command["bytes"]))
            verdict, _fds = self._ask(BACKEND_SHARED_OBJECT_ADD, uuid)
            if verdict:
                os.close(fd)
            else:
                self._exports[uuid] = fd
            return {"refused": verdict != 0}
        if command["do"] == "remove":
            verdict, _fds = self._ask(BACKEND_SHARED_OBJECT_REMOVE, uuid)
            return {"refused": verdict != 0}
        if command["do"] == "lookup":
            verdict, fds = self._ask(BACKEND_SHARED_OBJECT_LOOKUP, uuid)
            answer = {"refused": verdict != 0, "descriptors": len(fds)}
            for fd in fds:
                # A dma-buf can be mapped, but not read; its size is that of the file in both.
                size = os.lseek(fd, 0, os.SEEK_END)
                with mmap.mmap(fd, size, prot=mmap.PROT_READ) as pixels:
                    answer["bytes"] = pixels[:].hex()
                os.close(fd)
            return answer
        raise ValueError(f"unknown command {command}")


def main():
    """Serves QEMU and the commands until either ends."""
    features = PROTOCOL_FEATURES | (PROTOCOL_F_CONFIG if "--config" in sys.argv[2:] else 0)
    backend = Backend(sys.argv[1], features)
    commands = os.fdopen(os.dup(0), "rb", buffering=0)
    fcntl.fcntl(commands, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    while True:
        backend.serve(until=commands)
        line = commands.readline()
        if not line:
            return
        print(json.dumps(backend.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
