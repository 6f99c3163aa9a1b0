#!/bin/sh
# Makes a certificate authority and a certificate for each node of a NATS cluster, with openssl.
#
#   nats-config/cluster/certificates.sh DIR ADDRESS...
#   nats-config/cluster/certificates.sh /root/nats-ca 10.0.0.1 10.0.0.2 nats-3.example.com
#
# DIR gets ca.crt and ca.key, and for each address ADDRESS.crt and ADDRESS.key, valid for a year. A
# node needs ca.crt and its own two files, a client needs ca.crt. Keep ca.key off the nodes. If
# ca.key exists already, certificates are renewed: nodes read them again on
# `nats-server --signal reload`.
set -eu

if [ $# -lt 2 ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
dir=$1
shift
umask 077
mkdir -p "$dir"

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

if [ ! -e "$dir/ca.key" ]; then
    new_key "$dir/ca.key"
    openssl req -new -x509 -key "$dir/ca.key" -subj '/CN=NATS cluster CA' -days 3650 -out "$dir/ca.crt" \
        -addext 'keyUsage=critical,keyCertSign,cRLSign'
fi

for address in "$@"; do
    case $address in
    *:*) name=IP:$address ;;
    *[!0-9.]*) name=DNS:$address ;;
    *) name=IP:$address ;;
    esac
    new_key "$dir/$address.key"
    openssl req -new -key "$dir/$address.key" -subj "/CN=$address" -addext "subjectAltName=$name" |
        openssl x509 -req -copy_extensions copy -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -days 365 \
            -set_serial "0x$(openssl rand -hex 16)" -out "$dir/$address.crt" 2>/dev/null
done
# Certificates are for everybody to see, keys for their owners alone.
chmod 644 "$dir"/*.crt
