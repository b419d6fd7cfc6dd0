"""asyncio without `ssl`, until somebody uses it. Each test is a process of its own: this one has imported all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from httpy.sparing import LATER


def run(code: str) -> str:
    """What a fresh interpreter prints that has asyncio by way of `import_asyncio`."""
    start = "import sys\nfrom httpy.sparing import import_asyncio\nimport_asyncio()\nimport asyncio\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_openssl_is_not_loaded_for_asyncio_nor_for_the_command_line() -> None:
    code = "import httpy.cli, httpy.worker, httpy.server, httpy.app\nprint('_ssl' in sys.modules)"

    assert run(code) == "False"


def test_a_served_request_does_not_load_it() -> None:
    code = """
from httpy import App, Server
app = App()
@app.get("/")
async def index():
    await asyncio.sleep(0)
    return {"ssl": "_ssl" in sys.modules}
with Server(app, port=0) as server:
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/")
    print(connection.getresponse().read())
"""

    assert run(code) == """b'{"ssl":false}'"""


@pytest.mark.parametrize("name", LATER)
def test_the_first_use_loads_a_module_whole(name: str) -> None:
    code = f"""
import importlib, types
module = importlib.import_module({name!r})
assert type(module) is not types.ModuleType, "it was loaded already"
names = dir(module) and module.__name__, hasattr(module, "no_such_name")
print(*names, type(module) is types.ModuleType, module.__spec__.name, module.__file__.endswith(".py"))
"""

    assert run(code) == f"{name} False True {name} True"


def test_names_can_be_imported_from_it() -> None:
    code = (
        "from ssl import SSLContext, create_default_context\nimport ssl\nprint(SSLContext is ssl.SSLContext)"
    )

    assert run(code) == "True"


def test_asyncio_speaks_tls_with_what_is_loaded_later() -> None:
    code = """
import ssl
async def main():
    refused = []
    async def serve(reader, writer):
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    try:
        await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=ssl.create_default_context())
    except (ssl.SSLError, ConnectionError) as error:
        # The server has no certificate. To learn that, both sides have spoken TLS.
        return type(error).__mro__
    finally:
        server.close()
print(any(kind.__name__ in ("SSLError", "ConnectionError") for kind in asyncio.run(main())))
"""

    assert run(code) == "True"


def test_threads_that_touch_it_at_once_all_find_it_whole() -> None:
    code = """
import ssl, threading
sys.setswitchinterval(1e-6)
start, found = threading.Barrier(8), []
def touch():
    start.wait()
    found.append(ssl.create_default_context().check_hostname and ssl.SSLWantReadError is not None)
threads = [threading.Thread(target=touch) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(found == [True] * 8)
"""

    assert run(code) == "True"


def test_one_that_can_not_be_loaded_fails_each_time() -> None:
    code = """
import ssl
sys.modules["_ssl"] = None
for _ in range(2):
    try:
        ssl.SSLContext
    except ImportError:
        print("refused")
"""

    assert run(code).split() == ["refused"] * 2


def test_the_way_modules_are_found_is_as_before() -> None:
    code = "print([finder for finder in sys.meta_path if 'httpy' in type(finder).__module__])"

    assert run(code) == "[]"
