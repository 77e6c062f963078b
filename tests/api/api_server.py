"""freshet_api_server, for as long as a `with` lasts."""
import subprocess


class ApiServer:
    def __init__(self, program):
        self.program = program

    def __enter__(self):
        self.process = subprocess.Popen([self.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = "http://" + self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        status = self.process.wait(timeout=60)
        assert status == 0, f"the server ended with {status}"
