"""What a sandbox trusts next to what its image does: certificates shown in its settings, and the boot step that takes them up.

Nothing is written into the sandbox's files from outside: the step runs inside, as its root, with the programs of its image.
"""

from __future__ import annotations

from irons_local.bundle.oci import CONFIG_DIRECTORY

AUTHORITIES = "ca.pem"
"""The settings file with the carried certificates; empty where there is none."""

BUNDLE = "ca-bundle.pem"
"""The settings file with these and with what the host trusts, for programs that take one file."""

DEBIAN = "/usr/local/share/ca-certificates/irons"
"""Where Debian and Alpine take certificates from, one a file."""

DRAFT = "/etc/ssl/certs/ca-certificates.crt.new"
"""Where Debian's `update-ca-certificates` writes the bundle before it takes its place."""

ANCHORS = (
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
)
"""Where Fedora, Arch and openSUSE take them from, many in one file."""

ANCHOR = "irons.pem"

SESSION = f"""
if [ -s {CONFIG_DIRECTORY}/{BUNDLE} ]; then
  SSL_CERT_FILE={CONFIG_DIRECTORY}/{BUNDLE} REQUESTS_CA_BUNDLE={CONFIG_DIRECTORY}/{BUNDLE}
  PIP_CERT={CONFIG_DIRECTORY}/{BUNDLE} NODE_EXTRA_CA_CERTS={CONFIG_DIRECTORY}/{AUTHORITIES}
  export SSL_CERT_FILE REQUESTS_CA_BUNDLE PIP_CERT NODE_EXTRA_CA_CERTS
fi
"""
"""Text of sh(1) that sets what programs look at which do not use the system's trust store."""

SCRIPT = f"""
carried={CONFIG_DIRECTORY}/{AUTHORITIES}
same() {{ [ -f "$1" ] && [ -s "$carried" ] && cmp -s "$carried" "$1"; }}
anchors=
for directory in {" ".join(ANCHORS)}; do
  [ -n "$anchors" ] || [ ! -d "$directory" ] || anchors=$directory/{ANCHOR}
done
if [ -n "$anchors" ]; then
  if command -v update-ca-trust >/dev/null; then
    update=update-ca-trust
  else
    # openSUSE's program of this name reads no other directory.
    update=update-ca-certificates
    command -v "$update" >/dev/null || exit 0
  fi
  same "$anchors" && exit 0
  [ -s "$carried" ] || [ -f "$anchors" ] || exit 0
  rm -f "$anchors"
  [ ! -s "$carried" ] || cp "$carried" "$anchors" || exit
  "$update" >/dev/null
elif command -v update-ca-certificates >/dev/null; then
  directory={DEBIAN}
  same "$directory/carried" && exit 0
  [ -s "$carried" ] || [ -d "$directory" ] || exit 0
  mkdir -p "$directory" && rm -f "$directory"/* || exit
  if [ -s "$carried" ]; then
    number=0
    while IFS= read -r line; do
      case $line in "-----BEGIN CERTIFICATE-----") number=$((number + 1)) ;; esac
      printf '%s\\n' "$line" >>"$directory/irons-$number.crt"
    done <"$carried"
  fi
  # Debian's program appends to what an interrupted run has left there.
  rm -f {DRAFT}
  update-ca-certificates --fresh >/dev/null || exit
  # Last: where the sandbox is stopped before that, its next start does all of it again.
  if [ -s "$carried" ]; then cp "$carried" "$directory/carried"; else rmdir "$directory"; fi
fi
"""
"""Text of sh(1) that brings the trust store up to date with what is carried, where the image has a program for that."""
