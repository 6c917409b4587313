#!/usr/bin/env python3
"""A guest's screen and keyboard through VNC and the web server, with a real client library and by hand.

    screen.py --trivisor EXE --client EXE --kernel FILE --busybox FILE
"""
import argparse
import atexit
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "boot"))
from screen_text import read_png  # noqa: E402
MKINITRAMFS = os.path.join(HERE, "..", "..", "tools", "mkinitramfs.py")
PASSWORD = "s3cret!"
failures = 0


def check(name, condition, detail=""):
    global failures
    if not condition:
        failures += 1
        print(f"FAILED {name}: {detail}")


class Machine:
    """A running VM with its serial console as lines."""

    def __init__(self, args, *options):
        self.process = subprocess.Popen(
            [args.trivisor, "run", "--memory", "256M", "--kernel", args.kernel, "--initrd", args.initrd, "--no-reboot",
             "--append", "console=tty0 quiet consoleblank=0 vt.global_cursor_default=0", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        self.lines = []
        self.address = None
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        for line in self.process.stderr:
            found = re.search(r"display at (?:http://)?([0-9.]+):(\d+)", line)
            if found:
                self.address = (found[1], int(found[2]))
                break

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, text, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(text in line for line in self.lines):
                return True
            time.sleep(0.05)
        return False

    def end(self):
        self.process.terminate()
        said = self.process.stderr.read()
        status = self.process.wait(timeout=20)
        if status != 0:
            print(said)
        return status


def client(args, machine, *commands):
    host, port = machine.address
    return subprocess.run([args.client, host, str(port), *commands], capture_output=True, text=True, timeout=60)


def ask(address, request, stays=False):
    """Send bytes, return what comes back until the end; None where the server leaves the connection open."""
    with socket.create_connection(address, timeout=2) as s:
        s.sendall(request)
        answer = b""
        try:
            while True:
                more = s.recv(65536)
                if not more:
                    break
                answer += more
        except TimeoutError:
            return None if not stays else answer
        except ConnectionError:
            pass
        return answer


def upgrade(host, origin):
    return (f"GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: binary\r\n\r\n").encode()


def test_vnc(args, directory):
    password, shot, seen = (os.path.join(directory, name) for name in ("password", "shot.png", "seen.png"))
    with open(password, "w") as file:
        file.write(PASSWORD + "\n")
    vm = Machine(args, "--display", "vnc=127.0.0.1:0", "--vnc-password", password, "--screenshot", shot)
    check("the guest is up", vm.wait_for("READY"), vm.lines[-3:])
    wrong = client(args, vm, "password=wrong", "count")
    check("a wrong password", wrong.returncode == 1, wrong)

    # A second viewer looks on, and is another program's connection for the first one's whole time.
    host, port = vm.address
    other = subprocess.Popen([args.client, host, str(port), f"password={PASSWORD}", "wait=4", "count"],
                             stdout=subprocess.PIPE, text=True)
    typed = client(args, vm, f"password={PASSWORD}", "type=echo 'Typed: ~{[ABC]}^ $((6*7))' | tee /dev/ttyS0\\n",
                   "wait=0.5", f"save={seen}", "count")
    check("typing", typed.returncode == 0, typed)
    check("what was typed reached the guest", vm.wait_for("Typed: ~{[ABC]}^ $((6*7))", 20), vm.lines[-3:])
    watched = int(other.communicate(timeout=30)[0].split()[0])
    check("the other viewer saw it", watched > 5, watched)
    answer = ask(vm.address, upgrade("localhost", "http://evil.example"))
    check("a page's WebSocket is put out of the plain port", answer is not None and len(answer) < 300, answer)

    width, height, rows = read_png(seen)
    check("size", (width, height) == (720, 400), (width, height))
    lit = sum(byte != 0 for row in rows for byte in row)
    check("there is text on the screen", 1000 < lit < 720 * 400, lit)
    check("ends in order", vm.end() == 0)
    width, height, again = read_png(shot)
    check("the screenshot is what the viewer saw", again == rows)


def test_web(args):
    vm = Machine(args, "--display", "web=127.0.0.1:0")
    name = f"localhost:{vm.address[1]}"
    page = ask(vm.address, f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    check("the page", page.startswith(b"HTTP/1.1 200") and page.rstrip().endswith(b"</html>"), page[:80])
    for what, request, status in (
            ("another page", f"GET /x HTTP/1.1\r\nHost: {name}\r\n\r\n".encode(), b"404"),
            ("another method", f"POST / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode(), b"405"),
            ("a name of another's", b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403"),
            ("another site's page", upgrade(name, "http://evil.example"), b"403"),
            ("its own page", upgrade(name, "http://" + name), b"101")):
        answer = ask(vm.address, request, stays=status == b"101")
        check(what, answer[9:12] == status, answer[:80])
    for nonsense in (b"\0" * 3000, b"A" * 10000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000):
        ask(vm.address, nonsense)
    page = ask(vm.address, f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    check("the page after nonsense", page.startswith(b"HTTP/1.1 200"), page[:80])
    check("ends in order", vm.end() == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--client", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--busybox", required=True)
    args = parser.parse_args()
    for path in (args.kernel, args.busybox):
        if not os.path.exists(path):
            print(f"skipped: {path} is missing; run tools/fetch-guests")
            return 77
    with tempfile.TemporaryDirectory() as directory:
        args.initrd = os.path.join(directory, "initrd.gz")
        subprocess.run([sys.executable, MKINITRAMFS, "--busybox", args.busybox, "--output", args.initrd,
                        "--add", "/init=" + os.path.join(HERE, "init")], check=True)
        test_vnc(args, directory)
        test_web(args)
    print(f"{failures} failed")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
