#!/usr/bin/env python3
"""Open the web display in headless Chromium, type into it, and take a picture of the page.

    web_page.py --url http://127.0.0.1:5980/ --type TEXT --png FILE [--password TEXT] [--wait SECONDS]

Not in the test suite, since it wants a browser (Debian: chromium-headless-shell). Speaks the DevTools
protocol by itself. Exit status 0: the page says "connected".
"""
import argparse
import base64
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request


class DevTools:
    """A WebSocket (RFC 6455) with JSON messages on it."""

    def __init__(self, url):
        host, path = url.removeprefix("ws://").split("/", 1)
        self.socket = socket.create_connection(host.split(":"), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self.data += self.socket.recv(4096)
        self.data = self.data.split(b"\r\n\r\n", 1)[1]
        self.number = 0

    def take(self, count):
        while len(self.data) < count:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the browser closed the connection")
            self.data += more
        out, self.data = self.data[:count], self.data[count:]
        return out

    def receive(self):
        body = b""
        while True:
            first, length = self.take(2)
            if length == 126:
                length = struct.unpack(">H", self.take(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.take(8))[0]
            body += self.take(length)
            if first & 0x80:
                return json.loads(body)

    def call(self, method, **params):
        self.number += 1
        text = json.dumps({"id": self.number, "method": method, "params": params}).encode()
        head = bytes([0x81, 0xfe]) + struct.pack(">H", len(text)) + b"\0\0\0\0"
        self.socket.sendall(head + text)
        while True:
            message = self.receive()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def evaluate(self, expression):
        return self.call("Runtime.evaluate", expression=expression)["result"].get("value")


CODES = {" ": "Space", "\n": "Enter", "-": "Minus", ".": "Period", "/": "Slash", ">": "Period", "_": "Minus"}
SHIFTED = set(">_") | set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def type_text(tools, text):
    def event(kind, key, code):
        tools.call("Input.dispatchKeyEvent", type=kind, key=key, code=code)
    for c in text:
        code = CODES.get(c) or ("Digit" + c if c.isdigit() else "Key" + c.upper())
        if c in SHIFTED:
            event("keyDown", "Shift", "ShiftLeft")
        event("keyDown", c, code)
        event("keyUp", c, code)
        if c in SHIFTED:
            event("keyUp", "Shift", "ShiftLeft")
        time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--browser", default="chromium-headless-shell")
    parser.add_argument("--type", default="")
    parser.add_argument("--password")
    parser.add_argument("--png")
    parser.add_argument("--wait", type=float, default=2)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as profile:
        browser = subprocess.Popen([args.browser, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
                                    f"--user-data-dir={profile}", "--window-size=1000,700", "about:blank"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            for line in browser.stderr:
                if "DevTools listening on" in line:
                    port = line.split("ws://")[1].split("/")[0].split(":")[1]
                    break
            else:
                sys.exit("the browser did not start")
            pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
            tools = DevTools(next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"])
            tools.call("Page.navigate", url=args.url)
            for _ in range(50):
                state = tools.evaluate("document.getElementById('state') && document.getElementById('state').textContent")
                if args.password is not None and state == "a password is needed":
                    tools.evaluate(f"document.getElementById('password').value = {json.dumps(args.password)};"
                                   "document.getElementById('login').requestSubmit()")
                if state == "connected":
                    break
                time.sleep(0.2)
            type_text(tools, args.type.replace("\\n", "\n"))
            time.sleep(args.wait)
            if args.png:
                shot = tools.call("Page.captureScreenshot", format="png")
                with open(args.png, "wb") as out:
                    out.write(base64.b64decode(shot["data"]))
            print("state:", state)
            return state != "connected"
        finally:
            browser.kill()
            browser.wait()


if __name__ == "__main__":
    sys.exit(main())
