# What the start-* scripts share; sourced, not run.
# shellcheck shell=bash

# A directory for one server: empty, absolute, and of the user it runs as.
new_directory() { # DIR
  mkdir -p "$1"
  dir=$(realpath "$1")
  [ -z "$(ls -A "$dir")" ] || { echo "$(basename "$0"): $dir is not empty" >&2; exit 1; }
}

# Servers do not run as root here: as PGRUNAS (default postgres) when a root starts them.
as_user=()
if [ "$(id -u)" = 0 ]; then
  as_user=(setpriv --reuid "${PGRUNAS:-postgres}" --regid "$(id -g "${PGRUNAS:-postgres}")" --clear-groups)
fi
give() { # PATH...
  if [ "$(id -u)" = 0 ]; then chown -R "${PGRUNAS:-postgres}:" "$@"; fi
}

# A private CA (ca.crt) and a certificate by it for localhost, 127.0.0.1, and buckets and accounts before s3.localhost and
# blob.localhost (server.crt, server.key) in DIR.
make_certificate() { # DIR
  (cd "$1" && {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -keyout ca.key -out ca.crt \
      -subj "/CN=walden test CA" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=localhost
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:*.s3.localhost,DNS:*.blob.localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' >ext
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out server.crt
  } 2>/dev/null)
}

free_ports() { # N
  python3 -c 'import socket, sys
s = [socket.socket() for _ in range(int(sys.argv[1]))]
for x in s: x.bind(("127.0.0.1", 0))
print(*(x.getsockname()[1] for x in s))' "$1"
}

# With --attached: stay until standard input ends, however the caller ends, then end the server and remove its directory.
attached=
stay_if_attached() {
  [ -n "$attached" ] || return 0
  trap '' INT TERM HUP
  # Nothing more to say, and nobody's pipe to keep open.
  exec >/dev/null 2>&1
  cat >/dev/null || true
  "$here/stop" --now "$dir"
  rm -rf "$dir"
}
