"""The real thing for tests: the distribution's PostgreSQL, MLflow's server on it, nginx in front; failing networks.

What is started here is what docs/how-to/tracking.md tells a reader to start.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from helpers.waiting import wait_until

USER, PASSWORD = "admin", "correct-horse-battery"
DATABASE_PASSWORD = "staple-of-the-database"
_AUTH = """[mlflow]
default_permission = EDIT
database_uri = {auth_uri}
admin_username = {user}
admin_password = {password}
auth_cache_ttl_seconds = 60
"""
_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "20",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "20",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "any text that stays the same",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def find_initdb():
    """initdb of the newest PostgreSQL; Debian keeps it off the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return str(debian[-1]) if debian else shutil.which("initdb")


class Postgres:
    """A cluster of its own, in a temporary folder; run by `postgres` where we are root, which PostgreSQL refuses."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="quantlab-pg-", dir="/tmp"))
        self.port = free_port()
        self._bin = Path(find_initdb()).parent
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        secret = self.folder / "secret"
        secret.write_text(DATABASE_PASSWORD)
        how = ["-U", "mlflow", "-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8", "--no-sync"]
        self._run("initdb", "-D", f"{self.folder}/data", *how)
        self.start()
        for name in ("mlflow", "auth"):
            self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", name)

    def _run(self, program, *arguments):
        as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        command = [*as_user, str(self._bin / program), *arguments]
        environment = os.environ | {"PGPASSWORD": DATABASE_PASSWORD}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, env=environment, timeout=120)

    def start(self):
        settings = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", settings, "start")

    def stop(self):
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", "immediate", "stop")

    def uri(self, name):
        return f"postgresql+psycopg://mlflow:{DATABASE_PASSWORD}@127.0.0.1:{self.port}/{name}"

    def dump(self):
        """Everything in the database, as text."""
        command = [str(self._bin / "pg_dump"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow"]
        environment = os.environ | {"PGPASSWORD": DATABASE_PASSWORD}
        return subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120).stdout

    def close(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class MlflowServer:
    """MLflow's server on PostgreSQL, behind its own basic auth."""

    def __init__(self, folder, postgres):
        self.folder, self.postgres, self.port = folder, postgres, free_port()
        self.files = folder / "files"
        config = folder / "auth.ini"
        config.write_text(_AUTH.format(auth_uri=postgres.uri("auth"), user=USER, password=PASSWORD))
        self._environment = os.environ | _ENVIRONMENT | {"MLFLOW_AUTH_CONFIG_PATH": str(config)}
        self.start()

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.postgres.uri("mlflow"), "--artifacts-destination", str(self.files)]
        command += ["--app-name", "basic-auth", "--workers", "1"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, cwd=self.folder, start_new_session=True
            )
        wait_for(f"{self.uri}/health", 200, self.folder / "server.log")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def wait_for(url, seconds, log):
    wait_until(lambda: answers(url), seconds, lambda: f"from {url}: {log.read_text()[-2000:]}")


def answers(url):
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(url, timeout=5).status == 200
    return False


class Wire:
    """A TCP proxy in front of a server, which can be slow (`delay_s` per message), silent, or cut."""

    def __init__(self, port):
        self.target, self.delay_s, self.silent, self.messages = port, 0.0, False, 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.silent:
                    threading.Thread(target=self._swallow, args=(near,), daemon=True).start()
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
                for source, sink, delayed in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._copy, args=(source, sink, delayed), daemon=True).start()

    def _copy(self, source, sink, delayed):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                self.messages += delayed
                time.sleep(self.delay_s if delayed else 0)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _swallow(self, near):
        with contextlib.suppress(OSError):
            while near.recv(1 << 16):
                pass

    def close(self):
        self._listener.close()


_NGINX = """daemon off; pid {folder}/pid; error_log {folder}/error.log; user root;
events {{ }}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_authorization $known {{ default 0; "Bearer {token}" 1; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{
      if ($known = 0) {{ return 401; }}
      proxy_set_header Authorization "Basic {basic}";
      proxy_pass http://127.0.0.1:{target};
    }}
  }}
}}
"""


class Nginx:
    """TLS and a token in front of the server."""

    def __init__(self, folder, target, token, basic):
        self.port, self.certificate = free_port(), folder / "cert.pem"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
        subprocess.run(make, check=True, capture_output=True)
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, port=self.port, target=target, token=token, basic=basic))
        self.process = subprocess.Popen(
            ["nginx", "-e", f"{folder}/error.log", "-c", str(config)], stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, said=(folder / "error.log").read_text)

    def _listens(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    @property
    def uri(self):
        return f"https://127.0.0.1:{self.port}"

    def close(self):
        self.process.terminate()
        self.process.wait()
