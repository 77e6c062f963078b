"""schemathesis against a live server: contract_test.py freshet_api_server [MORE OPTIONS]"""
import pathlib
import subprocess
import sys
import tempfile

from api_server import ApiServer

# positive_data_acceptance: that what fits the schema is accepted. Ours cannot say the dimension of the index, nor that one of four
# targets is needed; and schemathesis makes tokens of bytes that no HTTP header may have.

with tempfile.TemporaryDirectory() as folder, ApiServer(sys.argv[1]) as server:
    ran = subprocess.run(
        [pathlib.Path(sys.executable).parent / "schemathesis", "run", server.url + "/openapi.yaml", "--checks", "all",
         "--max-examples", "100", "--workers", "1", "--exclude-checks", "positive_data_acceptance", *sys.argv[2:]],
        cwd=folder)
sys.exit(ran.returncode)
