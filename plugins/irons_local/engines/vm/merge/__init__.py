"""Merging layers of a machine's disk: what several qcow2 files show over one another, in one file.

`tables` reads what they say, `flatten` writes the one file and compares it, `filling` starts that in a process without rights, and
`swap` has a QEMU that runs read it. Which layers are merged, and the record that names them, is `engines.merges`' business.
"""

from __future__ import annotations
