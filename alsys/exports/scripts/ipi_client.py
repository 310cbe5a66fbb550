"""i-PI runs this model: a client of its socket. Needs alsys; i-PI itself may be in another environment.

    python ipi_client.py --unix alsys START.xyz             # <ffsocket mode='unix'> <address>alsys</address>
    python ipi_client.py --host localhost --port 31415 START.xyz

START.xyz says the elements, in i-PI's order, and whether the system is periodic; i-PI sends positions and cell.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
from ase.calculators.socketio import SocketClient

from alsys.interop.calculator import load_calculator

FOLDER = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> None:
    """Answers until i-PI ends."""
    parser = argparse.ArgumentParser(description="A client of i-PI that evaluates this model.")
    parser.add_argument("start", help="structure that ASE reads: elements in i-PI's order")
    parser.add_argument("--unix", metavar="ADDRESS", help="of a UNIX socket, as in i-PI's input")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int)
    parser.add_argument("--on-distrust", choices=["ignore", "warn", "raise"], default="ignore")
    given = parser.parse_args(arguments)
    if (given.unix is None) == (given.port is None):
        parser.error("give --unix or --port")
    atoms = ase.io.read(given.start)
    atoms.calc = load_calculator(FOLDER, on_distrust=given.on_distrust)
    is_periodic = bool(atoms.pbc.all())
    client = SocketClient(host=given.host, port=given.port, unixsocket=given.unix)
    client.run(atoms, use_stress=is_periodic)


if __name__ == "__main__":
    main()
