"""A VM that a test drives as a user would: a serial console, and a VNC viewer that looks and types."""
import os
import re
import subprocess
import threading
import time

from screen_text import Screen


class Failed(Exception):
    """What was waited for did not come; the message says what."""


class Machine:
    """`trivisor run OPTIONS` with a display. Pictures go to DIRECTORY/NAME-*.png, the serial console to NAME.log there."""

    patience = 1  # times what the tests wait: more on a busy host

    def __init__(self, trivisor, client, directory, name, *options):
        self.client, self.prefix = client, os.path.join(directory, name)
        self.process = subprocess.Popen(
            [trivisor, "run", "--display", "vnc=127.0.0.1:0", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.began = time.monotonic()
        self.serial, self.said, self.address = "", "", None
        self.threads = [threading.Thread(target=reader, daemon=True) for reader in (self.read_serial, self.read_messages)]
        for thread in self.threads:
            thread.start()
        self.wait(lambda: self.address, 30, "a display")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for thread in self.threads:
            thread.join(timeout=5)
        with open(self.prefix + ".log", "w") as log:
            log.write(self.serial + "\n--- messages ---\n" + self.said)

    def read_serial(self):
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                break
            self.serial += data.decode(errors="replace").replace("\r", "")

    def read_messages(self):
        for line in self.process.stderr:
            self.said += line.decode(errors="replace")
            found = re.search(r"display at ([0-9.]+):(\d+)", self.said)
            if found:
                self.address = (found[1], found[2])

    def seconds(self):
        return time.monotonic() - self.began

    def wait(self, condition, seconds, what, pause=0.1):
        """The first result of CONDITION that counts as true."""
        seconds *= self.patience
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            result = condition()
            if result:
                return result
            if self.process.poll() is not None and not condition():
                raise Failed(f"ended with status {self.process.returncode} before {what}: {self.said.strip()[-300:]}")
            time.sleep(pause)
        raise Failed(f"no {what} within {seconds} s; serial console: {self.serial[-300:]!r}")

    def wait_serial(self, text, seconds, after=0):
        """Wait until TEXT is in what came on the serial port from position AFTER on."""
        self.wait(lambda: text in self.serial[after:], seconds, repr(text) + " on the serial console")

    def send_serial(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def view(self, *commands, last=False):
        """Let the VNC viewer do COMMANDS. LAST: the VM may end meanwhile."""
        run = subprocess.run([self.client, *self.address, *commands], capture_output=True, text=True, timeout=120)
        if run.returncode and not last:
            raise Failed(f"the VNC viewer said: {run.stderr.strip()}")

    def picture(self, name):
        """Save what a viewer sees now; returns it as a Screen."""
        path = f"{self.prefix}-{name}.png"
        self.view("wait=0.5", "save=" + path)
        return Screen(path)

    def wait_screen(self, name, wanted, seconds):
        """Wait until a line of the screen contains WANTED, or until WANTED(screen) is true; the picture is kept."""
        def look():
            screen = self.picture(name)
            found = wanted(screen) if callable(wanted) else screen.shows(wanted)
            return screen if found else None
        return self.wait(look, seconds, f"{wanted if isinstance(wanted, str) else name} on the screen", 2)

    def end(self, seconds):
        """Wait until the VM ends by itself; its exit status."""
        try:
            return self.process.wait(timeout=seconds * self.patience)
        except subprocess.TimeoutExpired:
            raise Failed(f"still runs after {seconds * self.patience} s") from None
