"""How a data directory is moved to another major version of PostgreSQL: commands for a person to run. Pure."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stepstream_ingest.postgres.binaries import Binaries

PORT: Final = 5449
"""Only the name of a socket, and none that a PostgreSQL of the machine uses."""


def commands(directory: Path, found: str, binaries: Binaries, user: str, database: str, as_user: Sequence[str]) -> str:
    """Shell commands that put what PostgreSQL `found` has in `directory` into one for `binaries`.

    Law: until the last of them has been reached, `directory` is what it was; none runs when the one before has failed.
    """
    old, new = shlex.quote(str(directory)), shlex.quote(f"{directory}-{binaries.major}")
    log, dump = shlex.quote(f"{directory}-moving.log"), shlex.quote(f"{directory}-{found}.dump")
    before = "".join(f"{word} " for word in as_user)
    reach = f"-h /tmp -p {PORT} -U {user}"

    # It asks for no password, and all users share /tmp.
    options = f"-k /tmp -p {PORT} -c listen_addresses= -c unix_socket_permissions=0700"

    def started(programs: str, data: str) -> str:
        return f'{before}"{programs}"/pg_ctl -D {data} -l {log} -o "{options}" -w start'

    steps = (
        f"OLD=/usr/lib/postgresql/{found}/bin",
        f"NEW={shlex.quote(str(binaries.directory))}",
        started("$OLD", old),
        f'"$OLD"/pg_dump {reach} -Fc -f {dump} {database}',
        f'{before}"$OLD"/pg_ctl -D {old} -w stop',
        f'{before}"$NEW"/initdb -D {new} -U {user} -A trust --no-locale -E UTF8',
        started("$NEW", new),
        f'"$NEW"/pg_restore {reach} -d {database} --exit-on-error {dump}',
        f'{before}"$NEW"/pg_ctl -D {new} -w stop',
        f"mv {old} {shlex.quote(f'{directory}-{found}')}",
        f"mv {new} {old}",
    )
    return " &&\n".join(f"  {step}" for step in steps)
