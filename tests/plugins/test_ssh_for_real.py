"""ssh, exec, scp and forward with OpenSSH's own client and server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from irons.testing import EXTENSIONS, FakeApi
