"""Frames on local disk until the server has them.

The spool survives killed processes, not lost disks: writes reach the kernel and are not forced to the medium. It uses
neither locks nor a database, so that it works on NFS: a file has one writer, and changes hands by atomic rename.
"""
